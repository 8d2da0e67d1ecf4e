"The rooms of the package, and its door: who may import whom, and which names readers use."
import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
import pytest
import avss_nb

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
import style  # noqa: E402

PACKAGE = ROOT / "avss_nb"
MODULES = [
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__init__.py", "_modidx.py")
]

def run(code: str) -> str:
    "What a fresh interpreter prints."
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

def test_the_top_folder_is_small():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "_modidx.py", "cli.py"}

@pytest.fixture
def measured(monkeypatch):
    "What `python tools/style.py` measures, by name."
    monkeypatch.chdir(ROOT)
    return {measure.name: measure for measure in style.measure_all()}

def test_no_circle_and_no_import_against_the_order(measured):
    "Rooms import from lower levels only; imports inside functions count."
    for name in "circles between modules", "imports against the order":
        assert not measured[name].places, measured[name].places

def test_calm_code_stays_calm(measured):
    "Every target of tools/style.py."
    missed = [name for name, measure in measured.items() if measure.now > measure.target]
    assert not missed, "see python tools/style.py --worst 10"

def test_every_name_at_the_door_is_where_the_door_says():
    named = {name: module for module, names in avss_nb.NAMES.items() for name in names.split()}
    assert len(named) == sum(len(names.split()) for names in avss_nb.NAMES.values())
    for name, module in named.items():
        thing = getattr(avss_nb, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__module__ == f"avss_nb.{module}", name
    assert avss_nb.__all__ == sorted(named) and {*named} <= {*dir(avss_nb)}

def test_every_public_class_has_a_name_at_the_door():
    missing = []
    for name in MODULES:
        module = importlib.import_module(f"avss_nb.{name}")
        for thing in vars(module).values():
            own = inspect.isclass(thing) and thing.__module__ == module.__name__
            if own and not thing.__name__.startswith("_") and thing.__name__ not in avss_nb.__all__:
                missing.append(f"{name}.{thing.__name__}")
    assert not missing

def test_the_door_loads_nothing_before_a_name_is_used():
    heavy = "('torch', 'transformers', 'matplotlib', 'ipywidgets', 'typer')"
    assert run(f"import sys, avss_nb; print([m for m in {heavy} if m in sys.modules])") == "[]"

def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LayerRanker'"): avss_nb.LayerRanker
    with pytest.raises(ImportError): exec("from avss_nb import LayerRanker")

def test_star_rooms_and_help_work():
    assert run("from avss_nb import *; print(LayerScorer.__name__)") == "LayerScorer"
    assert run("import avss_nb as a; print(a.LayerScorer is a.layers.scores.LayerScorer)") == "True"
    assert "class LayerProfiler" in run("import avss_nb; help(avss_nb.LayerProfiler)")

def test_old_addresses_are_gone():
    for old in "profiler", "scorer", "pruner", "evaluator", "basics":
        with pytest.raises(ImportError): importlib.import_module(f"avss_nb.{old}")

def test_lessons_and_studies_use_the_door():
    "No lesson names a room for something that has a name at the door."
    import nbformat
    wrong = []
    pages = [*ROOT.glob("nbs/tutorials/*.ipynb"), *ROOT.glob("nbs/studies/*.ipynb"), ROOT / "nbs/index.ipynb"]
    for path in pages:
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type != "code": continue
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avss_nb."):
                    wrong += [f"{path.name}: {a.name}" for a in node.names if a.name in avss_nb.__all__]
    assert not wrong
