"The notebooks are the source of truth: the package is their export, and every one of them runs."
import re
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

def with_solutions(path, folder):
    "A lesson with the code of its folded solutions as cells at its end."
    notebook = nbformat.read(path, 4)
    *_, last = (c.source for c in notebook.cells if c.cell_type == "markdown")
    solutions = re.findall(r"<details><summary>Solution \d.*?```python\n(.*?)```.*?</details>", last, re.S)
    assert len(solutions) == 2 == last.count("<details>"), f"{path.name} must end with two exercises and their folded solutions"
    notebook.cells += [nbformat.v4.new_code_cell(code) for code in solutions]
    nbformat.write(notebook, folder / path.name)
    return folder / path.name

def has_slow_cells(path): return any(c.source.startswith("#| slow") for c in nbformat.read(path, 4).cells)

@pytest.mark.parametrize("path", [
    pytest.param(path, id=str(path.relative_to(NBS)), marks=pytest.mark.soak if has_slow_cells(path) else ()) for path in ALL
])
def test_notebook_runs(path, tmp_path):
    if path.parent.name == "tutorials": path = with_solutions(path, tmp_path)
    failure = run_notebook(path, tmp_path / "printed.txt")
    assert not failure, failure

def test_a_notebook_that_fails_is_noticed(tmp_path):
    cells = [nbformat.v4.new_code_cell(code) for code in ("from avss_nb import Moments", "x = 1 / 0", "y = 2")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "fails.ipynb")
    assert "ZeroDivisionError" in run_notebook(tmp_path / "fails.ipynb", tmp_path / "printed.txt")

def test_the_lesson_on_a_real_model_says_so_where_it_is_absent(tmp_path):
    "Without SmolLM2 its cells do nothing, and the first one says how to bring it."
    path = with_solutions(NBS / "tutorials/06_a_real_language_model.ipynb", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "make real-models" in text
    path.write_text(text.replace("_real_models/smollm2", "_real_models/absent"), encoding="utf-8")
    failure = run_notebook(path, tmp_path / "printed.txt")
    assert not failure, failure

def test_every_picture_of_the_tour_has_a_description_in_html():
    "As plain nbconvert writes it; an image without one would say that no description has been provided."
    exporter = pytest.importorskip("nbconvert").HTMLExporter()
    page, _ = exporter.from_filename(str(NBS / "tutorials/01_quick_tour.ipynb"))
    described = re.findall(r'<img alt="([^"]*)"', page)
    assert len(described) == len(re.findall("<img", page)) == 6
    assert all(len(words.split()) > 10 for words in described) and "No description" not in page
