"Calibration measures and their intervals, against independent loops, torchmetrics and scikit-learn."
import math
import numpy as np, pytest, torch
from sklearn.metrics import brier_score_loss, roc_auc_score
from torchmetrics.classification import BinaryCalibrationError
from avss_nb.basics import InputError
from avss_nb.calibration import (BINS, MEASURES, below_one, bootstrap, calibration_bins, calibration_error, interval, mass_bins,
                                 measures, resampled_measures)

def plain_ece(confidence, correct, bins=15):
    "The definition, bin by bin, in exact integer arithmetic on the bin number; 1.0 belongs to the last bin."
    total = 0.
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if min(int(math.floor(c * bins + 1e-12)), bins - 1) == b]
        if inside:
            gap = abs(sum(confidence[i] for i in inside) / len(inside) - sum(correct[i] for i in inside) / len(inside))
            total += gap * len(inside) / len(confidence)
    return total

def some_answers(n=300, seed=0, abstained=0.2, round_to=None):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1.5, n)
    if round_to: confidence = confidence.round(round_to)
    silent = rng.random(n) < abstained
    return confidence, (rng.random(n) < confidence - 0.1) & ~silent, silent

# --- ECE

@pytest.mark.parametrize("seed", range(5))
def test_ece_is_its_definition(seed):
    confidence, correct, _ = some_answers(seed=seed)
    assert calibration_error(confidence, correct) == pytest.approx(plain_ece(confidence, correct), abs=1e-12)

def test_ece_is_that_of_torchmetrics_fed_in_batches():
    confidence, correct, _ = some_answers(1000)
    metric = BinaryCalibrationError(n_bins=15, norm="l1")
    for part in np.array_split(np.arange(1000), 7):
        metric.update(torch.from_numpy(confidence[part]), torch.from_numpy(correct[part]).int())
    assert calibration_error(confidence, correct) == pytest.approx(float(metric.compute()), abs=1e-6)

def test_certainty_shares_the_last_bin():
    "torchmetrics alone gives 1.0 a bin of its own."
    confidence, correct = [1.0, 1.0, 0.95, 0.94], [1, 0, 1, 1]
    raw = BinaryCalibrationError(n_bins=15, norm="l1")(torch.tensor(confidence), torch.tensor(correct))
    assert calibration_error(confidence, correct) == pytest.approx(plain_ece(confidence, correct)) == pytest.approx(0.2225)
    assert float(raw) > 0.25

@pytest.mark.parametrize("confidence, correct, expected", [
    ([0., 0., 0.], [1, 1, 0], 2 / 3), ([0.], [0], 0.), ([1.], [1], 0.), ([1.], [0], 1.), ([0., 1.], [1, 0], 1.)])
def test_zeros_and_ones_count(confidence, correct, expected):
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)

def test_bin_edges_belong_to_the_bin_above_them():
    for k in range(1, BINS):
        edge = float(torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[k])
        bins = calibration_bins([np.nextafter(edge, 0), edge], [0, 1])
        assert list(bins.index) == [k - 1, k]

@pytest.mark.parametrize("wrong", [[-0.1], [1.0000001], [math.nan], [-0.7, -0.2]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(InputError, match="log-probabilities"): calibration_error(wrong, [1] * len(wrong))
    with pytest.raises(InputError, match="log-probabilities"): measures(wrong, [1] * len(wrong))

def test_below_one_changes_only_ones():
    assert below_one([0., .5, 1.]).tolist() == [0., .5, float(np.nextafter(1, 0))]
    assert below_one(np.array([1.], np.float32))[0] < 1

def test_bins_add_up_to_the_error():
    confidence, correct, _ = some_answers()
    bins = calibration_bins(confidence, correct)
    assert bins["n"].sum() == 300
    gaps = (bins["n"] * (bins["confidence"] - bins["accuracy"]).abs()).sum()
    assert gaps / 300 == pytest.approx(calibration_error(confidence, correct))

def test_bins_of_equal_mass():
    confidence, correct, _ = some_answers(300)
    bins = calibration_bins(confidence, correct, equal_mass=True)
    assert bins["n"].tolist() == [20] * 15 and bins["confidence"].is_monotonic_increasing
    twice = mass_bins(confidence[:10], np.array([[2.] * 5 + [0.] * 5]))[0]
    assert sorted(np.bincount(twice[:5], minlength=15).tolist()) == [0] * 10 + [1] * 5         # weights, not answers, fill bins

# --- all measures, resampled

def expected(confidence, correct, silent):
    "Every measure by its definition."
    c, y, n = confidence[~silent], correct[~silent], len(confidence)
    wrong = (~correct & ~silent).sum()
    values = {"accuracy": correct.sum() / n, "hallucination_rate": wrong / n, "abstention_rate": silent.sum() / n,
              "mean_confidence": c.mean(), "ece": plain_ece(c, y), "brier": brier_score_loss(y, c), "auroc": roc_auc_score(y, c)}
    risks = []      # of every answer: the error rate among all answers at least as sure
    for own in c: risks.append((~y[c >= own]).mean())
    return values | {"risk_coverage": np.mean(risks)}

@pytest.mark.parametrize("round_to", [None, 1])
def test_measures_are_their_definitions(round_to):
    confidence, correct, silent = some_answers(round_to=round_to)
    values, _ = measures(confidence, correct, silent, draws=0)
    for name, value in expected(confidence, correct, silent).items(): assert values[name] == pytest.approx(value, abs=1e-9), name

@pytest.mark.parametrize("round_to", [None, 1])
def test_weights_stand_for_repetition(round_to):
    confidence, correct, silent = some_answers(120, round_to=round_to)
    weights = np.random.default_rng(1).multinomial(120, np.full(120, 1 / 120), 8).astype(float)
    found = resampled_measures(weights, below_one(confidence), correct, silent)
    for row, counts in zip(found, weights.astype(int)):
        repeated = [np.repeat(a, counts) for a in (confidence, correct, silent)]
        for name, value in expected(*repeated).items():
            assert row[list(MEASURES).index(name)] == pytest.approx(value, abs=1e-9), name

def test_equal_mass_error_without_ties():
    confidence, correct, _ = some_answers(150, abstained=0)
    order = np.argsort(confidence)
    by_hand = sum(abs(confidence[part].mean() - correct[part].mean()) * 10 for part in np.array_split(order, 15)) / 150
    assert measures(confidence, correct, draws=0)[0]["ece_equal_mass"] == pytest.approx(by_hand)

def test_order_of_the_questions_does_not_matter():
    confidence, correct, silent = some_answers(200, round_to=1)
    shuffled = np.random.default_rng(2).permutation(200)
    first, _ = measures(confidence, correct, silent, draws=0)
    second, _ = measures(confidence[shuffled], correct[shuffled], silent[shuffled], draws=0)
    for name in set(first) - {"ece_equal_mass"}: assert first[name] == pytest.approx(second[name], abs=1e-12), name

@pytest.mark.parametrize("correct, silent, defined", [
    ([0, 0, 0], [1, 1, 1], {"accuracy", "hallucination_rate", "abstention_rate"}),
    ([1, 1, 1], [0, 0, 0], set(MEASURES) - {"auroc"}), ([0, 0, 0], [0, 1, 0], set(MEASURES) - {"auroc"}),
    ([1, 0, 0], [0, 0, 1], set(MEASURES))])
def test_undefined_measures_are_left_out(correct, silent, defined):
    values, intervals = measures([.2, .5, .9], correct, silent)
    assert set(values) == defined and set(intervals) <= defined and not any(map(math.isnan, values.values()))

def test_one_answer_has_no_interval_and_none_is_refused():
    assert measures([.5], [1])[1] == {}
    with pytest.raises(InputError, match="at least one"): measures([], [])

# --- the bootstrap

def test_bootstrap_is_seeded_and_does_not_depend_on_its_chunks():
    x = np.random.default_rng(0).normal(size=9000)
    def mean(weights): return weights @ x / len(x)
    draws = bootstrap(mean, 9000, draws=1000)                                      # in three pieces
    assert np.array_equal(draws, bootstrap(mean, 9000, draws=1000)) and len(draws) == 1000
    assert not np.array_equal(draws, bootstrap(mean, 9000, draws=1000, seed=1))
    assert len(np.unique(draws)) == 1000

def test_interval_has_the_width_that_theory_says():
    x = np.random.default_rng(0).normal(size=500)
    low, high = interval(bootstrap(lambda weights: weights @ x / 500, 500, draws=4000))
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / math.sqrt(500), rel=0.06)
    assert (high + low) / 2 == pytest.approx(x.mean(), abs=0.01)

def test_reflected_interval():
    draws = np.linspace(0, 1, 101)
    assert interval(draws) == pytest.approx((.025, .975)) and interval(draws, around=.4) == pytest.approx((-.175, .775))
    assert all(map(math.isnan, interval(np.array([math.nan]))))

def test_interval_of_ece_holds_the_truth_where_the_percentile_interval_does_not():
    rng, n, truth, hits = np.random.default_rng(0), 300, 0.05, []
    for _ in range(80):
        confidence = rng.beta(5, 2, n)
        correct = rng.random(n) < confidence - truth
        low, high = measures(confidence, correct, draws=200)[1]["ece"]
        draws = bootstrap(lambda weights: resampled_measures(weights, confidence, correct, np.zeros(n, bool)), n, 200)
        usual = interval(draws[:, list(MEASURES).index("ece")])
        hits.append([low <= truth <= high, usual[0] <= truth <= usual[1]])
        assert 0 <= low <= high
    reflected, percentile = np.mean(hits, axis=0)
    assert reflected > 0.75 and percentile < 0.5

def test_accuracy_interval_covers():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        correct = rng.random(150) < 0.7
        low, high = measures(np.full(150, .5), correct, draws=300)[1]["accuracy"]
        hits += low <= 0.7 <= high
    assert hits >= 88
