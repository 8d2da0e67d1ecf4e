"Intervals that hold: texts are resampled whatever the batches, and a 95 % interval contains the truth about as often."
import math
from collections import Counter
from dataclasses import replace
import numpy as np, pytest, torch
from matplotlib.figure import Figure
from avss_nb import (
    SITES, ExactSum, InputError, LayerProfile, LayerProfiler, LayerScorer, MomentSums, Moments,
    Perplexity, angular_distances, plot_ranking, silent
)
from avss_nb.data.batches import text_batches
from avss_nb.layers.profiler import dealt_group
from avss_nb.maths.bootstrap import bootstrap_weights
from safetensors import safe_open
from test_cli import done, refused
from tiny import VOCABULARY, tiny

torch.set_num_threads(1)
ROWS = [torch.randint(3, VOCABULARY, (n % 23 + 2,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(60)]

# --- groups

@pytest.mark.parametrize("groups", [1, 5, 16])
def test_every_round_serves_every_group_once(groups):
    for start in range(0, 10 * groups, groups):
        assert sorted(dealt_group(n, groups) for n in range(start, start + groups)) == [*range(groups)]
    assert groups < 5 or len({tuple(dealt_group(n, groups) for n in range(s, s + groups)) for s in range(0, 10 * groups, groups)}) > 5

@pytest.mark.parametrize("size", [1, 7, 60])
def test_rows_know_their_text(size):
    rows = [*ROWS[:9], [], [7] * 50, *ROWS[9:]]
    seen = [(text, number, row) for batch, _ in text_batches(rows, None, size, max_length=20) for text, number, row in zip(batch.texts, batch.numbers, batch)]
    kept = [row for row in rows if row]
    expected = [(text, row[i:i + 20]) for text, row in enumerate(kept) for i in range(0, len(row), 20)]
    assert [(text, row) for text, _, row in sorted(seen, key=lambda s: s[1])] == expected and sorted(n for _, n, _ in seen) == [*range(len(expected))]

@pytest.mark.parametrize("rows", [ROWS, ROWS[:11], [[*range(3, 500)]]], ids=["60 texts", "11 texts", "windows of one text"])
def test_groups_do_not_depend_on_batches(rows):
    model = tiny("llama", dtype=torch.float64)
    def made(size): return LayerProfiler(model, sites=SITES, batch_size=size, max_length=25, ablation=True).profile(rows, silent)
    one = made(1)
    assert one.groups == min(16, max(len(rows), -(-len(rows[0]) // 25))) and one.settings["resampled"] == ("texts" if len(rows) > 1 else "windows")
    for size in 3, 64:
        other = made(size)
        assert torch.equal(one.predicted, other.predicted)
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-5, atol=0)  # of float32
        for site in SITES:
            for a, b in (one.sites, other.sites), (one.first, other.first):
                for name, t in vars(a[site]).items():
                    torch.testing.assert_close(t, getattr(b[site], name), rtol=1e-9, atol=1e-9, equal_nan=True, msg=f"{site} {name}")
        torch.testing.assert_close(one.largest, other.largest, rtol=1e-9, atol=0)

def test_all_windows_of_a_text_are_in_one_group():
    rows = [[3 + n] * 30 for n in range(20)]
    profile = LayerProfiler(tiny("llama"), max_length=10, batch_size=7).profile(rows, silent)
    dealt = Counter(dealt_group(n, 16) for n in range(20))
    assert profile.site("output").sequences[:, 0].tolist() == [3 * dealt[g] for g in range(16)]

def test_angles_are_of_texts_too():
    model = tiny("llama")
    one, other = (angular_distances(model, None, ROWS, batch_size=size, progress=silent) for size in (1, 60))
    assert one.tokens.tolist() == other.tokens.tolist() and len(one.tokens) == 16
    np.testing.assert_allclose(one.sums, other.sums, rtol=1e-4, atol=1e-5)

def test_the_order_of_adding_changes_nothing():
    parts = [MomentSums.of(Moments.of(10**float(n % 5) * torch.randn(9, 4, generator=torch.Generator().manual_seed(n)))) for n in range(50)]
    totals = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(50)
        total = parts[order[0]]
        for i in order[1:]: total = total + parts[i]
        totals.append(total.result())
    for other in totals[1:]:
        for name, t in vars(totals[0]).items(): torch.testing.assert_close(getattr(other, name), t, rtol=0, atol=0, equal_nan=True)
    ordinary = torch.tensor([1e16, 1., -1e16, 1.]).double()
    assert float(sum(map(ExactSum.of, ordinary[1:]), ExactSum.of(ordinary[0])).value) == 2

# --- coverage

SPREAD, EPS = 0.3, 0.5  # of the logarithm of a text's scale

def texts_of(n, rng, tokens=30, hidden=8):
    "n texts whose scale differs from text to text, as Moments dealt to groups; two layers."
    scale = np.exp(SPREAD * rng.standard_normal((2, n)))
    group = torch.tensor([dealt_group(i, 16) for i in range(n)])
    layers = [Moments.each(torch.from_numpy(np.repeat(s, tokens)[:, None] * rng.standard_normal((n * tokens, hidden))), torch.full((n,), tokens)).dealt(group, 16) for s in scale]
    m = Moments.stack(layers, 1)
    return LayerProfile("synthetic", "none", {"update": m[m.tokens[:, 0] > 0]})

def truth():
    z = np.linspace(-8, 8, 20001)
    weight = np.exp(-z**2 / 2); weight /= weight.sum()
    scale = np.exp(SPREAD * z)
    return (weight @ scale**2) / (weight @ np.array([math.erf(EPS / s / math.sqrt(2)) for s in scale]))

@pytest.mark.parametrize("n", [8, 16, 64])
def test_intervals_of_a_score_hold(n):
    value, repeats, hit = truth(), 250, 0
    for repeat in range(repeats):
        scores = LayerScorer(site="update", eps=EPS, draws=300, seed=repeat).score(texts_of(n, np.random.default_rng([n, repeat])))
        hit += ((scores.low <= value) & (value <= scores.high)).mean() / repeats
    assert 0.85 <= hit <= 0.99, hit

@pytest.mark.parametrize("n", [8, 16, 64])
def test_intervals_of_a_perplexity_hold(n):
    rng, repeats, hit = np.random.default_rng(n), 400, 0
    def texts(count):
        tokens = rng.integers(20, 200, count)
        return tokens * (3 + 0.4 * rng.standard_normal(count)), tokens
    losses, tokens = texts(400_000)
    value = math.exp(losses.sum() / tokens.sum())
    for _ in range(repeats):
        found = Perplexity.of(*texts(n))
        hit += (found.low <= value <= found.high) / repeats
    assert 0.85 <= hit <= 0.99, hit

def test_weights_of_a_draw():
    "They add up to n, and a mean over them varies as Student's t says: s² / n · (n − 1) / (n − 3)."
    for n in 5, 8, 40:
        weights = bootstrap_weights(n, 40_000, np.random.default_rng(0))
        x = np.random.default_rng(n).standard_normal(n)
        assert np.allclose(weights.sum(1), n)
        assert (weights @ x / n).var() == pytest.approx(x.var(ddof=1) / n * (n - 1) / (n - 3), rel=0.05)

# --- too few

@pytest.mark.parametrize("count", [1, 3, 7])
def test_too_few_texts_have_no_interval_and_say_so(count, tmp_path):
    profile = LayerProfiler(tiny("llama"), batch_size=2).profile(ROWS[:count], silent)
    scores = LayerScorer().score(profile)
    assert np.isnan(scores.low).all() and np.isnan(scores.rank_high).all() and scores.too_few == count
    sentence = f"no intervals: {count} text{'s' if count > 1 else ''} to resample"
    for words in repr(scores), scores._repr_html_(), scores.to_dict()["notes"][0]: assert sentence in words
    ax = plot_ranking(scores, Figure().subplots())
    assert "95 % intervals" not in scores._repr_html_() and "too few texts" in ax.get_title("right") + ax.get_title("left")
    profile.save(tmp_path / "p")
    told = done("rank", tmp_path / "p").stdout
    assert sentence in told and "95 %" not in told and "rank low" not in told
    for quiet in LayerScorer(draws=0), LayerScorer("random"): assert not quiet.score(profile).too_few
    assert np.isfinite(LayerScorer().score(LayerProfiler(tiny("llama"), batch_size=64).profile(ROWS[:8], silent)).low).all()

def test_too_few_texts_for_angles():
    found = angular_distances(tiny("llama"), None, ROWS[:4], progress=silent)
    assert np.isnan(found.scores().low).all() and found.scores().too_few == 4 and "no intervals: 4 texts" in found._repr_html_()

# --- files of profiles that hold what no measurement gives

def spoiled(profile, **sites): return lambda: replace(profile, sites=profile.sites | sites)

def test_statistics_that_do_not_belong_together_are_refused(tmp_path):
    profile = LayerProfiler(tiny("llama"), batch_size=8).profile(ROWS[:12], silent)
    m = profile.sites["output"]
    fewer = m[:, :3]
    cases = [
        (dict(sites={}), "no site"),
        (dict(sites={"output": m, "relative_update": fewer}), "relative_update, where output has 12 groups of 4 layers"),
        (dict(sites=profile.sites | {"output": replace(m, counts=m.counts - 1)}), "negative counts"),
        (dict(sites=profile.sites | {"output": replace(m, counts=m.counts[..., :50])}), r"counts of shape \(12, 4, 50\)"),
        (dict(sites=profile.sites | {"output": replace(m, tokens=-m.tokens)}), "negative tokens"),
        (dict(sites=profile.sites | {"output": replace(m, m2=m.m2[..., :5])}), "m2 of shape"),
        (dict(first={"output": profile.first["output"]}), "first tokens of other sites|damaged"),
        (dict(largest=profile.largest[:, :2]), "largest states of other"),
        (dict(losses=torch.zeros(12, 5).double()), "losses without"),
        (dict(losses=torch.zeros(12, 3).double(), predicted=torch.ones(12).long()), "ablation losses of other"),
    ]
    for change, message in cases:
        with pytest.raises(InputError, match=message): replace(profile, **change)
        if "losses" in change and "predicted" not in change: continue  # which no file can hold
        wrong = object.__new__(LayerProfile)  # a file that another program wrote
        wrong.__dict__.update(vars(profile) | change)
        wrong.save(tmp_path / "wrong")
        with pytest.raises(InputError, match=message) as caught: LayerProfile.load(tmp_path / "wrong")
        assert str(tmp_path / "wrong") in str(caught.value) and "\n" not in str(caught.value)
    refused("rank", tmp_path / "wrong", match="profile the texts again")
