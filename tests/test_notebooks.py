"The notebooks are the source of truth: the package is their export, and every one of them runs."
import shutil
import subprocess
import sys
from pathlib import Path
import nbformat
import pytest
from notebook_process import run_notebook

ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"
ALL = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)

def test_package_is_the_export_of_the_notebooks(tmp_path):
    "Exported in a copy of the repository, so that a difference is reported and not mended."
    shutil.copytree(NBS, tmp_path / "nbs")
    for name in ("settings.ini", "pyproject.toml"): shutil.copy(ROOT / name, tmp_path)
    subprocess.run([sys.executable, ROOT / "tools/export.py"], cwd=tmp_path, check=True, capture_output=True)
    def modules(root):
        package = root / "avss_nb"
        return {str(p.relative_to(package)): p.read_text() for p in package.rglob("*.py")}
    exported, present = modules(tmp_path), modules(ROOT)
    assert exported.keys() == present.keys(), "a module without a notebook, or a notebook that was not exported"
    differing = [name for name in exported if exported[name] != present[name]]
    assert not differing, f"run `make export`: {differing} differ from their notebooks"

def test_notebooks_are_committed_executed():
    for path in ALL:
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert any(c.outputs for c in cells), f"{path.name} has no outputs: run `make notebooks`"
        assert not any(o.output_type == "error" for c in cells for o in c.outputs), f"{path.name} holds an error"

def test_readme_is_the_executed_index(tmp_path):
    before = (ROOT / "README.md").read_bytes()
    try:
        subprocess.run([sys.executable, ROOT / "tools/readme.py"], check=True, cwd=ROOT)
        assert (ROOT / "README.md").read_bytes() == before, "run `make readme`"
    finally: (ROOT / "README.md").write_bytes(before)

ROOMS = [path for path in ALL if path.parent.name not in ("tutorials", "studies")]  # the others: test_lessons.py

LONG = {  # a quarter of a minute and more each; what they show is tested elsewhere
    "04_draw/01_layers", "04_draw/02_answers", "04_draw/05_training", "05_layers/04_training",
    "05_layers/05_two_profiles", "06_answering/05_evaluator", "07_prune/03_healing", "08_hallucination/03_comparison",
    "09_panels/03_ranking", "09_panels/04_pruning", "09_panels/05_hallucination", "09_panels/06_mitigation",
    "09_panels/07_training", "09_panels/09_lab", "10_commands/01_layers", "10_commands/03_hallucination",
    "10_commands/04_comparison", "10_commands/05_demo", "10_commands/06_profiles",
}

def as_param(path, long, otherwise=()):
    "A notebook as a parameter, by its name; one of the long ones is left to `make soak`."
    name = path.relative_to(NBS)
    marks = pytest.mark.soak(only=True) if str(name.with_suffix("")) in long else otherwise
    return pytest.param(path, id=str(name), marks=marks)

def test_the_long_notebooks_are_there(): assert {NBS / f"{name}.ipynb" for name in LONG} <= {*ROOMS}

@pytest.mark.parametrize("path", [as_param(path, LONG) for path in ROOMS])
def test_notebook_runs(path, tmp_path):
    failure = run_notebook(path, tmp_path / "printed.txt")
    assert not failure, failure

def test_a_notebook_that_fails_is_noticed(tmp_path):
    cells = [nbformat.v4.new_code_cell(code) for code in ("from avss_nb import Moments", "x = 1 / 0", "y = 2")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "fails.ipynb")
    assert "ZeroDivisionError" in run_notebook(tmp_path / "fails.ipynb", tmp_path / "printed.txt")
