"The wheel works without the source tree, with the teaching model inside: what README shows runs from it, in an empty folder."
import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
import zipfile
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A folder with what the wheel holds, and nothing else of the project."
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    wheel, = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"

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

GIVEN = """
import inspect
from IPython.display import display
from transformers import Trainer, TrainingArguments
def shorter(what, **given):
    "Other defaults: with its own, what README shows takes minutes."
    made = what.__init__ if inspect.isclass(what) else what
    names = [p.name for p in inspect.signature(made).parameters.values() if p.default is not p.empty]
    made.__defaults__ = tuple(given.get(name, value) for name, value in zip(names, made.__defaults__))
shorter(Recipe, steps=2, every=1, batch_size=8)
shorter(HealingRecipe, steps=2, every=1, batch_size=4)
shorter(EAVSSScorer, draws=39, halves=2)
shorter(compare_rankings, draws=2, counts=(1, 3))
world = TeachingWorld()
def people(n): return [q for group in ("known", "unknown") for q in one_per_subject(world.questions(group))[:n]]
questions, texts, held_out, probe_texts = people(32), world.texts(16), world.texts(8, seed=1), world.texts(4)
parts = split_questions(questions, {"train": 0.5, "development": 0.25, "test": 0.25})
answers, development, test = Evaluator(model, tokenizer).answer(parts["train"], progress=silent), parts["development"], parts["test"]
trainer = Trainer(model, TrainingArguments(".", report_to=[], use_cpu=True), train_dataset=texts)
"""

def test_the_python_of_readme_runs(site, tmp_path):
    "The quick start as it is, the rest with less data and shorter trainings; the tasks of `run_tasks` come from the network, see test_harness.py."
    start, made, *rest = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    printed = re.search(r"smaller\.checks\n```\n\n((?:    .*\n)+)", README)[1]
    rest = "\n".join(line for line in "".join(rest).splitlines() if "run_tasks" not in line)
    assert len(rest.splitlines()) >= 12, "README has lost its examples"
    code = f"{start}\n{made}\nassert smaller.checks == {' '.join(printed.split())}\n{GIVEN}\n{rest}\nprint(len(table.to_frame()), len(comparison.to_frame()))"
    names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    for file in sorted((site / "avss_nb").glob("*.py")):
        public = re.search(r"^__all__ = (\[.*?\])", file.read_text(), re.M | re.S)
        used = names.intersection(ast.literal_eval(public[1])) if public else ()
        if used: code = f"from avss_nb.{file.stem} import {', '.join(sorted(used))}\n{code}"
    arms, rows = run(site, tmp_path, sys.executable, "-", text=code).split()[-2:]
    assert int(arms) > 5 and int(rows) > 20 and (tmp_path / "report.html").exists()

LESS = {"profile": "--limit 32", "evaluate": "--limit 20", "compare": "--limit 16 --draws 1 --rankings avss --counts 3", "hallucination": "--limit 60",
        "mitigate": "--limit 60 --steps 2"}

def test_the_command_lines_of_readme_run(site, tmp_path):
    "In their order, with less data; the tasks of `harness` come from the network, see test_harness.py."
    (tmp_path / "answers.csv").write_text("confidence,correct\n" + "0.9,1\n0.8,1\n0.7,0\n0.2,0\n" * 8)
    block, = re.findall(r"## From the command line\n\n```sh\n(.*?)^```", README, re.M | re.S)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert {line[1] for line in lines} >= {*LESS, "rank", "prune", "harness", "calibration"}
    said = {}
    for line in lines:
        program, command = line[0], line[line.index("avss_nb.cli") + 1 if "avss_nb.cli" in line else 1]
        if command == "harness": continue
        if program == "torchrun":
            line = [Path(sys.executable).with_name("torchrun"), *line[1:]]
            (tmp_path / "profile.safetensors").unlink()
        else: line = [sys.executable, "-m", "avss_nb.cli", *line[1:]]
        said[command] = run(site, tmp_path, *line, *LESS.get(command, "").split())
    assert '"ece"' in said["calibration"] and "5" in said["rank"]
    for made in "profile.safetensors", "smaller/model.safetensors", "layers", "trained": assert (tmp_path / made).exists(), made
