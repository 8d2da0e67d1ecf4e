"Shared fixtures. Data that is not part of the repository lies in ../shared; tests that need it skip where it is absent."
from pathlib import Path
import pytest
import torch

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

def shared(path: str) -> Path:
    "A file or folder under ../shared, or a skipped test with the reason."
    if not (SHARED / path).exists(): pytest.skip(f"needs ../shared/{path}, which is not part of this repository")
    return SHARED / path

def pytest_collection_modifyitems(items):
    "Two processes share the work: a file stays in one of them, for what its tests share; notebooks go one by one to the one that is free."
    for item in items:
        if item.path.name != "test_notebooks.py": item.add_marker(pytest.mark.xdist_group(item.path.name))

@pytest.fixture(scope="session")
def teaching():
    "The teaching model and its tokenizer."
    from avss_nb.teaching import load_teaching_model
    return load_teaching_model()

@pytest.fixture(scope="session")
def world():
    from avss_nb.teaching import TeachingWorld
    return TeachingWorld()

@pytest.fixture(autouse=True)
def _seed(): torch.manual_seed(0)
