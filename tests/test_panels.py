"Panels: live, afterwards, and what stays. Driven as the front end drives them; the browser has a file of its own."
import base64
import gc
import io
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image
from traitlets import TraitError
from transformers import AutoModelForCausalLM
from avss_nb import (
    EDGES, SCORES, SITES, ContrastiveMitigator, Evaluator, InputError, LayerLab, LayerProfiler,
    LayerPruner, LayerRankingPanel, LayerScorer, MitigationPanel, Picture, Progress, PruningPanel, Recipe, Score,
    Throttle, compare_profiles, silent
)
from avss_nb.maths.calibration import MEASURES
from avss_nb.panels import live, picture
from avss_nb.panels.live import duration_in_words, list_layers, widget_parts
from avss_nb.panels.picture import sole_run
from avss_nb.panels.pruning import PERPLEXITIES, direction_mark, measure_label
from avss_nb.panels.ranking import CONTROLS, EPSILONS, scores_of
from conftest import SOAK, published
from tiny import tiny

TEXTS = torch.randint(3, 600, (48, 10), generator=torch.Generator().manual_seed(0)).tolist()

@pytest.fixture(scope="module")
def model(): return tiny("llama")

@pytest.fixture(scope="module")
def profile(model): return LayerProfiler(model, sites=SITES, ablation=True, batch_size=4).profile(TEXTS, progress=silent)

@pytest.fixture
def passes(model):
    "Forward passes of the model so far."
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    hook.remove()

def front_end(widget, **state):
    "A change as it arrives from the browser."
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})

def image(picture): return Image.open(io.BytesIO(picture.png)).convert("RGB")

def eager(panel):
    "The panel, drawing at every event."
    panel.throttle = Throttle(least=0, share=1e9)
    return panel

# --- live ---------------------------------------------------------------------------------------------------------------

def test_bars_move_while_the_profile_is_made(model):
    panel, frames, said = eager(LayerRankingPanel(layers=4)), [], []
    panel.picture.widget.observe(lambda change: change["new"].startswith("<img") and frames.append(change["new"]), "value")
    panel.status.observe(lambda change: said.append(change["new"]), "value")
    profile = LayerProfiler(model, batch_size=4).profile(TEXTS, progress=panel)
    assert len(set(frames)) >= 5 and len(frames) == len(set(frames)) == 12
    assert all(re.match('<img alt="[^"]{20,}" width="760" height="270"', frame) for frame in frames)
    progress = [re.search(r"batch (\d+) of 12, (\d+) tokens, about \d+ s left; press ■ to stop", s) for s in said]
    assert [(int(m[1]), int(m[2])) for m in progress if m] == [(i, 40 * i) for i in range(1, 12)]
    assert 'role="status" aria-live="polite"' in panel.status.value and "Least important" in panel.text
    assert panel.profile.tokens == profile.tokens and not panel.profile.partial

def test_the_last_state_is_that_of_the_returned_profile(model):
    panel = LayerRankingPanel()
    profile = LayerProfiler(model, batch_size=4).profile(TEXTS, progress=panel)
    expected = LayerScorer().score(profile)
    assert np.array_equal(panel.scores.values, expected.values) and np.array_equal(panel.scores.low, expected.low)
    assert panel.bar.layout.display == "none"
    again = LayerRankingPanel(profile=profile)
    assert image(panel.picture).tobytes() == image(again.picture).tobytes()

def test_drawing_is_throttled_but_the_first_and_the_last_are_drawn(model):
    panel, frames = LayerRankingPanel(), []
    panel.throttle = Throttle(least=3600)
    panel.picture.widget.observe(lambda change: change["new"].startswith("<img") and frames.append(1), "value")
    LayerProfiler(model, batch_size=2).profile(TEXTS, progress=panel)
    assert len(frames) == 2
    LayerProfiler(model, batch_size=2).profile(TEXTS[::-1], progress=panel)          # the same for a second run
    assert len(frames) == 4

@pytest.mark.parametrize("cost", [0.02, 0.06, 0.5])
@pytest.mark.parametrize("batch", [0.005, 0.3])
def test_drawing_takes_a_fiftieth_of_a_run_and_starts_at_once(monkeypatch, cost, batch):
    now = [100.]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    throttle, drawn, shares = Throttle(), [], []
    throttle.begin()
    while now[0] < 400:
        now[0] += batch
        if throttle.due():
            drawn.append(now[0] - 100)
            with throttle.frame(): now[0] += cost
        shares.append((throttle.spent, now[0] - 100))
    assert drawn[0] == pytest.approx(batch) and drawn[3] < 5 + 16 * cost
    assert all(spent <= max(0.02 * t, 4 * cost) + 1e-9 for spent, t in shares) and shares[-1][0] > 0.015 * shares[-1][1]
    assert min(np.diff(drawn)) >= 0.2 and max(np.diff(drawn)) < 250 * cost + 1

def test_between_two_frames_the_words_go_on(model):
    panel, said = LayerRankingPanel(), []
    panel.throttle = Throttle(least=3600)
    panel.status.observe(lambda change: said.append(change["new"]), "value")
    def listener(progress):
        panel._told -= 3600
        panel(progress)
    LayerProfiler(model, batch_size=4).profile(TEXTS, progress=listener)
    assert [re.search(r'aria-live="(\w+)".*batch (\d+) of 12, (\d+) tokens', s).groups() for s in said[-12:-1]] == [
        ("off" if i > 1 else "polite", str(i), str(40 * i)) for i in range(1, 12)]

def test_a_stopped_run_returns_and_shows_what_is_complete(model):
    class Stopping(LayerRankingPanel):
        def __call__(self, progress):
            super().__call__(progress)
            if progress.done == 5: raise KeyboardInterrupt
    panel = Stopping()
    profile = panel.run(LayerProfiler(model, batch_size=4), TEXTS)
    assert profile.partial and profile.texts == 20
    assert panel.profile is profile and panel.text.startswith("Stopped early") and np.isfinite(panel.scores.low).all()
    with sole_run(): pass                                    # and the model is free again

def test_a_run_that_fails_frees_the_model(model):
    panel = LayerRankingPanel()
    with pytest.raises(InputError): panel.run(LayerProfiler(model), ["a text without a tokenizer"])
    with sole_run(): pass

def frame(panel): return BeautifulSoup(panel.picture.widget.value, "lxml").get_text()

MEASURING = "Measuring: the first result comes after the first batch"

def test_until_the_first_batch_the_frame_says_what_it_waits_for(model):
    panel, seen = eager(LayerRankingPanel()), []
    assert "pass this panel as progress=" in panel.text and not frame(panel)
    class Profiler(LayerProfiler):
        def profile(self, texts, progress):
            seen.append((frame(panel), panel.text))
            def listener(event):
                progress(event)
                seen.append((frame(panel), panel.text))
            listener.hears_parts = True
            return super().profile(texts, listener)
    panel.run(Profiler(model, batch_size=4), TEXTS)
    (framed, said), (begun, words), *_ = seen
    assert (framed, said, begun) == (MEASURING, f"{MEASURING}.", MEASURING) and re.match("batch 0( of 12)?: begun", words)
    assert not any(shown for shown, said in seen if said.startswith("batch 1 ")) and panel.picture.png
    assert not any("progress=" in said for _, said in seen)
    shown = panel.picture.png
    with panel._begun(): assert panel.picture.png == shown   # another run: what was there stays until there is more

def test_a_frame_that_waits_in_vain_is_empty_again(model):
    panel = LayerRankingPanel()
    before = panel.text
    with pytest.raises(InputError): panel.run(LayerProfiler(model), ["a text without a tokenizer"])
    assert panel.text == before and not frame(panel)         # nothing was heard: the instruction is back
    assert panel.bar.layout.display == "none"
    class Stopped(LayerProfiler):
        def profile(self, texts, progress):
            progress(Progress(0, 12, "batch", begins=True))
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): panel.run(Stopped(model), TEXTS)
    assert panel.text == "Stopped before the first batch had ended." and not frame(panel)
    panel(Progress(0, 12, "batch", begins=True))
    assert frame(panel) == MEASURING                         # also where others started the run
    panel._cell_ended()
    assert panel.text == "Stopped before the first batch had ended." and not frame(panel)

def test_words_in_a_frame_are_text_in_the_shape_of_the_picture():
    picture = Picture(300, 120)
    picture.clear("<b>")
    assert "&lt;b&gt;" in picture.widget.value and "aspect-ratio: 300 / 120" in picture.widget.value and not picture.png

def test_a_stopped_run_is_shown_when_its_cell_ends(model):
    shell = InteractiveShell.instance()
    try:
        panel = eager(LayerRankingPanel())
        def listener(progress):
            panel(progress)
            if progress.done == 5: raise KeyboardInterrupt
        shell.user_ns.update(model=model, texts=TEXTS, listener=listener, LayerProfiler=LayerProfiler, found=[])
        shell.run_cell("found.append(LayerProfiler(model, batch_size=4).profile(texts, progress=listener))").raise_error()
        assert shell.user_ns["found"][0].texts == 20
        assert panel.text.startswith("Stopped early") and panel.profile.texts == 20 and panel.profile.partial
        assert panel._cell_ended not in shell.events.callbacks["post_run_cell"]
    finally: InteractiveShell.clear_instance()

def test_texts_of_unknown_number(model):
    panel, said = eager(LayerRankingPanel()), []
    panel.status.observe(lambda change: said.append(change["new"]), "value")
    profile = panel.run(LayerProfiler(model, batch_size=4), (text for text in TEXTS))
    assert any("batch 3, 120 tokens; press" in s for s in said)
    assert not profile.partial and "Stopped" not in panel.text and panel.profile.tokens == 480

def test_two_panels_do_not_disturb_each_other(model, profile):
    still, moving = LayerRankingPanel(profile=profile), eager(LayerRankingPanel())
    before = (still.picture.png, still.text, still.histogram.png, still.layer)
    LayerProfiler(model, batch_size=4, sites=["output"]).profile(TEXTS[:8], progress=moving)
    front_end(moving.strip, index=2)
    assert (still.picture.png, still.text, still.histogram.png, still.layer) == before
    assert moving.layer == 2 and moving.picture.png != still.picture.png

# --- afterwards ---------------------------------------------------------------------------------------------------------

def test_eps_moves_the_scores_without_a_forward_pass(profile, passes):
    panel = LayerRankingPanel(profile=profile)
    shown, values, words = panel.picture.png, panel.scores.values, panel.text
    front_end(panel.eps, index=panel.eps.index + 8)
    assert panel.scores.eps == 1 == panel.eps.value and not np.allclose(panel.scores.values, values)
    assert np.array_equal(panel.scores.values, LayerScorer(eps=1.).score(profile).values)
    assert panel.picture.png != shown and panel.text != words and not passes

@pytest.mark.parametrize("control, value", [("score", "ablation"), ("score", "block_influence"), ("site", "output"),
                                            ("site", "mlp"), ("aggregation", "neurons"), ("relative", True)])
def test_every_control_scores_as_the_scorer_does(profile, passes, control, value):
    panel = LayerRankingPanel(profile=profile, scorer=LayerScorer(eps=0.1, draws=100))
    shown = panel.picture.png
    setattr(getattr(panel, control), "value", value)
    expected = LayerScorer(**({"eps": 0.1, "draws": 100} | {control: value})).score(profile)
    assert np.array_equal(panel.scores.values, expected.values) and np.array_equal(panel.scores.high, expected.high)
    assert panel.scores.order == expected.order and panel.picture.png != shown and not passes

@pytest.mark.parametrize("score", [*SCORES])
def test_controls_that_do_nothing_are_switched_off_and_say_why(profile, score):
    panel = LayerRankingPanel(profile=profile, scorer=LayerScorer(draws=50))
    front_end(panel.score, index=panel.score.options.index(score))
    before, others = panel.scores, {"site": "mlp", "aggregation": "neurons", "eps": 0.3, "relative": True}
    for name, other in others.items():
        control = getattr(panel, name)
        kept, control.value = control.value, other
        matters = not np.array_equal(panel.scores.values, before.values)
        control.value = kept
        assert control.disabled != matters, name
        assert control.tooltip.startswith(f"Switched off: the score {score.replace('_', ' ')} ") == control.disabled
    assert panel.typed.disabled == panel.eps.disabled and not panel.score.disabled

def test_controls_are_switched_off_before_there_is_a_profile():
    panel = LayerRankingPanel(scorer=LayerScorer("ablation"))
    assert panel.site.disabled and "ablation is measured by the loss" in panel.site.tooltip

def test_every_choice_is_explained_below_the_controls_and_over_them(profile):
    panel = LayerRankingPanel(profile=profile, scorer=LayerScorer(draws=0))
    for name in "score", "site", "aggregation":
        control, seen = getattr(panel, name), set()
        for value in control.options:
            panel.score.value = "avss"
            control.value = value
            words = BeautifulSoup(panel.about.value, "lxml").div.get_text()
            sentence = re.search(rf"(?<!\w){value}: ([^.]+)\.", words)[1]
            assert len(sentence) > 15 and control.tooltip.endswith(f"{value}: {sentence}.")
            seen.add(sentence)
        assert len(seen) == len(control.options)
    tips = json.loads(BeautifulSoup(panel.about.value, "lxml").find(attrs={"data-tips": True})["data-tips"])
    assert tips == {f"avss-set-{name}": getattr(panel, name).tooltip for name in CONTROLS}
    assert all(f"avss-set-{name}" in getattr(panel, name)._dom_classes for name in CONTROLS)

def test_a_score_of_ones_own_is_explained_by_its_docstring(profile, monkeypatch):
    def mine(p):
        """Mean size of <an> update,
        per token.

        Parameters"""
        return p.token_mean("token_rms")
    monkeypatch.setitem(SCORES, "mine", Score("mine", mine))
    monkeypatch.setitem(SCORES, "short", Score("a label", lambda p: p.token_mean("token_rms")))
    panel = LayerRankingPanel(profile=profile, scorer=LayerScorer("mine", draws=0))
    assert "<b>mine</b>: Mean size of &lt;an&gt; update, per token." in panel.about.value
    assert not panel.site.disabled and not panel.aggregation.disabled and panel.eps.disabled
    panel.score.value = "short"
    assert "<b>short</b>: a label." in panel.about.value

@pytest.mark.parametrize("typed, eps", [("0.03", 0.03), (" 1e-5 ", 1e-5), ("0.0123", 0.0123), ("2", 2.)])
def test_a_typed_threshold_is_taken(profile, typed, eps, passes):
    panel = LayerRankingPanel(profile=profile)
    front_end(panel.typed, value=typed)
    assert panel.eps.value == panel.scores.eps == eps and f"ε = {eps:g}" in panel.text and not passes
    assert np.array_equal(panel.scores.values, LayerScorer(eps=eps).score(profile).values)
    steps = [value for _, value in panel.eps.options]
    assert steps == sorted({*EPSILONS, eps}) and panel.typed.value == f"{eps:g}"
    front_end(panel.eps, index=0)                           # the slider still moves, and the box follows
    assert panel.scores.eps == 1e-6 and panel.typed.value == "1e-06"

@pytest.mark.parametrize("typed", ["0", "-0.1", "0,03", "small", "nan", "inf", "", "1e-400"])
def test_a_typed_threshold_that_is_not_a_positive_number_is_refused(profile, typed):
    panel = LayerRankingPanel(profile=profile)
    scores, options, shown = panel.scores, panel.eps.options, panel.picture.png
    front_end(panel.typed, value=typed)
    assert panel.text == f"ε = {typed or 'nothing'} was typed; it must be a positive number, for example 0.03 or 1e-5."
    assert panel.scores is scores and panel.eps.options == options and panel.picture.png == shown
    assert panel.typed.value == "0.01" and panel.eps.value == 0.01

def test_a_threshold_that_is_typed_before_there_is_a_profile_counts(profile):
    panel = LayerRankingPanel()
    front_end(panel.typed, value="0.2")
    assert panel.text.startswith("Waiting")
    panel.load(profile)
    assert panel.scores.eps == 0.2

def test_the_order_follows_the_score(profile):
    panel = LayerRankingPanel(profile=profile)
    orders = set()
    for score in panel.score.options:
        panel.score.value = score
        orders.add(panel.scores.order)
        if score != "random": assert f"Least important: layers {list_layers(panel.scores.order[:3])}" in panel.text
    assert len(orders) > 1

def test_a_random_order_is_never_called_important(profile):
    panel = LayerRankingPanel(profile=profile)
    front_end(panel.score, index=panel.score.options.index("random"))
    parts = [part.value for part in widget_parts(panel.widget) if isinstance(part, ipywidgets.HTML)]
    kept, *live = (BeautifulSoup(page, "lxml").get_text() for page in [panel._repr_mimebundle_()[0]["text/html"], *parts])
    assert panel.text == "Random order: a control, not a ranking." and panel.text in kept
    drawn = [text.get_text() for text in panel.picture.figure.findobj(Text)]
    assert not [text for text in [kept, *live, *drawn] if "important" in text] and "a control, not a ranking" in drawn
    front_end(panel.score, index=0)
    drawn = [text.get_text() for text in panel.picture.figure.findobj(Text)]
    assert "Least important" in panel.text and not [text for text in drawn if "control" in text]
    panel.load(replace(profile, partial=True))
    front_end(panel.score, index=panel.score.options.index("random"))
    assert panel.text == "Stopped early, partial result. Random order: a control, not a ranking."

def test_only_scores_that_the_profile_can_give_are_offered(model, profile):
    assert scores_of(profile) == [*SCORES]
    small = LayerProfiler(model, sites=["mlp"]).profile(TEXTS[:4], progress=silent)
    offered, wanting = {"avss", "normalized_avss", "random"}, {"block_influence", "update_norm", "ablation"}
    assert offered <= {*scores_of(small)} and not wanting & {*scores_of(small)}
    panel = LayerRankingPanel(profile=small, scorer=LayerScorer("ablation"))
    assert [*panel.score.options] == scores_of(small) and panel.site.options == ("mlp",)
    assert panel.scores.site == "mlp" and "1 − cos(x, y)</td><td><b>–" in panel.numbers.value

def test_steps_of_eps_are_edges_of_the_histogram():
    assert np.isin(EPSILONS, EDGES.numpy()).all() and EPSILONS[0] == 1e-6 and EPSILONS[-1] == 1
    odd = LayerRankingPanel(scorer=LayerScorer(eps=0.0123))
    assert odd.eps.value == 0.0123 and len(odd.eps.options) == len(EPSILONS) + 1

def test_a_known_setting_is_not_scored_again(profile, monkeypatch):
    panel = LayerRankingPanel(profile=profile)
    first = panel.scores
    panel.eps.value = 0.1
    monkeypatch.setattr(LayerScorer, "score", lambda *_: pytest.fail("scored again"))
    panel.eps.value = 0.01
    assert panel.scores is first

@pytest.mark.parametrize("picker", ["pick", "strip"])
def test_a_layer_is_picked(profile, picker, passes):
    panel, seen = LayerRankingPanel(profile=profile), []
    panel.observe(lambda change: seen.append(change["new"]), "layer")
    bars, histogram = panel.picture.png, panel.histogram.png
    front_end(getattr(panel, picker), index=2)
    assert panel.layer == panel.pick.value == panel.strip.value == 2 and seen == [2]
    assert panel.picture.png != bars and panel.histogram.png != histogram and "layer 2" in panel.histogram.alt and not passes
    assert panel.strip.tooltips[2] == "look inside layer 2"

def test_the_numbers_of_the_layer_are_those_of_the_profile(profile):
    panel = LayerRankingPanel(profile=profile)
    panel.layer = 3
    frame = profile.to_frame().query("site == 'relative_update' and layer == 3").iloc[0]
    shown = dict(re.findall("<td>([^<]*)</td><td><b>([^<]*)</b></td>", panel.numbers.value))
    assert float(shown["variance"]) == pytest.approx(frame["variance"], rel=5e-3)
    assert float(shown["RMS"]) == pytest.approx(frame["rms"], rel=5e-3)
    assert float(shown["largest |activation|"]) == pytest.approx(frame["max |a|"], rel=5e-3)
    assert float(shown["sparsity, share under ε"].rstrip(" %")) == pytest.approx(100 * frame["sparsity"], rel=5e-3)
    distance = profile.to_frame().query("site == 'output' and layer == 3").iloc[0]["1 − cos(x, y)"]
    assert float(shown["1 − cos(x, y)"]) == pytest.approx(distance, rel=5e-3)
    assert shown["rank, 0 is the lowest"].split()[0] == str(panel.scores.order.index(3))

def test_a_layer_that_is_not_there_is_refused(profile):
    panel = LayerRankingPanel(profile=profile)
    with pytest.raises(TraitError, match="layers 0 to 3"): panel.layer = 4
    assert panel.layer == 0

def test_a_lower_bound_says_so(model):
    few = LayerProfiler(model, sites=["output"]).profile([TEXTS[0]], progress=silent)
    panel = LayerRankingPanel(profile=few, scorer=LayerScorer.published())
    panel.layer = int(np.flatnonzero(panel.scores.floored)[0])
    assert "<b>≥ " in panel.numbers.value

def test_a_profile_of_another_size_takes_its_place(profile):
    panel = LayerRankingPanel(profile=profile)
    panel.layer = 3
    big = LayerProfiler(many_layers(80)).profile([[*range(3, 20)]] * 4, progress=silent)
    panel.load(big)
    assert len(panel.strip.options) == 80 and panel.layer == 3 and panel._marks.layers == 80
    panel.layer = 79
    panel.load(profile)
    assert panel.layer == 0 and len(panel.pick.options) == 4

def many_layers(n):
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = dict(vocab_size=40, hidden_size=8, intermediate_size=8, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=n))

# --- what stays ---------------------------------------------------------------------------------------------------------

def test_what_is_kept_holds_a_picture_with_its_description_words_and_the_table(profile):
    panel = LayerRankingPanel(profile=profile)
    data, metadata = panel._repr_mimebundle_()
    page = BeautifulSoup(data["text/html"], "lxml")
    image, = page.find_all("img")
    assert image["alt"] == panel.picture.alt and base64.b64decode(image["src"].split(",")[1]) == panel.picture.png
    assert panel.text in page.get_text() and "largest |activation|" in page.table.get_text()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (1520, 540)
    assert metadata["image/png"]["width"] == 760
    assert "LayerRankingPanel: Dot plot of AVSS" in data["text/plain"] and "Least important" in data["text/plain"]
    assert "image/png" not in LayerRankingPanel()._repr_mimebundle_()[0]            # nothing to show yet

@pytest.mark.parametrize("last_line", ["panel", "display(panel)"])
def test_the_stored_picture_is_replaced_when_the_run_ends(model, last_line):
    sent = published(
        f"from IPython.display import display\n{last_line}", "p = LayerProfiler(model, batch_size=8).profile(texts, progress=panel)",
        panel=LayerRankingPanel(layers=4), model=model, texts=TEXTS, LayerProfiler=LayerProfiler)
    (live, where), (first, how), (last, update) = sent
    assert "application/vnd.jupyter.widget-view+json" in live and where["transient"] != how["transient"]
    assert how["transient"]["display_id"] == update["transient"]["display_id"] and update["update"] and not how.get("update")
    assert "image/png" not in first and base64.b64decode(last["image/png"]).startswith(b"\x89PNG")
    assert "Least important" in last["text/plain"]

def test_alternative_texts_are_escaped():
    picture = Picture(100, 80)
    picture.show('less < "more"')
    assert 'alt="less &lt; &quot;more&quot;"' in picture.widget.value and image(picture).size == (200, 160)

def test_what_is_kept_under_the_axes_is_what_a_fresh_drawing_shows():
    def draw(picture, top, label):
        for ax in picture.axs:
            for bars in [*ax.containers]: bars.remove()
            ax.bar(range(5), [top, 1, 2, 3, top / 2], color="C0")
            ax.set(ylim=(0, top), xlabel=label, ylabel="height (m)")
        picture.show("bars", sharp=False)
        return image(picture).tobytes()
    moved = Picture(600, 200, left=64, right=90, columns=2, gap=120)
    given = [(3, "short"), (3, "a much longer label " * 2), (4000, "a much longer label " * 2), (5e7, "short")]
    for frame, (top, label) in zip([draw(moved, *each) for each in given], given):
        assert frame == draw(Picture(600, 200, left=64, right=90, columns=2, gap=120), top, label)

# --- a cell that runs again ----------------------------------------------------------------------------------------------

@pytest.fixture
def notebook(model, profile, monkeypatch):
    "Runs code in a cell with this id, as a front end does; yields (run, names)."
    shell = InteractiveShell.instance()
    cells = picture.Cells()
    for module in live, picture: monkeypatch.setattr(module, "CELLS", cells)
    picture.CELLS.watch()
    shell.user_ns.update(model=model, profile=profile, texts=TEXTS[:8], LayerRankingPanel=LayerRankingPanel, LayerProfiler=LayerProfiler, live=live)
    try:
        shell.run_cell("from IPython.display import display")
        yield lambda code, cell=None: shell.run_cell(code, store_history=True, cell_id=cell).raise_error(), shell.user_ns
    finally: InteractiveShell.clear_instance()

def census(model):
    "Live widgets, figures and forward hooks."
    gc.collect()
    figures = sum(type(o) is Figure for o in gc.get_objects())
    return len(ipywidgets.widget._instances), figures, len(plt.get_fignums()), sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

RERUN = {"ranking": (15, "panel = LayerRankingPanel(layers=4)\nLayerProfiler(model, sites=['output'], batch_size=8).profile(texts, progress=panel)\npanel"),
         "mitigation": (3, "panel = MitigationPanel(mitigator, answers)\npanel.run(answers)\npanel"),
         "dashboard": (3, "panel = LayerLab(*teaching, ['a text'], questions)\npanel.profile()\npanel.prune(1)\npanel")}

@pytest.mark.soak
@pytest.mark.parametrize("kind", RERUN)
def test_reruns_leave_no_widget_figure_or_hook(notebook, model, teaching, world, kind):
    (run, names), (times, code) = notebook, RERUN[kind]
    if SOAK: times *= 10
    questions = world.questions("known", 6) + world.questions("unknown", 6)
    names.update(teaching=teaching, questions=questions, answers=Evaluator(*teaching).answer(questions), LayerLab=LayerLab, MitigationPanel=MitigationPanel,
                 mitigator=ContrastiveMitigator(*teaching, [11], Recipe(steps=1, batch_size=4, retention=0)))
    model = model if kind == "ranking" else teaching[0]
    for _ in range(4): run(code, "a")                       # IPython keeps the last three results
    before, callbacks = census(model), {k: len(v) for k, v in get_ipython().events.callbacks.items()}
    for _ in range(times): run(code, "a")
    assert census(model) == before and len(picture.CELLS.panels) == 1
    assert {k: len(v) for k, v in get_ipython().events.callbacks.items()} == callbacks
    assert names["panel"].picture.png and all(w.comm is not None for w in live.widget_parts(names["panel"].widget))

def closed(panel): return all(w.comm is None for w in live.widget_parts(panel.widget))

def test_a_panel_is_closed_only_when_no_cell_shows_it(notebook):
    run, names = notebook
    run("first = panel = LayerRankingPanel(profile=profile); display(panel)", "a")
    run("panel", "b")
    run("panel = LayerRankingPanel(profile=profile); display(panel)", "a")
    assert not closed(names["first"])                       # cell b shows it still
    run("1", "b")
    assert closed(names["first"]) and not closed(names["panel"])
    run("panel", "a")                                       # the same one again
    assert not closed(names["panel"])
    run("box = live.widgets.VBox([panel.widget])", "c")
    run("1", "a")
    assert not closed(names["panel"])                       # it is part of something else

def test_where_cells_are_not_known_nothing_is_closed(notebook):
    run, names = notebook
    run("first = LayerRankingPanel(profile=profile); display(first)")
    run("second = LayerRankingPanel(profile=profile); display(second)")
    assert not closed(names["first"]) and not closed(names["second"])

def test_panels_of_one_cell_live_side_by_side_and_a_cell_within_a_cell_is_the_same_cell(notebook):
    run, names = notebook
    run("a, b = (LayerRankingPanel(profile=profile) for _ in range(2)); display(a)\nget_ipython().run_cell('1 + 1')\ndisplay(b)", "x")
    assert not closed(names["a"]) and not closed(names["b"])

def test_a_closed_panel_keeps_its_results_and_opens_again(notebook):
    run, names = notebook
    run("panel = LayerRankingPanel(profile=profile); display(panel)", "a")
    panel, before = names["panel"], len(ipywidgets.widget._instances)
    panel.close()
    assert closed(panel) and panel.scores is not None and panel.picture.png and panel not in picture.CELLS.panels
    assert len(ipywidgets.widget._instances) == before - len(live.widget_parts(panel.widget))
    panel.layer = 2                                         # it can still be worked with
    run("panel", "b")
    assert not closed(panel) and len(ipywidgets.widget._instances) == before and "of layer 2" in panel.histogram.alt
    front_end(panel.strip, index=3)
    assert panel.layer == 3

def test_a_new_panel_takes_over_the_ids_of_a_closed_one(notebook):
    run, names = notebook
    run("first = LayerRankingPanel(profile=profile); display(first)\nids = {w.model_id for w in live.widget_parts(first.widget)}\nfirst.close()")
    run("second = LayerRankingPanel(profile=profile); display(second)")
    second = {w.model_id for w in live.widget_parts(names["second"].widget)}
    assert second == names["ids"] and closed(names["first"])
    run("display(first)")                                   # opens again, beside the other
    first = {w.model_id for w in live.widget_parts(names["first"].widget)}
    assert not first & second and len(first) == len(second)
    before = len(ipywidgets.widget._instances)
    run("mine = live.widgets.HTML('mine')\nfirst.close()\nother = live.widgets.HTML('other')")
    assert names["other"].model_id not in first and names["mine"].comm is not None        # what is not ours keeps its own ids
    assert len(ipywidgets.widget._instances) == before - len(first) + 2 * 3

AGAIN = """from IPython.display import clear_output
for _ in range({times}):
    clear_output({wait})
    panel = LayerRankingPanel(profile=profile)
    display(panel)
"""

def executed(folder, code):
    "State of the widgets (model id → state), and the last cell's outputs, as nbclient stores them."
    head = ("import torch; torch.set_num_threads(1)\nfrom IPython.display import display\nfrom avss_nb.panels.ranking import LayerRankingPanel\n"
            f"from avss_nb.layers.profiler import LayerProfile\nprofile = LayerProfile.load({str(folder / 'profile.safetensors')!r})")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (head, code)])
    NotebookClient(book, timeout=120, kernel_name="python3", store_widget_state=True, resources={"metadata": {"path": str(Path.cwd())}}).execute()
    return book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"], book.cells[1].outputs

def test_cleared_and_closed_panels_leave_the_state_of_an_executed_notebook(profile, tmp_path):
    profile.save(tmp_path / "profile.safetensors")
    once, _ = executed(tmp_path, AGAIN.format(times=1, wait=False))
    cleared, outputs = executed(tmp_path, AGAIN.format(times=5, wait=False))
    assert len(cleared) == len(once) and len(json.dumps(cleared)) < 1.1 * len(json.dumps(once)) and len(outputs) == 2
    shown = outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert shown in cleared and "data:image/png" in json.dumps(cleared)
    waiting, _ = executed(tmp_path, AGAIN.format(times=5, wait=True) + "panel.close()")    # the next is made before the last one goes
    assert len(waiting) <= 2 * len(once) and "data:image/png" not in json.dumps(waiting)

def test_front_ends_tell_their_cells(monkeypatch):
    cells = picture.Cells()
    for metadata, cell in ({"cellId": "a"}, "a"), ({"colab": {"cell_id": "b"}}, "b"), ({}, "from the shell"):
        monkeypatch.setattr(cells, "shell", type("Shell", (), {"get_parent": lambda self: {"metadata": metadata}})())
        cells.cell = "from the shell"
        assert cells.here() == cell
    found = []
    beside = threading.Thread(target=lambda: found.append(cells.here()))
    beside.start(); beside.join()
    assert found == [None]

# --- pruning ------------------------------------------------------------------------------------------------------------

class Report:
    def __init__(self, **values): self.values = values
    def to_dict(self): return {"n": 3, "accuracy": None, "perplexity": None, "intervals": {}} | self.values

@pytest.fixture
def pruning(model, profile):
    "A panel whose evaluation is the model's mean loss."
    ids = torch.tensor(TEXTS)
    def evaluate():
        with torch.no_grad(): loss = model(input_ids=ids, labels=ids).loss
        return Report(perplexity=float(loss.exp()), accuracy=0.5)
    panel = PruningPanel(model, None, LayerScorer("ablation").score(profile), evaluate)
    panel.truth = evaluate
    return panel

# --- from the ranking to pruning ------------------------------------------------------------------------------------------

def ranked(model, **settings):
    panel = LayerRankingPanel()
    panel.run(LayerProfiler(model, batch_size=4, **settings), TEXTS)
    return panel

def test_the_ranking_leads_on_to_pruning_its_lowest_layers(model, passes):
    panel = ranked(model)
    before, shown = len(passes), panel.picture.png
    assert not panel.onward.disabled and panel.onward.description == f"Prune these: layer {panel.scores.order[0]}"
    panel.onward.click()
    assert len(passes) <= before + 1 and not panel.pruning.reports and panel.picture.png == shown  # a probe; nothing is measured
    assert panel.pruning.removed == panel.scores.order[:1] and panel.onward.layout.display == "none"
    assert panel.pruning.widget in widget_parts(panel.widget)
    table = panel.pruning.preview()
    expected = Evaluator(model, None).evaluate(None, TEXTS, silent)
    assert table.loc["perplexity", "before"] == expected.perplexity
    with LayerPruner(model, None).remove(panel.pruning.removed).preview(): after = Evaluator(model, None).evaluate(None, TEXTS, silent)
    assert table.loc["perplexity", "after"] == after.perplexity
    panel.layer = 2
    assert panel.pruning.layer == 2
    panel.pruning.layer = 3
    assert panel.layer == 3 and panel.pictures == [panel.picture, *panel.pruning.pictures]
    assert panel.pruning.picture.alt in panel._page() and "perplexity" in panel._page()

def test_pruning_follows_the_ranking_and_goes_with_its_model(model, profile):
    panel = ranked(model, sites=SITES, ablation=True)
    first = panel.prune(count=2)
    assert first.removed == tuple(sorted(panel.scores.order[:2])) and panel.pruning is first
    panel.score.value = "ablation"
    assert panel.pruning is first and first.removed == tuple(sorted(LayerScorer("ablation").score(panel.profile).order[:2]))
    panel.load(LayerProfiler(tiny("gpt2"), batch_size=4).profile(TEXTS[:8], silent))
    assert panel.pruning is None and not panel.below.children and first.widget.comm is None
    assert panel.onward.layout.display == "" and panel.pictures == [panel.picture]
    panel.onward.click()
    assert "another model" in panel.text and panel.pruning is None                 # said, not raised

def test_without_a_model_the_button_says_what_to_write(model, profile):
    waiting, panel = LayerRankingPanel(), LayerRankingPanel(profile=profile)
    assert waiting.onward.disabled and "First there must be a ranking" in waiting.onward.tooltip
    with pytest.raises(InputError, match="no ranking yet"): waiting.prune(model, None, TEXTS)
    assert panel.onward.disabled and panel.onward.tooltip.endswith("write panel.prune(model, tokenizer, texts)")
    with pytest.raises(InputError, match="without texts"): panel.prune(model)
    with pytest.raises(InputError, match="knows no model"): panel.prune()
    assert panel.prune(model, None, TEXTS).removed == panel.scores.order[:1]
    again = LayerRankingPanel()
    again.run(LayerProfiler(model, batch_size=4), (text for text in TEXTS))        # texts that cannot be read twice
    assert again.onward.disabled and "panel.prune(" in again.onward.tooltip

def test_a_single_layer_must_stay(model):
    panel = LayerRankingPanel()
    single = AutoModelForCausalLM.from_config(type(model.config)(**{**model.config.to_dict(), "num_hidden_layers": 1}))
    panel.run(LayerProfiler(single, batch_size=4), TEXTS[:8])
    assert panel.onward.disabled and "one layer" in panel.onward.tooltip

def test_while_it_measures_the_ranking_does_not_lead_on(model):
    panel, seen = eager(LayerRankingPanel()), []
    def listener(event):
        panel(event)
        seen.append(panel.onward.disabled)
    LayerProfiler(model, batch_size=4).profile(TEXTS, listener)
    assert all(seen[:-1])

# --- two profiles -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def second(model):
    "A profile of the model with its second layer changed."
    from copy import deepcopy
    other = deepcopy(model)
    with torch.no_grad(): other.model.layers[1].mlp.down_proj.weight.mul_(3)
    return LayerProfiler(other, sites=SITES, batch_size=4).profile(TEXTS, progress=silent)

def test_a_second_profile_is_compared_by_the_settings_on_show(profile, second, passes):
    panel = LayerRankingPanel(profile=profile, other=second, names=("base", "tuned <b>"))
    def check():
        expected = compare_profiles(profile, second, panel.present_scorer(), ("base", "tuned <b>"))
        assert panel.comparison.to_frame().equals(expected.to_frame()) and not passes
        assert expected.summary() in panel.side.alt and panel.side.png
        words = BeautifulSoup(panel.agreement.value, "lxml").get_text(" ")
        assert expected.summary() in words and expected.sampled in words and "<b>" not in panel.agreement.value
        movers = expected.movers(4)
        listed = re.findall(r"<td>(\d)</td>\s*<td>[×+−]", panel.agreement.value)
        assert [*map(int, listed)] == movers[movers["moved"]]["layer"].tolist()[:3]
        return panel.side.png
    pictures = [check()]
    assert panel.comparison.movers(1)["layer"].tolist() == [1]
    for name, value in ("site", "output"), ("eps", 0.1), ("score", "block_influence"):
        getattr(panel, name).value = value
        pictures.append(check())
    assert len({*pictures}) == 4
    assert panel.figures()["comparison"] is panel.side and panel.pictures == [panel.picture, panel.side]
    page = BeautifulSoup(panel._page(), "lxml")
    assert [img["alt"] for img in page.find_all("img")] == [panel.picture.alt, panel.side.alt] and "two halves of base" in page.get_text()

def test_what_cannot_be_compared_is_said_and_the_ranking_stays(profile, second):
    panel = LayerRankingPanel(profile=profile)
    with pytest.raises(InputError, match="two different ones"): panel.compare(second, ("a", "a"))
    sites = {site: m.map(lambda t: t[:, :3]) for site, m in second.sites.items()}
    three = replace(second, sites=sites, first=None, largest=None)
    with pytest.raises(InputError, match="same count"): panel.compare(three)
    with pytest.raises(InputError, match="other"): panel.compare("second")
    assert panel.other is None and panel.compared.layout.display == "none" and "comparison" not in panel.figures()
    with pytest.raises(InputError, match="no profile to compare with"): LayerRankingPanel().compare(second)
    with pytest.raises(InputError, match="profile=a, other=b"): LayerRankingPanel(other=second)
    panel.compare(second)
    shown = panel.side.png
    for score, words in ("random", "a control"), ("ablation", "fine-tuned has no ablation losses"):
        panel.score.value = score
        assert panel.comparison is None and not panel.side.png and words in panel.side.widget.value and panel.agreement.value == ""
        assert panel.scores.score == score and panel.picture.png
    panel.score.value = "avss"
    assert panel.comparison and panel.side.png == shown
    assert panel.compare(None) is None and panel.compared.layout.display == "none" and panel.pictures == [panel.picture]

def test_another_first_profile_is_compared_anew(profile, second):
    panel = LayerRankingPanel(profile=profile, other=second)
    assert panel.comparison.movers(1)["moved"].all()
    panel.load(second)
    assert np.allclose(panel.comparison.changes()["change"], 1) and "No layer changed" in panel.agreement.value
    assert "changed most" not in panel.agreement.value

def test_the_slider_marks_the_lowest_layers_and_says_what_they_save(pruning, model, passes):
    assert pruning.count == 1 and pruning.removed == pruning.scores.order[:1]
    shown = pruning.picture.png
    front_end(pruning.slider, index=2)
    assert pruning.count == 2 and set(pruning.removed) == set(pruning.scores.order[:2]) and pruning.picture.png != shown
    block = sum(p.numel() for p in model.model.layers[0].parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert f"{whole - 2 * block:,} of {whole:,} parameters" in pruning.savings.value and not passes
    assert tuple(pruning._marks.gone.get_xdata()) == pruning.removed and len(pruning._marks.columns.get_paths()) == 2
    front_end(pruning.slider, index=0)
    assert pruning.plan is None and "Nothing is removed" in pruning.savings.value

def test_a_count_that_cannot_be_removed_is_refused(pruning):
    for count in 4, -1:
        with pytest.raises(TraitError, match=f"{count} layers were to be removed; the model has 4, give 0 to 3"): pruning.count = count
    assert pruning.count == 1 and pruning.slider.value == 1

def test_the_button_measures_before_and_after_and_leaves_the_model_alone(pruning, model):
    intact = pruning.truth().to_dict()["perplexity"]
    pruning.button.click()
    with pruning.plan.preview(): without = pruning.truth().to_dict()["perplexity"]
    assert pruning.compare().loc["perplexity", "before"] == pytest.approx(intact)
    assert pruning.compare().loc["perplexity", "after"] == pytest.approx(without)
    assert pruning.compare().loc["perplexity", "factor"] == pytest.approx(without / intact)
    assert "<span>+0.000</span>" in pruning.table.value and "accuracy 0.500 → 0.500, perplexity" in pruning.text
    assert f"×{without / intact:#.3g}" in pruning.table.value and pruning.text.endswith(f"(×{without / intact:#.3g}).")
    assert pruning.truth().to_dict()["perplexity"] == intact and not pruning.button.disabled

def test_what_was_measured_is_not_measured_again(pruning, passes):
    table = pruning.preview()
    assert len(passes) == 2
    pruning.preview()
    assert len(passes) == 2
    pruning.count = 2
    assert "avss-marked" not in pruning.table.value and "Press the button" in pruning.text
    pruning.preview()
    assert len(passes) == 3
    pruning.count = 1
    assert pruning.table.value and pruning.compare().equals(table) and len(passes) == 3

def test_the_button_refuses_while_another_run_is_going_on(pruning, passes):
    with sole_run(): pruning._press(None)
    assert "another run is in progress" in pruning.text and not passes and not pruning.button.disabled
    pruning._press(None)
    assert len(passes) == 2

def test_a_callback_beside_a_running_cell_is_refused(pruning, passes, monkeypatch):
    monkeypatch.setattr(picture.CELLS, "running", True)
    beside = threading.Thread(target=pruning._press, args=[None])
    beside.start(); beside.join()
    assert "another run is in progress" in pruning.text and not passes
    pruning._press(None)                       # from the cell itself it may
    assert len(passes) == 2

def test_cells_are_known_to_run_while_they_run():
    shell = InteractiveShell.instance()
    try:
        cells, seen = picture.Cells(), []
        shell.user_ns.update(cells=cells, seen=seen)
        shell.run_cell("cells.watch(); seen.append(cells.running)")
        seen.append(cells.running)
        shell.run_cell("seen.append(cells.running)")
        shell.run_cell("1 / 0", silent=False)
        seen.append(cells.running)
        assert seen == [True, False, True, False]
    finally: InteractiveShell.clear_instance()

def test_a_failing_evaluation_is_told_and_undone(pruning, model):
    pruning.evaluate = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError): pruning._press(None)
    assert "The evaluation failed: ZeroDivisionError" in pruning.text and not pruning.button.disabled
    assert not pruning.reports and not any(block._forward_hooks for block in model.model.layers)

def test_a_stopped_evaluation_keeps_what_was_measured(pruning, model, passes):
    truth = pruning.evaluate
    def stopping():
        if any(block._forward_hooks for block in model.model.layers) or () in pruning.reports: raise KeyboardInterrupt
        return truth()
    pruning.evaluate = stopping
    with pytest.raises(KeyboardInterrupt): pruning._press(None)
    assert pruning.text.startswith("Stopped before the measurement ended") and not pruning.button.disabled
    assert list(pruning.reports) == [()] and not any(block._forward_hooks for block in model.model.layers)
    pruning.evaluate = truth
    pruning._press(None)
    assert len(passes) == 2 and "accuracy 0.500 → 0.500" in pruning.text

def test_new_scores_mark_other_layers(pruning, profile):
    pruning.count = 2
    before, shown = pruning.removed, pruning.picture.png
    other = next(s for s in (LayerScorer("random", seed=i).score(profile) for i in range(20)) if set(s.order[:2]) != set(before))
    pruning.scores = other
    assert pruning.removed == tuple(sorted(other.order[:2])) and pruning.picture.png != shown
    with pytest.raises(InputError, match="another model"): PruningPanel(many_layers(4), None, other, lambda: {})

def table_cells(panel):
    "The rows of the table as text, the words for screen readers in place of the arrows."
    table = BeautifulSoup(panel.table.value, "lxml").table
    for mark in table.find_all(attrs={"role": "img"}): mark.replace_with(f"[{mark['aria-label']}]")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]

def test_the_table_says_which_layers_are_gone_and_which_direction_is_good(pruning):
    ends = {"accuracy": (0.4, 0.6)}
    pruning.evaluate = lambda: Report(accuracy=0.5, abstention_rate=0., perplexity=2., intervals=ends)
    pruning.pick([0, 1, 3])
    pruning.preview()
    head, *rows = table_cells(pruning)
    assert head == ["", "all layers", "without 3 layers (0, 1, 3)"]
    assert rows == [["accuracy [higher is better]", "0.500 (0.400 to 0.600)", "0.500 +0.000 (0.400 to 0.600)"],
                    ["abstention rate [neither direction is better in itself]", "0.00", "0.00 +0.000"],
                    ["perplexity [lower is better]", "2.00", "2.00 ×1.00"]]
    arrows = [mark.get_text() for mark in BeautifulSoup(pruning.table.value, "lxml").find_all(attrs={"role": "img"})]
    assert arrows == ["↑", "↕", "↓"]

def test_every_measure_of_a_report_has_a_direction(teaching, world):
    report = Evaluator(*teaching).evaluate(world.questions("known", 8), world.texts(2)).to_dict()
    names = [name for name in (*MEASURES, *PERPLEXITIES) if report.get(name) is not None]
    assert len(names) >= 8 and all(direction_mark(measure_label(name)) for name in (*MEASURES, *PERPLEXITIES))
    assert direction_mark("<b>") == ""

def test_tries_stand_side_by_side_newest_first_and_all_of_them_can_be_marked_again(pruning, passes):
    sets = [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 2, 3)]
    pruning.count = 0
    for layers in sets: pruning.preview(layers)
    assert pruning.tries == sets[::-1] and len(passes) == 8
    head = table_cells(pruning)[0]
    assert head[2:] == [f"without {len(s)} layer{'s' if len(s) > 1 else ''} ({', '.join(map(str, s))})" for s in sets[:1:-1]]
    assert [value for _, value in pruning.again.options] == sets[:1:-1]
    assert [value for _, value in pruning.older.options] == [(), (1,), (0,)]
    front_end(pruning.again, index=2)                       # one press
    assert pruning.removed == (0, 1) and pruning.count == 2 and pruning.compare().equals(pruning.compare((0, 1)))
    front_end(pruning.older, index=2)
    assert pruning.removed == (0,) and table_cells(pruning)[0][-1] == "without 1 layer (0)" and pruning.older.value == ()
    assert BeautifulSoup(pruning.table.value, "lxml").find(class_="avss-marked").get_text() == "without 1 layer (0)"
    assert {value for picker in (pruning.again, pruning.older) for _, value in picker.options} == {(), *sets} and len(passes) == 8

def test_measures_that_only_some_tries_have_leave_the_other_cells_empty(pruning):
    pruning.preview([0])
    pruning.reports[()]["auroc"] = 0.75
    pruning.reports[(1,)] = {"auroc": 0.5, "perplexity": 3.}
    pruning._show()
    rows = {row[0]: row[2:] for row in table_cells(pruning)[1:]}
    assert rows["AUROC of confidence [higher is better]"] == ["0.500 −0.250", ""] and rows["accuracy [higher is better]"] == ["", "0.500 +0.000"]

# --- by hand

def states(panel): return tuple(i for i, button in enumerate(panel.strip.children) if button.value)

def test_slider_buttons_and_code_mark_the_same_layers(pruning, passes):
    lowest = pruning.scores.order
    assert states(pruning) == pruning.removed == (lowest[0],)
    front_end(pruning.slider, index=2)
    assert states(pruning) == pruning.removed == tuple(sorted(lowest[:2])) and pruning.slider.label == "2 of 4 (50%)"
    front_end(pruning.strip.children[lowest[0]], value=False)
    front_end(pruning.strip.children[lowest[3]], value=True)
    by_hand = tuple(sorted([lowest[1], lowest[3]]))
    assert states(pruning) == pruning.removed == by_hand and pruning.count == 2 and not passes
    assert pruning.slider.label == "2 of 4, by hand" and tuple(pruning._marks.gone.get_xdata()) == by_hand
    assert f"Without layers {by_hand[0]}, {by_hand[1]}" in pruning.savings.value
    front_end(pruning.slider, index=3)                      # the ranking again
    assert states(pruning) == pruning.removed == tuple(sorted(lowest[:3])) and pruning.slider.label == "3 of 4 (75%)"
    pruning.pick(iter(by_hand[::-1]))
    assert states(pruning) == pruning.removed == by_hand and "by hand" in pruning.slider.label
    assert [label for label, _ in pruning.slider.options if "by hand" in label] == ["2 of 4, by hand"]
    pruning.pick()
    assert pruning.removed == tuple(sorted(lowest[:2])) and "by hand" not in pruning.slider.label

def test_the_set_of_the_ranking_is_not_by_hand_and_no_layer_may_be_marked(pruning):
    pruning.pick(pruning.scores.order[:3])
    assert pruning.slider.label == "3 of 4 (75%)" and pruning.count == 3
    pruning.pick([])
    assert pruning.plan is None and pruning.count == 0 and states(pruning) == () and pruning.slider.value == 0

def test_layers_that_cannot_go_are_refused_and_the_buttons_go_back(pruning):
    pruning.pick([0, 1, 2])
    front_end(pruning.strip.children[3], value=True)
    assert pruning.text == "all 4 layers were picked; at least one must stay"
    assert states(pruning) == pruning.removed == (0, 1, 2)
    for wrong, reason in ([4], "no layer 4"), ("12", "whole numbers"), (range(4), "at least one must stay"):
        with pytest.raises(InputError, match=reason): pruning.pick(wrong)
    assert pruning.removed == (0, 1, 2)

def test_new_scores_leave_what_was_picked_by_hand(pruning, profile):
    other = sorted(pruning.scores.order[2:])
    pruning.pick(other)
    pruning.scores = LayerScorer("random").score(profile)
    assert [*pruning.removed] == other
    pruning.preview()
    assert pruning.tries == [tuple(other)] and pruning.text.startswith(f"Without layers {other[0]}, {other[1]}: accuracy")

def test_buttons_of_layers_say_what_a_press_does(pruning):
    pruning.pick([2])
    assert [b.tooltip for b in pruning.strip.children] == [
        f"layer {i} goes; press to keep it" if i == 2 else f"layer {i} stays; press to remove it" for i in range(4)]

# --- apply and save

def test_apply_and_save_makes_the_model_that_was_tried(pruning, model, tmp_path):
    pruning.pick([1, 3])
    pruning.preview()
    front_end(pruning.folder, value=f" {tmp_path / 'new' / 'smaller'} ")
    pruning.save.click()
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "smaller")
    ids = torch.tensor(TEXTS[:4])
    with torch.no_grad(), pruning.plan.preview(): wanted = model(input_ids=ids, use_cache=False).logits
    with torch.no_grad(): assert torch.equal(small(input_ids=ids, use_cache=False).logits, wanted)
    note = json.loads((tmp_path / "new" / "smaller" / "pruning.json").read_text())
    assert note["removed"] == [1, 3] and note["quality"] == pruning.costs((1, 3)) and note["how"] == "chosen by hand"
    assert pruning.text.startswith(f"Saved to {tmp_path / 'new' / 'smaller'}: 2 of 4 layers, ") and not pruning.save.disabled
    assert "Verified: computes the same as the preview (" in pruning.text and "loads again completely" in pruning.text

def test_what_was_not_measured_is_saved_as_not_measured(pruning, tmp_path):
    pruned = pruning.apply(tmp_path / "smaller")
    assert pruned.quality.startswith("not measured; ") and len(pruned.model.model.layers) == 3

def test_folders_that_are_not_free_are_left_alone(pruning, tmp_path):
    pruning.apply(tmp_path / "earlier")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years")
    for taken in "earlier", "thesis", "thesis/chapter":
        pruning.folder.value = str(tmp_path / taken)
        before = sorted(tmp_path.rglob("*"))
        pruning.save.click()
        assert pruning.text == f"{tmp_path / taken} exists; give a folder that does not exist yet"
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    pruning.apply(tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").exists()

def test_without_a_folder_or_a_layer_nothing_is_made(pruning, tmp_path):
    pruning.save.click()
    assert pruning.text == "there is no folder yet; enter one for the smaller model"
    pruning.count = 0
    with pytest.raises(InputError, match="no layer is marked for removal"): pruning.apply(tmp_path / "m")
    assert not [*tmp_path.iterdir()]

def test_nothing_is_half_written(pruning, tmp_path, monkeypatch):
    from avss_nb.model import saving
    pruning.folder.value = str(tmp_path / "new" / "m")
    def full(*_): raise OSError("disk full")
    for broken, words in (full, "was not written (disk full)"), (lambda *_: 1 / 0, "Nothing was saved: ZeroDivisionError"):
        monkeypatch.setattr(saving, "save_model", broken)
        try: pruning.save.click()
        except ZeroDivisionError: pass
        assert words in pruning.text and not pruning.save.disabled
        assert not [*tmp_path.rglob("*.safetensors")] and not (tmp_path / "new" / "m").exists()
    def stop(*_): raise KeyboardInterrupt
    monkeypatch.setattr(saving, "save_model", stop)
    with pytest.raises(KeyboardInterrupt): pruning.save.click()
    assert pruning.text == "Stopped. Nothing was saved." and not (tmp_path / "new" / "m").exists()

def test_saving_refuses_while_another_run_is_going_on(pruning, tmp_path):
    pruning.folder.value = str(tmp_path / "m")
    with sole_run(): pruning.save.click()
    assert "another run is in progress" in pruning.text and not (tmp_path / "m").exists()

# --- what the model writes

def test_the_panel_shows_what_the_model_writes(teaching, world, tmp_path):
    model, tokenizer = teaching
    profile = LayerProfiler(*teaching).profile(world.texts(8), progress=silent)
    panel = PruningPanel(*teaching, LayerScorer(draws=0).score(profile), lambda: {"accuracy": 1.}, texts=world.texts(4))
    assert panel.written.value == ""
    panel.pick([0, 1])
    panel.preview()
    plan = LayerPruner(*teaching).remove([0, 1])
    wanted = plan.apply(texts=world.texts(4)).samples
    assert panel.continuations() == wanted and len(wanted) == 3
    for sample in wanted:
        for text in sample.values(): assert text in panel.written.value
    assert panel.apply(tmp_path / "m").samples == wanted
    panel.count = 2
    assert panel.removed == (0, 1) or panel.written.value == ""
    quiet = PruningPanel(*teaching, panel.scores, lambda: {"accuracy": 1.}, samples=0)
    quiet.preview()
    assert quiet.written.value == "" and quiet.continuations() == ()
    assert quiet.apply(tmp_path / "q").samples == ()

def test_what_a_model_writes_is_text(pruning):
    pruning.preview()
    pruning._written.update({(): {"<b>p": "<b>x\ny"}, pruning.removed: {"<b>p": ""}})
    pruning._show()
    assert "<b>" not in pruning.written.value and "&lt;b&gt;x ⏎ y" in pruning.written.value

# --- small things -------------------------------------------------------------------------------------------------------

def test_words():
    assert list_layers([3, 1]) == "3, 1" and list_layers(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more" and list_layers([]) == ""
    assert duration_in_words(5.4) == "5 s" and duration_in_words(600) == "10 min"
