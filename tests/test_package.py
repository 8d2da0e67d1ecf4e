"The wheel works without the source tree, with the teaching model inside: what README shows runs from it, in an empty folder."
import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
import zipfile
import pytest
from notebook_process import run_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "nbs/studies/README.md").read_text(encoding="utf-8")

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A folder with what the wheel holds, and nothing else of the project."
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    wheel, = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"

def avss(site, folder, *args):
    "What `avss-nb` prints, with the wheel; forked from a process that has the large libraries already."
    output = folder.parent / f"{folder.name}.txt"
    failure = run_command([*map(str, args)], folder, site, output)
    assert not failure, failure
    return output.read_text()

def run(site, folder, *command, text=None):
    "What a command prints that must succeed in this folder, with the wheel."
    done = subprocess.run([str(part) for part in command], cwd=folder, input=text, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout

def test_wheel_works_elsewhere(site, tmp_path):
    names = [str(p.relative_to(site)) for p in site.rglob("*")]
    assert "avss_nb/teaching_model/model.safetensors" in names
    assert not any(n.endswith((".bin", ".pkl", ".pt")) or n.startswith(("tests", "nbs")) for n in names)
    code = "import avss_nb, avss_nb.data.teaching as t; m, _ = t.load_teaching_model(); print(avss_nb.__file__, sum(p.numel() for p in m.parameters()))"
    file, size = run(site, tmp_path, sys.executable, "-c", code).split()
    assert Path(file).is_relative_to(site) and int(size) > 2_000_000

def test_the_model_is_small_and_the_import_light(tmp_path):
    size = sum(p.stat().st_size for p in (ROOT / "avss_nb/teaching_model").iterdir())
    assert size <= 8_000_000
    code = "import sys, avss_nb.cli; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]", "the command line must not import heavy packages before it needs them"

# What README shows

def blocks(text, language):
    "The code blocks of a page in this language."
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)

NOTEBOOK = """
import json, sys
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
notebook = new_notebook(cells=[new_code_cell(source) for source in json.load(sys.stdin)])
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""

def test_the_python_of_readme_runs_as_printed(site, tmp_path):
    "Every block, in order, in one fresh kernel; what README prints below a block is what it gives."
    cells = blocks(README, "python")
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert len(lines) == 10, "the quick start of README has ten lines"
    where = "import avss_nb; print(avss_nb.__file__)"
    said = run(site, tmp_path, sys.executable, "-c", NOTEBOOK, text=json.dumps([*cells, where]))
    outputs = json.loads(said.splitlines()[-1])
    assert Path(outputs.pop()[0]["text"].strip()).is_relative_to(site)
    data = [output["data"] for cell in outputs for output in cell if "data" in output]
    assert any("LayerRankingPanel" in d["text/plain"] and "image/png" in d for d in data), "no panel was shown"
    printed = re.search(r"smaller\.checks.*\n```\n\n((?:    .*\n)+)", README)[1]
    assert ast.literal_eval(outputs[-1][-1]["data"]["text/plain"]) == ast.literal_eval(printed.strip())

GIVEN = """
import inspect
from IPython.display import display
from transformers import Trainer, TrainingArguments
from avss_nb import Evaluator, EAVSSScorer, HealingRecipe, Recipe, compare_rankings, silent
from avss_nb import TeachingWorld, load_teaching_model, one_per_subject, split_questions
def shorter(what, **given):
    "Other defaults: with its own, what the page shows takes minutes."
    made = what.__init__ if inspect.isclass(what) else what
    names = [p.name for p in inspect.signature(made).parameters.values() if p.default is not p.empty]
    made.__defaults__ = tuple(given.get(name, value) for name, value in zip(names, made.__defaults__))
shorter(Recipe, steps=2, every=1, batch_size=8)
shorter(HealingRecipe, steps=2, every=1, batch_size=4)
shorter(EAVSSScorer, draws=39, halves=2)
shorter(compare_rankings, draws=2, counts=(1, 3))
world = TeachingWorld()
model, tokenizer = load_teaching_model()
def people(n): return [q for group in ("known", "unknown") for q in one_per_subject(world.questions(group))[:n]]
questions, texts = people(32), world.texts(16)
held_out, probe_texts = world.texts(8, seed=1), world.texts(4)
parts = split_questions(questions, {"train": 0.5, "development": 0.25, "test": 0.25})
answers = Evaluator(model, tokenizer).answer(parts["train"], progress=silent)
development, test = parts["development"], parts["test"]
trainer = Trainer(model, TrainingArguments(".", report_to=[], use_cpu=True), train_dataset=texts)
"""

@pytest.mark.soak(only=True)
def test_the_python_of_the_studies_runs(site, tmp_path):
    "With less data and shorter trainings; the tasks of `run_tasks` come from the network, see test_harness.py."
    shown = "".join(blocks(STUDIES, "python"))
    kept = "\n".join(line for line in shown.splitlines() if not line.startswith("report = run_tasks("))
    assert len([line for line in kept.splitlines() if line.strip()]) >= 15, "the page of the studies has lost its examples"
    assert len(kept.splitlines()) == len(shown.splitlines()) - 1, "only the tasks are left out"
    code = f"{GIVEN}\n{kept}\nprint(len(table.to_frame()), len(comparison.to_frame()))"
    arms, rows = run(site, tmp_path, sys.executable, "-", text=code).split()[-2:]
    assert int(arms) > 5 and int(rows) > 20 and (tmp_path / "report.html").exists()

LESS = {"profile": "--limit 32", "evaluate": "--limit 20", "compare": "--limit 16 --draws 1 --rankings avss --counts 3", "hallucination": "--limit 60",
        "mitigate": "--limit 60 --steps 2"}

def command_lines(text):
    "The lines of all shell blocks of a page, in words."
    lines = [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line]

def test_the_command_lines_of_readme_run(site, tmp_path):
    "In their order, with less data; the tasks of `harness` come from the network, see test_harness.py."
    (tmp_path / "answers.csv").write_text("confidence,correct\n" + "0.9,1\n0.8,1\n0.7,0\n0.2,0\n" * 8)
    lines = [line for line in command_lines(README) if line[0] == "avss-nb"]
    assert {line[1] for line in lines} >= {*LESS, "rank", "prune", "harness", "calibration"}
    said = {}
    for _, command, *rest in lines:
        if command == "harness": continue
        less = LESS.get(command, "").split()
        said[command] = avss(site, tmp_path, command, *rest, *less)
    assert '"ece"' in said["calibration"] and "5" in said["rank"]
    for made in "profile.safetensors", "smaller/model.safetensors", "layers", "trained": assert (tmp_path / made).exists(), made
    (tmp_path / "profile.safetensors").unlink()
    (program, *shared), = command_lines(STUDIES)          # two processes make the same profile
    assert program == "torchrun"
    run(site, tmp_path, Path(sys.executable).with_name("torchrun"), *shared, *LESS["profile"].split())
    # the program itself
    again = run(site, tmp_path, sys.executable, "-m", "avss_nb.cli", "rank", "profile.safetensors")
    assert "5" in again

def test_the_other_command_lines_of_readme_are_targets_of_make():
    "Cloning and making need a network and an environment; that the targets exist does not."
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    others = [line for line in command_lines(README) if line[0] != "avss-nb"]
    assert [line[0] for line in others] == ["git", "make", "make"]
    named = [line[1] for line in others[1:]] + re.findall(r"`make ([\w -]+)`", README)
    assert len(named) > 3 and not {*" ".join(named).split()} - {*targets}

# What README says

def test_readme_is_short(): assert len(README.split()) <= 900

def test_the_table_of_readme_is_what_the_study_measured():
    from avss_nb import RankingComparison
    simple, protected = (RankingComparison.load(ROOT / f"nbs/studies/smollm2/{name}.safetensors") for name in ("simplewiki", "protected"))
    original = simple.values()[0]
    found = simple.to_frame().query("removed == 8").set_index("ranking")
    def number(value): return f"{value:,.0f}" if value > 100 else f"{value:.1f}"
    def share(value): return f"{value:.4f}" if value < 0.001 else f"{value:.3f}"
    def row(name, label):
        r = found.loc[name]
        return f"| {label} | {number(r['value'])} | {share(r['retention'])} [{share(r['low'])}, {share(r['high'])}] |"
    def chance(comparison, label):
        draws = comparison.random_draws().query("removed == 8")["value"]
        assert len(draws) == 20
        middle, best = draws.median(), draws.min()
        return f"| {label} | {number(middle)} ({number(best)}) | {share(original / middle)} ({share(original / best)}) |"
    for line in (row("AVSS as published (output, ε = 1e-5)", "AVSS as published"),
                 row("AVSS on relative_update (default)", "AVSS on the relative update (our default)"),
                 row("Block Influence", "Block Influence"), row("greedy search by loss", "greedy search by loss"),
                 chance(simple, "control: random, median of 20 (best)"), chance(protected, "the same, first and last block kept")):
        assert line in README, line
    assert f"original: {original:.2f}" in README
    assert found["beats random"]["AVSS as published (output, ε = 1e-5)"] == 0.5 and "beats 10 of 20" in README
    assert found["beats random"]["AVSS on relative_update (default)"] == 1 and "It beats all 20" in README
    healing = json.loads((ROOT / "nbs/studies/smollm2/healing.json").read_text(encoding="utf-8"))
    kept = [healing["intact"]["perplexity"][d][0] / healing["healed"]["perplexity"][d][0] for d in ("Simple English Wikipedia", "WikiText-2")]
    assert [f"{k:.0%}" for k in kept] == ["92%", "57%"] and "back to 92 % there, but to 57 % on WikiText-2" in README

def test_the_architectures_of_readme_are_those_of_their_table():
    table = (ROOT / "nbs/architectures.md").read_text(encoding="utf-8")
    models, types, exact, cuts, refused = re.search(
        r"\*\*(\d+) models of (\d+) model types: (\d+) of (\d+) cuts exact, in \d+ models; (\d+) refused; none silently wrong", table).groups()
    assert f"{models} small models of {types} types; {exact} of {cuts} cuts exact, {refused} refused with the reason, none silently wrong" in README
