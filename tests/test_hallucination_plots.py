"Pictures of hallucination say what the numbers say."
from dataclasses import replace
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from avss_nb import (
    AnswerProfiler, Answers, ArmRun, ArmTable, EAVSSMarks, EAVSSScorer, HallucinationScores,
    InputError, Question, TrainingLines, TwoHistograms, plot_arms, plot_eavss, plot_probe,
    plot_shifts, silent
)
from avss_nb.draw.answers import plot_reliability_before_after
from avss_nb.draw.hallucination import chance_band, in_words, plot_two_histograms, log_shifts
from avss_nb.draw.training import plot_training
from test_plots import all_text, apart, axes, close_figures, inked  # noqa: F401

def scores(log_eavss, q=None, floored=(), **changes):
    "Scores whose variance shift is twice, and whose sparsity shift is once log EAVSS."
    log = np.asarray(log_eavss, float)
    one, none = np.ones(len(log)), np.full(len(log), np.nan)
    q = one if q is None else np.asarray(q, float)
    parts = dict(hsav=np.exp(2 * log), hss=0.1 * np.exp(log), log_eavss=log, log_low=log - 0.1, log_high=log + 0.2, null_low=-0.05 * one,
                 null_high=0.06 * one, z=10 * log, p=q, q=q, probe=none, probe_low=none, probe_high=none, position="last_prompt")
    return HallucinationScores("eavss_z", np.abs(10 * log), none, none, none, none, one, 0.1 * one, np.isin(range(len(log)), floored),
                               "output", "elements", 0.1, True, **(parts | changes))

def points(line): return dict(zip(line.get_xdata(), line.get_ydata()))

def two(): return [axes(), axes()]

# --- log EAVSS ----------------------------------------------------------------------------------------------------------

def test_every_layer_has_one_mark_at_its_value_by_kind():
    marks = EAVSSMarks(axes(), 4)
    marks.update(scores([0.3, -0.1, 0, -0.5], q=[0.01, 0.05, 1, 0.001], floored=[3]))
    assert points(marks.plain) == {1: -0.1, 2: 0} and points(marks.out) == {0: 0.3} and points(marks.floors) == {3: -0.5}
    assert len({line.get_marker() for line in (marks.plain, marks.out, marks.floors)}) == 3
    assert marks.plain.get_color() != marks.out.get_color() and "△ a bound" in all_text(marks.ax)

def test_intervals_and_the_band_of_chance_are_those_of_the_scores():
    s = scores([0.3, -0.1])
    marks = EAVSSMarks(axes(), 2)
    marks.update(s)
    assert np.allclose([segment[:, 1] for segment in marks.intervals.get_segments()], np.stack([s.log_low, s.log_high], 1))
    band = marks.band.get_data()
    assert np.allclose(band.values, 0.06) and np.allclose(band.baseline, -0.05) and list(band.edges) == [-0.5, 0.5, 1.5]
    low, high = marks.ax.get_ylim()
    assert low < -0.2 and high > 0.5

def test_titles_say_what_the_colour_means():
    assert "◆ stands out" in all_text(plot_eavss(scores([1, 2.], q=[0.04, 1]), axes()))
    assert "no layer stands out" in all_text(plot_eavss(scores([1, 2.], q=[0.05, 1]), axes()))
    assert in_words(scores([1.])) == in_words(replace(scores([1.]), score="eavss")) == "on output at last prompt (ε = 0.1 RMS)"

def test_the_shifts_have_neither_band_nor_interval():
    s = scores([0.3, -0.1])
    for show, factor in ("variance", 2), ("sparsity", 1):
        marks = EAVSSMarks(axes(), 2)
        marks.update(s, show=show)
        assert np.allclose(marks.plain.get_ydata(), factor * s.log_eavss) and not len(marks.intervals.get_segments())
        assert not np.any(marks.band.get_data().values) and show in all_text(marks.ax)
    with pytest.raises(InputError, match="show='z'"): plot_eavss(s, axes(), show="z")

def test_moving_the_marks_gives_the_picture_that_plotting_anew_gives():
    first, second = scores([3., -1, 2], q=[0, 0, 1], floored=[1]), scores([0.1, 0.2, 0.3], q=[1, 0, 1])
    moved, anew = EAVSSMarks(axes(), 3), EAVSSMarks(axes(), 3)
    moved.update(first, highlight=2)
    inked(moved.ax)
    moved.update(second, highlight=1)
    anew.update(second, highlight=1)
    assert np.array_equal(inked(moved.ax), inked(anew.ax)) and "layer 1: +0.2 (z = +2.0)" in all_text(anew.ax)
    with pytest.raises(InputError, match="2 layers"): moved.update(scores([1., 2]))

@pytest.mark.parametrize("layers", [1, 12, 80])
def test_many_layers_keep_words_apart_and_inside(layers):
    s = scores(np.linspace(-1, 1, layers) if layers > 1 else [0.], q=np.zeros(layers), floored=[0])
    ax = plot_eavss(replace(s, site="relative_update", position="first_answer", eps=0.005), highlight=layers - 1)
    inked(ax)
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:])) and ax.texts[0].get_window_extent().x1 <= ax.figure.bbox.x1
    left, right = (title.get_window_extent() for title in (ax._left_title, ax._right_title))
    assert left.x1 < right.x0

def test_the_result_plots_itself():
    ax = scores([1., 2.]).plot(highlight=1)
    assert "layer 1" in all_text(ax)

# --- parts of it --------------------------------------------------------------------------------------------------------

def test_the_marks_of_the_shifts_are_log_eavss_apart():
    s = scores([0.3, -0.1, 0.2])
    ax = plot_shifts(s)
    variance, sparsity = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    assert np.allclose(variance.get_ydata() - sparsity.get_ydata(), s.log_eavss)
    assert variance.get_marker() != sparsity.get_marker() and "variance shift" in all_text(ax) and "sparsity shift" in all_text(ax)
    inked(ax)
    assert ax._left_title.get_window_extent().x1 <= ax.figure.bbox.x1
    assert np.allclose(log_shifts(s)["variance"] - log_shifts(s)["sparsity"], log_shifts(s)["log_eavss"])

def test_the_shifts_stand_before_their_own_bands():
    s = scores([0.3, -0.1], null_variance=np.array([[-0.1, -0.2], [0.1, 0.3]]), null_sparsity=np.array([[-0.3, -0.4], [0.5, 0.6]]))
    ax = plot_shifts(s)
    bands = {round(bar.get_x() + bar.get_width() / 2, 1): (bar.get_y(), bar.get_y() + bar.get_height()) for bar in ax.patches}
    expected = {-0.2: (-0.1, 0.1), 0.2: (-0.3, 0.5), 0.8: (-0.2, 0.3), 1.2: (-0.4, 0.6)}
    assert bands.keys() == expected.keys() and all(bands[x] == pytest.approx(expected[x]) for x in bands)
    assert "grey: chance" in all_text(ax) and "grey: chance" not in all_text(plot_shifts(scores([0.3, -0.1])))
    band = plot_eavss(s, axes(), show="sparsity").patches[0].get_data()
    assert band.values.tolist() == [0.5, 0.6] and band.baseline.tolist() == [-0.3, -0.4]

def test_the_bands_hold_the_shifts_of_relabelled_answers(profile):
    "The band against labels that are shuffled here, one by one."
    from avss_nb.hallucination.scores import label_shift
    from avss_nb.maths.moments import rms
    s = EAVSSScorer(draws=400, probe=False, balance=(), halves=0).score(profile)
    m, rng = profile.site("output"), np.random.default_rng(7)
    rows = np.stack([rng.permutation(profile.labels) for _ in range(400)])
    found = label_shift(m, rows, np.ones(rows.shape), s.eps * rms(m.total()))
    for name, values in ("variance", np.log(found.hsav) - np.log(found.av)), ("sparsity", np.log(found.hss) - np.log(found.as_)):
        low, high = chance_band(s, name)
        inside = ((low <= values) & (values <= high)).mean()
        assert 0.9 < inside < 0.99 and (low < 0).all() and (high > 0).all()
    assert np.array_equal(chance_band(s), [s.null_low, s.null_high])

@pytest.mark.parametrize("layers", [1, 12, 80])
def test_words_do_not_overlap(layers):
    rng = np.random.default_rng(0)
    probe = rng.uniform(0.4, 0.8, layers)
    s = replace(scores(rng.normal(size=layers), q=rng.random(layers)), probe=probe, probe_low=probe - 0.1, probe_high=probe + 0.1,
                site="relative_update", position="first_answer", eps=0.005)
    for draw in plot_eavss, plot_shifts, plot_probe: apart(draw(s))

def test_a_layer_without_a_value_is_left_out():
    s = scores([0.3, np.nan, 0.2], q=[0.01, np.nan, 1], z=np.array([3, np.nan, 2]), probe=np.array([0.9, 0.4, np.nan]))
    ax = plot_probe(s)
    assert [t.get_text() for t in ax.texts] == ["0"] and np.allclose(ax.collections[1].get_offsets(), [[0.9, 3]])
    for draw in plot_eavss, plot_shifts: apart(draw(s))
    marks = [points(line) for line in plot_eavss(s).lines if line.get_marker() in ("o", "D")]
    assert {x: y for m in marks for x, y in m.items() if np.isfinite(y)} == {0: 0.3, 2: 0.2}

def test_layers_stand_at_probe_and_z():
    s = replace(scores([0.3, -0.1, 0.2], q=[0.01, 1, 1]), probe=np.array([0.9, 0.45, 0.6]))
    ax = plot_probe(s)
    assert np.allclose(ax.collections[1].get_offsets(), [[0.9, 3], [0.45, 1], [0.6, 2]])
    assert [t.get_text() for t in ax.texts] == ["0", "1", "2"] and 0.5 in [line.get_xdata()[0] for line in ax.lines]
    faces = ax.collections[3].get_facecolors()
    assert not np.array_equal(faces[0], faces[1]) and np.array_equal(faces[1], faces[2])
    with pytest.raises(InputError, match="no probe"): plot_probe(scores([1., 2.]))

def test_the_plane_says_where_no_layer_stands_out():
    probed = {"probe": np.array([0.9, 0.45])}
    titles = [plot_probe(scores([0.3, 0.1], q=q, **probed)).get_title("right") for q in ([0.2, 1], [0.01, 1])]
    assert titles == ["no layer stands out by EAVSS", "filled: EAVSS stands out (q < 0.05)"]

@pytest.fixture(scope="module")
def profile(teaching, world):
    "Answers to ten questions, every other one taken for wrong."
    questions = world.questions("asked", 10)
    answers = Answers.given(questions, [q.answers[0] for q in questions], np.arange(10) % 2, [[-0.1]] * 10)
    return AnswerProfiler(*teaching, batch_size=5).profile(answers, progress=silent)

def test_two_histograms_are_those_of_the_two_kinds(profile):
    ax = plot_two_histograms(profile, "update", 3, axes(), eps=0.05)
    for steps, kind in zip(ax.patches, (profile.faithful, profile.hallucinated)):
        data, counts = steps.get_data(), kind.site("update").total()[3].counts
        assert np.allclose(data.values * np.diff(np.log10(data.edges)), 100 * counts[1:-1] / counts.sum())
    assert {"faithful", "hallucinated"} <= set(all_text(ax).split()) and "ε = 0.05" in all_text(ax)
    assert not np.array_equal(ax.patches[0].get_data().values, ax.patches[1].get_data().values)
    with pytest.raises(InputError, match="layers 0 to 11"): plot_two_histograms(profile, "update", 12)
    with pytest.raises(InputError, match="not profiled"): plot_two_histograms(profile, "mlp", 0)

def test_moving_the_histograms_gives_the_picture_that_plotting_anew_gives(profile):
    a, b = (profile.faithful.site("output").total()[i] for i in (0, 11))
    moved, anew = TwoHistograms(axes()), TwoHistograms(axes())
    moved.update(a, b, 0.1)
    inked(moved.ax)
    moved.update(b, a)
    anew.update(b, a)
    assert np.array_equal(inked(moved.ax), inked(anew.ax))

def test_real_scores_draw(profile):
    s = EAVSSScorer(draws=20, probe=False, balance=()).score(profile)
    for draw in plot_eavss, plot_shifts: inked(draw(s))

# --- training -----------------------------------------------------------------------------------------------------------

HISTORY = [{"step": 5, "loss": 2., "answer": 1.5, "contrast": 0., "reliability": -0.2, "ece": None},
           {"step": 10, "loss": 1., "answer": 0.5, "contrast": 0., "reliability": 0.3, "ece": 0.1}]

def test_lines_of_training_are_the_rows_of_the_history():
    lines = TrainingLines(two())
    lines.update(HISTORY, HISTORY, chosen=10)
    assert points(lines.lines["loss"]) == {5: 2, 10: 1} and points(lines.lines["reliability"]) == {5: -0.2, 10: 0.3}
    assert points(lines.lines["ece"]) == {10: 0.1} and not {"retention", "contrast"} & lines.lines.keys()
    assert {"loss", "answer"} <= set(all_text(lines.axs[0]).split()) and "ECE" in all_text(lines.axs[1])
    assert "step 10" in lines.axs[1].get_xlabel() and lines.chosen.get_visible()
    assert len({line.get_marker() for name, line in lines.lines.items() if name in ("loss", "answer")}) == 2
    low, high = lines.axs[1].get_ylim()
    assert low < -0.2 and high > 1

def test_names_of_tiny_terms_stay_above_the_axis_and_apart():
    rows = [{"step": i, "loss": 3., "answer": 2.9, "abstain": 2.8, "contrast": 2.7, "retention": 1e-9} for i in range(3)]
    lines = TrainingLines(two())
    lines.update(rows, [])
    at = sorted(name.xyann[1] for name in lines.names)
    assert len(at) == 5 and at[0] >= 0.03 and np.diff(at).min() >= 0.09 - 1e-9

def test_moving_the_lines_gives_the_picture_that_plotting_anew_gives():
    moved, anew = TrainingLines(two()), TrainingLines(two())
    for lines in moved, anew: lines.update(HISTORY[:1], [])
    for ax in moved.axs: inked(ax)
    moved.update(HISTORY, HISTORY)
    anew = TrainingLines(two())
    anew.update(HISTORY, HISTORY)
    for a, b in zip(moved.axs, anew.axs): assert np.array_equal(inked(a), inked(b))

def test_names_of_the_lines_stay_inside_the_picture():
    axs = plot_training(HISTORY)
    inked(axs[0])
    extent = matplotlib.text.Text.get_window_extent
    assert all(extent(t).x1 <= axs[0].figure.bbox.x1 for ax in axs for t in ax.texts)
    apart(axs[0])
    with pytest.raises(InputError, match="empty"): plot_training([])

def answers(confidences, correct, abstained=None):
    questions = [Question(f"{i}?", ("a",)) for i in range(len(confidences))]
    given = Answers.given(questions, ["a"] * len(questions), correct, [[c] for c in np.log(confidences)])
    return given if abstained is None else replace(given, abstained=np.array(abstained), correct=given.correct & ~np.array(abstained))

def test_before_and_after_count_answers_and_abstentions():
    before, after = answers([0.9, 0.9, 0.5], [1, 0, 1]), answers([0.9, 0.9, 0.5], [1, 0, 1], [False, True, False])
    left, right = plot_reliability_before_after(before, after)
    assert "before: 3 answered, ECE 0.433" in all_text(left) and "0 abstained" in all_text(left)
    assert "after: 2 answered, ECE 0.300" in all_text(right) and "1 abstained" in all_text(right)
    silent_model = answers([0.9, 0.9], [0, 0], [True, True])
    apart(left)
    assert "after: no answered" in all_text(plot_reliability_before_after(before, silent_model, two())[1])

# --- arms ---------------------------------------------------------------------------------------------------------------

@pytest.fixture
def table():
    rng, n = np.random.default_rng(0), 60
    def run(right): return [ArmRun(answers(rng.uniform(0.1, 1, n), rng.random(n) < right), 10., 0)]
    names = ["EAVSS layers (the probe's, too)", "EAVSS layers, no contrast", "random layers 1", "random layers 2", "random layers 3",
             "lowest EAVSS layers", "all layers"]
    layers = {name: ((i, i + 1, i + 2),) for i, name in enumerate(names)} | {"all layers": (tuple(range(12)),)}
    rivals = ["original", "original, temperature scaling", "original, Platt scaling", "original, silent below 0.90"]
    return ArmTable({name: run(0.1 * i) for i, name in enumerate(rivals + names)}, names[0], layers, draws=50)

@pytest.mark.parametrize("measure", ["reliability", "ece", "perplexity"])
def test_dots_of_the_arms_are_the_values_of_the_table(table, measure):
    ax, frame = plot_arms(table, measure), table.to_frame()[measure]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1}
    assert np.allclose([dots[i] for i in range(len(frame))], frame["value"])
    ends = [segment[:, 0] for lines in ax.collections for segment in lines.get_segments()]
    if measure != "perplexity": assert np.allclose(ends, frame[["low", "high"]])
    assert ("lower" if measure in ("ece", "perplexity") else "higher") in ax.get_xlabel()
    dashed = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == frame.loc["original", "value"]

def test_claim_trained_arms_and_rivals_differ_by_marker(table):
    ax = plot_arms(table)
    kinds = {int(line.get_ydata()[0]): line.get_marker() for line in ax.lines if len(line.get_xdata()) == 1}
    assert [kinds[i] for i in range(11)] == ["s"] * 4 + ["D"] + ["o"] * 6
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[4].startswith(table.claim) and labels[4].endswith("(0, 1, 2)") and labels[-1] == "all layers"

def test_sorted_arms_begin_with_the_best(table):
    for measure, sign in ("reliability", -1), ("ece", 1):
        ax = plot_arms(table, measure, sort=True)
        values = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        assert values == sorted(values, key=lambda v: sign * v)
    with pytest.raises(InputError, match="no measure 'speed'; there are reliability"): plot_arms(table, "speed")

def test_twelve_long_names_do_not_overlap_and_stay_inside(table):
    ax = table.plot()
    inked(ax)
    apart(ax)
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert all(a.y0 > b.y1 for a, b in zip(boxes, boxes[1:])) and min(box.x0 for box in boxes) >= 0
    assert max(t.get_window_extent().x1 for t in ax.texts) <= ax.figure.bbox.x1

