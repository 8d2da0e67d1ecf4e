"Pictures of healing and of training show the numbers that they are given."
import numpy as np
import pytest
from test_plots import apart, close_figures, grey  # noqa: F401
from avss_nb import (
    Healing, HealingRecipe, InputError, LayerChanges, Measured, TrainingHistory, plain_axes
)
from avss_nb.draw.training import (
    factor_text, plot_healing, plot_healing_loss, plot_layer_changes, plot_losses
)

def history(steps=(0, 10, 30), layers=5, best=None, scores=None):
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(size=(len(steps), layers))) if scores is None else np.array(scores, float)
    return TrainingHistory(np.array(steps), scores, scores**2, 1 / scores, np.zeros(scores.shape, bool), np.array([[5, 2.], [10, 1.5], [30, 1.]]),
                           np.array([[30, 1.2]]), best_step=best)

def measured(nats, seed=0):
    tokens = np.full(40, 100)
    return Measured(4, 100, tokens * (nats + np.random.default_rng(seed).normal(0, 0.3, 40)), tokens)

def healing(**given):
    rows = ({"step": 1, "loss": 3., "next_token": 3.5}, {"step": 50, "loss": 2.})
    parts = {"original": measured(3.), "pruned": measured(4.), "healed": measured(3.2), "control": measured(2.9, 1)}
    return Healing(None, None, HealingRecipe(), rows, 50, parts, **given)

@pytest.mark.parametrize("what", ["score", "variance", "sparsity"])
def test_the_map_holds_the_changes(what):
    h = history()
    ax = plot_layer_changes(h, what=what)
    mesh = ax.collections[0]
    assert np.allclose(mesh.get_array(), h.change(what).T)   # a row for each layer, the first at the bottom
    low, high = mesh.get_clim()
    assert low == -high and high >= np.abs(h.change(what)).max()
    assert ax.get_ylim() == (-0.5, 4.5) and ax.get_xlim()[0] < 0 < 30 < ax.get_xlim()[1]
    edges = mesh.get_coordinates()[0, :, 0]
    assert all(a < step < b for a, step, b in zip(edges, h.steps, edges[1:]))

def test_the_scale_is_in_factors_and_names_the_largest_change():
    h = history((0, 10), 3, scores=[[1, 1, 1], [2, 1, 0.1]])
    ax = plot_layer_changes(h)
    assert "most: layer 2, ÷10" in ax.get_title("right")
    ticks = {t.get_text(): y for t, y in zip(ax.child_axes[0].get_yticklabels(), ax.child_axes[0].get_yticks())}
    assert ticks["same"] == 0 and ticks["×10"] == pytest.approx(np.log(10)) and ticks["÷3"] == pytest.approx(-np.log(3))
    assert [factor_text(np.log(x)) for x in (2, 0.5, 1.001)] + [factor_text(np.nan)] == ["×2", "÷2", "no change", "not defined"]

def test_one_measurement_and_many_layers_can_be_drawn():
    assert "no change yet" in plot_layer_changes(history((0,), 3)).get_title("right")
    assert len(plot_layer_changes(history((0, 1), 200)).get_yticks()) < 30

def test_updates_replace_what_was_shown():
    changes = LayerChanges(plain_axes(None))
    changes.update(history((0,), 5), last=100)
    assert changes.ax.get_xlim()[1] == 100
    changes.update(history(best=10), "variance")
    assert len(changes.ax.collections) == 1 and changes.best.get_visible() and list(changes.best.get_xdata()) == [10, 10]
    assert "weights kept" in changes.ax.get_xlabel() and "activation variance" in changes.ax.get_title("left")
    with pytest.raises(InputError, match="'loss' is not one of score, variance, sparsity"): changes.update(history(), "loss")

def test_what_shrank_is_hatched_cell_by_cell():
    h = history((0, 10, 30), 3, scores=[[1, 1, 1], [2, 1, 0.1], [0.4, 1, 0.9]])
    ax = plot_layer_changes(h)
    inside = np.array([[ax.patches[0].get_path().contains_point((step, layer)) for step in (0, 10, 25)] for layer in range(3)])
    assert inside.tolist() == [[False, False, True], [False] * 3, [False, True, False]]   # ÷1.1 is under a twentieth of the scale: not hatched
    assert ax.patches[0].get_hatch() and "hatched: decreased" in ax.get_ylabel()

def test_growth_and_shrinking_differ_in_grey():
    "A print without colour: only what shrank is textured."
    h = history((0, 10, 20), 2, scores=[[1, 1], [2, 0.5], [2, 0.5]])
    ax = plot_layer_changes(h)
    picture = grey(ax)
    def texture(layer):
        (x0, y0), (x1, y1) = ax.transData.transform([(16, layer - 0.4), (24, layer + 0.4)])
        return picture[int(len(picture) - y1):int(len(picture) - y0), int(x0):int(x1)].std()
    assert texture(0) < 1 and texture(1) > 10

@pytest.mark.parametrize("layers", [1, 12, 80])
def test_words_do_not_overlap(layers):
    h = history(layers=layers, best=10)
    for what in "score", "variance": apart(plot_layer_changes(h, what=what))
    gone = np.exp(np.random.default_rng(0).normal(size=(3, layers)))
    gone[:, 0] = np.nan
    apart(plot_layer_changes(history(layers=layers, scores=gone)))
    apart(plot_losses(h))
    apart(plot_healing(healing()))

def test_losses():
    ax = plot_losses(history())
    assert ax.lines[0].get_xydata().tolist() == [[5, 2], [10, 1.5], [30, 1]] and ax.lines[1].get_xydata().tolist() == [[30, 1.2]]
    assert "evaluation" in ax.get_title("right") and "now 1" in ax.get_title("left")

def test_healing_shows_before_and_after():
    h = healing()
    ax = plot_healing(h)
    marks = [line.get_xydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert [x for x, _ in marks] == pytest.approx([1 / h.kept(name=n)[0] for n in h.measured]) and [y for _, y in marks] == [0, 1, 2, 3]
    spans = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 2.5]
    assert np.allclose(spans, [[1 / x for x in h.kept(name=n)[:0:-1]] for n in h.measured])
    whole, cut = (h.measured[n].perplexity.value for n in ("original", "pruned"))
    assert ax.get_title("left").startswith(f"perplexity {whole:.3g} → {cut:.3g} (×{cut / whole:.2f}) after the cut, ")
    with pytest.raises(InputError, match="'accuracy' was not measured"): plot_healing(h, measure="accuracy")

def test_healing_losses():
    ax = plot_healing_loss(healing(control_history=({"step": 1, "loss": 2.5},)))
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[1, 3], [50, 2]], [[1, 2.5]]]
    with pytest.raises(InputError, match="no 'distillation'; it has step, loss, next_token"): plot_healing_loss(healing(), term="distillation")
