"Curves of rankings and the map of distances keep their words apart and show the numbers."
import random
import numpy as np
import pytest
from avss_nb import AngularDistances, RankingComparison
from avss_nb.draw.comparison import plot_distances, plot_rankings
from test_plots import apart, close_figures  # noqa: F401

def comparison(layers=12, rankings=5, seed=0):
    "Rankings at random, and five random choices, of a model whose loss rises with what is removed."
    rng = np.random.default_rng(seed)
    worth = rng.gamma(0.5, 1, layers)
    def lost(gone): return np.random.default_rng(1).gamma(3, 10, 40) * (1 + worth[list(gone)].sum() / worth.sum())
    counts = range(1, max(2, layers // 2 + 1), max(1, layers // 12))
    removed = {f"ranking number {i}": {k: tuple(sorted(map(int, rng.permutation(layers)[:k]))) for k in counts} for i in range(rankings)}
    controls = {k: tuple(tuple(sorted(random.Random(f"{k} {i}").sample(range(layers), k))) for i in range(5)) for k in counts}
    sets = [(), *(s for d in removed.values() for s in d.values()), *(s for some in controls.values() for s in some)]
    return RankingComparison(removed, controls, {s: lost(s) for s in sets}, np.full(40, 30), {}, np.zeros(0, int), layers, "a model")

@pytest.mark.parametrize("layers, rankings", [(2, 1), (12, 5), (80, 8)])
def test_words_of_the_curves_do_not_overlap(layers, rankings): apart(plot_rankings(comparison(layers, rankings)))

def test_the_claim_is_named_at_its_line():
    ax = plot_rankings(comparison(), keep=0.8)
    (name,) = [t for t in ax.texts if "the papers" in t.get_text()]
    assert name.xy[1] == 0.8 and "80 % at 25 %" in name.get_text()
    assert [3, 0.8] in [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]   # a quarter of 12

@pytest.mark.parametrize("layers", [2, 12, 80])
def test_words_of_the_distances_do_not_overlap(layers):
    turned = np.abs(np.subtract.outer(np.arange(layers + 1), np.arange(layers + 1))) / (2 * layers)
    apart(plot_distances(AngularDistances(turned[None], np.ones(1, int), "all", "a model")))
