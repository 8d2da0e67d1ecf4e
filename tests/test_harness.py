"lm-evaluation-harness on original, previewed and pruned models, against answers and log-probabilities computed here."
import ast
import json
import math
import os
import subprocess
import sys
import numpy as np, pandas as pd, pytest, torch
import transformers as tf
from avss_nb import Evaluator, HarnessReport, InputError, LayerPruner, Question, run_tasks
from conftest import shared
from test_cli import done, refused
from tiny import tiny

def needs_harness(): return pytest.importorskip("lm_eval", reason="needs the extra eval (lm-evaluation-harness)")

def task(folder, name, rows, **settings):
    "A task file and its data."
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(json.dumps(made | settings))

CHOICE = {"output_type": "multiple_choice", "doc_to_text": "Q: {{question}}\nA:", "doc_to_choice": "choices", "doc_to_target": "gold",
          "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
CLOZE = {"output_type": "generate_until", "doc_to_text": "prompt", "doc_to_target": "answer",
         "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": False},
         "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}

@pytest.fixture(scope="module")
def sciq(tmp_path_factory):
    "A hundred questions of SciQ as a local task; the same as `Question`."
    folder = tmp_path_factory.mktemp("sciq")
    table = pd.read_csv(shared("data/sciq/correct_and_wrong_answers.csv"), keep_default_na=False).head(100)
    rows = []
    for right, wrong, question in zip(table["correct_answer"], table["wrong_answer"].map(ast.literal_eval), table["question"]):
        choices = sorted({right, *map(str, wrong)})
        rows.append({"question": question, "choices": choices, "gold": choices.index(right)})
    task(folder, "local_sciq", rows, **CHOICE)
    return folder, [Question(r["question"], (r["choices"][r["gold"]],), prompt=f"Q: {r['question']}\nA:", choices=tuple(r["choices"])) for r in rows]

@pytest.mark.parametrize("name, n", [("stories260k", 100), ("wiki12", 20)])
def test_multiple_choice_is_the_choice_of_the_evaluator(name, n, sciq):
    needs_harness()
    folder, questions = sciq[0], sciq[1][:n]
    place = shared(f"models/{name}")
    model, tokenizer = tf.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).train(), tf.AutoTokenizer.from_pretrained(place)
    plan, pad = LayerPruner(model, tokenizer).remove([1, 3]), tokenizer.pad_token
    pruned = plan.apply()
    report = run_tasks({"original": model, "preview": plan, "pruned": pruned.model}, tokenizer, ["local_sciq"], include=folder, limit=n, batch_size=8)
    assert model.training and tokenizer.pad_token == pad and not any(m._forward_hooks for m in model.modules())
    assert report.samples == {"local_sciq": n} and report.settings["version"]
    for arm, m in {"original": model, "pruned": pruned.model}.items():
        logprobs = [np.array([sum(choice) for choice in row]) for row in Evaluator(m, tokenizer).score_choices(questions)]
        gold = [q.choices.index(q.answers[0]) for q in questions]
        lengths = [np.array([len(c) for c in q.choices]) for q in questions]
        expected = {"acc": np.mean([row.argmax() == g for row, g in zip(logprobs, gold)]),
                    "acc_norm": np.mean([(row / n).argmax() == g for row, n, g in zip(logprobs, lengths, gold)])}
        for metric, value in expected.items():
            found, error = report.scores[arm]["local_sciq", metric]
            assert found == pytest.approx(value) and error == pytest.approx(math.sqrt(value * (1 - value) / (n - 1)))
    assert report.scores["preview"] == report.scores["pruned"] != report.scores["original"]
    frame = report.to_frame()
    before, after = (report.scores[arm]["local_sciq", "acc"][0] for arm in ("original", "pruned"))
    assert frame.loc[("local_sciq", "acc"), "kept by pruned"] == pytest.approx(after / before) and "±" in report._repr_html_()

def test_generated_answers_are_those_of_the_evaluator(teaching, world, tmp_path):
    needs_harness()
    model, tokenizer = teaching
    questions = world.questions("rare", 60)
    task(tmp_path, "rare_people", [{"prompt": q.prompt, "answer": q.answers[0]} for q in questions], **CLOZE)
    plan = LayerPruner(model, tokenizer).remove([0, 5])
    report = run_tasks(plan, tasks=["rare_people"], include=tmp_path, limit=50)
    assert [*report.scores] == ["original", "pruned"] and report.samples == {"rare_people": 50}
    for arm, m in {"original": model, "pruned": plan.apply().model}.items():
        answers = Evaluator(m, tokenizer, max_new_tokens=8).answer(questions[:50])
        assert report.scores[arm]["rare_people", "exact_match"][0] == np.mean([text == q.answers[0] for text, q in zip(answers.texts, answers.questions)])
    assert report.scores["pruned"]["rare_people", "exact_match"][0] < report.scores["original"]["rare_people", "exact_match"][0]

def test_perplexity_where_less_is_better(teaching, world, tmp_path):
    needs_harness()
    model, tokenizer = teaching
    texts = world.texts(12)
    task(tmp_path, "biographies", [{"text": text} for text in texts], output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="text",
         metric_list=[{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}])
    plan = LayerPruner(model, tokenizer).remove([0])
    report = run_tasks({"original": model, "without block 0": plan}, tokenizer, [str(tmp_path / "biographies.yaml")])
    (measure, higher), = report.higher.items()
    values = [scores[measure][0] for scores in report.scores.values()]
    assert measure == ("biographies", "word_perplexity") and higher is False and values[0] < values[1]
    assert report.kept("without block 0", measure) == pytest.approx(values[0] / values[1])

def test_a_report_is_plain():
    measures = {("t", "acc"): True, ("t", "word_perplexity"): False, ("t", "odd"): None}
    def scores(*values): return dict(zip(measures, zip(values, (0.1, math.nan, 0.2))))
    report = HarnessReport({"a": scores(.5, 10., 1.), "b": scores(.4, 20., 2.), "c": scores(0., math.nan, 1.)}, measures, {"t": 7}, {"limit": None})
    assert [report.kept("b", m) for m in measures][:2] == pytest.approx([0.8, 0.5]) and math.isnan(report.kept("b", ("t", "odd")))
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["results"][0]["models"]["b"] == {"value": 0.4, "standard_error": 0.1, "kept": 0.8} and found["samples"] == {"t": 7}
    assert found["results"][1]["models"]["c"] == {"value": None, "standard_error": None, "kept": None}
    assert list(report.to_frame().columns) == ["a", "± a", "b", "± b", "c", "± c", "kept by b", "kept by c"]
    assert "HarnessReport(a, b, c; t (7))" == repr(report)

@pytest.mark.parametrize("run, message", [
    (lambda m, t, d: run_tasks(m, t, ["rare_peple"], include=d), "no task 'rare_peple'; did you mean rare_people"),
    (lambda m, t, d: run_tasks(m, t, "rare_people", include=d), "give a list"),
    (lambda m, t, d: run_tasks(m, t, [], include=d), "at least one task"),
    (lambda m, t, d: run_tasks(m, t, ["rare_people"], include=d / "none"), "there is no folder"),
    (lambda m, t, d: run_tasks(m, None, ["rare_people"], include=d), "needs a tokenizer"),
    (lambda m, t, d: run_tasks({}, t, ["rare_people"], include=d), "there is no model"),
    (lambda m, t, d: run_tasks(m, t, ["rare_people"], include=d, limit=0), "at least 1 question"),
    (lambda m, t, d: run_tasks(tiny("bert"), t, ["rare_people"], include=d), "BertForMaskedLM is not a causal language model"),
    (lambda m, t, d: run_tasks(m, t, ["gone"], include=d), "could not be loaded .* from the hub unless")])
def test_errors_say_what_to_do(run, message, teaching, tmp_path):
    needs_harness()
    task(tmp_path, "rare_people", [{"prompt": "a", "answer": "b"}], **CLOZE)
    task(tmp_path, "gone", [], **CLOZE)
    (tmp_path / "gone.jsonl").unlink()
    with pytest.raises(InputError, match=message): run(*teaching, tmp_path)

def test_without_the_harness(monkeypatch, teaching):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'avss_nb\[eval\]'"): run_tasks(*teaching, ["hellaswag"])

def test_a_data_set_on_the_hub_without_the_network(tmp_path):
    needs_harness()
    code = ("import sys; from avss_nb.prune.harness import run_tasks; from avss_nb.data.teaching import load_teaching_model\n"
            "from avss_nb.base.basics import InputError\n"
            "try: run_tasks(*load_teaching_model(), ['far_away'], include=sys.argv[1])\n"
            "except InputError as error: print(error)")
    (tmp_path / "far_away.yaml").write_text(json.dumps({"task": "far_away", "dataset_path": "nobody-at-all/no-such-data", "test_split": "test", **CLOZE}))
    run = subprocess.run([sys.executable, "-c", code, tmp_path], env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}, capture_output=True, text=True)
    assert "the tasks far_away could not be loaded" in run.stdout and "dataset_path: json" in run.stdout, run.stderr[-2000:]

def test_the_harness_on_the_command_line(world, tmp_path):
    needs_harness()
    task(tmp_path, "rare_people", [{"prompt": q.prompt, "answer": q.answers[0]} for q in world.questions("rare", 20)], **CLOZE)
    line = ["harness", "teaching", "--tasks", "rare_people", "--include", tmp_path, "--limit", 10]
    done(*line, "--remove", "0,5", "--json", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    models = result["results"][0]["models"]
    assert [*models] == ["original", "without 0,5"] and models["original"]["value"] > models["without 0,5"]["value"] and result["samples"] == {"rare_people": 10}
    assert json.loads(done(*line, "--json", "-").stdout)["results"][0]["models"]["original"] == models["original"]
    refused("harness", "teaching", "--tasks", "rare_peple", "--include", tmp_path, match="did you mean rare_people")

def test_no_continuations_are_written_where_nobody_sees_them(teaching, monkeypatch):
    from avss_nb.prune import pruner
    from avss_nb.prune.harness import _named_models
    asked = []
    monkeypatch.setattr(pruner, "continue_texts", lambda model, tokenizer, texts, count: asked.append(count) or {})
    _named_models(LayerPruner(*teaching).remove([5]), None)
    assert asked == [0, 0]
