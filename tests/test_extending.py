"The recipes of nbs/extending.md, carried out to the letter in a copy of the repository."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "nbs/extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SCORES = "nbs/05_layers/02_scores.ipynb"
GROWTH = "nbs/09_panels/10_growth.ipynb"
DOOR = "nbs/12_door.ipynb"

def blocks(section: str) -> list[str]:
    "The code blocks of a recipe, in order."
    return re.findall(r"^```\w+\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)

def files(section: str) -> set[str]:
    "The files that the first lines of a recipe name."
    return {*re.findall(r"`([\w/]+\.\w+)`", SECTIONS[section].strip().split("\n\n")[0])}

def content(root: Path) -> dict[str, bytes]:
    "Every notebook, page and module of a copy."
    found = [*(root / "nbs").rglob("*"), *(root / "avss_nb").rglob("*.py")]
    kept = [p for p in found if p.is_file() and ".ipynb_checkpoints" not in p.parts]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in kept}

def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}

def append(path: Path, *cells) -> None:
    "Add cells at the end of a notebook; make it if it is not there."
    notebook = nbformat.read(path, 4) if path.exists() else nbformat.v4.new_notebook()
    notebook.cells += cells
    nbformat.write(notebook, path)

def code(source: str): return nbformat.v4.new_code_cell(source.rstrip("\n"))

def export(root: Path, command=None) -> None:
    command = [sys.executable, ROOT / "tools/export.py", *filter(None, [command])]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

def copy_of_repository(folder: Path) -> Path:
    shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml"): shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "avss_nb/teaching_model", folder / "avss_nb/teaching_model")  # data
    return folder

def follow_score(root: Path) -> None:
    append(root / SCORES, code(blocks("A score")[0]))

def follow_panel(root: Path) -> None:
    title, module, panel, example, line = blocks("A panel")
    append(root / GROWTH, nbformat.v4.new_markdown_cell(title), *map(code, (module, panel, example)))
    door = nbformat.read(root / DOOR, 4)
    place = re.compile(r'^    "panels.exports".*\n', re.MULTILINE)
    cell, = [c for c in door.cells if c.cell_type == "code" and place.search(c.source)]
    cell.source = place.sub(lambda found: found[0] + line, cell.source)
    nbformat.write(door, root / DOOR)

# What a user of the copy sees, in a process of its own. `RUN` is a text, not a function, for
# nothing of this repository's own package may be imported there.
RUN = r'''
import json, sys
import numpy as np, torch
import avss_nb
from avss_nb import (
    SCORES, Blocks, GrowthPanel, LayerLab, LayerProfile, LayerProfiler, LayerPruner,
    LayerRankingPanel, LayerScorer, TeachingWorld, compare_rankings, load_teaching_model, silent
)
from avss_nb.cli import app
from typer.testing import CliRunner

model, tokenizer = load_teaching_model()
texts, squares = TeachingWorld().texts(24), {}

def see(layer, x, y):  # by hand, in NumPy, from the states of single texts
    x, y = (a[0].double().numpy() for a in (x, y))
    update = (y - x) / np.sqrt((x ** 2).mean(-1, keepdims=True))
    squares.setdefault(layer, []).append(update.ravel() ** 2)

with torch.no_grad(), Blocks(model).watch(see):
    for text in texts: model(**tokenizer(text, return_tensors="pt"))
by_hand = [100 * np.sqrt(np.concatenate(squares[i]).mean()) for i in range(12)]

lab = LayerLab(model, tokenizer, texts, folder=".")
view = lab.views[-1]
waiting = view.panel.text
lab.profile()
profile = lab.ranking.profile
profile.save("profile.safetensors")
scores = LayerScorer("change").score(profile)
panel = LayerRankingPanel(profile=profile, scorer=LayerScorer("change"))
command = CliRunner().invoke(app, ["rank", "profile.safetensors", "--score", "change", "--json", "-"])
compared = compare_rankings(model, tokenizer, texts[:4], texts[4:8], rankings=["change"], counts=[1], draws=0, progress=silent)
lab.tabs.selected_index = len(lab.views) - 1
tables = [path.name for kind in ("png", "csv", "py") for path in lab.save(kind)]
print(json.dumps({
    "package": avss_nb.__file__, "by_hand": by_hand, "values": [*scores.values], "low": [*scores.low],
    "order": scores.order, "pruned": LayerPruner(model, tokenizer).plan(scores, count=2).removed,
    "choices": panel.score.options, "chosen": panel.score.value, "says": panel.text, "axis": panel.picture.ax.get_ylabel(),
    "label": scores.plot().get_ylabel(), "command": json.loads(command.stdout)["order"],
    "help": CliRunner().invoke(app, ["rank", "--help"]).stdout, "compared": [*compared.removed],
    "tab": [lab.tabs.titles[-1], type(view.panel).__name__, len(lab.tabs.children)], "waiting": waiting, "text": view.panel.text,
    "picture": len(view.pictures[""].png), "table": view.table.round(6).to_dict("list"), "files": tables,
    "report": "Growth" in lab.report(), "code": lab.code(),
}, default=lambda x: x.tolist() if hasattr(x, "tolist") else [*x]))
'''

def run(root: Path, *command) -> str:
    "What a fresh Python prints in the copy, whose package comes first."
    surroundings = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, *command], cwd=root, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    "A copy in which the recipes for a score and a panel were followed, and what each of them changed."
    root = copy_of_repository(tmp_path_factory.mktemp("copy"))
    before = content(root) | {n: b for n, b in content(ROOT).items() if n.startswith("avss_nb/")}
    follow_score(root)
    export(root)
    scored = content(root)
    follow_panel(root)
    export(root)
    return root, changed(before, scored), changed(scored, content(root))

@pytest.fixture(scope="module")
def seen(followed): return json.loads(run(followed[0], "-c", RUN).splitlines()[-1])

INDEX = "avss_nb/_modidx.py"  # nbdev's own list of names

def test_the_recipe_of_a_score_touches_one_file(followed):
    assert files("A score") == {SCORES}
    assert followed[1] == {SCORES, "avss_nb/layers/scores.py", INDEX}

def test_the_recipe_of_a_panel_touches_two_files(followed):
    assert files("A panel") == {GROWTH, DOOR}
    assert followed[2] == {GROWTH, DOOR, "avss_nb/panels/growth.py", "avss_nb/__init__.py", INDEX}

def test_the_new_score_is_what_numpy_computes(followed, seen):
    assert Path(seen["package"]).is_relative_to(followed[0])
    assert seen["values"] == pytest.approx(seen["by_hand"], rel=1e-5)
    assert all(low < value for low, value in zip(seen["low"], seen["values"]))

def test_the_new_score_is_known_everywhere(seen):
    assert "change" in seen["choices"] and seen["chosen"] == "change" and "Least important" in seen["says"]
    assert seen["axis"] == seen["label"] == "change of the stream (% of its size)"
    assert seen["command"] == seen["order"] and sorted(seen["pruned"]) == sorted(seen["order"][:2])
    assert re.search(r"change +change of the stream", seen["help"]) and seen["compared"] == ["change"]

def test_the_new_panel_is_a_tab(seen):
    assert seen["tab"] == ["Growth", "GrowthPanel", 5]
    assert "Waiting" in seen["waiting"] and "times as large" in seen["text"]
    assert seen["picture"] > 1000 and len(seen["table"]["RMS (no unit)"]) == 12
    assert [Path(name).suffix for name in seen["files"]] == [".png", ".csv", ".py", ".json"] and seen["report"]

def test_the_code_of_the_new_panel_gives_its_table(followed, seen):
    root = followed[0]
    printed = run(root, next(name for name in seen["files"] if name.endswith(".py")))
    last = [float(line.split()[-1]) for line in printed.strip().splitlines()[-12:]]
    assert last == pytest.approx(seen["table"]["RMS (no unit)"], rel=1e-4)

# The other recipes, as a user's own notebook has them: the imports, then the code

@pytest.fixture
def own_notebook():
    "Runs the code of a recipe, and takes its rows out of the tables afterwards."
    from avss_nb.data.readers import QUESTION_SETS
    from avss_nb.data.verdicts import RULES
    from avss_nb.layers.scores import SCORES
    from avss_nb.model.surgery import REWRITES
    tables = [(table, {*table}) for table in (SCORES, REWRITES, QUESTION_SETS, RULES)]
    def execute(section):
        *recipe, imports = blocks(section)
        names = {}
        for source in (imports, *recipe): exec(source, names)
        return names
    yield execute
    for table, known in tables:
        for name in {*table} - known: del table[name]

def test_the_score_in_a_notebook_of_your_own(own_notebook):
    from tiny import tiny
    from avss_nb import LayerProfiler, silent
    profile = LayerProfiler(tiny("llama")).profile([[*range(5, 25)]] * 4, silent)
    scores = own_notebook("A score")["LayerScorer"]("change").score(profile)
    assert scores.axis == "change of the stream (% of its size)" and (scores.values > 0).all()

def test_the_architecture_rule(own_notebook):
    from tiny import SIZES
    from transformers import AutoModelForCausalLM, LlamaConfig
    from avss_nb import LayerPruner
    own_notebook("An architecture rule")
    config = LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, block_letters="abcd")
    small = LayerPruner(AutoModelForCausalLM.from_config(config).eval()).remove([1]).apply()
    assert small.model.config.block_letters == "acd" and small.model.config.num_hidden_layers == 3

def test_the_plot(own_notebook):
    from avss_nb import LayerScores
    ax = own_notebook("A plot")["plot_cumulative"](LayerScores.of("mine", [1, 3, 4]))
    assert [*ax.lines[0].get_ydata()] == pytest.approx([1 / 8, 1 / 2, 1]) and ax.get_title("left") == "mine"

def test_the_question_set_and_the_rule(own_notebook, tmp_path):
    from avss_nb import is_correct, load_questions
    own_notebook("A question set, or a verdict rule")
    row = {"subj": "Ann", "prop": "occupation", "question": "What does Ann do?", "possible_answers": '["poet", "writer"]'}
    (tmp_path / "popqa.jsonl").write_text(json.dumps(row))
    question, = load_questions(tmp_path / "popqa.jsonl")
    assert (question.answers, question.subject, question.group) == (("poet", "writer"), "Ann", "popqa")
    assert is_correct("Curie, Marie!", ["Marie Curie"], "words") and not is_correct("Marie", ["Marie Curie"], "words")

def test_every_file_and_table_that_the_page_names_exists():
    for path in re.findall(r"`((?:nbs|tests)/[\w/]+\.\w+)`", PAGE):
        assert path == GROWTH or (ROOT / path).exists(), path
    import importlib
    rows = re.findall(r"\| `(\w+)` \| `(nbs/[\w/]+\.ipynb|tests/\w+\.py)` \|", PAGE)
    assert len(rows) == 4
    for table, path in rows: assert re.search(rf"\b{table}\b", (ROOT / path).read_text(encoding="utf-8")), table

# The other nbdev

def test_nbdev_3_exports_the_same_bytes(tmp_path):
    place = os.environ.get("NBDEV3")
    if not place:
        pytest.skip("set NBDEV3 to a folder made by: python -m venv X && X/bin/pip install 'nbdev==3.3.26'")
    root = copy_of_repository(tmp_path)
    export(root, Path(place) / "bin/nbdev-export")
    def modules(found): return {n: b for n, b in content(found).items() if n.startswith("avss_nb/") and n.endswith(".py")}
    assert changed(modules(root), modules(ROOT)) == set()
