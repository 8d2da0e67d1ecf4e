"Panels of hallucination: live while a model answers, is profiled and is trained; controls afterwards; stop keeps what there is."
import base64
import io
import re
from dataclasses import replace
import ipywidgets as widgets
import numpy as np
import pytest
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from traitlets import TraitError
from avss_nb import (
    AnswerProfiler, Answers, ContrastiveMitigator, EAVSSScorer, Evaluator,
    HallucinationAnalyzer, HallucinationPanel, InputError, MitigationPanel, Question, Recipe,
    silent
)
from avss_nb.hallucination.mitigation import development_measures
from avss_nb.maths.moments import rms
from avss_nb.panels.hallucination import count_in_words, example_table, tally_bar
from avss_nb.panels.live import widget_parts
from avss_nb.panels.picture import sole_run
from test_panels import eager, front_end, image

@pytest.fixture(scope="module")
def questions(world): return world.questions("known", 24) + world.questions("unknown", 24)

@pytest.fixture(scope="module")
def answers(teaching, questions): return Evaluator(*teaching).answer(questions)

@pytest.fixture(scope="module")
def profile(teaching, answers): return AnswerProfiler(*teaching, sites=("output", "update"), batch_size=8).profile(answers, silent)

SCORER = EAVSSScorer(draws=60, probe=False, halves=2)

def analyzer(teaching, **settings): return HallucinationAnalyzer(*teaching, batch_size=8, scorer=SCORER, **settings)

def listening(panel):
    "What the panel says, and how often its picture changes."
    said, frames = [], []
    panel.status.observe(lambda change: said.append(re.sub("<[^>]*>", "", change["new"])), "value")
    panel.picture.widget.observe(lambda change: frames.append(change["new"]), "value")
    return said, frames

def stopping(kind, unit, at):
    "The panel, pressed ■ at an event."
    class Stopping(kind):
        def __call__(self, progress):
            super().__call__(progress)
            if progress.unit == unit and progress.done >= at: raise KeyboardInterrupt
    return Stopping

# --- words --------------------------------------------------------------------------------------------------------------

def test_answers_are_counted_and_the_surest_are_shown():
    questions = [Question("<b>?", ("yes",)), Question("two?", ("b",)), Question("three?", ("c",), answerable=False), Question("four?", ("d",))]
    given = Answers.judge(questions, ["yes", "x", "y", "unknown"], [[-0.1], [-2.], [-0.5], [-0.1]])
    assert count_in_words(given) == "1 right, 2 wrong, 1 abstained" and "width: 50.00%" in tally_bar(given)
    rows = [re.findall("<td>(.*?)</td>", row) for row in example_table(given, 1).split("<tr>")[2:]]
    assert rows == [["✗ wrong", "three?", "y", "nobody can know", "0.61"], ["✓ right", "&lt;b&gt;?", "yes", "yes", "0.90"]]

@pytest.mark.parametrize("seed", range(5))
def test_the_shown_answers_do_not_depend_on_their_order(seed):
    questions = [Question(f"question {i % 5}?", ("yes",)) for i in range(20)]
    given = Answers.judge(questions, [f"{'yes' if i % 3 else i}" for i in range(20)], [[-.5 * (i % 2)] for i in range(20)])
    assert example_table(given[np.random.default_rng(seed).permutation(20)]) == example_table(given)

# --- live ---------------------------------------------------------------------------------------------------------------

def test_a_run_answers_profiles_and_scores_under_ones_eyes(teaching, questions, answers):
    panel = eager(HallucinationPanel(analyzer(teaching), questions, batch_size=8))
    said, frames = listening(panel)
    scores = panel.run()
    assert panel.answers.texts == answers.texts
    assert any(re.fullmatch(r"question \d+ of 48: \d+ right, \d+ wrong, \d+ abstained, about \d+ s left; press ■ to stop", s) for s in said)
    assert any(re.fullmatch(r"batch \d of 6, \d+ faithful and \d+ hallucinated answers, about \d+ s left; press ■ to stop", s) for s in said)
    assert len(set(frames)) >= 4 and not panel.profile.partial and panel.bar.layout.display == "none"
    expected = SCORER.score(AnswerProfiler(*teaching, batch_size=8).profile(answers, silent))
    assert np.array_equal(scores.z, expected.z) and np.array_equal(scores.log_low, expected.log_low) and scores.halves == expected.halves
    assert panel.layer == panel.pick.value == panel.strip.value == (*scores.standing_out, 0)[0]
    assert "✗ wrong" in panel.examples.value and count_in_words(panel.answers) in panel.counts.value

def test_live_scores_are_those_of_the_answers_so_far(teaching, answers):
    class Watching(HallucinationPanel):
        seen = []
        def _live(self, progress):
            words = super()._live(progress)
            if progress.partial: self.seen.append((len(self.profile), self.scores))
            return words
    panel = eager(Watching(analyzer(teaching), answers=answers))
    panel.run()
    sizes = [size for size, _ in panel.seen]
    assert sizes == sorted(sizes) and len(sizes) >= 3 and sizes[-1] < 48
    assert all(np.isfinite(s.log_eavss).all() and np.isnan(s.halves[0]) for _, s in panel.seen)

def test_the_panel_listens_to_pieces_run_by_hand(teaching, questions):
    panel = eager(HallucinationPanel())
    given = Evaluator(*teaching).answer(questions, progress=panel)
    assert panel.text == f"Answered: {count_in_words(given)}."
    profile = AnswerProfiler(*teaching).profile(given, progress=panel)
    assert len(panel.profile) == len(profile) and panel.scores is not None and panel.answers.texts == given.texts

def test_stopped_while_answering_keeps_the_answers(teaching, questions):
    panel = stopping(HallucinationPanel, "question", 16)(analyzer(teaching), questions, batch_size=8)
    assert panel.run() is None and len(panel.answers) == 16 and panel.profile is None
    assert panel.text.startswith("Stopped; panel.run(answers=panel.answers)") and count_in_words(panel.answers) in panel.text
    with sole_run(): pass                                    # and the model is free again

def test_stopped_while_profiling_keeps_the_profile_and_its_scores(teaching, answers):
    panel = stopping(HallucinationPanel, "batch", 4)(analyzer(teaching), answers=answers)
    scores = panel.run()
    assert panel.profile.partial and len(panel.profile) == 32 and scores.partial and panel.scores is scores
    assert panel.text.startswith("Stopped early, partial result.") and "no probes" in panel.text

def test_after_a_stop_scores_are_quick_and_load_makes_them_full(teaching, answers):
    full = EAVSSScorer(draws=10_000, halves=2)
    panel = stopping(HallucinationPanel, "batch", 4)(HallucinationAnalyzer(*teaching, batch_size=8, scorer=full), answers=answers)
    quick = panel.run()
    used = panel.present_scorer()
    assert 99 <= used.draws < 10_000 and not used.probe and f"Quick score ({used.draws:,} draws" in panel.text
    assert np.array_equal(quick.q, used.score(panel.profile).q) and np.isnan(quick.probe).all() and np.isnan(quick.halves).all()
    panel.load(panel.profile)
    expected = full.score(panel.profile)
    assert panel.profile.partial and panel.text.startswith("Stopped early") and "Quick score" not in panel.text
    assert np.array_equal(panel.scores.q, expected.q) and panel.scores.halves == expected.halves
    assert np.array_equal(panel.scores.probe, expected.probe) and np.isfinite(expected.probe).all()

def test_a_run_stopped_by_hand_is_shown_when_its_cell_ends(teaching, answers):
    shell = InteractiveShell.instance()
    try:
        panel = eager(stopping(HallucinationPanel, "batch", 4)())
        shell.user_ns.update(profiler=AnswerProfiler(*teaching, batch_size=8), answers=answers, panel=panel)
        shell.run_cell("profile = profiler.profile(answers, progress=panel)").raise_error()
        assert shell.user_ns["profile"].partial and panel.profile.partial and panel.text.startswith("Stopped early")
        assert panel._cell_ended not in shell.events.callbacks["post_run_cell"]
    finally: InteractiveShell.clear_instance()

def test_what_cannot_be_run_is_refused(teaching, profile):
    with pytest.raises(InputError, match="no model"): HallucinationPanel(profile=profile).run()
    with pytest.raises(InputError, match="neither questions nor answers"): HallucinationPanel(analyzer(teaching)).run()
    with sole_run(): pass

# --- afterwards ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def panel(profile): return HallucinationPanel(profile=profile, scorer=SCORER)

@pytest.mark.parametrize("control, value, setting", [("site", "update", {"site": "update"}), ("eps", 0.5, {"eps": 0.5}),
                                                     ("relative", False, {"relative": False}), ("balanced", False, {"balance": ()})])
def test_every_control_scores_as_the_scorer_does(panel, profile, control, value, setting):
    shown = panel.picture.png
    setattr(getattr(panel, control), "value", value)
    expected = EAVSSScorer(draws=60, probe=False, halves=2, **setting).score(profile)
    assert np.array_equal(panel.scores.log_eavss, expected.log_eavss) and np.array_equal(panel.scores.q, expected.q)
    assert panel.picture.png != shown

def test_known_settings_are_not_scored_again_and_the_probe_only_for_another_balance(profile, monkeypatch):
    import avss_nb.panels.hallucination as module
    asked = []
    monkeypatch.setattr(module, "probe_auroc", lambda p, strata, seed: asked.append(len(set(strata))) or (np.full(12, 0.7),) * 3)
    panel = HallucinationPanel(profile=profile, scorer=EAVSSScorer(draws=20, halves=0))
    first = panel.scores
    assert np.array_equal(first.probe, np.full(12, 0.7)) and len(asked) == 1
    panel.eps.value = 0.5
    panel.eps.value = 0.1
    assert panel.scores is first and len(asked) == 1
    panel.balanced.value = False
    assert asked[1:] == [1] and "0.700" in panel.numbers.value

@pytest.mark.parametrize("picker", ["pick", "strip"])
def test_a_layer_is_picked(panel, picker):
    bars, histogram = panel.picture.png, panel.histogram.png
    other = 3 if panel.layer != 3 else 4
    front_end(getattr(panel, picker), index=other)
    assert panel.layer == panel.pick.value == panel.strip.value == other
    assert panel.picture.png != bars and panel.histogram.png != histogram and f"layer {other}," in panel.histogram.alt
    with pytest.raises(TraitError, match="layers 0 to 11"): panel.layer = 12

def test_the_numbers_of_the_layer_are_those_of_the_scores(panel, profile):
    panel.layer = 7
    shown, s = dict(re.findall("<td>([^<]*)</td><td><b>([^<]*)</b></td>", panel.numbers.value)), panel.scores
    assert float(shown["log EAVSS"]) == pytest.approx(s.log_eavss[7], rel=5e-3) and float(shown["z"]) == pytest.approx(s.z[7], abs=5e-3)
    assert float(shown["p"]) == pytest.approx(s.p[7], rel=5e-3) and shown["probe AUROC"] == "–"
    assert float(shown["HSAV, variance"]) == pytest.approx(s.hsav[7], rel=5e-3)
    assert f"ε = {0.1 * float(rms(profile.site('output').total())[7]):.3g}" in panel.histogram.alt

def test_a_balance_that_leaves_nothing_is_said_and_can_be_undone(profile):
    alone = replace(profile, answers=replace(profile.answers, questions=tuple(
        replace(q, kind=str(wrong)) for q, wrong in zip(profile.answers.questions, profile.labels))))
    panel = HallucinationPanel(profile=alone, scorer=SCORER)
    assert panel.scores is None and "balance on fewer attributes" in panel.text
    panel.layer = 2                                          # nothing to draw yet
    panel.balanced.value = False
    assert panel.scores.balance == () and "faithful" in panel.text

def test_the_sentence_names_what_stands_out_or_that_nothing_does(panel):
    def told(q):
        panel.scores = replace(panel.scores, q=np.array(q + [1.] * (12 - len(q))))
        panel._tell()
        return panel.text
    assert told([1., 0.01]).startswith("Layer 1 stands out") and "No layer stands out" in told([0.2]) and "0.2, layer 0" in panel.text
    assert told([0.01, 0.01]).startswith(f"Layers {', '.join(str(i) for i in panel.scores.layers(12) if i < 2)} stand out")

@pytest.mark.parametrize("q, words, cells", [
    ([1.] * 12, "no layer stands out from chance (smallest q: 1)", ("no layer does", "no layer does")),
    ([1.] * 9 + [0.01] + [1.] * 2, "layer 9 stands out (q < 0.05)", ("no", "yes"))])
def test_where_no_layer_stands_out_nothing_announces_an_order(profile, q, words, cells):
    "Status line, table, alternative text, and the layer at which the panel opens."
    class Fixed(EAVSSScorer):
        def score(self, profile): return replace(super().score(profile), q=np.array(q))
    panel = HallucinationPanel(profile=profile, scorer=SCORER)
    panel.scorer, panel._found, panel._new, panel.layer = SCORER, {}, True, 0
    panel.present_scorer = lambda probe=None: Fixed(draws=60, probe=False, halves=2)
    panel._show()
    assert panel.layer == (9 if "layer 9" in words else 0) and words in panel.picture.alt
    told = "No layer stands out from chance" if q[9] == 1 else "Layer 9 stands out"
    assert panel.text.startswith(told)
    for panel.layer, cell in zip((3, 9), cells): assert f"<td>stands out</td><td><b>{cell}</b></td>" in panel.numbers.value
    assert ("prone" in repr(panel.scores) + panel.scores._repr_html_()) is False

def test_the_bundle_holds_picture_and_words(panel):
    data, metadata = panel._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (1520, 540) and metadata["image/png"]["height"] == 270
    assert "HallucinationPanel: log EAVSS of the 12 layers" in data["text/plain"] and panel.text in data["text/plain"]

# --- every answer, and a person's verdict -----------------------------------------------------------------------------------

def rows(panel):
    "The rows of the table, each as a list of its cells."
    table = BeautifulSoup(panel.examples.value, "lxml")
    return [[cell.get_text() for cell in row.find_all("td")] for row in table.find_all("tr")[1:]]

def test_all_answers_can_be_paged_through_by_kind(profile, answers):
    panel = HallucinationPanel(profile=profile, answers=answers.abstain_below(0.5), scorer=SCORER)
    given = panel.answers
    kinds = {"all": np.ones(48, bool), "right": given.correct, "wrong": given.hallucinated, "withheld": given.abstained}
    assert [words for words, _ in panel.kind.options] == [f"{name} ({which.sum()})" for name, which in kinds.items()]
    for place, (name, which) in enumerate(kinds.items()):
        front_end(panel.kind, index=place)
        seen = []
        while True:
            page = rows(panel)
            assert 0 < len(page) <= 6 and [int(row[0]) for row in page] == [i for _, i in panel.number.options]
            assert panel.where.value == f"{len(seen) + 1} to {len(seen) + len(page)} of {which.sum()}"
            seen += page
            if panel.on.disabled: break
            panel.on.click()
        numbers = [int(row[0]) for row in seen]
        assert sorted(numbers) == np.flatnonzero(which).tolist() and panel.back.disabled == (len(seen) <= 6)
        sure = given.confidences[numbers]
        assert (np.diff(sure) <= 0).all()
        for i, row in zip(numbers, seen):
            q, verdict = given.questions[i], "right" if given.correct[i] else "withheld" if given.abstained[i] else "wrong"
            accepted = " | ".join(q.answers) if q.answerable else "nobody can know"
            assert row[1:4] == [q.text, given.texts[i], accepted] and row[4].split()[1] == verdict and row[5] == f"{sure[numbers.index(i)]:.2f}"
        before = panel.where.value
        panel.on.click()                                                           # no further page
        assert panel.where.value == before

def test_an_overruled_verdict_counts_at_once_and_scores_follow_on_the_button(teaching, profile, answers):
    panel = HallucinationPanel(profile=profile, answers=answers, scorer=SCORER)
    assert panel.kind.value == "wrong" and panel.again.disabled
    scores, first = panel.scores, panel.number.options[1][1]
    front_end(panel.number, index=1)
    assert panel.number.value == first and 'bold"><td>%d</td>' % first in panel.examples.value
    front_end(panel.verdict, index=0)
    assert panel.answers.texts == answers.texts and panel.answers.correct[first] and panel.answers.labelled.nonzero()[0].tolist() == [first]
    assert panel.scores is scores and not panel.again.disabled and "press “Score again”" in panel.text
    assert rows(panel)[1][4] == "✓ right (a person)" and count_in_words(panel.answers) in panel.counts.value   # it stays on the page
    panel.again.click()
    expected = SCORER.score(AnswerProfiler(*teaching, sites=("output", "update"), batch_size=8).profile(panel.answers, silent))
    for name in "log_eavss", "z", "p", "log_low": assert np.allclose(getattr(panel.scores, name), getattr(expected, name), atol=1e-9)
    assert panel.scores.faithful == scores.faithful + 1 and panel.again.disabled and "faithful" in panel.text
    counts = panel.profile.faithful.site("output").total().counts, panel.profile.hallucinated.site("output").total().counts
    assert int(counts[0][0].sum()) == 128 * panel.scores.faithful and int(counts[1][0].sum()) == 128 * panel.scores.hallucinated
    front_end(panel.verdict, index=1)                                              # as it was
    assert panel.overruled == {} and not panel.answers.labelled.any() and not panel.again.disabled
    panel.again.click()
    assert np.array_equal(panel.scores.log_eavss, scores.log_eavss) and np.array_equal(panel.scores.q, scores.q)

def test_answers_are_withheld_and_come_back_without_the_model(profile, answers):
    panel = HallucinationPanel(profile=profile, answers=answers, scorer=SCORER)
    scores, one = panel.scores, panel.number.value
    front_end(panel.verdict, index=2)
    panel.again.click()
    assert len(panel.profile) == 47 and panel.scores.hallucinated == scores.hallucinated - 1 and rows(panel)[0][4] == "– withheld (a person)"
    panel.overrule(one, False)
    panel.score_again()
    assert len(panel.profile) == 48 and np.array_equal(panel.scores.log_eavss, scores.log_eavss)

def test_only_answers_that_were_never_read_take_the_model(teaching, answers):
    shy = answers.abstain_below(np.sort(answers.confidences)[3])
    unread = np.flatnonzero(shy.abstained)
    assert len(unread) == 4
    panel = HallucinationPanel(analyzer(teaching), answers=shy)
    panel.run()
    assert len(panel.profile) == 44
    panel.overrule(int(unread[0]), False)
    alone = HallucinationPanel(profile=panel.profile, answers=shy, scorer=SCORER)
    alone.overrule(int(unread[0]), False)
    alone.again.click()
    assert f"answers {unread[0]} were withheld" in alone.text and "has no model" in alone.text and len(alone.profile) == 44
    with pytest.raises(InputError, match="has no model"): alone.score_again()
    panel.again.click()
    assert len(panel.profile) == 45 and panel.scores.hallucinated + panel.scores.faithful == 45 and panel.again.disabled

def test_what_cannot_be_overruled_is_refused(profile, answers):
    with pytest.raises(InputError, match="no answers yet"): HallucinationPanel().overrule(0, True)
    with pytest.raises(InputError, match="no layer is scored yet"): HallucinationPanel(answers=answers).score_again()
    panel = HallucinationPanel(profile=profile, answers=answers, scorer=SCORER)
    with pytest.raises(InputError, match="answers 0 to 47"): panel.overrule(48, True)
    with pytest.raises(InputError, match="give True, False or"): panel.overrule(0, "perhaps")
    assert panel.overruled == {} and panel.again.disabled
    alone = HallucinationPanel(answers=answers)
    alone.overrule(0, not answers.correct[0])
    assert alone.again.disabled and "Score again" not in alone.text and alone.answers.correct[0] != answers.correct[0]

def test_too_few_of_a_kind_after_overruling_is_said(profile, answers):
    panel = HallucinationPanel(profile=profile, answers=answers, scorer=SCORER)
    for i in np.flatnonzero(answers.hallucinated): panel.overrule(int(i), True)
    scores = panel.scores
    panel.again.click()
    assert "at least 2 of each are compared" in panel.text and panel.scores is scores

def test_texts_of_models_and_files_are_escaped_on_every_page():
    evil = '"><img src=x onerror=alert(1)>'
    asked = [Question(evil + "?", (evil + "!",), kind=evil, subject=evil)] * 2
    given = Answers.judge(asked, [evil, evil + "!"], [[-0.1], [-0.2]])
    panel = HallucinationPanel(answers=given)
    panel.kind.value = "all"
    panel.overrule(0, True)
    for part in widget_parts(panel.widget):
        if isinstance(part, widgets.HTML): assert not BeautifulSoup(part.value, "lxml").find(onerror=True)
    cells = BeautifulSoup(panel.examples.value, "lxml").find_all("td")
    assert cells[1].get_text() == evil + "?" == cells[1]["title"] and len(rows(panel)) == 2

def test_the_saved_notebook_keeps_the_page(profile, answers):
    panel = HallucinationPanel(profile=profile, answers=answers, scorer=SCORER)
    panel.on.click()
    assert panel.examples.value in panel._page()

# --- training -----------------------------------------------------------------------------------------------------------

RECIPE = Recipe(steps=6, every=2, batch_size=8, text_batch=2)

@pytest.fixture(scope="module")
def parts(world):
    return {"development": world.questions("known", 6, seed=3) + world.questions("unknown", 6, seed=3),
            "test": world.questions("known", 8, seed=4) + world.questions("unknown", 8, seed=4), "texts": world.texts(8)}

def mitigator(teaching, recipe=RECIPE): return ContrastiveMitigator(*teaching, [10, 11], recipe)

@pytest.fixture(scope="module")
def trained(teaching, answers, parts):
    "A panel that has trained and tested, with what it said."
    panel = eager(MitigationPanel(mitigator(teaching), parts["test"]))
    said, frames = listening(panel)
    found = panel.run(answers, parts["texts"], parts["development"])
    return panel, found, said, frames

def test_training_is_seen_step_by_step_and_look_by_look(trained):
    panel, found, said, frames = trained
    assert [row["step"] for row in panel.losses] == [*range(1, 7)] and [row["step"] for row in panel.looks] == [2, 4, 6]
    assert all({"loss", "answer", "abstain", "contrast", "retention"} <= row.keys() for row in panel.losses)
    for row, seen in zip(found.history, panel.looks): assert all(row[name] == seen[name] for name in ("reliability", "right", "ece"))
    told = [s for s in said if s.startswith("training step")]
    assert any(re.fullmatch(r"training step 3 of 6: loss \S+, reliability [+-]\S+ on the development questions, "
                            r"about \d+ s left; press ■ to stop", s) for s in told)
    assert len(set(frames)) >= 6 and panel.best == found.step and panel.mitigation is found

def test_before_and_after_are_the_answers_of_both_models(trained, teaching, parts):
    panel, found, *_ = trained
    before, after = (Evaluator(m, teaching[1]).answer(parts["test"]) for m in (teaching[0], found.model))
    assert panel.before.texts == before.texts and panel.after.texts == after.texts
    table = panel.compare()
    assert table.loc["right", "after"] == development_measures(after)["right"]
    assert table.loc["ECE", "change"] == pytest.approx(table.loc["ECE", "after"] - table.loc["ECE", "before"])
    assert f"<td>{table.loc['accuracy', 'before']:.3f}</td>" in panel.table.value and "On 16 test questions" in panel.text

def test_lines_and_diagrams_are_kept_one_under_the_other(trained):
    panel = trained[0]
    data, metadata = panel._repr_mimebundle_()
    kept = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert kept.size == (1720, 1180) and metadata["image/png"] == {"width": 860, "height": 590}
    assert kept.crop((0, 0, 1720, 580)).tobytes() == image(panel.picture).tobytes()
    assert kept.crop((0, 580, 1720, 1180)).tobytes() == image(panel.diagrams).tobytes()

def test_a_stopped_training_keeps_the_best_and_is_tested_when_asked(teaching, answers, parts):
    before = Evaluator(*teaching).answer(parts["test"])
    panel = stopping(MitigationPanel, "training step", 4)(mitigator(teaching), before)
    found = panel.run(answers, None, parts["development"])
    assert found.partial and found.step in (2, 4) and "retention" not in panel.losses[-1]
    assert panel.before is before and panel.after is None and panel.picture.png and not panel.diagrams.png
    assert panel.text == (f"Stopped early. Layers 10, 11 have the weights of step {found.step} of 6. "
                          "The 16 test questions are not asked yet: press the button, or call `ask()`.")
    table = panel.ask()
    assert panel.after.texts == Evaluator(found.model, teaching[1]).answer(parts["test"]).texts and panel.diagrams.png
    assert table.equals(panel.compare()) and panel.text.startswith("Stopped early.") and "On 16 test questions" in panel.text
    with sole_run(): pass                                    # and the model is free again

def test_a_stopped_test_keeps_the_training(teaching, answers, parts):
    panel = stopping(MitigationPanel, "question", 1)(mitigator(teaching), Evaluator(*teaching).answer(parts["test"]))
    found = panel.run(answers)
    assert not found.partial and panel.mitigation is found and panel.after is None and not panel.diagrams.png
    assert panel.text == "Layers 10, 11 have the weights of step 6 of 6. The 16 test questions are not asked yet: press the button, or call `ask()`."
    assert not panel.looks
    with pytest.raises(InputError, match="nothing was tested"): panel.compare()

def test_stopped_before_the_training_began_it_says_so(teaching, answers, parts, capsys):
    shell = InteractiveShell.instance()
    try:
        panel = eager(stopping(MitigationPanel, "question", 1)(mitigator(teaching), parts["test"]))
        panel.mitigator.evaluator.batch_size = 4
        shell.user_ns.update(panel=panel, answers=answers)
        assert isinstance(shell.run_cell("panel.run(answers)").error_in_exec, KeyboardInterrupt)
        said = [line for line in capsys.readouterr().out.splitlines() if "Stopped: " in line or "Traceback" in line or ".py" in line]
        assert said == ["Stopped: there is no result yet; what was measured before is kept"]
    finally: InteractiveShell.clear_instance()
    assert panel.mitigation is None and panel.text == "Stopped before the first training step: nothing is trained." and not panel.picture.png
    with pytest.raises(InputError, match="nothing was trained"): panel.ask()

def test_without_test_questions_there_is_nothing_to_ask(teaching, answers):
    panel = MitigationPanel(mitigator(teaching, replace(RECIPE, steps=1)))
    panel.run(answers)
    assert panel.text == "Layers 10, 11 have the weights of step 1 of 1."
    with pytest.raises(InputError, match="no test questions"): panel.ask()

def test_a_panel_listens_to_a_training_run_by_hand(teaching, answers):
    panel = MitigationPanel(mitigator(teaching))
    mitigator(teaching).train(answers, progress=panel)
    assert panel.text == "6 of 6 training steps." and len(panel.losses) == 6 and panel.mitigation is None

def test_a_training_taken_up_again_shows_its_earlier_looks(teaching, answers, parts, tmp_path):
    first = stopping(MitigationPanel, "training step", 4)(mitigator(teaching))
    first.run(answers, None, parts["development"], tmp_path / "checkpoint")
    second = MitigationPanel(mitigator(teaching))
    second.run(answers, None, parts["development"], tmp_path / "checkpoint")
    assert [row["step"] for row in second.looks] == [2, 4, 6] and [row["step"] for row in second.losses] == [2, 4, 5, 6]
