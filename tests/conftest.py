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
