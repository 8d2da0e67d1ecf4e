"What a file, a model or a person wrote is shown as text, never as markup: in tables, panels, pictures and reports."
import re
from dataclasses import replace
import ipywidgets
import matplotlib.text
import numpy as np
import pytest
import torch
from avss_nb import (
    Answers, EAVSSScorer, HallucinationPanel, HarnessReport, Healing, HealingRecipe, LayerLab,
    LayerProfile, LayerProfiler, LayerPruner, LayerRankingPanel, LayerScorer, LayerScores,
    Measured, Mitigation, Picture, PruningPanel, Question, RankingComparison, Recipe, TrainingHistory,
    View, silent
)
from avss_nb.panels import live
from avss_nb.panels.exports import report_page, save_picture, report_section
from avss_nb.panels.hallucination import example_table
from test_arms import made_table
from test_hallucination import made, mixed
from tiny import tiny

NAME = "<b>name"  # no slash: some names are read as paths
TEXTS = torch.randint(3, 600, (16, 8), generator=torch.Generator().manual_seed(0)).tolist()

def check(shown: str) -> None:
    assert NAME not in shown and "&lt;b&gt;name" in shown

@pytest.fixture(scope="module")
def model():
    found = tiny("llama")
    found.config._name_or_path = NAME
    return found

@pytest.fixture(scope="module")
def profile(model, tmp_path_factory):
    "From a file whose header holds the name."
    path = tmp_path_factory.mktemp("profile") / "profile.safetensors"
    LayerProfiler(model, batch_size=4).profile(TEXTS, silent).save(path)
    return LayerProfile.load(path)

def answers():
    questions = [Question(f"{NAME}{i}?", ("yes",), group=f"{NAME}{i % 2}", kind=NAME, subject=f"{NAME}{i}") for i in range(8)]
    return Answers.judge(questions, ["yes", NAME] * 4, [[-.1]] * 8)

def history():
    values = np.ones((2, 3))
    return TrainingHistory(np.arange(2), values, values, values, values < 0, np.zeros((0, 2)), np.zeros((0, 2)), NAME, NAME)

def healing():
    part = Measured(4, 100, np.array([3., 4.]), np.array([2, 2]))
    return Healing(None, None, HealingRecipe(), (), 3, {"original": part, NAME: part})

def comparison():
    losses = {(): np.array([1., 2.]), (0,): np.array([3., 4.])}
    return RankingComparison({NAME: {1: (0,)}}, {}, losses, np.array([2, 2]), {}, np.zeros(0, int), 4, NAME)

def scores_by_eavss():
    activations, labels, kinds = mixed()
    found = EAVSSScorer(draws=20, probe=False, halves=0).score(made(activations, labels, kinds))
    return replace(found, notes=(NAME,), position=NAME, balance=(NAME,))

def mitigation(): return Mitigation(None, None, None, (NAME,), Recipe(), ({"step": 1, NAME: 1.},), 1)

SHOWN = {"answers": answers, "history": history, "healing": healing, "comparison": comparison, "EAVSS": scores_by_eavss,
         "mitigation": mitigation,
         "harness": lambda: HarnessReport({NAME: {("t", "acc"): (1., 0.)}}, {("t", "acc"): True}, {"t": 1}, {"version": NAME}),
         "arms": lambda: replace(made_table(), runs=made_table().runs | {NAME: made_table().runs["other"]}),
         "scores": lambda: LayerScores.of(NAME, np.arange(4.))}

@pytest.mark.parametrize("kind", SHOWN)
def test_results(kind): check(SHOWN[kind]()._repr_html_())

def test_profile_scores_and_plan(model, profile):
    check(profile._repr_html_())
    scores = replace(LayerScorer(draws=20).score(profile), score=NAME)
    check(scores._repr_html_())
    plan = LayerPruner(model).plan(scores, count=1)
    check(plan._repr_html_())
    check(plan.apply(verify=False)._repr_html_())
    check(answers().by_group().to_html())

# --- panels, their pictures and reports

def shown(panel) -> str:
    "All HTML of a panel, with what describes its pictures to those who cannot see them."
    parts = live.widget_parts(panel.widget)
    return " ".join(w.value for w in parts if isinstance(w, ipywidgets.HTML))

def test_ranking_and_pruning_panels(model, profile, tmp_path):
    panel = LayerRankingPanel(profile=profile)
    check(shown(panel))
    panel.scores = replace(panel.scores, score=NAME)
    panel._draw()
    save_picture(panel.picture, tmp_path / "picture.svg")
    svg = (tmp_path / "picture.svg").read_text()
    assert NAME not in svg and "&lt;b&gt;name" in svg                                       # the title of the file, and of the axes
    pruning = PruningPanel(model, None, panel.scores, lambda: {"accuracy": .5, NAME: 1.})
    pruning.preview()
    check(shown(pruning))
    def fails(): raise ValueError(NAME)
    broken = PruningPanel(model, None, panel.scores, fails)
    with pytest.raises(ValueError): broken._press(None)
    check(shown(broken))

def test_questions_in_a_panel():
    panel = HallucinationPanel(answers=answers())
    check(shown(panel))
    check(example_table(answers()))

def test_words_of_a_panel_and_a_tab():
    panel = live.Panel(f"title {NAME}", f"hint {NAME} `{NAME}`", Picture(200, 100))
    assert "<code>&lt;b&gt;name</code>" in panel.head.value
    check(panel.head.value)
    panel.say(f"error: {NAME}")
    check(panel.status.value)
    panel.picture.show(f'{NAME}" onerror="')
    check(panel.picture.widget.value)
    assert panel.picture.widget.value.count('"') == 2 * len(re.findall(r'\w+="', panel.picture.widget.value))
    view = View("tab")
    view.explain(NAME)
    check(view.box.children[0].value)

def test_a_lab_and_its_report(model):
    lab = LayerLab(model, None, TEXTS)
    lab.run()
    check(shown(lab))
    check(lab.report())
    check(report_page(NAME, {NAME: NAME}, [report_section(NAME, NAME, [lab.ranking.picture], answers().to_frame().rename_axis(NAME), NAME)]))

# --- pictures: what stands between two $ would be a formula, and a bad formula an error

FORMULA = "a$^$b"

@pytest.mark.parametrize("kind", ["ranking", "comparison", "arms", "history", "panel"])
def test_a_name_is_no_formula(kind, model, monkeypatch):
    monkeypatch.setitem(globals(), "NAME", FORMULA)
    if kind == "panel":
        profile = replace(LayerProfiler(model, batch_size=4).profile(TEXTS, silent), model=FORMULA)
        panel = LayerRankingPanel(profile=profile)
        panel.scores = replace(panel.scores, score=FORMULA)
        panel._draw()
        assert FORMULA in panel.picture.alt
        return
    made = LayerScores.of(FORMULA, np.arange(4.)) if kind == "ranking" else SHOWN[kind]()
    figure = made.plot().figure
    figure.canvas.draw()
    assert any(FORMULA in text.get_text().replace("\\", "") for text in figure.findobj(matplotlib.text.Text))
