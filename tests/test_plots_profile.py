"The heat map of all statistics shows what was measured."
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from avss_nb import InputError, LayerProfile, Moments, plot_layer_statistics
from avss_nb.draw.layers import shade_rows, short_number
from test_plots import all_text, apart, axes, close_figures, grey, inked  # noqa: F401

def activations(layers=3): return torch.randn(layers, 50, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, layers + 1)[:, None, None]

def profile(layers=3, reference=True, **given):
    "Known activations as a profile of one group; they enter each block unchanged but for a sign."
    a = activations(layers)
    moments = [Moments.of(x, reference=(x * torch.tensor([1.] * 4 + [-1.] * 4)) if reference else None) for x in a]
    m = Moments.stack(moments)[None]
    return LayerProfile("m", "f", {"output": m}, **given)

def test_the_table_is_what_the_activations_say():
    a = activations().double()
    table = profile(losses=torch.tensor([[10., 12, 10, 30]]).double(), predicted=torch.tensor([10])).statistics("output", eps=0.5)
    share = (a.abs() < 0.5).double().mean((1, 2))
    expected = [a.var((1, 2), correction=0) / share, a.var((1, 2), correction=0), share, a.square().mean((1, 2)).sqrt(), a.abs().amax((1, 2)),
                torch.stack([1 - torch.cosine_similarity(x, x * torch.tensor([1.] * 4 + [-1.] * 4), dim=1).mean() for x in a]),
                torch.tensor([0.2, 0, 2])]
    for name, values in zip(table, expected): assert np.allclose(table[name], values, rtol=2e-2 if "share" in name or "AVSS" in name else 1e-5), name
    assert len(table.columns) == 7 and "ε = 0.5" in table.columns[2] and "nats" in table.columns[6]

def test_nothing_under_epsilon_gives_the_lower_bound_of_the_scorer():
    from avss_nb import LayerScorer
    p = profile()
    floored = LayerScorer(site="output", eps=1e-8, draws=0).score(p)
    assert floored.floored.all() and np.allclose(p.statistics("output", 1e-8)["AVSS (no unit)"], floored.values)

def test_the_darkest_cell_of_a_row_is_its_highest_value():
    table = profile(5).statistics("output", 0.5)
    ax = plot_layer_statistics(table, axes())
    shown = ax.collections[0].get_array()
    assert shown.shape == (6, 5) and (shown.argmax(1) == table.to_numpy().T.argmax(1)).all() and (shown.min(1) == 0).all() and (shown.max(1) == 1).all()
    assert [t.get_text() for t in ax.get_yticklabels()] == [*table]
    cells = {t.get_position(): t.get_text() for t in ax.texts}
    assert len(cells) == 30 and cells[2, 1] == short_number(table.iloc[2, 1]) and cells[4, 0] == short_number(table.iloc[4, 0])

def test_darkness_grows_with_the_value_in_grey_too():
    ax = plot_layer_statistics(pd.DataFrame({"rising": np.linspace(-1, 1, 9)}), axes())
    for t in ax.texts: t.set_visible(False)
    picture = grey(ax)
    at = ax.transData.transform([(i, 0) for i in range(9)]).astype(int)
    assert (np.diff([picture[len(picture) - y, x] for x, y in at]) < -5).all()

def test_numbers_can_be_read_on_their_cells():
    "The contrast of WCAG for text, 4.5 to 1."
    ax = plot_layer_statistics(pd.DataFrame({"rising": np.linspace(0, 1, 12)}), axes())
    def light(colour):
        c = np.asarray(plt.matplotlib.colors.to_rgb(colour))
        return np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    mesh = ax.collections[0]
    for text, face in zip(ax.texts, mesh.to_rgba(mesh.get_array()).reshape(-1, 4)):
        a, b = sorted((light(text.get_color()), light(face[:3])))
        assert (b + 0.05) / (a + 0.05) >= 4.5, text.get_text()

def test_rows_are_scaled_alone_and_on_the_log_scale_over_a_decade():
    rows = shade_rows(np.array([[1., 10, 100], [1, 2, 3], [-100, 0, 100], [5, 5, 5], [np.nan, 1, 2], [np.nan] * 3]))
    expected = [[0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1], [0.5] * 3, [np.nan, 0, 1], [np.nan] * 3]
    assert np.allclose(rows, expected, equal_nan=True)

@pytest.mark.parametrize("layers", [1, 12, 80])
def test_words_do_not_overlap(layers):
    table = pd.DataFrame(np.exp(np.random.default_rng(0).normal(0, 8, (layers, 7))), columns=[f"statistic {i} (nats a token)" for i in range(7)])
    table.iloc[0, 3] = np.nan
    apart(plot_layer_statistics(table, highlight=layers - 1))

def test_of_many_layers_the_ends_of_each_row_are_named():
    table = pd.DataFrame({"a": np.r_[np.nan, np.linspace(3, 7, 79)], "nothing": np.full(80, np.nan)})
    ax = plot_layer_statistics(table, axes())
    assert [t.get_text() for t in ax.texts] == ["3 (layer 1)\nto 7 (layer 79)"] and "grey: no value" in all_text(ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a"]  # a statistic that nobody measured has no row
    frame = plot_layer_statistics(table, axes(), highlight=7).patches[-1]
    assert frame.get_x() == 6.5 and frame.get_width() == 1

def test_bad_input_is_refused():
    with pytest.raises(InputError, match="no numbers"): plot_layer_statistics(pd.DataFrame({"a": [np.nan]}))
    with pytest.raises(InputError, match="layers 0 to 2"): profile().plot(site="output", highlight=3)
    with pytest.raises(InputError, match="not profiled"): profile().plot(site="mlp")

@pytest.mark.parametrize("x, text", [(0.00049, "0.00049"), (1.5e6, "1.5e6"), (735.4, "735"), (-0.055, "−0.055"), (2e-7, "2e−7"), (0, "0"), (1e12, "1e+12")])
def test_short_numbers(x, text): assert short_number(x) == text
