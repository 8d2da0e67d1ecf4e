"Every lesson runs, with the solutions of its exercises, and every study, from the results that are kept."
import re
import nbformat
import pytest
from notebook_process import run_notebook
from test_notebooks import ALL, NBS, ROOMS, as_param

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

LONG = {  # half a minute and more each; what they call is tested elsewhere
    "tutorials/03_hallucination_layers", "tutorials/04_contrastive_mitigation", "tutorials/05_your_own_model",
    "tutorials/06_a_real_language_model", "tutorials/07_reading_the_panels", "tutorials/08_answers_and_training",
    "studies/06_rankings", "studies/08_smollm2",
}

def test_the_long_lessons_are_there(): assert {NBS / f"{name}.ipynb" for name in LONG} <= {*ALL}

@pytest.mark.parametrize("path", [
    as_param(path, LONG, pytest.mark.soak if has_slow_cells(path) else ()) for path in ALL if path not in ROOMS
])
def test_lesson_runs(path, tmp_path):
    if path.parent.name == "tutorials": path = with_solutions(path, tmp_path)
    failure = run_notebook(path, tmp_path / "printed.txt")
    assert not failure, failure

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
