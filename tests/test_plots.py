"Pictures say what the numbers say."
from dataclasses import replace
import itertools
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from avss_nb import (
    EDGES, SITES, InputError, LayerProfile, LayerProfiler, LayerScorer, LayerScores, Moments,
    RankingBars, plot_histogram, plot_ranking, plot_reliability, plot_retention,
    plot_variance_sparsity, silent, sparsity
)
from avss_nb.draw.answers import wilson
from avss_nb.draw.layers import histogram_limits
from avss_nb.draw.style import number_text, plain_number
from avss_nb.maths.moments import BINS
from tiny import tiny

matplotlib.use("Agg")

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")

def scores(values, floored=(), **kwargs):
    values = np.asarray(values, float)
    none = np.full(len(values), np.nan)
    return LayerScores("avss", values, values * 0.9, values * 1.2, none, none, np.abs(values) + 1, np.full(len(values), 0.1),
                       np.isin(range(len(values)), floored), "output", "elements", 0.01, **kwargs)

def axes(): return Figure(figsize=(7, 3)).add_subplot()

def all_text(ax): return " ".join(t.get_text() for t in ax.findobj(matplotlib.text.Text) if t.get_visible())

def inked(ax):
    "The drawn picture as an array, (height, width, 4)."
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())

def apart(ax, *but):
    "All words of the figure stand inside it and do not overlap; texts that begin with one of `but` may be covered."
    inked(ax)
    extent, box = matplotlib.text.Text.get_window_extent, ax.figure.bbox  # without arrows
    words = {(t.get_text(), extent(t).bounds): extent(t) for t in ax.figure.findobj(matplotlib.text.Text)
             if t.get_visible() and t.get_text().strip() and not t.get_text().startswith(but or "\0") and on_picture(t)}
    outside = [text for (text, _), b in words.items() if b.x0 < -1 or b.y0 < -1 or b.x1 > box.x1 + 1 or b.y1 > box.y1 + 1]
    over = [(a[0], b[0]) for (a, x), (b, y) in itertools.combinations(words.items(), 2)
            if min(x.x1, y.x1) - max(x.x0, y.x0) > 1 and min(x.y1, y.y1) - max(x.y0, y.y0) > 1]
    assert not outside and not over, f"outside: {outside}; overlap: {over[:5]}"

def on_picture(text):
    "Ticks beyond the limits keep their text; they are not drawn."
    ticks = [(axis, tick) for ax in text.figure.axes + [c for a in text.figure.axes for c in a.child_axes] for axis in (ax.xaxis, ax.yaxis)
             for tick in (*axis.majorTicks, *axis.minorTicks) if tick.label1 is text or tick.label2 is text]
    return all(min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval()) for axis, tick in ticks)

def grey(ax):
    "The picture as a printer without colour gives it, (height, width)."
    return inked(ax)[..., :3] @ [0.299, 0.587, 0.114]

def marks(ax, shape="o", filled=True):
    "Where the marks of one shape stand: x, y; `filled=False`: the ring around the picked one."
    line = next(line for line in ax.lines if line.get_marker() == shape and (line.get_markerfacecolor() != "none") == filled)
    return [*map(float, line.get_xdata())], [*map(float, line.get_ydata())]

def intervals(ax): return next(c for c in ax.collections if isinstance(c, matplotlib.collections.LineCollection)).get_segments()
def columns(ax): return next(c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection))

def test_dots_have_the_heights_and_intervals_of_the_scores():
    s = scores([3., 1., 2., 5.])
    ax = plot_ranking(s, ax=axes())
    assert marks(ax) == ([0, 1, 2, 3], [3, 1, 2, 5]) and not ax.patches
    segments = intervals(ax)
    assert np.allclose([(seg[0][1], seg[1][1]) for seg in segments], np.stack([s.low, s.high], 1))
    assert ax.get_ylim()[1] > 6

def test_every_interval_end_is_inside_the_axes_when_the_scale_is_logarithmic():
    s = replace(scores([1e-3, 1., 50.]), low=np.array([-1., 0.5, 40]), high=np.array([2e-3, 2, 9e4]))
    ax = plot_ranking(s, ax=axes())
    ends = np.concatenate([seg[:, 1] for seg in intervals(ax)])
    assert ax.get_yscale() == "log" and (ends >= ax.get_ylim()[0]).all() and (ends <= ax.get_ylim()[1]).all()

def test_large_numbers_stand_at_their_ticks():
    ax = plot_ranking(LayerScores.of("avss", [1.1e8, 3e8, 2e8]))
    ax.figure.canvas.draw()
    assert ax.yaxis.get_offset_text().get_text() == "" and "3e8" in [t.get_text() for t in ax.get_yticklabels()]
    assert [plain_number(x) for x in (0, 1e-4, -2.5, 3000, 2.5e8, -3e-7, 0.1 + 0.2)] == ["0", "1e−4", "−2.5", "3000", "2.5e8", "−3e−7", "0.3"]

@pytest.mark.parametrize("values, scale", [([1, 9.9], "linear"), ([1, 10.1], "log"), ([0, 1, 1000.], "linear"),
                                           ([-1, 1, 1000.], "linear")])
def test_the_scale_is_logarithmic_only_for_positive_values_over_a_decade(values, scale):
    assert plot_ranking(scores(values), ax=axes()).get_yscale() == scale

def test_on_a_logarithmic_scale_the_dots_use_the_height_and_start_nowhere():
    "As met on a real model: one layer is a thousand times the others, which spread over a decade."
    values = np.r_[3000., np.geomspace(1, 10, 11)]
    ax = plot_ranking(replace(scores(values), low=values * 0.9, high=values * 1.1), ax=axes())
    low, high = np.log(ax.get_ylim())
    heights = (np.log(values[1:]) - low) / (high - low)
    assert heights.min() < 0.1 and np.ptp(heights) > 0.2 and len(ax.get_yticks()) >= 3

def test_negative_scores_stand_below_the_line_at_zero():
    ax = plot_ranking(scores([-0.5, 2.]), ax=axes())
    low, high = ax.get_ylim()
    assert low < -0.5 and marks(ax)[1] == [-0.5, 2] and any(list(line.get_ydata()) == [0, 0] for line in ax.lines)

def test_ordered_dots_carry_their_layer_numbers():
    s = scores([3., 1., 2., 5.])
    ax = plot_ranking(s, ax=axes(), ordered=True, remove=[1], highlight=3)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "0", "3"]
    assert marks(ax, "X") == ([0], [1]) and marks(ax) == ([1, 2, 3], [2, 3, 5]) and marks(ax, filled=False) == ([3], [5])

def test_removal_is_marked_by_shape_hatch_and_colour_and_in_words():
    ax = plot_ranking(scores([3., 1., 2., 5.], floored=[2]), ax=axes(), remove=(1, 2))
    assert marks(ax, "X") == ([1, 2], [1, 2]) and marks(ax) == ([0, 3], [3, 5]) and columns(ax).get_hatch()
    assert [path.get_extents().intervalx.tolist() for path in columns(ax).get_paths()] == [[0.5, 1.5], [1.5, 2.5]]
    colours = [c.tolist() for c in next(c for c in ax.collections if len(c.get_colors() if hasattr(c, "get_colors") else []) == 4).get_colors()]
    assert colours[0] == colours[3] != colours[1] == colours[2]                    # the intervals, too
    assert "2 of 4 removed" in all_text(ax)

def test_lower_bounds_are_marked_where_they_are():
    ax = plot_ranking(scores([3., 1., 2.], floored=[2]), ax=axes())
    marks = [line for line in ax.lines if line.get_marker() == "^"][0]
    assert list(marks.get_xdata()) == [2] and list(marks.get_ydata()) == [2] and "lower bound" in all_text(ax)
    assert "lower bound" not in all_text(plot_ranking(scores([3., 1.]), ax=axes()))

@pytest.mark.parametrize("layers", [1, 5, 12, 32, 80, 126])
def test_layer_numbers_do_not_overlap(layers):
    ax = plot_ranking(scores(np.linspace(1, 2, layers)), ax=axes(), highlight=layers - 1)
    inked(ax)
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    assert len(boxes) >= min(layers, 5) and all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))
    assert ax.texts[0].get_window_extent().x1 <= ax.figure.bbox.x1

def test_moving_the_dots_gives_the_picture_that_plotting_anew_gives():
    first, second = scores([3., 1e3, 2., 5.], floored=[0]), scores([-1., 4., 2., 3.])
    moved = RankingBars(axes(), 4)
    moved.update(first, remove=[1, 3], highlight=2)
    inked(moved.ax)
    moved.update(second, highlight=1)
    anew = RankingBars(axes(), 4)
    anew.update(second, highlight=1)
    assert np.array_equal(inked(moved.ax), inked(anew.ax))
    with pytest.raises(InputError, match="3 layers"): moved.update(scores([1., 2, 3]))

def test_scores_without_intervals_and_constant_scores_draw():
    none = np.full(3, np.nan)
    for values in ([0., 0, 0], [1., 1, 1]):
        ax = plot_ranking(replace(scores(values), low=none, high=none), ax=axes())
        assert len(intervals(ax)) == 0
        inked(ax)

def test_the_result_plots_itself():
    assert marks(scores([1., 2.]).plot(highlight=1), filled=False) == ([1], [2])

def test_pictures_are_opaque_and_dark_on_white_where_no_page_is_chosen():
    with plt.rc_context({"figure.facecolor": "none", "axes.facecolor": "none"}):
        ax = plot_ranking(scores([1., 2.]))
        picture = inked(ax)
    assert (picture[..., 3] == 255).all() and (picture[0, 0, :3] == 255).all()
    labels = [*ax.get_xticklabels(), ax.xaxis.label, ax.yaxis.label, *ax.findobj(lambda a: a is ax._left_title)]
    assert all(matplotlib.colors.to_rgb(label.get_color()) < (0.5, 0.5, 0.5) for label in labels)

@pytest.fixture(scope="module")
def profile():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(3, 600, (20, 12), generator=generator).tolist()
    return LayerProfiler(tiny("llama"), sites=SITES, batch_size=4).profile(texts, progress=silent)

@pytest.mark.parametrize("eps", [1e-4, 0.01, 0.037, 1.])
def test_the_shaded_area_is_the_sparsity(profile, eps):
    ax = plot_histogram(profile, "update", 2, axes(), eps)
    steps = ax.patches[1].get_data()
    area = (steps.values * np.diff(np.log10(steps.edges))).sum() / 100
    assert area == pytest.approx(float(sparsity(profile.site("update").total()[2], eps)), abs=2e-5)
    assert f"ε = {eps:g}" in all_text(ax)

def test_the_histogram_shows_all_activations(profile):
    whole = plot_histogram(profile, "output", 0, axes()).patches[0].get_data()
    assert (whole.values * np.diff(np.log10(whole.edges))).sum() == pytest.approx(100)
    low, high = histogram_limits(profile.site("output").total())
    assert low < high and high >= float(profile.site("output").maximum.max())

def test_histograms_of_any_counts_draw():
    for at in 0, 1, 60, BINS - 2, BINS - 1:
        counts = torch.zeros(BINS, dtype=torch.long)
        counts[at] = 5
        one = torch.ones(1, 1).double()
        moments = Moments(one.long(), one.long(), one[..., None], one[..., None], counts[None, None], one, one, one, one)
        inked(plot_histogram(LayerProfile("m", "f", {"output": moments}), "output", 0, axes(), eps=float(EDGES[50])))

def test_a_layer_that_is_not_there_is_refused(profile):
    with pytest.raises(InputError, match="layers 0 to 3"): plot_histogram(profile, "output", 4)
    with pytest.raises(InputError, match="not profiled"): plot_histogram(profile, "nowhere", 0)

def test_layers_stand_at_their_sparsity_and_variance(profile):
    s = LayerScorer(site="update").score(profile)
    ax = plot_variance_sparsity(s, axes())
    assert np.allclose(ax.collections[0].get_offsets(), np.stack([s.sparsity, s.variance], 1))
    assert [t.get_text() for t in ax.texts if t.get_text().isdigit()] == ["0", "1", "2", "3"]
    for line in ax.lines: assert np.ptp(np.divide(*line.get_data()[::-1])) < 1e-9 * np.max(line.get_ydata())    # one AVSS a line
    inside = ax.get_xlim()[0] < s.sparsity.min() and s.sparsity.max() < ax.get_xlim()[1]
    assert inside and ax.get_ylim()[0] < s.variance.min() and s.variance.max() < ax.get_ylim()[1]

@pytest.mark.parametrize("layers", [1, 12, 80])
@pytest.mark.parametrize("ordered", [False, True])
def test_words_of_the_ranking_do_not_overlap(layers, ordered):
    values = np.exp(np.random.default_rng(0).normal(0, 3, layers))
    apart(plot_ranking(replace(scores(values, floored=[0]), site="relative_update"), remove=range(layers // 4), highlight=0, ordered=ordered))
    apart(plot_ranking(replace(scores(values), site="relative_update"), ordered=ordered))

@pytest.mark.parametrize("layers", [12, 30])
@pytest.mark.parametrize("rows, columns, size", [(1, 2, (9, 2.8)), (1, 2, (7.5, 2.8)), (2, 1, (8, 5.2)), (2, 1, (7.5, 4))])
@pytest.mark.parametrize("ordered", [False, True])
def test_words_of_two_rankings_on_one_sheet_do_not_overlap(layers, rows, columns, size, ordered):
    values = np.exp(np.random.default_rng(0).normal(0, 3, layers))
    axs = np.ravel(plt.subplots(rows, columns, figsize=size, layout="constrained")[1])
    for ax, floored in zip(axs, ([0], [])):
        found = replace(scores(values, floored), site="relative_update")
        plot_ranking(found, ax, remove=found.order[:3], highlight=layers - 1, ordered=ordered)
    apart(axs[0])
    for ax in axs: assert "AVSS on relative update" in all_text(ax) and f"3 of {layers} removed" in all_text(ax)

@pytest.mark.parametrize("layers", [12, 30])
def test_two_rankings_without_a_highlight_fill_their_sheet(layers):
    "A ring around nothing had a place in the layout, and the axes beside it collapsed."
    axs = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")[1]
    for ax in axs: plot_ranking(replace(scores(np.arange(1., layers + 1)), site="relative_update"), ax, remove=[0, 1])
    apart(axs[0])
    assert min(ax.bbox.width for ax in axs) > 350

def test_a_layer_without_a_score_stays_blank_and_is_told():
    values = np.array([3., np.nan, 2., 500.])
    ax = plot_ranking(scores(values), highlight=1)
    assert [y for y in marks(ax)[1] if y == y] == [3, 2, 500] and ax.get_yscale() == "log"
    assert len(intervals(ax)) == 3 and "blank: no value" in all_text(ax)
    apart(ax)
    apart(plot_ranking(scores([np.nan, np.nan])))

@pytest.mark.parametrize("ordered", [False, True])
def test_a_random_order_is_never_called_important(ordered):
    random = replace(scores([3., 1, 2]), score="random")
    ax = plot_ranking(random, ordered=ordered)
    assert "random order" in ax.get_title("right") and "important" not in all_text(ax)
    assert ax.get_xlabel() == ("layer, in random order" if ordered else "layer (0: first)")
    assert "random order: " in repr(random) and "important" not in repr(random)
    assert "least important first: 1, 2, 0" in repr(scores([3., 1, 2]))

def test_removed_layers_differ_in_grey_too():
    "A hatch behind a dot: the column is not of one grey."
    ax = plot_ranking(scores([2., 2.]), axes(), remove=[1])
    picture = grey(ax)
    def shades(layer):
        left, right = (int(ax.transData.transform((layer + side, 1))[0]) for side in (-0.35, -0.1))
        return np.ptp(picture[picture.shape[0] // 2 - 30:picture.shape[0] // 2 + 30, left:right])
    assert shades(0) < 5 and shades(1) > 20

@pytest.mark.parametrize("layers", [1, 12, 80])
def test_the_plane_of_many_layers(layers):
    rng = np.random.default_rng(1)
    s = replace(scores(np.ones(layers)), variance=np.exp(rng.normal(0, 2, layers)), sparsity=rng.uniform(0.001, 0.5, layers))
    ax = plot_variance_sparsity(s)
    assert [t.get_text() for t in ax.texts if t.get_text().isdigit()] == [str(i) for i in range(layers)]
    apart(ax, *["AVSS "] * (layers > 12))  # discs may cover the name of a line where they are many

def test_a_layer_without_variance_is_left_out_of_the_plane_and_is_told():
    s = replace(scores(np.ones(3)), variance=np.array([1., np.nan, 2]), sparsity=np.array([0.1, 0.2, 0.3]))
    ax = plot_variance_sparsity(s)
    assert [t.get_text() for t in ax.texts if t.get_text().isdigit()] == ["0", "2"] and "1 layers without a value" in all_text(ax)
    assert np.allclose(ax.collections[0].get_offsets(), [[0.1, 1], [0.3, 2]])

def test_one_layer_and_zero_variance_draw():
    inked(plot_variance_sparsity(replace(scores([1.]), variance=np.array([0.])), axes()))

def retention_table(): return pd.DataFrame(
    [{"ranking": "ours", "removed": k, "value": v} for k, v in enumerate([0.8, 0.7, 0.1])]
    + [{"ranking": "random", "removed": k, "value": v} for d in range(3) for k, v in enumerate([0.8, 0.1 * d, 0.05 * d])])

def test_random_draws_become_a_band_with_their_mean():
    ax = plot_retention(retention_table(), axes())
    ours, mean = ax.lines[0], ax.lines[1]
    assert list(ours.get_ydata()) == [0.8, 0.7, 0.1] and np.allclose(mean.get_ydata(), [0.8, 0.1, 0.05])
    band = ax.collections[0].get_paths()[0].vertices
    at_one = band[np.isclose(band[:, 0], 1), 1]
    assert at_one.min() == pytest.approx(0) and at_one.max() == pytest.approx(0.2)
    assert {"ours"} <= set(all_text(ax).split()) and "random" in all_text(ax)

def test_the_reference_line_is_ninety_percent_of_the_original():
    def horizontal(ax):
        return [line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1] and np.ptp(line.get_ydata()) == 0]
    assert horizontal(plot_retention(retention_table(), axes())) == [pytest.approx(0.72)]
    perplexity = retention_table().assign(value=lambda t: 20 / (t["value"] + 0.2))
    ax = plot_retention(perplexity, axes(), metric="perplexity")
    assert horizontal(ax) == [pytest.approx(20 / 0.9)] and ax.get_yscale() == "log" and ax.get_ylabel() == "perplexity (log scale)"

def test_labels_at_line_ends_do_not_overlap():
    rows = [{"ranking": f"ranking {i}", "removed": k, "value": 1 - k + 0.001 * i} for i in range(6) for k in (0, 1)]
    table = pd.DataFrame(rows)
    ax = plot_retention(table)
    inked(ax)
    extent = matplotlib.text.Text.get_window_extent  # without the arrow
    boxes = [extent(t) for t in ax.texts if t.get_text().startswith("ranking")]
    apart(ax)
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == 6 and all(a.y1 <= b.y0 + 1 for a, b in zip(boxes, boxes[1:]))
    assert all(box.x1 <= ax.figure.bbox.x1 for box in boxes)

def test_fractions_are_shown_as_percent():
    ax = plot_retention(retention_table().assign(removed=lambda t: t["removed"] / 4), axes())
    inked(ax)
    assert "%" in ax.get_xticklabels()[0].get_text() and "share" in ax.get_xlabel()

def test_a_table_without_its_columns_is_refused():
    with pytest.raises(InputError, match="ranking"): plot_retention(pd.DataFrame({"removed": [1], "value": [2]}))

def test_reliability_bars_are_the_share_right_in_each_bin():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 500)
    correct = rng.random(500) < confidence ** 2
    ax = plot_reliability(confidence, correct, axes())
    for bar in ax.patches:
        inside = abs(confidence - bar.get_x() - bar.get_width() / 2) < 0.5 / 15
        assert bar.get_height() == pytest.approx(correct[inside].mean())
        assert f"{inside.sum()}" in [t.get_text() for t in ax.texts]
    assert len(ax.patches) == 15

def test_reliability_of_a_table_leaves_out_abstentions():
    table = pd.DataFrame({"confidence": [0.9, 0.9, 1.0, 0.2], "correct": [1, 0, 1, 0], "abstained": [False, False, False, True]})
    ax = plot_reliability(table, ax=axes())
    assert [bar.get_height() for bar in ax.patches] == [0.5, 1] and "3 answers" in all_text(ax)
    assert "ECE 0.267" in all_text(ax)                   # two thirds of 0.4

@pytest.mark.parametrize("n", [3, 500, 40_000])
def test_words_of_a_reliability_diagram_do_not_overlap(n):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, n)
    for right in rng.random(n) < confidence, np.ones(n), np.zeros(n): apart(plot_reliability(confidence, right))

def test_intervals_of_the_bins_are_wilsons():
    from scipy.stats import binomtest
    for right, n in (0, 1), (1, 1), (3, 7), (480, 500):
        found = binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right / n, n) == pytest.approx((found.low, found.high), abs=1e-6)
    ax = plot_reliability([0.5] * 10, [1] * 7 + [0] * 3, axes())
    (segment,) = ax.collections[0].get_segments()
    assert segment[:, 0].tolist() == [0.5, 0.5] and segment[:, 1] == pytest.approx(wilson(0.7, 10))

def test_reliability_of_answers():
    from avss_nb import Answers, Question
    answers = Answers.judge([Question("a?", ("b",)), Question("c?", ("d",))], ["b", "x"], [[-0.1], [-2.0]])
    assert sorted(bar.get_height() for bar in plot_reliability(answers, ax=axes()).patches) == [0, 1]

def test_bad_confidences_are_refused():
    with pytest.raises(InputError, match="2 confidences and 1 verdicts"): plot_reliability([0.1, 0.2], [1])
    with pytest.raises(InputError, match="outside"): plot_reliability([1.5], [1])
    with pytest.raises(InputError, match="0 confidences"): plot_reliability([], [])

@pytest.mark.parametrize("x, text", [(0.012345, "0.0123"), (12.345, "12.3"), (1234.5, "1,234"), (2.5e9, "2.5e+09"),
                                     (-4321, "-4,321"), (0, "0"), (999.4, "999"), (999.6, "1,000"), (-999.5, "-1,000")])
def test_numbers_for_people(x, text): assert number_text(x) == text

def test_discs_in_the_plane_do_not_overlap():
    rng = np.random.default_rng(0)
    s = replace(scores(np.ones(32)), variance=np.exp(rng.normal(0, 0.3, 32)), sparsity=np.repeat(rng.uniform(0.01, 0.1, 16), 2))
    ax = plot_variance_sparsity(s)
    discs = ax.collections[2]
    centres = ax.transData.transform(discs.get_offsets())
    apart = np.hypot(*(centres[:, None] - centres).T) + np.diag(np.full(32, np.inf))
    assert apart.min() > 0.9 * np.sqrt(discs.get_sizes()[0]) * ax.figure.dpi / 72
    assert np.allclose(ax.collections[0].get_offsets(), np.stack([s.sparsity, s.variance], 1))       # the dots stay true
