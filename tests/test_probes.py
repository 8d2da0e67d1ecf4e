"Probes of many layers at once against scikit-learn, one layer and fold at a time."
import warnings
import numpy as np, pytest, torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from avss_nb.maths import probes
from avss_nb.maths.probes import fit_probes, deal_folds

def one_by_one(x, labels, held, strength=0.01):
    "The held-out decision function of every fold, each fitted to the end."
    found = np.empty(len(x))
    for fold in np.unique(held):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-10, max_iter=20_000))
        out = held == fold
        found[out] = model.fit(x[~out].astype(float), labels[~out]).decision_function(x[out].astype(float))
    return found

def some_states(seed, n, features, layers=2, signal=1.):
    "Float32 states whose features differ in size, place and use, as those of a model do."
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < round(0.4 * n))
    mixing = np.linalg.qr(rng.normal(size=(features, features)))[0] / np.sqrt(1 + np.arange(features))[:, None]
    states = rng.normal(size=(n, layers, features)) @ mixing * np.exp(rng.normal(0, 2, features)) + rng.normal(0, 3, features)
    states[labels] += signal * states.std(0) * rng.normal(size=features) / np.sqrt(features)
    return states.astype(np.float32), labels

def check_close(states, labels, held, **settings):
    "Log-odds within a thousandth of the largest, and AUROC within 0.003."
    found = fit_probes(torch.from_numpy(states), labels, held, **settings)
    for layer, ours in enumerate(found):
        theirs = one_by_one(states[:, layer], labels, held, settings.get("strength", 0.01))
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max(), layer
        assert roc_auc_score(labels, ours) == pytest.approx(roc_auc_score(labels, theirs), abs=3e-3)
    return found

@pytest.mark.parametrize("n, features, signal", [(300, 24, 1.), (80, 200, 0.), (60, 300, 6.), (12, 2, 1.), (200, 1, 1.)])
@pytest.mark.parametrize("seed", range(2))
def test_log_odds_equal_scikit_learn(n, features, signal, seed):
    states, labels = some_states(seed, n, features, signal=signal)
    check_close(states, labels, np.random.default_rng(seed).permutation(n) % 5)

@pytest.mark.parametrize("strength", [1e-4, 1.])
def test_other_strengths(strength):
    states, labels = some_states(3, 150, 20)
    check_close(states, labels, np.arange(150) % 3, strength=strength)

def test_rare_kinds_and_folds_of_one_kind():
    "A fold may hold out answers of one kind only; the others must be learned from both."
    states, labels = some_states(4, 100, 10)
    labels = np.arange(100) < 6
    check_close(states, labels, np.r_[np.arange(6) % 3, np.arange(94) % 4])

def test_constant_features_say_nothing():
    states, labels = some_states(5, 90, 12)
    held, states[:, :, 3], states[:, :, 4] = np.arange(90) % 5, 7.1, 0
    check_close(states, labels, held)
    states[held == 0, :, 5] += np.arange(18)[:, None]  # changes in what is held out, and nowhere else
    states[held != 0, :, 5] = 2
    check_close(states, labels, held)
    share = np.array([labels[held != fold].mean() for fold in held])
    assert np.allclose(fit_probes(torch.full((90, 1, 4), 3.), labels, held), np.log(share / (1 - share)), atol=1e-3)

def test_one_massive_value_does_not_blur_the_others():
    states, labels = some_states(6, 100, 30)
    states[3, :, 7] = 1e5 * states[:, :, 7].std(0)
    check_close(states, labels, np.arange(100) % 5)

def test_layers_know_nothing_of_each_other(monkeypatch):
    states, labels = some_states(7, 200, 30, layers=5)
    held, together = np.arange(200) % 5, torch.from_numpy(states)
    whole = fit_probes(together, labels, held)
    sizes, made = [], probes._Standardized.__init__
    monkeypatch.setattr(probes._Standardized, "__init__", lambda z, x, seen: sizes.append(len(x)) or made(z, x, seen))
    monkeypatch.setattr(probes, "_MB", 200 * 30 * 32 * 2)  # as much as two layers take
    assert np.allclose(fit_probes(together, labels, held, memory=1), whole, atol=2e-3 * np.abs(whole).max())
    assert sizes == [2, 2, 1]
    alone = fit_probes(together[:, 3:4], labels, held)[0]
    assert np.allclose(alone, whole[3], atol=2e-3 * np.abs(alone).max())

def test_what_is_held_out_is_not_looked_at():
    "Another label of an answer changes the probes of other folds only."
    states, labels = some_states(8, 100, 10)
    held = np.arange(100) % 5
    before, other = fit_probes(torch.from_numpy(states), labels, held), labels.copy()
    other[held == 2] = ~other[held == 2]
    after = fit_probes(torch.from_numpy(states), other, held)
    assert np.allclose(before[:, held == 2], after[:, held == 2], atol=1e-3 * np.abs(before).max())
    assert not np.allclose(before[:, held == 1], after[:, held == 1], atol=1e-2)

@pytest.mark.parametrize("kind, near", [(torch.bfloat16, 0.01), (torch.float16, 3e-3), (torch.float64, 3e-3)])
def test_other_precisions(kind, near):
    states, labels = some_states(9, 300, 40)
    held, t = np.arange(300) % 5, torch.from_numpy(states)
    exact, rounded = fit_probes(t, labels, held), fit_probes(t.to(kind), labels, held)
    for a, b in zip(exact, rounded): assert roc_auc_score(labels, a) == pytest.approx(roc_auc_score(labels, b), abs=near)

# --- folds

def test_folds_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, subjects = rng.random(120) < 0.4, rng.integers(0, 50, 120).astype(str)
    held = deal_folds(subjects, labels, seed=3)
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=3).split(labels, labels, subjects)
    for fold, (_, out) in enumerate(splits): assert (np.flatnonzero(held == fold) == out).all()
    for subject in set(subjects): assert len(set(held[subjects == subject])) == 1

def test_folds_are_dealt_once(monkeypatch):
    import sklearn.model_selection as module
    calls, folder = [], module.StratifiedGroupKFold
    monkeypatch.setattr(module, "StratifiedGroupKFold", lambda *a, **k: calls.append(k["random_state"]) or folder(*a, **k))
    labels, subjects = np.arange(40) % 3 == 0, [f"only here {i}" for i in range(40)]
    first = deal_folds(subjects, labels)
    again = first.copy()
    first[:] = -1                                           # what is kept cannot be changed from outside
    assert (deal_folds(subjects, labels) == again).all() and calls == [0]
    deal_folds(subjects, labels, seed=1), deal_folds(subjects, ~labels)
    assert calls == [0, 1, 0]

def test_too_few_to_learn_from():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert deal_folds(["a"] * 6, np.arange(6) < 3) is None and deal_folds(["a", "b", "c"], np.ones(3, bool)) is None
        assert deal_folds(["a", "b", "c", "d"], np.arange(4) < 2).max() == 1
