"EAVSS and its tests against NumPy on raw activations, exact permutation distributions, and behaviour under a null that is known."
import itertools, json, math, re, warnings
import numpy as np, pytest, torch
from dataclasses import replace
from scipy.stats import kstest, spearmanr
from sklearn.metrics import roc_auc_score
from avss_nb import (
    AnswerProfile, Answers, EAVSSScorer, HallucinationAnalyzer, InputError, LayerProfile,
    Moments, Question, auroc, detector_table, intrinsic_dimension, probe_auroc, silent
)
from avss_nb.maths.moments import floored_sparsity, variance
from avss_nb.hallucination.scores import (
    balance_weights, benjamini_hochberg, cross_validated, half_agreement, permute_labels, count_relabelings,
    resampled_within, label_shift, strata_of
)

def made(activations, labels, kinds=None, subjects=None, states=None, seed=0) -> AnswerProfile:
    "A profile of given activations: layer → answer → (tokens, hidden)."
    rng, n = np.random.default_rng(seed), len(labels)
    kinds, subjects = ([""] * n if kinds is None else kinds), ([""] * n if subjects is None else subjects)
    questions = [Question(f"question {i}", ("yes",), kind=str(kinds[i]), subject=str(subjects[i]), group="g") for i in range(n)]
    answers = Answers.given(questions, ["yes"] * n, ~labels, [-rng.random(1 + i % 3) for i in range(n)])
    lengths = torch.tensor([len(a) for a in activations[0]])
    rows = [torch.from_numpy(np.concatenate(layer)) for layer in activations]
    sites = {"output": Moments.stack([Moments.each(a, lengths) for a in rows], 1)}
    layers = LayerProfile("made", "f", {"output": Moments.stack([Moments.of(a, lengths) for a in rows])[None]})
    if states is None: states = np.stack([[a.mean(0) for a in layer] for layer in activations], 1)
    return AnswerProfile(answers, "last_prompt", sites, torch.from_numpy(np.asarray(states, np.float32)), 5 + np.arange(n) % 7, layers, layers)

def random_activations(rng, scales, tokens=1, hidden=12):
    "layer → answer → (tokens, hidden), of the given standard deviations, (layers, answers)."
    return [[rng.normal(size=(tokens, hidden)) * s for s in layer] for layer in scales]

def mixed(seed=0, n=30, layers=4, share=0.4, kinds=3, lengths=(1, 6)):
    "Answers of several lengths and kinds, with raw activations."
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < round(share * n))
    tokens = rng.integers(*lengths, n)
    activations = [[rng.standard_t(4, (t, 8)) * np.exp(rng.normal()) + 0.3 for t in tokens] for _ in range(layers)]
    return activations, labels, rng.integers(0, kinds, n)

def by_hand(activations, labels, strata, eps):
    "AV, AS, HSAV, HSS, log EAVSS of every layer, written out."
    weight = np.zeros(len(labels))
    for s in set(strata):
        for kind in True, False:
            members = [i for i in range(len(labels)) if strata[i] == s and labels[i] == kind]
            others = [i for i in range(len(labels)) if strata[i] == s and labels[i] != kind]
            for i in members: weight[i] = min(len(members), len(others)) / len(members)
    found = []
    for layer, e in zip(activations, eps):
        row = {}
        for names, kind in (("hsav", "hss"), True), (("av", "as"), False):
            chosen = [i for i in range(len(labels)) if labels[i] == kind]
            values = np.concatenate([layer[i].ravel() for i in chosen])
            w = np.concatenate([np.full(layer[i].size, weight[i]) for i in chosen])
            mean = (w * values).sum() / w.sum()
            row[names[0]], row[names[1]] = (w * (values - mean) ** 2).sum() / w.sum(), (w * (np.abs(values) < e)).sum() / w.sum()
        found.append(row | {"log": math.log(row["hsav"] / row["hss"] / (row["av"] / row["as"]))})
    return {key: np.array([row[key] for row in found]) for key in found[0]}

CHEAP = dict(draws=99, probe=False, eps=0.1, relative=False)

@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("balance", [(), ("kind",)])
@pytest.mark.parametrize("seed", range(3))
def test_statistics_equal_numpy(seed, balance, relative):
    activations, labels, kinds = mixed(seed)
    if relative:                                                        # RMS 10 everywhere: ε = 0.03 RMS is an edge of the histogram
        activations = [[a * 10 / np.sqrt(np.mean(np.concatenate(layer) ** 2)) for a in layer] for layer in activations]
    eps = 0.03 if relative else 0.4
    expected = by_hand(activations, labels, kinds if balance else [0] * len(labels), [0.3 if relative else 0.4] * 4)
    scores = EAVSSScorer(**CHEAP | dict(relative=relative, eps=eps, balance=balance)).score(made(activations, labels, kinds))
    for ours, key in ((scores.hsav, "hsav"), (scores.hss, "hss"), (scores.variance, "av"), (scores.sparsity, "as"), (scores.log_eavss, "log")):
        assert ours == pytest.approx(expected[key], rel=1e-9, abs=1e-12), key
    assert not scores.floored.any()

@pytest.mark.parametrize("seed", range(4))
def test_weights_of_balance(seed):
    rng = np.random.default_rng(seed)
    labels, strata = rng.random(40) < 0.3, rng.integers(0, 6, 40)
    weights = balance_weights(labels[None], strata)[0]
    for s in range(6):
        wrong, right = (weights[(strata == s) & kind] for kind in (labels, ~labels))
        fewer = min(len(wrong), len(right))
        assert wrong.sum() == pytest.approx(fewer if len(wrong) else 0) and right.sum() == pytest.approx(fewer if len(right) else 0)
        assert len({*wrong.tolist()}) <= 1 and len({*right.tolist()}) <= 1

def test_relabel_keeps_the_counts_of_every_stratum_and_draws_evenly():
    labels, strata = np.array([1, 0, 0, 1, 1, 0, 0], bool), np.array([0, 1, 0, 1, 0, 1, 0])
    drawn = permute_labels(labels, strata, 6000, seed=1)
    for s in 0, 1: assert (drawn[:, strata == s].sum(1) == labels[strata == s].sum()).all()
    seen, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(seen) == math.comb(4, 2) * math.comb(3, 1) == count_relabelings(labels, strata)
    assert counts == pytest.approx(6000 / 18, abs=5 * math.sqrt(6000 / 18))

def test_permutation_test_equals_all_relabelings():
    "Eight answers have 70 relabelings: p and z of many draws are those of the exact distribution."
    activations, labels, _ = mixed(3, n=8, share=0.5, layers=3)
    values = np.array([by_hand(activations, np.isin(np.arange(8), chosen), [0] * 8, [0.4] * 3)["log"]
                       for chosen in itertools.combinations(range(8), 4)])
    found = by_hand(activations, labels, [0] * 8, [0.4] * 3)["log"]
    scores = EAVSSScorer(**CHEAP | dict(eps=0.4, draws=6000)).score(made(activations, labels))
    exact = (np.abs(values) >= np.abs(found) - 1e-9).mean(0)
    assert scores.p == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(6000))
    assert scores.z == pytest.approx((found - values.mean(0)) / values.std(0), abs=0.1)

def test_exchanging_right_and_wrong_turns_the_sign():
    activations, labels, kinds = mixed(1)
    a, b = (EAVSSScorer(**CHEAP).score(made(activations, l, kinds)) for l in (labels, ~labels))
    assert a.log_eavss == pytest.approx(-b.log_eavss) and a.z == pytest.approx(-b.z) and np.array_equal(a.p, b.p)
    assert np.array_equal(a.hsav, b.variance) and a.faithful == b.hallucinated

def test_units_do_not_matter_where_the_threshold_is_relative():
    activations, labels, kinds = mixed(2)
    a, b = (EAVSSScorer(**CHEAP | dict(relative=True)).score(made([[x * c for x in layer] for layer in activations], labels, kinds))
            for c in (1, 10))                                           # the histogram's edges repeat every decade
    assert a.log_eavss == pytest.approx(b.log_eavss, rel=1e-6) and a.z == pytest.approx(b.z, rel=1e-6)

@pytest.mark.parametrize("balance", [(), ("kind",)])
def test_the_order_of_the_answers_does_not_matter(balance):
    activations, labels, kinds = mixed(4, n=40)
    order = np.random.default_rng(9).permutation(40)
    scorer = EAVSSScorer(**CHEAP | dict(draws=2000, balance=balance))
    a = scorer.score(made(activations, labels, kinds))
    b = scorer.score(made([[layer[i] for i in order] for layer in activations], labels[order], kinds[order]))
    assert a.log_eavss == pytest.approx(b.log_eavss, rel=1e-9)
    assert a.z == pytest.approx(b.z, abs=0.15) and a.p == pytest.approx(b.p, abs=0.06)      # other draws: equal but for chance
    assert a.log_low == pytest.approx(b.log_low, abs=0.1)

def test_shifts_of_some_answers_that_count_several_times():
    "Every row of labels and weights by moments that are merged, answer by answer."
    rng, (activations, labels, _) = np.random.default_rng(0), mixed(7, n=24)
    m, eps = made(activations, labels).site("output"), torch.tensor([0.4, 0.1, 0.25, 3.], dtype=torch.float64)
    rows, counts = rng.random((5, 24)) < 0.5, rng.integers(0, 4, (5, 24)).astype(float)
    found = label_shift(m, rows, counts, eps)
    for row, times, *ours in zip(rows, counts, found.hsav, found.hss, found.av, found.as_):
        for kind, (var, share) in (row, ours[:2]), (~row, ours[2:]):
            chosen = m[torch.from_numpy(np.repeat(np.arange(24), (times * kind).astype(int)))].total()
            assert var == pytest.approx(variance(chosen).numpy(), rel=1e-12)
            assert share == pytest.approx(floored_sparsity(chosen, eps)[0].numpy(), rel=1e-12)

def test_shuffles_are_the_same_a_few_at_a_time(monkeypatch):
    labels, strata = np.arange(50) % 3 == 0, np.arange(50) % 4
    whole = permute_labels(labels, strata, 90, seed=5)
    monkeypatch.setattr("avss_nb.hallucination.scores._few_rows", lambda rows: np.array_split(rows, 7))
    assert np.array_equal(permute_labels(labels, strata, 90, seed=5), whole)

def test_settings_are_deterministic():
    profile = made(*mixed(5))
    a, b, c = (EAVSSScorer(**CHEAP | dict(seed=s)).score(profile) for s in (0, 0, 1))
    assert a.to_dict() == b.to_dict() and np.array_equal(a.log_eavss, c.log_eavss) and not np.array_equal(a.z, c.z)

# --- under the null, and with something to find

@pytest.fixture
def no_halves(monkeypatch):
    "The agreement of halves costs nine tenths of a score, and is tested apart."
    monkeypatch.setattr("avss_nb.hallucination.scores.half_agreement", lambda *_: (math.nan,) * 3)

def null_scores(repetition, stratified):
    "Independent data; labels know nothing of activations, but (if stratified) the kind knows of both."
    rng = np.random.default_rng([7, repetition])
    kinds = rng.integers(0, 3, 36)
    scales = np.exp(rng.normal(0, 0.6, (4, 36)) + (stratified * kinds))
    labels = rng.random(36) < (np.array([0.25, 0.5, 0.75])[kinds] if stratified else 0.35)
    if min(labels.sum(), (~labels).sum()) < 2: return null_scores(repetition + 10_000, stratified)
    scorer = EAVSSScorer(draws=199, probe=False, relative=False, balance=("kind",) * stratified, seed=repetition)
    return scorer.score(made(random_activations(rng, scales), labels, kinds))

@pytest.mark.parametrize("stratified", [False, True])
def test_p_values_are_uniform_under_the_null(stratified, no_halves):
    p = np.array([null_scores(i, stratified).p for i in range(240)])
    spread = p - np.random.default_rng(0).random(p.shape) / 200        # p is 1/200, 2/200 …: spread evenly over its step
    for layer in range(4): assert kstest(spread[:, layer], "uniform").pvalue > 0.002
    assert kstest(spread.ravel(), "uniform").pvalue > 0.002
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / p.size))

def planted(seed, n=60, layers=6, at=3, size=2.):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < n // 2)
    scales = np.exp(rng.normal(0, 0.3, (layers, n)))
    scales[at, labels] *= size
    return random_activations(rng, scales), labels

def test_a_planted_layer_is_found_and_others_are_not():
    false = 0
    for seed in range(6):
        scores = EAVSSScorer(draws=999, probe=False).score(made(*planted(seed)))
        assert scores.q[3] < 0.05 and scores.layers(1) == [3] and scores.log_eavss[3] > 0
        assert scores.log_low[3] > 0 and not scores.null_low[3] < scores.log_eavss[3] < scores.null_high[3]
        false += (scores.q[[0, 1, 2, 4, 5]] < 0.05).sum()
    assert false <= 1

def test_a_confounder_is_found_and_vanishes_with_balance(no_halves):
    "The kind decides how large activations are and how often answers are wrong; within a kind there is nothing."
    rng, low = np.random.default_rng(0), []
    for _ in range(20):
        kinds = np.arange(160) % 2
        labels = rng.random(160) < np.array([0.2, 0.8])[kinds]
        profile = made(random_activations(rng, np.exp(rng.normal(0, 0.3, (1, 160)) + kinds)), labels, kinds)
        found, gone = (EAVSSScorer(draws=199, probe=False, balance=balance).score(profile) for balance in ((), ("kind",)))
        assert found.p[0] <= 0.05 and 0.3 < found.log_eavss[0]
        low.append(gone.p[0])
        assert abs(gone.log_eavss[0]) < 0.7 * found.log_eavss[0]
    assert (np.array(low) <= 0.05).mean() <= 0.2

def test_intervals_cover_the_truth(no_halves):
    "log EAVSS of equal kinds is 0: about 95 % of the bootstrap intervals hold it."
    found = []
    for seed in range(60):
        rng = np.random.default_rng([3, seed])
        scores = EAVSSScorer(draws=199, probe=False, relative=False).score(made(random_activations(rng, np.ones((4, 80))), np.arange(80) % 2 == 0))
        found.append((scores.log_low <= 0) & (scores.log_high >= 0))
    assert 0.88 <= np.mean(found) <= 0.99

def test_layers_rank_by_z_or_by_propensity():
    profile = made(*planted(0))
    z, propensity = (EAVSSScorer(**CHEAP | dict(by=by)).score(profile) for by in ("z", "propensity"))
    assert np.array_equal(z.values, np.abs(z.z)) and np.array_equal(propensity.values, np.abs(propensity.log_eavss))
    assert (propensity.low <= propensity.high).all() and z.score == "eavss_z" and propensity.score == "eavss"

def test_benjamini_hochberg_written_out():
    p = np.random.default_rng(0).random(12) ** 3
    p[3] = p[5]
    order, expected, smallest = sorted(range(12), key=lambda i: p[i]), np.empty(12), 1.
    for rank in range(12, 0, -1):
        smallest = min(smallest, p[order[rank - 1]] * 12 / rank)
        expected[order[rank - 1]] = smallest
    assert benjamini_hochberg(p) == pytest.approx(expected)
    scores = EAVSSScorer(**CHEAP).score(made(*mixed(0)))
    assert scores.q == pytest.approx(benjamini_hochberg(scores.p)) and (scores.q >= scores.p).all()

# --- detectors

@pytest.mark.parametrize("seed", range(4))
def test_auroc_equals_sklearn_and_a_loop_over_pairs(seed):
    rng = np.random.default_rng(seed)
    labels, strata, score = rng.random(50) < 0.4, rng.integers(0, 4, 50), np.round(rng.normal(size=50), 1)  # with ties
    value, low, high = auroc(score, labels)
    assert value == pytest.approx(roc_auc_score(labels, score)) and low <= value <= high
    pairs = [(score[i] > score[j]) + (score[i] == score[j]) / 2 for i in range(50) for j in range(50)
             if labels[i] and not labels[j] and strata[i] == strata[j]]
    assert auroc(score, labels, strata)[0] == pytest.approx(np.mean(pairs))

@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_auroc_and_its_interval_are_those_of_all_pairs(digits, groups):
    "By ranks, exactly what a matrix of all pairs gives for the same draws; several detectors at once as each alone."
    rng = np.random.default_rng(digits)
    labels, strata, scores = rng.random(70) < 0.4, rng.integers(0, groups, 70), np.round(rng.normal(size=(3, 70)), digits)
    counts = np.concatenate([np.ones((1, 70)), resampled_within(labels, strata, 50, seed=2)])
    found = auroc(scores, labels, strata, draws=50, seed=2)
    for score, *ours in zip(scores, *found):
        won = (np.sign(score[:, None] - score) + 1) / 2
        pairs = (labels[:, None] & ~labels & (strata[:, None] == strata)).astype(float)
        values = [c @ (won * pairs) @ c / (c @ pairs @ c) for c in counts]
        assert ours == [values[0], *np.quantile(values[1:], [0.025, 0.975])]
        assert auroc(score, labels, strata, draws=50, seed=2) == tuple(ours)

def test_auroc_without_pairs_is_not_known():
    assert all(map(math.isnan, auroc(np.arange(4.), np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1]))))

def states_of(rng, labels, layers=2, signal=(0., 0.), hidden=20):
    states = rng.normal(size=(len(labels), layers, hidden))
    for layer, size in enumerate(signal): states[:, layer, 0] += size * (2 * labels - 1)
    return states

def test_probe_finds_a_planted_signal_and_nothing_in_noise():
    rng, covered, values = np.random.default_rng(0), [], []
    for seed in range(40):
        labels = rng.random(60) < 0.4
        profile = made(random_activations(rng, np.ones((2, 60)), hidden=2), labels, states=states_of(rng, labels, signal=(8, 0)))
        value, low, high = probe_auroc(profile, seed=seed)
        covered.append(low[1] <= 0.5 <= high[1]), values.append(value)
    planted, noise = np.mean(values, 0)
    assert planted > 0.98 and np.min(values, 0)[0] > 0.9 and noise == pytest.approx(0.5, abs=0.05)
    assert np.mean(covered) >= 0.75                                     # folds share their training data: less than 95 %

def test_probe_never_saw_the_subject():
    "Every subject has a direction of its own: where its answers are on both sides of a fold, a probe recites them."
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(30), 4)
    labels = (rng.random(30) < 0.5)[subjects]
    states = 5 * rng.normal(size=(30, 1, 64))[subjects] + 0.1 * rng.normal(size=(120, 1, 64))
    def probed(subjects): return probe_auroc(made(random_activations(rng, np.ones((1, 120)), hidden=2), labels, subjects=subjects, states=states))
    assert probed(None)[0][0] > 0.95 and probed([""] * 120)[0][0] > 0.95    # each question a subject of its own
    assert probed(subjects)[0][0] < 0.75

@pytest.mark.parametrize("seed", range(60))
def test_few_subjects_never_break_the_probe(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 20))
    labels, subjects = rng.random(n) < rng.uniform(0.2, 0.8), rng.integers(0, rng.integers(1, 8), n)
    if not 2 <= labels.sum() <= n - 2: labels[:2], labels[2:4] = True, False
    profile = made(random_activations(rng, np.ones((1, n)), hidden=3), labels, subjects=subjects)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_validated(profile.states[:, 0].numpy(), profile)
    assert scores is None or np.isfinite(scores).all()

def test_half_agreement():
    strong, noise = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels, sizes = np.arange(80) % 2 == 0, np.exp(np.linspace(-1.5, 1.5, 8))
        for found, size in (strong, sizes), (noise, np.ones(8)):
            scales = np.where(labels, size[:, None], 1.) * np.exp(rng.normal(0, 0.2, (8, 80)))
            found.append(EAVSSScorer(**CHEAP | dict(relative=True)).score(made(random_activations(rng, scales), labels)).halves)
    assert min(low for mean, low, high in strong) > 0.7 and np.mean([mean for mean, *_ in strong]) > 0.9
    assert abs(np.mean([mean for mean, *_ in noise])) < 0.2
    assert all(low <= mean <= high for mean, low, high in strong + noise)

def test_halves_are_disjoint_and_keep_subjects_together():
    activations, labels, kinds = mixed(0, n=40)
    subjects, seen = np.random.default_rng(0).integers(0, 12, 40), []
    def statistic(chosen):
        seen.append(chosen)
        return np.random.default_rng(len(seen)).random(4)
    half_agreement(made(activations, labels, kinds, subjects), statistic)
    assert len(seen) == 40
    for one, other in zip(seen[::2], seen[1::2]):
        assert (one ^ other).all() and not {*subjects[one]} & {*subjects[other]}
        assert abs(len({*subjects[one]}) - len({*subjects[other]})) <= 1

def test_half_agreement_is_spearman_of_the_halves():
    activations, labels, kinds = mixed(6, n=40)
    found = []
    def statistic(chosen):
        found.append(by_hand([[a for a, c in zip(layer, chosen) if c] for layer in activations], labels[chosen],
                             [0] * int(chosen.sum()), [0.1] * 4)["log"])
        return found[-1]
    mean = half_agreement(made(activations, labels, kinds), statistic)[0]
    assert mean == pytest.approx(np.mean([spearmanr(a, b)[0] for a, b in zip(found[::2], found[1::2])]))
    assert EAVSSScorer(**CHEAP | dict(balance=())).score(made(activations, labels, kinds)).halves[0] == pytest.approx(mean)

def test_bootstrap_draws_within_kind_and_stratum():
    labels, strata = np.array([1, 0, 1, 1, 0, 0, 1], bool), np.array([0, 0, 0, 1, 1, 1, 1])
    counts = resampled_within(labels, strata, 500)
    for kind, s in itertools.product((True, False), (0, 1)):
        assert (counts[:, (labels == kind) & (strata == s)].sum(1) == ((labels == kind) & (strata == s)).sum()).all()
    assert counts.mean(0) == pytest.approx(np.ones(7), abs=0.2)

def test_table_of_detectors():
    rng = np.random.default_rng(0)
    activations, labels, kinds = mixed(0, n=60)
    profile = made(activations, labels, kinds, states=states_of(rng, labels, layers=4, signal=(0, 8, 0, 0)))
    scores = EAVSSScorer(draws=99).score(profile)
    table = detector_table(profile, scores)
    assert not table.isna().any(axis=None) and len(table) == 5
    assert table.loc["low confidence", "AUROC"] == pytest.approx(roc_auc_score(labels, -profile.answers.confidences))
    assert table.loc["long prompt (tokens)", "AUROC"] == pytest.approx(roc_auc_score(labels, profile.prompt_tokens))
    assert table.loc["linear probe, layer 1 (best of 4)", "AUROC"] > 0.9
    assert scores.probe[1] > 0.9 and (scores.probe_low <= scores.probe).all() and (scores.probe <= scores.probe_high).all()
    assert not detector_table(made(activations, labels)).isna().any(axis=None)

def test_a_kind_that_decides_is_seen_alone():
    kinds = np.arange(60) % 2
    labels = np.random.default_rng(0).random(60) < np.where(kinds, 0.9, 0.1)
    table = detector_table(made(random_activations(np.random.default_rng(0), np.ones((1, 60))), labels, kinds))
    assert table.loc["kind of question alone", "AUROC"] > 0.75 and table.loc["kind of question alone", "within kinds"] == 0.5

@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("centre", [0., 1e5])
def test_intrinsic_dimension(dimension, centre):
    "Uniform points in a subspace of 20 dimensions; where they lie is nothing."
    rng = np.random.default_rng(0)
    points = rng.random((600, dimension)) @ np.linalg.qr(rng.normal(size=(20, dimension)))[0].T * 1e-3 + centre
    found = intrinsic_dimension(torch.from_numpy(points)[:, None])
    assert found[0] == pytest.approx(dimension, rel=0.2)

def test_intrinsic_dimension_of_too_few_points():
    points = torch.ones(9, 1, 4)
    points[0] = 2
    assert np.isnan(intrinsic_dimension(points)).all()

# --- unusual and bad input

def finite(scores, probe=True):
    "Nothing in the table or the JSON is NaN; what is unknown is None."
    frame, text = scores.to_frame(), json.dumps(scores.to_dict(), allow_nan=False)
    assert np.isfinite(frame.astype(float).to_numpy()).all()
    assert ("probe AUROC" in frame) == probe
    assert (json.loads(text)["layers"][0]["probe_auroc"] is not None) == probe
    repr(scores), scores._repr_html_()
    return scores

def test_tables_hold_numbers():
    activations, labels, kinds = mixed(0, n=40)
    finite(EAVSSScorer(draws=99).score(made(activations, labels, kinds)))
    finite(EAVSSScorer(**CHEAP).score(made(activations, labels, kinds)), probe=False)

@pytest.mark.parametrize("q, out", [([0.3] * 6, ()), ([0.3] * 3 + [0.01] + [0.3] * 2, (3,))])
def test_without_a_layer_that_stands_out_nothing_is_ordered(q, out):
    "Words, tables and the lines of the command: in the order of the layers, and none is called the most prone."
    from avss_nb.commands.hallucination import hallucination_lines
    from avss_nb.hallucination.scores import detector_table
    profile = made(*planted(0))
    scores = replace(EAVSSScorer(**CHEAP).score(profile), q=np.array(q))
    lines = hallucination_lines(scores, detector_table(profile), profile.answers, 6)
    order, words = [*scores.layers(6)] if out else [*range(6)], "layer 3 stands out" if out else "no layer stands out"
    assert scores.layers(6) != (0, 1, 2, 3, 4, 5)
    assert [int(line.split()[0]) for line in lines[1].splitlines()[1:]] == order
    assert all(words in text and "most" not in text for text in (repr(scores), lines[0], scores._repr_html_().split("<table")[0]))
    rows = re.findall(r"<tr>\s*<td>(\d+)</td>", scores._repr_html_())
    assert [*map(int, rows)] == order and scores.standing_out == out and scores.to_dict()["stand_out"] == [*out]
    json.dumps(scores.to_dict(), allow_nan=False)

@pytest.mark.parametrize("right, wrong", [(2, 2), (3, 2), (2, 9)])
def test_too_few_for_a_test(right, wrong):
    activations, _, _ = mixed(0, n=right + wrong)
    scores = finite(EAVSSScorer(draws=99).score(made(activations, np.arange(right + wrong) < wrong)))
    smallest = 1 / math.comb(right + wrong, wrong)
    noted = any("too few answers for a test" in note for note in scores.notes)
    assert noted == (smallest > 0.05)
    if noted: assert (scores.p >= smallest / 2).all() and "too few" in scores._repr_html_()

def test_one_comparable_pair_only():
    "One kind has a right and a wrong answer, the others are all right or all wrong."
    activations, labels, _ = mixed(0, n=12)
    right, wrong = np.flatnonzero(~labels), np.flatnonzero(labels)
    kinds = np.where(labels, "w", "r")
    kinds[[right[0], wrong[0]]] = "both"
    scores = finite(EAVSSScorer(draws=99, probe=False).score(made(activations, labels, kinds)), probe=False)
    assert scores.faithful == scores.hallucinated == 1 and any("10 answers" in note for note in scores.notes)
    assert any("too few" in note for note in scores.notes)
    assert scores.to_dict()["halves"] == {"mean": None, "low": None, "high": None}

@pytest.mark.parametrize("layers", [1, 2])
def test_models_of_few_layers(layers):
    activations, labels, kinds = mixed(0, layers=layers)
    finite(EAVSSScorer(**CHEAP).score(made(activations, labels, kinds)), probe=False)

def test_nothing_below_the_threshold_is_floored_and_marked():
    activations, labels, kinds = mixed(0)
    activations[1] = [np.abs(a) + 1 for a in activations[1]]
    scores = finite(EAVSSScorer(**CHEAP).score(made(activations, labels, kinds)), probe=False)
    assert scores.floored.tolist() == [False, True, False, False]

@pytest.mark.parametrize("relative", [False, True])
def test_a_layer_that_does_nothing_is_named(relative):
    activations, labels, kinds = mixed(0)
    activations[2] = [a * 0 for a in activations[2]]
    with pytest.raises(InputError, match="layer 2"): EAVSSScorer(**CHEAP | dict(relative=relative)).score(made(activations, labels, kinds))

@pytest.mark.parametrize("wrong", [0, 1, 29, 30])
def test_too_few_of_a_kind(wrong):
    activations, _, _ = mixed(0)
    with pytest.raises(InputError, match=f"{30 - wrong} faithful and {wrong} hallucinated answers were given; at least 2"):
        EAVSSScorer(**CHEAP).score(made(activations, np.arange(30) < wrong))

def test_no_stratum_has_both_kinds():
    activations, labels, _ = mixed(0)
    with pytest.raises(InputError, match="no group of equal kind contains both right and wrong"):
        EAVSSScorer(**CHEAP).score(made(activations, labels, labels.astype(int)))

@pytest.mark.parametrize("name", ["colour", "accepts", "of"])
def test_unknown_attribute_to_balance_by(name):
    with pytest.raises(InputError, match=f"cannot be balanced by '{name}'"): EAVSSScorer(**CHEAP | dict(balance=name)).score(made(*mixed(0)))

@pytest.mark.parametrize("settings, message", [
    (dict(site="soul"), "site 'soul'"), (dict(by="luck"), "by='luck'"), (dict(eps=0), "ε = 0"), (dict(eps=-1.), "ε = -1"),
    (dict(eps=float("nan")), "ε = nan"), (dict(draws=5), "5 draws"), (dict(confidence=1.), "confidence 1.0")])
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message): EAVSSScorer(**settings)

def test_a_site_that_was_not_profiled():
    with pytest.raises(InputError, match="'mlp' was not profiled; this profile has output"): EAVSSScorer(site="mlp").score(made(*mixed(0)))

def test_strata():
    activations, labels, kinds = mixed(0, n=40)
    profile = made(activations, labels, kinds)
    assert len({*strata_of(profile, [])}) == 1
    both = strata_of(profile, ["kind", "prompt_tokens"])
    cut = np.searchsorted(np.quantile(profile.prompt_tokens, [0.25, 0.5, 0.75]), profile.prompt_tokens)
    for i, j in itertools.combinations(range(40), 2):
        assert (both[i] == both[j]) == (kinds[i] == kinds[j] and cut[i] == cut[j])

@pytest.mark.parametrize("n", [40, 1200, 5000])
def test_many_answers_can_be_relabelled_in_many_ways(n):
    assert count_relabelings(np.arange(n) % 2 == 0, np.zeros(n, int)) >= 1e9
    assert count_relabelings(np.array([True, False, False]), np.zeros(3, int)) == 3

def test_analyzer(teaching, world):
    "From answers to scores in one call, with the model's real activations."
    from avss_nb import Evaluator
    answers = Evaluator(*teaching).answer([q for group in ("known", "unknown") for q in world.questions(group, 20)])
    analyzer = HallucinationAnalyzer(*teaching, sites=iter(["output", "update"]), scorer=EAVSSScorer("update", **CHEAP))
    scores = finite(analyzer.analyze(answers, silent), probe=False)
    profile = analyzer.profile(answers, silent)
    again = EAVSSScorer("update", **CHEAP).score(profile)
    assert again.to_dict() == scores.to_dict() and len(scores.values) == 12
    assert scores.faithful + scores.hallucinated <= len(profile) and scores.tokens == len(profile)
    with pytest.raises(InputError, match="not among output"): HallucinationAnalyzer(*teaching, sites=["output"], scorer=EAVSSScorer("mlp"))
