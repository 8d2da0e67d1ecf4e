"Shared fixtures. Data that is not part of the repository lies in ../shared; tests that need it skip where it is absent."
import os
from pathlib import Path
import pytest
import torch

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
SOAK = bool(os.environ.get("SOAK"))  # `make soak`: long forms of tests marked `soak`, and those marked `soak(only=True)`

def shared(path: str) -> Path:
    "A file or folder under ../shared, or a skipped test with the reason."
    if not (SHARED / path).exists(): pytest.skip(f"needs ../shared/{path}, which is not part of this repository")
    return SHARED / path

def real_model(name: str) -> Path:
    "The folder of a real model (`smollm2`, `minilm`, `gemma3`; `smollm2-gguf` holds its GGUF file), or a skipped test."
    folder = ROOT / "_real_models" / name
    if not folder.is_dir(): pytest.skip(f"needs {folder.relative_to(ROOT)}: run `make real-models{' GEMMA=1' if 'gemma' in name else ''}`")
    return folder

@pytest.fixture(scope="session", name="real")
def real_models():
    "`real(name)`: see `real_model`. Mark the test with `pytest.mark.real`, and load a model once a module."
    return real_model

@pytest.fixture(scope="session")
def teaching():
    "The teaching model and its tokenizer."
    from avss_nb import load_teaching_model
    return load_teaching_model()

@pytest.fixture(scope="session")
def world():
    from avss_nb import TeachingWorld
    return TeachingWorld()

@pytest.fixture(autouse=True)
def _seed(): torch.manual_seed(0)

@pytest.fixture
def rules_as_shipped(monkeypatch):
    "The verdict rules without those that other tests of this process added: a function that judges becomes a row."
    from avss_nb.data.verdicts import RULES
    for name in [name for name, rule in RULES.items() if rule.judge]: monkeypatch.delitem(RULES, name)

def published(*cells, **names) -> list[tuple[dict, dict]]:
    "What a shell with these names publishes while it runs the cells: the data of each output, and the rest of it."
    from IPython.core.interactiveshell import InteractiveShell
    shell, sent = InteractiveShell.instance(), []
    publisher = type(shell.display_pub)
    publish = publisher.publish
    publisher.publish = lambda self, data, metadata=None, **rest: sent.append((data, rest))
    try:
        shell.user_ns.update(names)
        for cell in cells: shell.run_cell(cell).raise_error()
    finally:
        publisher.publish = publish
        InteractiveShell.clear_instance()
    return sent

# files that take minutes; begun first, so that no process sits idle at the end while another has one of them left
LONG = [f"test_{name}" for name in (
    "notebooks", "conformance", "lessons", "browser", "browser_pictures", "package", "browser_hour", "healing", "training",
    "sharding", "panels", "cli", "docs", "real_questions", "harness", "browser_lab")]

def pytest_collection_modifyitems(items):
    def place(item): return LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG)
    items.sort(key=place)
    for item in items:
        mark = item.get_closest_marker("soak")
        if mark and mark.kwargs.get("only") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="takes long: make soak"))
