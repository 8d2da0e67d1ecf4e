"The dashboard: one picked layer in all panels, what leaves it as files, and what it does without questions or after a stop."
import base64
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
import ipywidgets as widgets
from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from traitlets import TraitError
from avss_nb import (
    EAVSSScorer, Evaluator, HallucinationPanel, InputError, LayerLab, LayerProfiler,
    LayerRankingPanel, LayerScorer, MitigationPanel, Question, Recipe, silent
)
from avss_nb.panels.exports import source_of_call, free_name, load_data, save_data, python_script
from avss_nb.panels.lab import KINDS
from avss_nb.panels.picture import sole_run
from avss_nb.panels.tabs import set_aside, without_questions
from test_panels import front_end
from tiny import tiny

ROOT = Path(__file__).parent.parent
RECIPE = Recipe(steps=4, every=2, batch_size=8, text_batch=2)

def make(teaching, world, **settings):
    questions = world.questions("known", 36) + world.questions("unknown", 36)
    return LayerLab(*teaching, world.texts(24), questions, **{"eavss": EAVSSScorer(draws=40, probe=False, halves=2), "batch_size": 16} | settings)

@pytest.fixture(scope="module")
def worked(teaching, world):
    "A dashboard in which every step was taken."
    lab = make(teaching, world)
    lab.run()
    lab.prune(2)
    lab.mitigate([9, 11], RECIPE)
    return lab

@pytest.fixture
def lab(worked, tmp_path):
    worked.folder.value, worked.tabs.selected_index, worked.layer = str(tmp_path), 0, 3
    return worked

# --- one layer ----------------------------------------------------------------------------------------------------------

PICKERS = {"the trait": lambda lab: setattr(lab, "layer", 7), "above the tabs": lambda lab: front_end(lab.pick, value=7),
           "ranking": lambda lab: front_end(lab.ranking.strip, index=7), "hallucination": lambda lab: front_end(lab.hallucination.pick, index=7),
           "pruning": lambda lab: setattr(lab.pruning, "layer", 7), "mitigation": lambda lab: setattr(lab.mitigation, "layer", 7)}

@pytest.mark.parametrize("where", PICKERS)
def test_a_layer_picked_anywhere_is_picked_everywhere(lab, where):
    PICKERS[where](lab)
    assert {lab.layer, lab.pick.value, *(panel.layer for panel in (lab.ranking, lab.hallucination, lab.pruning, lab.mitigation))} == {7}
    assert lab.ranking.strip.value == lab.hallucination.strip.value == lab.ranking.pick.value == 7
    assert "of layer 7;" in lab.ranking.histogram.alt and "of layer 7," in lab.hallucination.histogram.alt
    assert lab.pruning.alone.description == "Try without layer 7" and "Layer 7 is not trained" in lab.mitigation.picked.value

def test_the_line_beside_the_layer_says_what_each_tab_knows(lab):
    lab.prune([9])
    lab.layer = 9
    ranking, eavss = lab.ranking.scores, lab.hallucination.scores
    assert f"rank {ranking.order.index(9)} (0" in lab.facts.value and f"log EAVSS {eavss.log_eavss[9]:+.2g}" in lab.facts.value
    table = lab.pruning.compare((9,))
    accuracy = " → ".join(f"{x:.3f}" for x in table.loc["accuracy", ["before", "after"]])
    assert f"without it alone: accuracy {accuracy}, perplexity" in lab.facts.value and f"(×{table.loc['perplexity', 'factor']:#.3g})" in lab.facts.value
    assert lab.facts.value.endswith("; trained</div>")
    lab.layer = 2
    assert "without it" not in lab.facts.value and "not trained" in lab.facts.value

def test_what_a_layer_costs_alone_is_what_the_model_without_it_does(lab):
    lab.layer = 5
    lab.pruning.alone.click()
    with lab.blocks.skip([5]): report = Evaluator(lab.model, lab.tokenizer, batch_size=16).evaluate(lab.test, lab.texts)
    table = lab.pruning.compare((5,))
    assert table.loc["perplexity", "after"] == pytest.approx(report.perplexity) and table.loc["accuracy", "after"] == report.accuracy
    assert "Without it alone: accuracy" in lab.pruning.cost.value

def test_how_far_the_weights_of_a_trained_layer_moved(lab):
    lab.layer = 11
    block = dict(lab.mitigation.mitigation.model.model.layers[11].named_parameters())
    before = dict(lab.model.model.layers[11].named_parameters())
    def flat(named): return np.concatenate([p.detach().double().flatten().numpy() for _, p in sorted(named.items())])
    far = np.linalg.norm(flat(block) - flat(before)) / np.linalg.norm(flat(before))
    assert far > 0 and f"moved by {far:.2g} of their norm" in lab.mitigation.picked.value

def test_a_layer_that_is_not_there_is_refused(lab):
    with pytest.raises(TraitError, match="layers 0 to 11"): lab.layer = 12
    assert lab.layer == 3
    marked = lab.pruning.count
    for layers in 12, -1:
        with pytest.raises(InputError, match=f"{layers} layers were to be removed; .* give 0 to 11"): lab.prune(layers)
    with pytest.raises(InputError, match="whole numbers"): lab.prune("3")
    assert lab.pruning.count == marked

def test_pruning_goes_by_the_ranking_on_show(lab):
    lab.ranking.score.value = "update_norm"
    assert lab.pruning.scores is lab.ranking.scores and lab.pruning.removed == tuple(sorted(lab.ranking.scores.order[:2]))
    lab.ranking.score.value = "avss"
    assert lab.pruning.scores.score == "avss"

def test_two_labs_on_one_page_do_not_disturb_each_other(lab, teaching, world):
    other = make(teaching, world)
    before = lab.ranking.picture.png, lab.text, lab.facts.value, lab.layer
    other.profile()
    other.layer = 8
    other.tabs.selected_index = 2
    assert (lab.ranking.picture.png, lab.text, lab.facts.value, lab.layer) == before and lab.tabs.selected_index == 0
    other.close()
    lab.layer = 4
    assert lab.pick.value == 4

def test_closing_leaves_no_widget_behind(teaching, world):
    live = widgets.widget._instances if hasattr(widgets, "widget") and hasattr(widgets.widget, "_instances") else widgets.Widget.widgets
    before = set(live)
    lab = make(teaching, world)
    lab.run()
    lab.prune(1)
    lab.mitigate([11], RECIPE)
    lab.mitigate([10], RECIPE)                               # takes the place of the first
    assert len(set(live) - before) > 50
    lab.close()
    assert not set(live) - before

# --- the steps ----------------------------------------------------------------------------------------------------------

def test_steps_give_what_the_classes_give(lab):
    assert np.array_equal(lab.ranking.scores.values, LayerScorer().score(LayerProfiler(lab.model, lab.tokenizer).profile(lab.texts, silent)).values)
    assert len(lab.questions) + len(lab.test) == 72 and len(lab.hallucination.answers) == len(lab.questions)
    subjects = [{q.subject for q in part} for part in (lab.training.questions, lab.development, lab.test)]
    assert all(subjects) and not (subjects[0] & subjects[1] | subjects[1] & subjects[2] | subjects[0] & subjects[2])
    assert lab.mitigation.mitigator.layers == (9, 11) and len(lab.mitigation.after) == len(lab.test)

def test_the_status_says_what_comes_next(teaching, world):
    lab = make(teaching, world)
    assert "lab.run()" in lab.text
    for error, step in ("lab.profile", lab.prune), ("lab.hallucinations", lab.mitigate):
        with pytest.raises(InputError, match=error): step()
    lab.profile()
    assert lab.text == "Done. Next: lab.hallucinations() finds those that hallucinate." and lab.tabs.selected_index == 0
    lab.hallucinations()
    assert "Next: lab.prune()" in lab.text and lab.tabs.selected_index == 1
    lab.prune()
    assert "Next: lab.mitigate()" in lab.text and lab.tabs.selected_index == 2 and lab.pruning.count == 3
    assert 'role="status"' in lab.status.value

def stopping(monkeypatch, kind, unit, at):
    "■ at an event that a panel hears."
    listen = kind.__call__
    def heard(self, progress):
        listen(self, progress)
        if progress.unit == unit and progress.done >= at: raise KeyboardInterrupt
    monkeypatch.setattr(kind, "__call__", heard)

def test_a_stopped_run_stays_and_goes_no_further(teaching, world, monkeypatch):
    lab = make(teaching, world, profiler=LayerProfiler(*teaching, batch_size=4))
    with monkeypatch.context() as during:
        stopping(during, LayerRankingPanel, "batch", 2)
        lab.run()
    assert lab.ranking.profile.partial and lab.ranking.text.startswith("Stopped early") and lab.hallucination.answers is None
    assert lab.pruning.scores is lab.ranking.scores
    with sole_run(): pass
    namespace = run(lab, lab.code("data.json"))              # and its numbers come again
    pd.testing.assert_frame_equal(namespace["table"], lab.ranking.scores.to_frame(), check_exact=True)

def test_stopped_questions_and_trainings_can_be_repeated(teaching, world, monkeypatch):
    lab = make(teaching, world)
    with monkeypatch.context() as during:
        stopping(during, HallucinationPanel, "question", 32)
        assert lab.hallucinations() is None
    assert len(lab.hallucination.answers) == 32 and lab.hallucination.profile is None and "Next: lab.profile()" in lab.text
    lab.tabs.selected_index = 1
    with pytest.raises(InputError, match="no scores"): lab.code()
    lab.hallucinations(lab.hallucination.answers)
    assert len(lab.hallucination.profile) == 32 and not lab.hallucination.profile.partial
    found = run(lab, lab.code())["table"]
    pd.testing.assert_frame_equal(found, lab.hallucination.scores.to_frame(), rtol=1e-6)
    with monkeypatch.context() as during:
        stopping(during, MitigationPanel, "training step", 3)
        assert lab.mitigate([11], RECIPE).partial
    assert lab.mitigation.text.startswith("Stopped early")
    with pytest.raises(InputError, match="panel.ask"): lab.view.table
    lab.mitigation.ask()
    pd.testing.assert_frame_equal(run(lab, lab.code())["table"].rename_axis("measure"), lab.view.table, rtol=1e-9)

def test_stopped_before_there_was_a_result(teaching, world, monkeypatch):
    lab = make(teaching, world)
    def stop(*_, **__): raise KeyboardInterrupt
    monkeypatch.setattr(Evaluator, "evaluate", stop)
    lab.profile()
    with pytest.raises(KeyboardInterrupt): lab.prune(1)
    assert lab.text.startswith("Stopped.") and lab.pruning.scores is not None
    with sole_run(): pass

def test_without_questions_there_is_a_ranking_and_the_rest_says_why(teaching, world, tmp_path):
    lab = LayerLab(*teaching, world.texts(8), folder=tmp_path)
    assert lab.hallucination is None and lab.mitigation is None and lab.pruning is None
    for view in lab.views[1], lab.views[3]: assert "No questions were given" in view.box.children[0].value
    assert "lab.profile()" in lab.views[2].box.children[0].value
    lab.run()
    assert lab.pruning is not None and "lab.prune()" in lab.text
    lab.prune(1)
    assert [*lab.pruning.compare().index] == ["perplexity"] and lab.text == "Done. Every step has been taken."
    for step in lab.hallucinations, lab.mitigate:
        with pytest.raises(InputError, match="No questions were given"): step()
    lab.tabs.selected_index = 1
    with pytest.raises(InputError, match="no numbers in the tab hallucination"): lab.save("csv")
    with pytest.raises(InputError, match="no figure in the tab hallucination"): lab.save("png")
    assert lab.save("html") and not [*tmp_path.glob("*.csv")]

def test_models_that_do_not_answer_say_so(world):
    texts = [[*range(5, 15)]] * 4
    lab = LayerLab(tiny("bert"), None, texts, [("a?", "b")])
    assert "causal language model" in lab.views[1].box.children[0].value and not lab.test
    lab.profile()
    assert lab.ranking.scores is not None
    assert "tokenizer" in without_questions(tiny("llama"), None, [Question("a?", ("b",))])
    with pytest.raises(InputError, match="no texts"): LayerLab(tiny("llama"), None, [])
    with pytest.raises(InputError, match="one string"): LayerLab(tiny("llama"), None, "one text")
    with pytest.raises(InputError, match="None was given where a list"): LayerLab(tiny("llama"), None, None)

def test_questions_are_set_aside_by_subject():
    questions = [Question(f"{i}", ("x",), subject=f"{i // 3}") for i in range(30)]
    learn, test = set_aside(questions, None)
    assert len(learn) + len(test) == 30 and 6 <= len(test) <= 12 and not {q.subject for q in learn} & {q.subject for q in test}
    assert set_aside(questions, []) == (questions, []) and set_aside(questions[:1], None) == (questions[:1], [])

def test_the_button_takes_one_step_after_the_other(teaching, world):
    "From nothing to a trained model by pressing one button; it says what comes next, and goes when nothing is left."
    lab, seen = make(teaching, world), []
    lab.mitigate = lambda: LayerLab.mitigate(lab, [9, 11], RECIPE)  # the usual training takes minutes
    while lab.button.layout.display != "none":
        seen.append(lab.button.description)
        lab.button.click()
        assert not lab.button.disabled and len(seen) < 9
    train = "Train layers that hallucinate" if lab.hallucination.scores.standing_out else "Train three layers"
    assert seen == ["Rank the layers", "Find layers that hallucinate", "Try without the lowest layers", train]
    assert lab.ranking.profile and lab.hallucination.scores and lab.pruning.reports and lab.mitigation.mitigation
    assert "Every step has been taken" in lab.text

def test_the_step_to_training_does_not_claim_that_layers_stand_out(teaching, world):
    lab = make(teaching, world)
    lab.hallucinations()
    for q, label, words in (0.2, "Train three layers", "though none stands out"), (0.01, "Train layers that hallucinate", "hallucinate"):
        lab.hallucination.scores = replace(lab.hallucination.scores, q=np.full(12, q))
        step = lab._steps()[3]
        assert step[1] == label and words in step[2]

def test_a_model_that_gets_nothing_right_can_still_be_pruned(teaching, world):
    "Where all answers are wrong the button says so, leaves out what needs both kinds of answers, and goes on."
    wrong = [(q.text, ["nobody"]) for q in world.questions("rare", 24)]
    lab, seen = LayerLab(*teaching, world.texts(24), wrong, max_new_tokens=6), []
    while lab.button.layout.display != "none":
        seen.append(lab.button.description)
        lab.button.click()
        if len(seen) == 2: assert "0 faithful" in lab.text and "Next: lab.prune()" in lab.text
        assert len(seen) < 9
    assert seen == ["Rank the layers", "Find layers that hallucinate", "Try without the lowest layers"]
    assert lab.pruning.reports and len(lab.hallucination.answers)
    with pytest.raises(InputError, match="0 faithful"): lab.hallucinations()
    panel = lab.hallucination  # a person may know better, and then there are both kinds
    for _, number in [*panel.number.options][:3]: panel.overrule(number, True)
    lab.hallucinations(panel.answers)
    assert panel.scores is not None and lab.button.layout.display == "" and lab.button.description.startswith("Train")

def test_overruled_verdicts_go_into_code_and_training(teaching, world):
    lab = make(teaching, world)
    lab.hallucinations()
    panel = lab.hallucination
    one = panel.number.value
    panel.overrule(one, True)
    panel.score_again()
    lab.tabs.selected_index = 1
    assert f".relabel({{{one}: True}})" in lab.code()
    assert run(lab, lab.code())["table"]["log EAVSS"].tolist() == pytest.approx(panel.to_frame()["log EAVSS"].tolist(), abs=1e-9)

def test_a_second_profile_in_the_laboratory_is_saved_and_reported(lab, teaching, tmp_path):
    from copy import deepcopy
    import torch
    other = deepcopy(teaching[0])
    with torch.no_grad(): other.model.layers[5].mlp.down_proj.weight.mul_(2)
    second = LayerProfiler(other, teaching[1]).profile(lab.texts, silent)
    found = lab.ranking.compare(second)
    try:
        assert found.movers(1)["layer"].tolist() == [5] and lab.ranking.onward.layout.display == "none"
        assert {"ranking.svg", "ranking-comparison.svg"} <= {path.name for path in lab.save("svg")}
        assert lab.ranking.side.base64 in lab.report() and lab.ranking.side.alt[:40] in lab._page()
    finally: lab.ranking.compare(None)
    assert "ranking-comparison" not in " ".join(path.name for path in lab.save("png"))

def test_asking_again_needs_a_training(teaching, world):
    with pytest.raises(InputError, match="nothing was trained yet"): make(teaching, world).ask()

# --- files --------------------------------------------------------------------------------------------------------------

def press(lab, kind, tab=0, name=None):
    "Press the button in a tab; returns the files that appeared."
    before = set(Path(lab.folder.value).iterdir())
    front_end(lab.tabs, selected_index=tab)
    if name is not None: front_end(lab.name, value=name)
    lab.buttons[kind].click()
    return {path.name: path for path in set(Path(lab.folder.value).iterdir()) - before}

def test_pictures(lab):
    files = press(lab, ".png")
    assert files.keys() == {"ranking.png", "ranking-layer-3.png"}
    assert files["ranking.png"].read_bytes() == lab.ranking.picture.png
    assert Image.open(files["ranking-layer-3.png"]).size == (840, 460)
    svgs = press(lab, ".svg", 3)
    assert svgs.keys() == {"mitigation.svg", "mitigation-reliability.svg"}
    for path in svgs.values():
        root = ET.parse(path).getroot()
        assert root.tag.endswith("svg") and len([*root.iter()]) > 100 and not re.search(r'(href|src)="(?!#)', path.read_text())
    assert ET.parse(svgs["mitigation.svg"]).getroot().find("{http://www.w3.org/2000/svg}title").text == lab.mitigation.picture.alt
    again = press(lab, ".svg", 3)                            # the same picture is the same file
    assert again["mitigation-2.svg"].read_bytes() == svgs["mitigation.svg"].read_bytes()
    assert "Written to" in lab.text and "mitigation-2.svg" in lab.text

def test_a_folder_is_made_and_text_stays_text(lab, tmp_path):
    "The folder in the field need not be there; words in SVG and PDF can be searched."
    before = lab.folder.value
    front_end(lab.folder, value=f"{tmp_path}/figures/new")
    try: files = lab.save("svg") + lab.save("pdf")
    finally: front_end(lab.folder, value=before)
    assert {f.parent for f in files} == {tmp_path / "figures/new"} and {f.suffix for f in files} == {".svg", ".pdf"}
    for file in files:
        if file.suffix == ".svg": assert file.read_text().count("<text") > 12
        else: assert file.read_bytes().startswith(b"%PDF") and b"/Type0" in file.read_bytes()    # TrueType, not outlines

def test_saving_a_picture_leaves_the_one_on_show_alone(lab):
    before = lab.ranking.picture.png
    press(lab, ".svg")
    lab.ranking.picture.show(lab.ranking.picture.alt)
    assert lab.ranking.picture.png == before

TABLES = {0: lambda lab: lab.ranking.scores.to_frame(), 1: lambda lab: lab.hallucination.scores.to_frame(),
          2: lambda lab: lab.pruning.compare().rename_axis("measure").reset_index(),
          3: lambda lab: lab.mitigation.compare().rename_axis("measure").reset_index()}

@pytest.mark.parametrize("tab", TABLES)
def test_tables_keep_every_digit(lab, tab):
    (csv,), (parquet,) = (press(lab, kind, tab).values() for kind in (".csv", ".parquet"))
    pd.testing.assert_frame_equal(pd.read_csv(csv, float_precision="round_trip"), TABLES[tab](lab), check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), TABLES[tab](lab), check_exact=True)

class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

def test_the_report_is_whole_in_itself(lab):
    (path,) = press(lab, ".html").values()
    text = path.read_text()
    page = Links(text)
    pictures = [picture for view in lab.views for picture in view.pictures.values()]
    assert len(pictures) == 7 and not {"script", "link", "iframe", "object"} & {*page.tags} and "url(" not in text and "@import" not in text
    assert [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in page.links] == [p.png for p in pictures]
    for title in "Ranking", "Hallucination", "Pruning", "Mitigation", "Versions": assert f"<h2>{title}</h2>" in text
    tables = pd.read_html(io.StringIO(text))
    assert any([*t.columns[:2]] == ["layer", "variance"] and len(t) == 12 for t in tables)
    assert "e030df9aaf700a12" in text and "transformers" in text and "LayerScorer()" in text

def run(lab, code):
    "The namespace after the code was executed as a script in a folder of its own."
    import os, tempfile
    folder = tempfile.mkdtemp()
    save_data(f"{folder}/data.json", **lab.view.panel.code_data(lab))
    namespace = {"__name__": "__main__", "__file__": f"{folder}/code.py"}
    exec(compile(code, namespace["__file__"], "exec"), namespace)
    return namespace

@pytest.mark.parametrize("tab", TABLES)
def test_the_code_gives_the_same_numbers(lab, tab):
    lab.tabs.selected_index = tab
    lab.ranking.eps.value, lab.ranking.site.value, lab.hallucination.eps.value = 0.05, "output", 0.2
    if tab == 2: lab.prune(2)
    table = lab.view.table
    try: found = run(lab, lab.code())["table"]
    finally: lab.ranking.eps.value, lab.ranking.site.value, lab.hallucination.eps.value = 0.01, "relative_update", 0.1
    pd.testing.assert_frame_equal(found if tab < 2 else found.rename_axis("measure"), table, check_exact=tab < 2, rtol=1e-9)

def test_the_code_runs_in_a_process_of_its_own_in_another_folder(lab, tmp_path):
    files = press(lab, ".py")
    assert files.keys() == {"ranking.py", "ranking.json"}
    said = subprocess.run([sys.executable, files["ranking.py"]], cwd="/", env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == lab.ranking.scores.to_frame().to_string().strip()

def test_code_for_another_model_refuses_it(lab):
    lab.tabs.selected_index = 0
    with pytest.raises(AssertionError, match="another model"): run(lab, re.sub("== '[0-9a-f]{16}'", "== '0'", lab.code()))

def test_names_are_offered_and_nothing_is_replaced(lab):
    assert lab.name.value == "ranking"
    front_end(lab.tabs, selected_index=1)
    assert lab.name.value == "hallucination"
    first = press(lab, ".csv", 1)["hallucination.csv"]
    content = first.read_bytes()
    assert press(lab, ".csv", 1).keys() == {"hallucination-2.csv"} and "hallucination-2.csv" in lab.text
    assert not press(lab, ".csv", 1, "hallucination.csv")
    assert "exists already; hallucination-3.csv is free" in lab.text and first.read_bytes() == content
    assert press(lab, ".csv", 1, "mine").keys() == {"mine.csv"}
    front_end(lab.tabs, selected_index=2)
    assert lab.name.value == "mine"
    front_end(lab.name, value="pruning")

@pytest.mark.parametrize("folder, name, words", [
    ("{}", "", "is not a valid file name"), ("{}", "..", "is not a valid file name"), ("{}", "b/a", "is not a valid file name"),
    ("{}/file", "a", "cannot be made"), ("/proc", "a", "was not written"), ("{}", "x" * 300, "was not written"),
    ("x" * 5000, "a", "cannot be made"), ("~no-such-user/x", "a", "cannot be made"), ("\0", "a", "cannot be made")])
def test_bad_paths_are_told(lab, tmp_path, folder, name, words):
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    front_end(lab.folder, value=folder.format(tmp_path))
    front_end(lab.name, value=name)
    lab._press(".csv")
    front_end(lab.name, value="ranking")
    assert words in lab.text and sorted(tmp_path.iterdir()) == before

def test_what_is_not_there_is_not_saved(teaching, world, tmp_path):
    lab = make(teaching, world, folder=tmp_path)
    for kind in KINDS:
        lab._press(kind)
        assert re.search("no figure|no scores|nothing is measured", lab.text)
    lab.profile()
    lab.tabs.selected_index = 2
    with pytest.raises(InputError, match="not measured yet"): lab.save("csv")
    with pytest.raises(InputError, match="there is .svg"): lab.save("docx")
    assert not [*tmp_path.iterdir()]

def test_without_pyarrow_there_is_no_parquet(lab, monkeypatch):
    monkeypatch.delitem(KINDS, ".parquet")
    with pytest.raises(InputError, match="needs pyarrow"): lab.save("parquet")

# --- what stays ---------------------------------------------------------------------------------------------------------

def test_the_bundle_holds_the_pictures_of_all_tabs_and_words(lab):
    data, metadata = lab._repr_mimebundle_()
    shown = [picture for view in lab.views if view.panel for picture in view.panel.pictures if picture.png]
    height = sum(picture.height for picture in shown)
    assert len(shown) >= 5 and Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (1720, 2 * height)
    assert metadata["image/png"] == {"width": 860, "height": height}
    assert "ranking: Least important" in data["text/plain"] and "pruning: Without layers" in data["text/plain"]

def test_the_stored_picture_is_replaced_after_every_step(teaching, world):
    shell, sent = InteractiveShell.instance(), []
    publish = type(shell.display_pub).publish
    type(shell.display_pub).publish = lambda self, data, metadata=None, **rest: sent.append((data, rest))
    try:
        shell.user_ns.update(lab=make(teaching, world))
        shell.run_cell("lab").raise_error()
        shell.run_cell("lab.run()").raise_error()
    finally:
        type(shell.display_pub).publish = publish
        InteractiveShell.clear_instance()
    (first, how), *_, (last, update) = [(data, rest) for data, rest in sent if "avss-kept" in data.get("text/html", "")]
    assert how["transient"]["display_id"] == update["transient"]["display_id"] and update["update"]
    assert "image/png" not in first and "hallucination: " in last["text/plain"]

def test_calls_and_scripts():
    assert source_of_call(LayerScorer("avss", eps=0.1), score="measure") == "LayerScorer(eps=0.1)" and source_of_call(Recipe()) == "Recipe()"
    assert eval(source_of_call(RECIPE)) == RECIPE
    assert python_script(["x = Recipe()"]).splitlines()[0] == "from avss_nb import Recipe" and "import" not in python_script(["x = 1"])
