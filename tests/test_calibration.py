"Calibration measures and their intervals, against independent loops, torchmetrics and scikit-learn."
import math
import numpy as np, pytest, torch
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, roc_auc_score
from torchmetrics.classification import BinaryCalibrationError
from avss_nb import (
    InputError, PlattScaling, TemperatureScaling, best_threshold, calibration_error
)
from avss_nb.maths.bootstrap import bootstrap, interval
from avss_nb.maths.calibration import (
    ECE_BINS, MEASURES, below_one, calibration_bins, mass_bins, confidence_measures, resampled_measures,
    threshold_measures, is_withheld
)

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
    for k in range(1, ECE_BINS):
        edge = float(torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.float64)[k])
        bins = calibration_bins([np.nextafter(edge, 0), edge], [0, 1])
        assert list(bins.index) == [k - 1, k]

@pytest.mark.parametrize("wrong", [[-0.1], [1.0000001], [math.nan], [-0.7, -0.2]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(InputError, match="log-probabilities"): calibration_error(wrong, [1] * len(wrong))
    with pytest.raises(InputError, match="log-probabilities"): confidence_measures(wrong, [1] * len(wrong))

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
    values, _ = confidence_measures(confidence, correct, silent, draws=0)
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
    assert confidence_measures(confidence, correct, draws=0)[0]["ece_equal_mass"] == pytest.approx(by_hand)

def test_order_of_the_questions_does_not_matter():
    confidence, correct, silent = some_answers(200, round_to=1)
    shuffled = np.random.default_rng(2).permutation(200)
    first, _ = confidence_measures(confidence, correct, silent, draws=0)
    second, _ = confidence_measures(confidence[shuffled], correct[shuffled], silent[shuffled], draws=0)
    for name in set(first) - {"ece_equal_mass"}: assert first[name] == pytest.approx(second[name], abs=1e-12), name

@pytest.mark.parametrize("correct, silent, defined", [
    ([0, 0, 0], [1, 1, 1], {"accuracy", "hallucination_rate", "abstention_rate"}),
    ([1, 1, 1], [0, 0, 0], set(MEASURES) - {"auroc"}), ([0, 0, 0], [0, 1, 0], set(MEASURES) - {"auroc"}),
    ([1, 0, 0], [0, 0, 1], set(MEASURES))])
def test_undefined_measures_are_left_out(correct, silent, defined):
    values, intervals = confidence_measures([.2, .5, .9], correct, silent)
    assert set(values) == defined and set(intervals) <= defined and not any(map(math.isnan, values.values()))

def test_one_answer_has_no_interval_and_none_is_refused():
    assert confidence_measures([.5], [1])[1] == {}
    with pytest.raises(InputError, match="at least one"): confidence_measures([], [])

# --- the bootstrap

def test_bootstrap_is_seeded_and_does_not_depend_on_its_chunks():
    x = np.random.default_rng(0).normal(size=9000)
    def mean(weights): return weights @ x / len(x)
    draws = bootstrap(mean, 9000, draws=1000)                                      # in ten pieces
    assert np.array_equal(draws, bootstrap(mean, 9000, draws=1000)) and len(draws) == 1000
    assert not np.array_equal(draws, bootstrap(mean, 9000, draws=1000, seed=1))
    assert len(np.unique(draws)) == 1000

@pytest.mark.parametrize("n", [1999, 2000])
def test_draws_of_few_and_of_many_things_are_multinomial(n):
    "Each row adds up to n; a thing comes k times as often as the binomial distribution says; two things are as good as independent."
    counts = bootstrap(lambda weights: weights, n, 200, seed=1)
    assert counts.shape == (200, n) and (counts.sum(1) == n).all()
    for k in range(5): assert (counts == k).mean() == pytest.approx(binom.pmf(k, n, 1 / n), abs=5 / math.sqrt(200 * n))
    assert counts.mean(0) == pytest.approx(np.ones(n), abs=6 / math.sqrt(200))
    halves = counts[:, : n // 2].sum(1)
    assert halves.mean() == pytest.approx(n // 2, abs=5 * math.sqrt(n / 4 / 200)) and halves.std() == pytest.approx(math.sqrt(n / 4), rel=0.25)

def test_further_shares_are_over_the_same_draws():
    confidence, correct, silent = some_answers(150)
    values, intervals = confidence_measures(confidence, correct, silent, 99, shares={"also": correct, "never": silent & correct})
    plain = confidence_measures(confidence, correct, silent, 99)
    assert (values.pop("also"), intervals.pop("also")) == (plain[0]["accuracy"], plain[1]["accuracy"])
    assert values.pop("never") == 0 and intervals.pop("never") == (0, 0)
    assert (values, intervals) == plain

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
        low, high = confidence_measures(confidence, correct, draws=200)[1]["ece"]
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
        low, high = confidence_measures(np.full(150, .5), correct, draws=300)[1]["accuracy"]
        hits += low <= 0.7 <= high
    assert hits >= 88

# --- every measure against NumPy written from the definitions, on awkward inputs

def from_definitions(confidence, correct, bins):
    "ECE (width, mass), Brier, AUROC and risk–coverage as loops over answers; None where undefined. Edges as torchmetrics has them."
    c, y, n = np.asarray(confidence, float), np.asarray(correct, bool), len(confidence)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).tolist()
    def gap(members): return abs(sum(c[i] for i in members) - sum(y[i] for i in members)) / n
    def inside(b, x): return edges[b] <= x < edges[b + 1] or (b == bins - 1 and x == 1)
    def middle(value):  # twice the place of the middle of all answers of this confidence, times their number
        ranks = [rank for rank, other in enumerate(sorted(c)) if other == value]
        return sum(2 * rank + 1 for rank in ranks), len(ranks)
    middles = [middle(value) for value in c]
    by_mass = [[i for i, (twice, equal) in enumerate(middles) if twice * bins // (2 * n * equal) == b] for b in range(bins)]
    pairs = [(c[i] > c[j]) + (c[i] == c[j]) / 2 for i in range(n) if y[i] for j in range(n) if not y[j]]
    risks = [np.mean(~y[c >= own]) for own in c]
    return {"ece": sum(gap([i for i in range(n) if inside(b, c[i])]) for b in range(bins)),
            "ece_equal_mass": sum(gap(members) for members in by_mass), "brier": np.mean((c - y)**2),
            "auroc": np.mean(pairs) if pairs else None, "risk_coverage": np.mean(risks), "mean_confidence": c.mean()}

def awkward():
    "Confidences and verdicts that have broken calibration code somewhere."
    rng = np.random.default_rng(4)
    def verdicts(n, p=.5): return rng.random(n) < p
    yield "random", rng.random(150), verdicts(150)
    yield "zeros and ones", rng.choice([0., 1.], 60), verdicts(60)
    yield "zeros, ones and between", np.r_[np.zeros(9), np.ones(9), rng.random(30)], verdicts(48)
    yield "all zero", np.zeros(7), verdicts(7)
    yield "all one", np.ones(7), verdicts(7)
    yield "many ties", rng.choice([.1, .35, .35, .6, .9], 120), verdicts(120)
    yield "all equal", np.full(40, .37), verdicts(40)
    yield "all right", rng.random(30), np.ones(30, bool)
    yield "all wrong", rng.random(30), np.zeros(30, bool)
    for value in (0., .2, .5, 1.):
        for verdict in (True, False): yield f"one answer at {value} {verdict}", np.array([value]), np.array([verdict])
    yield "one bin", rng.uniform(.70, .73, 50), verdicts(50)
    for bins in (10, 15): yield f"edges of {bins}", torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy(), verdicts(bins + 1)
    yield "beside the edges", np.nextafter(np.arange(1, 16) / 16, 0), verdicts(15)
    yield "tenths", np.repeat(np.arange(11) / 10, 4), verdicts(44)
    yield "nearly one", 1 - 2.**-np.arange(30, 54), verdicts(24)
    yield "nearly zero", np.r_[5e-324, 2.**-np.arange(30, 54)], verdicts(25)

AWKWARD = {name: pair for name, *pair in awkward()}

@pytest.mark.parametrize("bins", [1, 2, 10, 15, 16, 100])
@pytest.mark.parametrize("name", AWKWARD)
def test_measures_of_awkward_answers(name, bins):
    confidence, correct = AWKWARD[name]
    values, _ = confidence_measures(confidence, correct, draws=0, bins=bins)
    expected = from_definitions(confidence, correct, bins)
    assert expected.keys() - {key for key, value in expected.items() if value is None} == values.keys() & expected.keys()
    for key in values.keys() & expected.keys(): assert values[key] == pytest.approx(expected[key], abs=1e-9), key
    assert values["ece"] == pytest.approx(calibration_error(confidence, correct, bins), abs=1e-12)
    for equal_mass, key in (False, "ece"), (True, "ece_equal_mass"):
        table = calibration_bins(confidence, correct, equal_mass, bins)
        assert table["n"].sum() == len(confidence) and table.index.min() >= 0 and table.index.max() < bins
        assert (table["n"] * (table["confidence"] - table["accuracy"]).abs()).sum() / len(confidence) == pytest.approx(values[key], abs=1e-9)

@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_answers_agree_with_the_libraries_where_these_are_right(name):
    "torchmetrics is right below one; scikit-learn's AUROC and Brier score are right where defined."
    confidence, correct = AWKWARD[name]
    values, intervals = confidence_measures(confidence, correct, draws=50)
    if confidence.max() < 1:
        metric = BinaryCalibrationError(n_bins=15, norm="l1")(torch.from_numpy(confidence), torch.from_numpy(correct).int())
        assert values["ece"] == pytest.approx(float(metric), abs=1e-7)
    assert values["brier"] == pytest.approx(np.square(confidence - correct).mean(), abs=1e-12)
    assert ("auroc" in values) == (len(set(correct)) == 2)
    if "auroc" in values: assert values["auroc"] == pytest.approx(roc_auc_score(correct, confidence))
    for key, (low, high) in intervals.items(): assert key in values and 0 <= low <= high <= 1
    assert not any(map(math.isnan, values.values())) and ("ece" in intervals) == (len(confidence) > 1)

@pytest.mark.parametrize("bins", [1, 4, 40])
def test_the_intervals_use_the_bins_asked_for(bins):
    confidence, correct, _ = some_answers(200)
    def drawn(row): return [np.repeat(values, row.astype(int)) for values in (confidence, correct)]
    draws = bootstrap(lambda weights: np.array([plain_ece(*drawn(row), bins) for row in weights]), 200, 60)
    value = plain_ece(confidence, correct, bins)
    assert confidence_measures(confidence, correct, draws=60, bins=bins)[1]["ece"] == pytest.approx(np.clip(interval(draws, value), 0, 1), abs=1e-9)

def test_what_cannot_be_measured_is_refused():
    for wrong, match in [(([.5, .6], [1]), "1 verdicts .* 2 confidences"), (([.5], [.5]), "neither true nor false"), (([], []), "at least one"),
                         (([.5], [math.nan]), "neither true nor false"), (([.5], ["true"]), "neither true nor false")]:
        for function in confidence_measures, calibration_error, calibration_bins, TemperatureScaling.fit, PlattScaling.fit:
            with pytest.raises(InputError, match=match): function(*wrong)
    for function in TemperatureScaling.fit, PlattScaling.fit:
        with pytest.raises(InputError, match="log-probabilities"): function([-0.5, .5], [1, 0])
    for function in TemperatureScaling(2.), PlattScaling(1., 0.):
        with pytest.raises(InputError, match="log-probabilities"): function([-0.5, .5])
    for bins in 0, -3:
        for function in confidence_measures, calibration_error:
            with pytest.raises(InputError, match="at least 1"): function([.5], [1], bins=bins)
        for equal_mass in True, False:
            with pytest.raises(InputError, match="at least 1"): calibration_bins([.5], [1], equal_mass, bins)

# --- recalibration

def sigmoid(z): return 1 / (1 + np.exp(-z))

def simulated(slope, shift=0., n=20000, seed=0):
    "Answers whose chance of being right is σ(slope · logit(confidence) + shift)."
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 2, n)
    return confidence, rng.random(n) < sigmoid(slope * np.log(confidence / (1 - confidence)) + shift)

def likelihood_fit(confidence, correct, shifted):
    "Newton's method on the log-likelihood of σ(a·logit + b), or of σ(a·logit): the independent optimiser."
    z = np.log(confidence / (1 - confidence))
    x = np.stack([z, np.ones_like(z)], 1)[:, :1 + shifted]
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = sigmoid(x @ beta)
        beta += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]), x.T @ (correct - p))
    return beta

@pytest.mark.parametrize("truth", [0.5, 1, 2, 5])
def test_a_known_temperature_is_found(truth):
    found = TemperatureScaling.fit(*simulated(1 / truth))
    assert found.temperature == pytest.approx(truth, rel=0.1) and not found.at_limit

def test_a_known_slope_and_shift_are_found():
    found = PlattScaling.fit(*simulated(0.7, -1.2))
    assert found.slope == pytest.approx(0.7, abs=0.06) and found.shift == pytest.approx(-1.2, abs=0.06)

@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [30, 500])
def test_the_fits_have_the_highest_likelihood(n, seed):
    confidence, correct = simulated(0.6, -0.3, n, seed)
    assert 1 / TemperatureScaling.fit(confidence, correct).temperature == pytest.approx(likelihood_fit(confidence, correct, False)[0], rel=1e-5)
    found = PlattScaling.fit(confidence, correct)
    assert (found.slope, found.shift) == pytest.approx(likelihood_fit(confidence, correct, True), rel=1e-5)

def test_scaling_is_its_formula():
    confidence = np.array([.01, .3, .5, .9])
    z = np.log(confidence / (1 - confidence))
    assert TemperatureScaling(3.)(confidence) == pytest.approx(sigmoid(z / 3)) and TemperatureScaling(1.)(confidence) == pytest.approx(confidence)
    assert PlattScaling(.5, -1.)(confidence) == pytest.approx(sigmoid(z / 2 - 1))

def test_scaling_keeps_the_order_and_mends_the_confidences_of_another_split():
    confidence, correct = simulated(0.5, -0.4)
    dev, test = slice(0, 10000), slice(10000, None)
    before, _ = confidence_measures(confidence[test], correct[test], draws=0)
    for kind in TemperatureScaling, PlattScaling:
        scaled = kind.fit(confidence[dev], correct[dev])(confidence[test])
        after, _ = confidence_measures(scaled, correct[test], draws=0)
        assert (np.argsort(scaled) == np.argsort(confidence[test])).all()
        assert after["auroc"] == pytest.approx(before["auroc"]) and after["risk_coverage"] == pytest.approx(before["risk_coverage"])
        assert after["ece"] < before["ece"] / 2 and after["brier"] < before["brier"]

def test_order_is_reversed_where_confidence_is():
    confidence, correct = simulated(1.)
    assert PlattScaling.fit(confidence, ~correct).slope < 0
    assert TemperatureScaling.fit(confidence, ~correct) == TemperatureScaling(100., True)

@pytest.mark.parametrize("name", AWKWARD)
def test_scaling_of_awkward_answers(name):
    confidence, correct = AWKWARD[name]
    fits = [TemperatureScaling.fit(confidence, correct)]
    try: fits.append(PlattScaling.fit(confidence, correct))
    except InputError as error:
        right, wrong = confidence[correct], confidence[~correct]
        assert "Platt" in str(error) and not (len(right) and len(wrong) and right.max() > wrong.min() and right.min() < wrong.max())
    for fit in fits:
        scaled = fit(confidence)
        assert np.isfinite([v for v in vars(fit).values()]).all() and ((0 <= scaled) & (scaled <= 1)).all()
        assert np.isfinite(fit([0., 1.])).all() and "ece" in confidence_measures(scaled, correct, draws=0)[0]

@pytest.mark.parametrize("confidence, correct, temperature", [
    ([1.], [1], .01), ([0.], [0], .01), ([.9, .2], [1, 0], .01), ([.9, .9], [0, 0], 100), ([.1], [1], 100),
    ([.9, .9], [1, 0], 100), ([.5], [1], 1)])
def test_a_temperature_without_a_finite_best_is_marked(confidence, correct, temperature):
    assert TemperatureScaling.fit(confidence, correct) == TemperatureScaling(temperature, True)

def test_certain_answers_that_are_wrong_are_survived():
    confidence = np.repeat([1, 1, 0, 0, .7, .7], [45, 5, 9, 1, 30, 10])
    correct = np.repeat([1, 0, 0, 1, 1, 0], [45, 5, 9, 1, 30, 10])
    found = TemperatureScaling.fit(confidence, correct)
    assert not found.at_limit and found.temperature > 5
    z = np.repeat([53 * np.log(2), -53 * np.log(2), np.log(.7 / .3)], [50, 10, 40])
    grid = np.exp(np.linspace(np.log(.01), np.log(100), 100001))
    losses = [np.logaddexp(0, -np.where(correct, z, -z) / t).mean() for t in grid]
    assert found.temperature == pytest.approx(grid[np.argmin(losses)], rel=2e-4)

# --- the threshold

def reactions(confidence, correct, answerable, threshold):
    "Share of right reactions, one answer at a time."
    return np.mean([y if c > threshold else not a for c, y, a in zip(confidence, correct, answerable)])

@pytest.mark.parametrize("round_to", [None, 1])
@pytest.mark.parametrize("seed", range(10))
def test_no_threshold_is_better_and_no_lower_one_as_good(seed, round_to):
    rng = np.random.default_rng(seed)
    answerable = rng.random(40) < rng.choice([.2, .5, .9])
    confidence = np.where(answerable, rng.beta(5, 2, 40), rng.beta(2, 2, 40))
    if round_to: confidence = confidence.round(round_to)
    correct = answerable & (rng.random(40) < confidence)
    found = best_threshold(confidence, correct, answerable)
    tried = np.unique(np.r_[0, confidence, 1, (confidence[:, None] + confidence).ravel() / 2])
    shares = np.array([reactions(confidence, correct, answerable, t) for t in tried])
    assert 0 <= found <= 1 and reactions(confidence, correct, answerable, found) == shares.max()
    lowest = tried[shares.argmax()]
    assert ((confidence > found) == (confidence > lowest)).all()

@pytest.mark.parametrize("confidence, correct, answerable, threshold", [
    ([.9], [1], [1], 0), ([.9], [0], [0], 1), ([.9], [0], [1], 0), ([1., 1.], [0, 0], [0, 0], 1), ([0., 0.], [1, 1], [1, 1], 0),
    ([0., .4], [0, 1], [0, 1], 0), ([.2, .6], [0, 1], [0, 1], .4), ([.6, .6, .6], [1, 1, 0], [1, 1, 0], 0),
    ([.6, .6, .6], [1, 0, 0], [1, 0, 0], 1),
    ([.5, np.nextafter(.5, 1)], [0, 1], [0, 1], .5)])
def test_thresholds_of_few_answers(confidence, correct, answerable, threshold):
    assert best_threshold(confidence, correct, answerable) == pytest.approx(threshold, abs=1e-12)
    assert type(best_threshold(confidence, correct, answerable)) is float

def test_between_neighbouring_floats():
    pairs = [[np.nextafter(x, 1), x] for x in np.random.default_rng(0).random(50)]
    for high, low in pairs: assert low <= best_threshold([high, low], [1, 0], [1, 0]) < high

def test_threshold_measures():
    rng = np.random.default_rng(0)
    confidence, answerable = rng.random(200), rng.random(200) < .6
    correct = answerable & (rng.random(200) < confidence)
    values, intervals = threshold_measures(confidence, correct, answerable, .7)
    shown = confidence > .7
    assert values == pytest.approx({"coverage": shown.mean(), "selective_accuracy": correct[shown].mean(),
                                    "right": reactions(confidence, correct, answerable, .7)})
    for name, (low, high) in intervals.items(): assert low <= values[name] <= high
    assert intervals["coverage"][1] - intervals["coverage"][0] == pytest.approx(2 * 1.96 * np.sqrt(.3 * .7 / 200), rel=.15)
    silence, no_interval = threshold_measures(confidence, correct, answerable, 1.)
    assert silence == {"coverage": 0, "right": pytest.approx((~answerable).mean())} and set(no_interval) == set(silence)
    assert threshold_measures([.5], [1], [1], .2) == ({"coverage": 1, "selective_accuracy": 1, "right": 1}, {})

# --- the order of the rows means nothing, and what a threshold withholds is one rule

@pytest.mark.parametrize("seed", range(8))
def test_no_measure_depends_on_the_order_of_rows(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 90))
    confidence = rng.choice(np.r_[0, 1, rng.random(5).round(1), rng.random()], n)      # ties, zeros and ones
    correct, silent, known = (rng.random(n) < p for p in (.5, .2, .6))
    correct &= ~silent
    def found(order):
        c, y, s, k = (values[order] for values in (confidence, correct, silent, known))
        tables = [calibration_bins(c, y, equal_mass, 7).to_numpy() for equal_mass in (False, True)]
        values = confidence_measures(c, y, s, draws=0)[0] | threshold_measures(c, y, k, .5, draws=0)[0]
        return best_threshold(c, y, k), values, tables
    orders = [np.arange(n)[::-1], np.argsort(confidence), np.lexsort((correct, confidence)), np.lexsort((~correct, confidence)),
              *(rng.permutation(n) for _ in range(5))]
    threshold, values, tables = found(np.arange(n))
    for order in orders:
        other, its, its_tables = found(order)
        assert other == threshold and its == pytest.approx(values, abs=1e-12)
        for table, again in zip(tables, its_tables, strict=True): assert again == pytest.approx(table, abs=1e-12)

def test_ties_share_a_bin_in_every_draw():
    rng = np.random.default_rng(0)
    confidence = rng.choice([.1, .4, .7], 50)
    bins = mass_bins(confidence, rng.multinomial(50, np.full(50, 1 / 50), 30).astype(float))
    for value in .1, .4, .7: assert (bins[:, confidence == value].T == bins[:, np.argmax(confidence == value)]).all()

@pytest.mark.parametrize("on", [0., .3, .5, 1 - 2.**-53, 1.])
def test_a_confidence_on_the_threshold_is_withheld(on):
    confidence = np.array([0., .3, .5, 1 - 2.**-53, 1.])
    expected = np.array([c <= on or on >= 1 - 2.**-53 for c in confidence])           # 1 counts as the float below it
    assert is_withheld(confidence, on).tolist() == expected.tolist()
    every = np.ones(5, bool)
    assert threshold_measures(confidence, every, every, on, draws=0)[0]["coverage"] == pytest.approx(1 - expected.mean())

def test_the_best_threshold_is_best_by_what_is_withheld():
    rng = np.random.default_rng(1)
    for _ in range(200):
        n = int(rng.integers(1, 9))
        confidence = rng.choice([0., .2, .5, np.nextafter(.5, 1), 1.], n)
        correct, known = rng.random(n) < .5, rng.random(n) < .5
        def right(t): return np.where(is_withheld(confidence, t), ~known, correct).mean()
        found = best_threshold(confidence, correct, known)
        assert right(found) == max(right(t) for t in (0, .1, .2, .3, .5, np.nextafter(.5, 1), .7, 1))

@pytest.mark.parametrize("threshold", [-.1, 1.1, 80, math.nan, math.inf])
def test_no_threshold_on_confidence_outside_0_to_1(threshold):
    for function in (lambda: is_withheld([.5], threshold), lambda: threshold_measures([.5], [1], [1], threshold)):
        with pytest.raises(InputError, match="threshold=.*from 0 to 1.*for example 0.5"): function()
