"On a dark page pictures are as readable as on a white one, and every plot says in words what it shows."
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from avss_nb import (
    AngularDistances, LayerProfiler, LayerScorer, Picture, compare_profiles, plot_arms,
    plot_eavss, plot_histogram, plot_layer_statistics, plot_probe, plot_ranking,
    plot_reliability, plot_retention, plot_shifts, plot_two_profiles, plot_variance_sparsity, silent
)
from avss_nb.draw.answers import plot_reliability_before_after
from avss_nb.draw.comparison import plot_distances, plot_rankings
from avss_nb.draw.hallucination import plot_two_histograms
from avss_nb.draw.layers import plot_first_token
from avss_nb.draw.style import (
    FAINT, INK, PALETTE, describe_plot, figure_words, has_dark_page, relative_luminance
)
from avss_nb.draw.training import (
    plot_healing, plot_healing_loss, plot_layer_changes, plot_losses, plot_training
)
from avss_nb.panels.live import STYLE, WITHOUT_KERNEL
from test_hallucination_plots import HISTORY, answers, profile, table  # noqa: F401
from test_hallucination_plots import scores as eavss
from test_plots import close_figures, inked, on_picture, retention_table  # noqa: F401
from test_plots import scores as avss
from test_plots_rankings import comparison
from test_training_plots import healing, history

def contrast(a, b):
    "Of two colors, from 1 to 21 (WCAG 2)."
    dark, light = sorted(map(relative_luminance, (a, b)))
    return (light + 0.05) / (dark + 0.05)

@pytest.fixture(scope="module")
def pair(teaching, world):
    "Two profiles of the teaching model."
    return [LayerProfiler(*teaching).profile(texts, silent) for texts in (world.texts(8), world.texts(16)[8:])]

STATISTICS = pd.DataFrame(np.random.default_rng(0).gamma(1, 1, (20, 3)), columns=["a", "b", "c"])
TURNED = AngularDistances(np.abs(np.subtract.outer(np.arange(9), np.arange(9)))[None] / 16, np.ones(1, int), "all", "a model")

PLOTS = {
    "reliability": lambda get: plot_reliability(answers([0.9, 0.9, 0.5], [1, 0, 1])),
    "reliability_before_after": lambda get: plot_reliability_before_after(*[answers([0.9, 0.9, 0.5], [1, 0, 1])] * 2),
    "retention": lambda get: plot_retention(retention_table()),
    "rankings": lambda get: plot_rankings(comparison()),
    "distances": lambda get: plot_distances(TURNED),
    "arms": lambda get: plot_arms(get("table")),
    "ranking": lambda get: plot_ranking(avss([3., 100, 2, 0.5], floored=[0]), remove=[3], highlight=1),
    "histogram": lambda get: plot_histogram(get("pair")[0], layer=3, eps=0.01),
    "variance_sparsity": lambda get: plot_variance_sparsity(LayerScorer().score(get("pair")[0])),
    "layer_statistics": lambda get: plot_layer_statistics(STATISTICS, highlight=3),
    "first_token": lambda get: plot_first_token(get("pair")[0]),
    "eavss": lambda get: plot_eavss(eavss([0.3, -0.1, 0, -0.5], q=[0.01, 0.05, 1, 0.001], floored=[3]), highlight=2),
    "shifts": lambda get: plot_shifts(eavss([0.3, -0.1, 0, -0.5])),
    "probe": lambda get: plot_probe(eavss([0.3, -0.1], q=[0.01, 1], probe=np.array([0.6, 0.7]),
                                          probe_low=np.array([0.5, 0.6]), probe_high=np.array([0.7, 0.8]))),
    "two_histograms": lambda get: plot_two_histograms(get("profile"), "update", 3, eps=0.05),
    "layer_changes": lambda get: plot_layer_changes(history(best=10)),
    "losses": lambda get: plot_losses(history()),
    "healing": lambda get: plot_healing(healing()),
    "healing_loss": lambda get: plot_healing_loss(healing()),
    "training": lambda get: plot_training(HISTORY, chosen=5),
    "two_profiles": lambda get: plot_two_profiles(compare_profiles(*get("pair"))),
}

def test_every_plot_is_here():
    from avss_nb.draw import answers, comparison, hallucination, layers, training, two_profiles
    rooms = answers, comparison, hallucination, layers, training, two_profiles
    assert {f"plot_{name}" for name in PLOTS} == {name for room in rooms for name in room.__all__ if name.startswith("plot_")}

def page_of(text):
    "The color behind a text: of its box, or of the picture."
    box = text.get_bbox_patch()
    filled = box is not None and to_rgba(box.get_facecolor())[3] > 0
    return box.get_facecolor() if filled else text.figure.figure.get_facecolor()

@pytest.mark.parametrize("page", ["black", "#111111"])
@pytest.mark.parametrize("name", PLOTS)
def test_words_and_axes_are_readable_on_a_dark_page(name, page, request):
    with plt.style.context(["dark_background", {"figure.facecolor": page, "axes.facecolor": page}]):
        axs = np.ravel(PLOTS[name](request.getfixturevalue))
        picture = inked(axs[0])
    assert (picture[..., 3] == 255).all() and np.allclose(picture[0, 0, :3] / 255, to_rgb(page))
    words = [t for t in axs[0].figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip() and on_picture(t)]
    on_discs = [t for t in words if t.get_text().isdigit() and t in axs[0].texts]
    weak = [(t.get_text(), t.get_color()) for t in words if t not in on_discs and contrast(t.get_color(), page_of(t)) < 4.5]
    assert len(words) > 4 and not weak
    for ax in axs:
        assert contrast(ax.get_facecolor(), page) < 2.5
        for side in "left", "bottom": assert contrast(ax.spines[side].get_edgecolor(), page) > 3
        for tick in ax.xaxis.get_major_ticks(): assert contrast(tick.tick1line.get_color(), page) > 3

@pytest.mark.parametrize("name", PLOTS)
def test_a_white_page_stays_as_it_is_after_a_dark_one(name, request):
    with plt.style.context("dark_background"): PLOTS[name](request.getfixturevalue)
    ax = np.ravel(PLOTS[name](request.getfixturevalue))[0]
    assert not has_dark_page(ax) and (inked(ax)[0, 0] == 255).all()
    assert relative_luminance(ax.xaxis.label.get_color()) < 0.05

def test_marks_without_a_filling_have_the_color_of_the_page():
    with plt.style.context("dark_background"): ax = plot_ranking(avss([3., 100, 2, 0.5], floored=[0]))
    triangles, = (line for line in ax.lines if line.get_marker() == "^")
    assert to_rgb(triangles.get_markerfacecolor()) == (0, 0, 0) and relative_luminance(triangles.get_markeredgecolor()) > 0.5

# --- in panels: one picture, drawn on white, which a dark page turns over

def turned_over(color, invert, brightness):
    "What `filter: invert(…) hue-rotate(180deg) brightness(…)` makes of a color (Filter Effects, section 12)."
    rgb = np.array(to_rgb(color)) * (1 - 2 * invert) + invert
    gray = np.full((3, 3), [0.213, 0.715, 0.072])
    return np.clip(np.clip((2 * gray - np.eye(3)) @ rgb, 0, 1) * brightness, 0, 1)

def test_panels_are_readable_where_the_theme_is_dark():
    import re
    for style, inside in (STYLE, ".avss-panel img"), (WITHOUT_KERNEL, ".avss-kept img"):
        rule, = re.findall(r"\n([^{}]*)\{filter: invert\(([\d.]+)\) hue-rotate\(180deg\) brightness\(([\d.]+)\)\}", style)
        assert f'[data-jp-theme-light="false"] {inside}' in rule[0]
        made = [turned_over(color, *map(float, rule[1:])) for color in ("white", INK, FAINT, *PALETTE[:5], PALETTE[9])]
        assert relative_luminance(made[0]) < 0.02                           # about the page of JupyterLab
        assert min(contrast(color, made[0]) for color in made[1:]) >= 4.5
        blue, orange = made[3], made[4]                                    # words beside the picture name them
        assert blue[2] == blue.max() > blue.min() + 0.3 and orange[0] > orange[1] > orange[2] + 0.3

def test_a_picture_of_a_panel_is_light_in_a_dark_style():
    with plt.style.context("dark_background"):
        picture = Picture(300, 200)
        plot_ranking(avss([1., 2.]), picture.ax)
        picture.show("two dots")
    assert (inked(picture.ax)[0, 0] == 255).all() and relative_luminance(picture.ax.xaxis.label.get_color()) < 0.05

# --- in words

@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_has_a_description(name, request):
    axs = np.ravel(PLOTS[name](request.getfixturevalue))
    words = figure_words(axs[0].figure)
    assert len(words.split()) > 5 and words.endswith(".") and ".." not in words and "  " not in words
    assert words.count(".") >= len(axs) and "\n" not in words

def test_the_description_says_which_layer_is_highest():
    words = figure_words(plot_ranking(avss([3., 100, 2, 0.5]), remove=[3, 0]).figure)
    assert "highest in layer 1 (100), lowest in layer 3 (0.5); removed: layers 0, 3." in words

@pytest.fixture
def shell():
    "An IPython that draws figures as a notebook does."
    from IPython.core.pylabtools import select_figure_formats
    shell = InteractiveShell.instance()
    select_figure_formats(shell, {"png"})
    yield shell
    InteractiveShell.clear_instance()

def test_what_is_shown_holds_the_description(shell):
    ax = plot_ranking(avss([3., 100]))
    describe_plot(ax, 'less < "more"')
    data, about = shell.display_formatter.format(ax.figure)
    assert data["text/plain"] == 'less < "more"' == about["image/png"]["alt"]
    assert '<img alt="less &lt; &quot;more&quot;"' in data["text/html"] and data["image/png"]
    plain, _ = shell.display_formatter.format(Figure())
    assert "text/html" not in plain

def test_other_formats_of_figures_are_left_alone(shell):
    from IPython.core.pylabtools import select_figure_formats
    select_figure_formats(shell, {"svg"})
    data, _ = shell.display_formatter.format(plot_ranking(avss([3., 100])).figure)
    assert "text/html" not in data and "<svg" in data["image/svg+xml"] and "highest in layer 1" in data["text/plain"]

def test_a_described_figure_can_be_pickled():
    import pickle
    figure = pickle.loads(pickle.dumps(plot_ranking(avss([3., 100])).figure))
    assert "highest in layer 1" in figure_words(figure)
