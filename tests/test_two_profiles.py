"Two profiles side by side: agreement and changes against SciPy and planted truths, intervals by simulation, words, pictures and the command line."
import json
from copy import deepcopy
from dataclasses import replace
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, spearmanr, t
from avss_nb import (
    SCORES, InputError, LayerProfile, LayerProfiler, LayerScorer, Moments, ProfileComparison,
    compare_profiles, plot_two_profiles, silent
)
from avss_nb.draw.two_profiles import change_text, spread_names
from avss_nb.layers.two_profiles import (
    joint_reach, rank_correlations, read_same_texts, score_halves, shared_lowest,
    symmetric_interval, what_differs
)
from avss_nb.maths.bootstrap import bootstrap_weights
from test_cli import done, refused
from test_plots import all_text, apart, close_figures  # noqa: F401
from tiny import VOCABULARY, tiny

torch.set_num_threads(1)
ROWS = [torch.randint(3, VOCABULARY, (n % 23 + 5,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(48)]

def profile_of(model, rows=ROWS, **settings): return LayerProfiler(model, **settings).profile(rows, silent)

@pytest.fixture(scope="module")
def model(): return tiny("llama")

@pytest.fixture(scope="module")
def base(model): return profile_of(model)

@pytest.fixture(scope="module")
def planted(model):
    "The profile of the same model, in which the MLP of layer 2 writes three times as much."
    changed = deepcopy(model)
    with torch.no_grad(): changed.model.layers[2].mlp.down_proj.weight *= 3
    return profile_of(changed)

@pytest.fixture(scope="module")
def found(base, planted): return compare_profiles(base, planted)

# --- rank agreement

@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize("layers", [2, 5, 12, 40])
@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(layers, ties):
    rng = np.random.default_rng(layers)
    x, y = (rng.integers(0, 4, (20, layers)).astype(float) if ties else rng.normal(size=(20, layers)) for _ in range(2))
    with np.errstate(invalid="ignore"):
        expected = [[spearmanr(a, b)[0], kendalltau(a, b)[0]] for a, b in zip(x, y)]
    np.testing.assert_allclose(rank_correlations(x, y), expected, atol=1e-12)

def test_shared_lowest_counts_as_sets_do():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 30, 9)).astype(float)  # with ties: the earlier layer goes first
    for count in 1, 4, 9:
        expected = [len({*np.argsort(a, kind="stable")[:count]} & {*np.argsort(b, kind="stable")[:count]}) for a, b in zip(x, y)]
        assert shared_lowest(x, y, count).tolist() == expected

def test_agreement_is_computed_from_the_scores(found, base, planted):
    scorer = LayerScorer()
    a, b = (scorer.score(p).values for p in (base, planted))
    row = found.agreement().iloc[0]
    assert row["Spearman"] == pytest.approx(spearmanr(a, b)[0]) and row["Kendall"] == pytest.approx(kendalltau(a, b)[0])
    np.testing.assert_allclose(found.changes()["change"], b / a)
    assert [*found.to_frame()["rank (base)"]] == [*scorer.score(base).to_frame()["rank"]]

def test_a_profile_agrees_with_itself(base):
    found = compare_profiles(base, base)
    assert found.paired and not found.differ
    row = found.agreement().iloc[0]
    assert [*row[:6]] == [1] * 6 and row["shared of lowest 1"] == 1
    table = found.changes()
    assert (table.drop(columns="moved") == 1).all(axis=None) and not table["moved"].any()
    assert "No layer changed" in found.summary()

def test_halves_are_profiles_of_half_of_the_groups(base):
    first, second = score_halves(LayerScorer(), base, 3)
    places = np.random.default_rng([0, 2]).random((3, base.groups)).argsort(1)
    for row in range(3):
        chosen = places[row] < base.groups // 2
        for groups, scores in (chosen, first), (~chosen, second):
            part = torch.from_numpy(np.flatnonzero(groups))
            sites = {name: m[part] for name, m in base.sites.items()}
            half = LayerProfile(base.model, base.fingerprint, sites)
            np.testing.assert_allclose(scores[row], LayerScorer(draws=0).score(half).values, rtol=1e-9)

# --- changes

def test_a_planted_change_is_the_largest_mover(found):
    assert found.paired and [*found.differ] == ["weights"] and found.kind == "factor"
    largest = found.movers(1).iloc[0]
    assert largest["layer"] == 2 and largest["moved"] and largest["change"] > 1.5
    table = found.changes()
    assert table["change"][:2].tolist() == [1, 1] and not table["moved"][:2].any()  # what comes before it is as it was
    assert "layer 2 (×" in found.summary()

def test_drawn_together_a_change_is_known_better(base, planted, found):
    independent = compare_profiles(base, planted, paired=False)
    assert not independent.paired and "drawn apart" in independent.sampled and "drawn together" in found.sampled
    np.testing.assert_array_equal(independent.changes()["change"], found.changes()["change"])
    def widths(c): return np.log(c.changes()["joint high"] / c.changes()["joint low"])
    assert (widths(found)[[0, 1, 3]] < 0.6 * widths(independent)[[0, 1, 3]]).all()

def test_the_joint_interval_is_students_with_bonferroni():
    x = np.random.default_rng(0).normal(size=(12, 30))
    draws = bootstrap_weights(12, 40_000, np.random.default_rng(1)) @ x / 12
    expected = t.ppf(1 - 0.1 / 60, 11) * x.std(0, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(joint_reach(draws, 12, 0.9), expected, rtol=0.03)

def test_negative_scores_are_compared_by_difference(base, planted, monkeypatch):
    monkeypatch.setitem(SCORES, "quiet", replace(SCORES["block_influence"], high_matters=False))
    found = compare_profiles(base, planted, "quiet")
    assert found.kind == "difference"
    np.testing.assert_allclose(found.changes()["change"], found.scores[1].values - found.scores[0].values)
    assert found.movers(1)["layer"].item() == 2 and "(−" in found.summary()

def test_rounding_is_not_a_change(base):
    m = base.sites["relative_update"]
    other = replace(base, sites=base.sites | {"relative_update": replace(m, m2=m.m2 * (1 + 1e-9))})
    found = compare_profiles(base, other)
    assert (found.changes()["change"] != 1).any() and not found.changes()["moved"].any()

def test_two_precisions_of_the_teaching_model(teaching, world):
    model, tokenizer = teaching
    texts = world.texts(64)
    profiles = [LayerProfiler(m, tokenizer).profile(texts, silent) for m in (model, deepcopy(model).bfloat16())]
    found = compare_profiles(*profiles, names=("float32", "bfloat16"))
    assert found.paired and found.differ == {"precision of the model": ("float32", "bfloat16")}
    assert found.agreement()["Spearman"].iloc[0] > 0.95 and abs(np.log(found.changes()["change"])).max() < 0.2

def test_two_sets_of_texts_are_drawn_apart(model, base):
    found = compare_profiles(base, profile_of(model, ROWS[20:] + ROWS[:12]))
    assert not found.paired and [*found.differ] == ["texts"] and found.texts == (48, 40)
    first, second = found.draws
    assert abs(np.corrcoef(first[:, 2], second[:, 2])[0, 1]) < 0.15

# --- which texts

def test_the_same_texts_are_known_whatever_the_batches(model, base):
    assert read_same_texts(base, profile_of(model, batch_size=3))
    assert not read_same_texts(base, profile_of(model, groups=8)) and not read_same_texts(base, profile_of(model, ROWS[:-1]))
    assert not read_same_texts(base, profile_of(model, ROWS[::-1]))       # in other groups
    parts = [profile_of(model, some) for some in (ROWS[:24], ROWS[24:])]
    assert read_same_texts(parts[0] + parts[1], parts[1] + parts[0])
    unknown = replace(base, settings={})
    assert not read_same_texts(unknown, unknown) and what_differs(unknown, base) == {}

def test_different_groups_cannot_be_drawn_together(model, base):
    fewer = profile_of(model, groups=8)
    with pytest.raises(InputError, match="in 16 and 8 groups; leave paired out"): compare_profiles(base, fewer, paired=True)
    found = compare_profiles(base, fewer)
    assert found.groups == (16, 8) and "16 and 8 groups" in found.sampled and found.differ == {}

def test_few_texts_have_neither_intervals_nor_a_control(model):
    found = compare_profiles(profile_of(model, ROWS[:3]), profile_of(model, ROWS[3:6]))
    assert len(found.agreement()) == 1 and found.agreement().iloc[0].notna().sum() == 3
    assert not found.changes()["moved"].any() and found.changes()["joint low"].isna().all()
    assert any("no intervals: 3 texts" in note for note in found.notes) and "without intervals" in found.summary()
    assert "nan" not in found._repr_html_().lower() and "NaN" not in json.dumps(found.to_dict(), allow_nan=False)

# --- intervals hold

def sample_pair(truths, noise, together, rng, groups=16):
    "Two noisy samples by group, and their draws."
    common = rng.normal(size=(groups, truths.shape[1]))
    samples = [truth + noise * (common if together else rng.normal(size=common.shape)) for truth in truths]
    if together: samples = [sample + 0.3 * noise * rng.normal(size=common.shape) for sample in samples]
    first = bootstrap_weights(groups, 200, rng)
    second = first if together else bootstrap_weights(groups, 200, rng)
    return [s.mean(0)[None] for s in samples], [w @ s / groups for w, s in zip((first, second), samples)]

@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("noise", [0.2, 0.8])
@pytest.mark.parametrize("moved", [0, 0.5, 3])
def test_intervals_of_agreement_hold(together, noise, moved):
    "Of one truth, of two near each other, and of two that have little in common."
    rng = np.random.default_rng(0)
    base = np.linspace(0, 3, 12)
    truths = np.stack([base, base + moved * np.random.default_rng(3).normal(size=12)])
    expected, held = rank_correlations(*truths[:, None])[0], np.zeros(2)
    for _ in range(150):
        means, draws = sample_pair(truths, noise, together, rng)
        value = rank_correlations(*means)[0]
        low, high = symmetric_interval(value, rank_correlations(*draws), 0.95, [-1, -1], [1, 1])
        assert (low <= value).all() and (value <= high).all()
        held += (low - 1e-9 <= expected) & (expected <= high + 1e-9)
    assert (held / 150 >= 0.9).all(), held / 150

def invented_profile(scales, rng, texts=32):
    "A profile of random activations of known scales; texts are louder or quieter for all layers."
    loudness = np.exp(0.2 * rng.standard_normal(texts))[:, None, None]
    group = torch.arange(texts) % 16
    layers = [Moments.each(torch.from_numpy((s * loudness * rng.standard_normal((texts, 20, 4))).reshape(-1, 4)), torch.full((texts,), 20)).dealt(group, 16) for s in scales]
    return LayerProfile("invented", "none", {"update": Moments.stack(layers, 1)})

def test_alarms_are_rare_where_nothing_differs_and_changes_are_found():
    scales = np.geomspace(1, 4, 6)
    alarms, right = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b, c = (invented_profile(s, rng) for s in (scales, scales, scales * [1, 1, 1, 1.6, 1, 1]))
        options = dict(site="update", eps=0.1, draws=300, seed=seed, splits=1)
        alarms.append(compare_profiles(a, b, **options).changes()["moved"].any())
        right.append(compare_profiles(a, c, **options).changes()["moved"][3])
    assert np.mean(alarms) <= 0.1 and np.mean(right) >= 0.9

def test_seeds_make_it_reproducible(base, planted, found):
    again, other = compare_profiles(base, planted), compare_profiles(base, planted, seed=1)
    pd.testing.assert_frame_equal(found.to_frame(), again.to_frame())
    pd.testing.assert_frame_equal(found.agreement(), again.agreement())
    assert (found.changes()["change"] == other.changes()["change"]).all() and (found.changes()["joint low"] != other.changes()["joint low"])[2]
    wide = compare_profiles(base, planted, confidence=0.99)
    assert wide.changes()["joint low"][2] < found.changes()["joint low"][2] and "99 % intervals" in wide._repr_html_()

# --- what is refused

def wrong_profiles():
    scores = LayerScorer(draws=0)
    return [
        (lambda a, b: compare_profiles(scores.score(a), b), "LayerScores were given as a where a LayerProfile is expected"),
        (lambda a, b: compare_profiles(a, "p.safetensors"), "was given as b where a LayerProfile is expected"),
        (lambda a, b: compare_profiles(a, b, "ablation"), "base has no ablation losses.*ablation=True"),
        (lambda a, b: compare_profiles(a, b, site="mlp"), "base was profiled at output, relative_update, and the score reads mlp"),
        (lambda a, b: compare_profiles(a, replace(b, sites={"output": b.sites["output"]}, first=None)), "fine-tuned was profiled at output"),
        (lambda a, b: compare_profiles(a, b, "random"), "'random' was given, a control"),
        (lambda a, b: compare_profiles(a, b, "importance"), "is not one of avss"),
        (lambda a, b: compare_profiles(a, b, scores, eps=0.1), "a LayerScorer was given, and eps beside it"),
        (lambda a, b: compare_profiles(a, b, names=("x", "x")), "two different ones"),
        (lambda a, b: compare_profiles(a, b, names="ab"), "give a name for each profile"),
        (lambda a, b: compare_profiles(a, b, lowest=0), "lowest=0 was given"),
        (lambda a, b: compare_profiles(a, b, splits=0), "splits=0 was given"),
    ]

@pytest.mark.parametrize("number", range(len(wrong_profiles())))
def test_wrong_input_is_refused_in_one_sentence(number, base, planted):
    call, message = wrong_profiles()[number]
    with pytest.raises(InputError, match=message) as caught: call(base, planted)
    assert "\n" not in str(caught.value)

def test_other_numbers_of_layers_are_refused(base):
    m = base.sites["output"]
    def cut(layers): return LayerProfile("cut", "x", {name: m[:, :layers] for name in base.sites})
    with pytest.raises(InputError, match="4 layers of base and 3 of fine-tuned were given.*models of one shape"): compare_profiles(base, cut(3))
    with pytest.raises(InputError, match="at least 2"): compare_profiles(cut(1), cut(1))

# --- words, tables, pictures

def test_markup_in_names_is_shown_as_text(base, planted):
    named = replace(base, model="<b>name"), replace(planted, model="<b>name", partial=True)
    html = compare_profiles(*named, names=("<b>name", "<i>other"))._repr_html_()
    assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;name" in html and "&lt;i&gt;other" in html
    assert "interrupted" in html

def test_json_has_every_number(found):
    result = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["change"] for row in result["layers"]] == pytest.approx([*found.changes()["change"]])
    assert result["agreement"][0]["Spearman"] == pytest.approx(found.agreement()["Spearman"].iloc[0])
    assert result["layers"][2]["moved"] is True and result["differ"] == ["weights"] and result["paired"] is True

def test_several_differences_are_named(model, planted):
    found = compare_profiles(profile_of(model, ROWS[:30]), planted)
    assert any(note.startswith("The profiles differ in weights and texts") for note in found.notes)

def test_the_picture_shows_the_numbers(found):
    top, bottom = found.plot()
    table = found.to_frame()
    dots = [line for line in top.lines if line.get_marker() == "o"]
    for line, name in zip(dots, found.names): np.testing.assert_array_equal(line.get_ydata(), table[f"score ({name})"])
    diamonds = next(line for line in bottom.lines if line.get_marker() == "D")
    assert [*diamonds.get_xdata()] == [*table["layer"][table["moved"]]]
    assert f"layer 2: {change_text(table['change'][2])}" in all_text(bottom)
    assert "Spearman" in top.get_title("left") and "1,000 draws, seed 0" in bottom.get_title("right")

def made(layers, seed=0):
    "A comparison of invented scores, of which a third changed."
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 1.5, layers))
    changed = values * np.exp(np.where(np.arange(layers) % 3, 0, 0.4))
    scorers = [LayerScorer(draws=0)] * 2
    def scores(v, draws):
        from avss_nb import LayerScores
        return LayerScores.of("avss", v, draws, site="relative_update", aggregation="elements", eps=scorers[0].eps)
    common = np.exp(rng.normal(0, 0.03, (100, layers)))
    draws = values * common, changed * common * np.exp(rng.normal(0, 0.01, (100, layers)))
    halves = tuple((d[:50], d[50:]) for d in draws)
    return ProfileComparison(("base", "fine-tuned"), tuple(map(scores, (values, changed), draws)), draws, halves, (16, 16), (128, 128), True, {}, max(1, layers // 4))

def test_layers_that_cannot_be_ranked_are_a_note():
    found = made(12)
    noise = tuple(np.random.default_rng(seed).normal(size=(50, 12)) for seed in (0, 1))
    noisy = replace(found, halves=(noise, found.halves[1]))
    new, = {*noisy.notes} - {*found.notes}
    assert new.startswith("The two halves of base agree with only") and new in noisy._repr_html_()

@pytest.mark.parametrize("layers", [2, 12, 30, 80])
def test_words_of_the_picture_do_not_overlap(layers): apart(made(layers).plot()[0])

def test_words_without_intervals_and_with_formulas(base, planted):
    found = compare_profiles(base, planted, draws=0, names=("a$^$b", "c"))
    top, bottom = plot_two_profiles(found)
    apart(top)
    assert "a$^$b" in all_text(bottom).replace("\\", "") and bottom.get_title("left") == "no intervals"

def test_names_along_the_top_keep_their_distance():
    for wanted in [0.0, 0.01, 0.02], [0.5, 0.5, 0.5], [0.97, 0.98, 1.0], [0.1, 0.5, 0.9]:
        places = spread_names(wanted, 0.15)
        assert (np.diff(places) >= 0.15 - 1e-9).all() and places[0] >= 0.075 - 1e-9 and places[-1] <= 0.925 + 1e-9
    np.testing.assert_allclose(spread_names([0.1, 0.5, 0.9], 0.15), [0.1, 0.5, 0.9])

# --- the command line

@pytest.fixture(scope="module")
def files(base, planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    base.save(folder / "first.safetensors")
    planted.save(folder / "second.safetensors")
    return folder / "first.safetensors", folder / "second.safetensors"

def test_the_command_gives_what_the_function_gives(files, base, planted, tmp_path):
    table, picture = tmp_path / "t.csv", tmp_path / "p.png"
    wanted = compare_profiles(base, planted, "update_norm", names=("first", "second"), lowest=2)
    options = "--score", "update_norm", "--lowest", 2
    result = done("compare-profiles", *files, *options, "--out", table, "--plot", picture, "--json", "-")
    assert json.loads(result.stdout) == wanted.to_dict()
    written = pd.read_csv(table)
    assert [*written] == [*wanted.to_frame()] and written["change"].tolist() == pytest.approx([*wanted.changes()["change"]])
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = done("compare-profiles", *files, *options).stdout
    for words in wanted.summary(), wanted.sampled, wanted.notes[0], "two halves of first": assert words in shown
    again = done("compare-profiles", *files, *options, "--out", table, "--plot", picture)       # its own results are replaced
    assert again.stdout == shown

def test_options_of_the_command(files, base, planted):
    shown = done("compare-profiles", *files, "--names", "base,tuned", "--independent", "--published").stdout
    wanted = compare_profiles(base, planted, LayerScorer.published(), ("base", "tuned"), paired=False)
    assert wanted.summary() in shown and "drawn apart" in shown
    assert "compare-profiles" in done("--help").stdout and "update_norm" in done("compare-profiles", "--help").stdout

def test_the_command_refuses_in_one_line(files, tmp_path):
    (tmp_path / "t.csv").write_text("my thesis")
    refused("compare-profiles", *files, "--out", tmp_path / "t.csv", match="t.csv")
    assert (tmp_path / "t.csv").read_text() == "my thesis"
    refused("compare-profiles", *files, "--score", "ablation", match="first has no ablation losses")
    refused("compare-profiles", *files, "--names", "one", match="give a name for each profile")
    refused("compare-profiles", files[0], tmp_path / "nothing", match="nothing")
    refused("compare-profiles", *files, "--plot", tmp_path / "p.txt", match="ends in .png")
