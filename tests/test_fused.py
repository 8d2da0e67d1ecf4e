"Statistics in shared passes: equal to the plain definition, on every path."
import os
import subprocess
import sys
from pathlib import Path
import numpy as np
import pytest
import torch
from avss_nb import (
    EDGES, BlockStatistics, Blocks, InputError, LayerProfiler, LayerScorer, Moments, Segments,
    silent, stable
)
from avss_nb.maths.moments import histogram
from avss_nb.maths.sites import block_moments, moments_of
from avss_nb.model.heads import find_body, without_cache
from tiny import padded_batch, tiny

LENGTHS = [40, 1, 7, 100]

def states(lengths=LENGTHS, hidden=24, seed=0, step=0.1, offset=3.):
    "Padded states before and after a block."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), hidden, generator=g) + offset
    return x, x + step * torch.randn(x.shape, generator=g)

# --- one site, one block ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [0., 3., 1e4])
@pytest.mark.parametrize("lengths", [LENGTHS, [5], [64] * 8])
def test_moments_are_those_of_the_definition(lengths, offset):
    texts = Segments(lengths)
    a = texts.pack(states(lengths, offset=offset)[0])
    ours, plain = moments_of(a, texts), Moments.of(a, texts.counts)
    assert torch.equal(ours.counts, plain.counts) and torch.equal(ours.maximum, plain.maximum) and ours.tokens == plain.tokens
    scale = (plain.m2 / plain.tokens).sqrt()
    assert ((ours.mean - plain.mean).abs() <= 1e-6 * (scale + abs(offset))).all()
    if offset < 1e4: assert torch.allclose(ours.m2, plain.m2, rtol=1e-5) and torch.allclose(ours.pooled, plain.pooled, rtol=1e-5)
    assert torch.allclose(ours.token_rms, plain.token_rms, rtol=1e-6)

@pytest.mark.parametrize("step", [1e-6, 1e-3, 1., 100.])
def test_a_block_by_numpy(step):
    texts = Segments(LENGTHS)
    x, y = (texts.pack(a) for a in states(step=step))
    found = block_moments(x, y, texts)
    X, Y = x.double().numpy(), y.double().numpy()
    U = (y - x).double().numpy()
    R = U / np.sqrt((X**2).mean(1, keepdims=True))
    for site, a in {"output": Y, "update": U, "relative_update": R}.items():
        m = found[site]
        assert m.mean.numpy() == pytest.approx(a.mean(0), abs=2e-6 * np.abs(a).mean() + 1e-12)
        assert m.m2.numpy() == pytest.approx(((a - a.mean(0))**2).sum(0), rel=1e-5)
        assert float(m.token_rms) == pytest.approx(np.sqrt((a**2).mean(1)).sum(), rel=1e-6)
        assert float(m.maximum) == pytest.approx(np.abs(a).max(), rel=1e-6)
        below = [(np.abs(a.astype(np.float32)) < edge).sum() for edge in EDGES.tolist()]
        assert np.abs(m.counts.cumsum(0)[:-1].numpy() - below).max() <= (site == "relative_update") * 2  # R here is rounded elsewhere
    norms = np.linalg.norm(X, axis=1) * np.linalg.norm(Y, axis=1)
    exact = (((U**2).sum(1) - (np.linalg.norm(Y, axis=1) - np.linalg.norm(X, axis=1))**2) / (2 * norms)).sum()
    assert float(found["output"].cosine_distance) == pytest.approx(exact, rel=2e-3 if step < 1e-4 else 1e-5)
    assert np.isnan(float(found["update"].cosine_distance))

@pytest.mark.parametrize("before, after", [(1e3, 1e-2), (1e-2, 1e3), (1., 1e-3), (1., .3), (1., 3.), (0., 1.), (1., 0.), (0., 0.), (1e-12, 1.)])
def test_states_of_very_different_size_by_numpy(before, after):
    g, texts = torch.Generator().manual_seed(0), Segments(LENGTHS)
    x, y = (scale * torch.randn(texts.tokens, 24, generator=g) for scale in (before, after))
    found = block_moments(x, y, texts, ["output", "update"])
    X, Y = x.double().numpy(), y.double().numpy()
    norms = np.linalg.norm(X, axis=1) * np.linalg.norm(Y, axis=1)
    with np.errstate(invalid="ignore"): cosine = np.where(norms > 0, (X * Y).sum(1) / norms, float(before == after))  # of a zero state: 0, unless nothing changes
    assert float(found["output"].cosine_distance) == pytest.approx((1 - cosine).sum(), rel=1e-6)
    assert float(found["output"].token_rms) == pytest.approx(np.sqrt((Y**2).mean(1)).sum(), rel=1e-6)
    assert float(found["update"].token_rms) == pytest.approx(np.sqrt(((Y - X)**2).mean(1)).sum(), rel=1e-6)
    assert float(Moments.of(y, texts.counts, x).cosine_distance) == pytest.approx((1 - cosine).sum(), rel=1e-9)

def test_a_token_whose_state_is_zero():
    "Block Influence has a value; the relative update has none, and says why."
    model = tiny("llama")
    model.get_input_embeddings().weight.data[7] = 0
    rows = [[5, 6, 7, 8], [9, 10, 11]]
    seen = LayerProfiler(model, sites=["output"]).profile(rows, silent)
    x, after = [], []
    def keep(layer, a, b): x.append(a), after.append(b)
    blocks = Blocks(model)
    with torch.no_grad(), blocks.watch(keep):
        for row in rows: model(input_ids=torch.tensor([row]))
    first = torch.cat([x[0][0], x[len(blocks)][0]]), torch.cat([after[0][0], after[len(blocks)][0]])
    expected = 1 - torch.nn.functional.cosine_similarity(*map(torch.Tensor.double, first))
    assert float(LayerScorer("block_influence", site="output").score(seen).values[0]) == pytest.approx(float(expected.mean()), rel=1e-5)
    with pytest.raises(InputError, match="layer 0 .site relative_update.*state of zero.*padding token"): LayerProfiler(model).profile(rows, silent)
    assert LayerProfiler(model).profile([row for row in rows if 7 not in row], silent).tokens == 3

def test_activations_with_positions_of_their_own_are_refused():
    with pytest.raises(InputError, match=r"shape \(4, 104, 24\) came from 4 texts of up to 100 tokens"):
        BlockStatistics(["output"], 1, Segments(LENGTHS)).see(0, *states([104, 1, 7, 100]))

def test_only_what_is_asked_for_is_computed():
    texts = Segments(LENGTHS)
    x, y = (texts.pack(a) for a in states())
    assert [*block_moments(x, y, texts, ["update"])] == ["update"]
    before = x.clone(), y.clone()
    block_moments(x, y, texts)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])  # the states belong to the model

@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    texts = Segments(LENGTHS)
    x, y = (texts.pack(a).to(dtype) for a in states())
    found = block_moments(x, y, texts)
    for site, m in found.items():
        a = {"output": y.double(), "update": y.double() - x.double()}.get(site)
        if a is not None: assert torch.allclose(m.m2, (a - a.mean(0)).square().sum(0), rtol=1e-5)

def test_histograms_count_every_value_once():
    a = torch.cat([torch.tensor([0., -0., 1e-8, 9.9e-9, 8e4, 1e30, -3e-3]), EDGES.float(), torch.randn(300_000)])
    counts = histogram(a)
    expected = np.histogram(a.abs().double().numpy(), bins=[0, *EDGES.tolist(), np.inf])[0]
    assert counts.sum() == a.numel() and np.array_equal(counts.numpy(), expected)

def test_all_blocks_of_a_batch():
    texts, (x, y) = Segments(LENGTHS), states()
    seen = BlockStatistics(["output", "mlp"], 2, texts)
    seen.see(0, x, y); seen.see(1, y, x); seen.part("mlp", 0, y); seen.part("mlp", 1, x)
    found = seen.moments()
    assert found["output"].mean.shape == (2, 24) and torch.equal(found["mlp"].mean[0], found["output"].mean[0])
    assert torch.equal(found["mlp"].counts[1], histogram(texts.pack(x)))

def test_a_text_without_tokens():
    with pytest.raises(InputError, match="without tokens"): Segments([3, 0])
    with pytest.raises(InputError, match="without tokens"): Segments([])

# --- the kernels --------------------------------------------------------------------------------------------------------

def test_kernels_in_the_interpreter():
    "Triton's interpreter runs the kernels on the CPU; it must be chosen before triton is imported, so in another process."
    pytest.importorskip("triton", reason="needs triton (it comes with the CUDA builds of torch)")
    script = Path(__file__).parent / "kernels_by_hand.py"
    run = subprocess.run([sys.executable, script], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert "10 cases" in run.stdout and "profiles agree" in run.stdout

@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_on_a_device():
    run = subprocess.run([sys.executable, Path(__file__).parent / "kernels_by_hand.py"], capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]

# --- the profiler -------------------------------------------------------------------------------------------------------

def test_the_head_does_not_run():
    model, ran = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda *_: ran.append(1))
    profiler = LayerProfiler(model)
    ran.clear()
    profiler.profile([[5, 6, 7, 8]], silent)
    assert not ran and profiler.body is model.model

def test_a_model_whose_body_does_something_else_runs_whole():
    class Doubled(type(tiny("llama"))):
        def forward(self, input_ids=None, **kwargs):
            return super().forward(inputs_embeds=2 * self.get_input_embeddings()(input_ids), **kwargs)
    model = tiny("llama")
    model.__class__ = Doubled
    assert find_body(Blocks(model)) is model

def test_no_cache_is_kept_and_the_setting_comes_back():
    model = tiny("llama")
    try:
        with without_cache(model):
            assert model.config.use_cache is False and model(**padded_batch()).past_key_values is None
            raise RuntimeError
    except RuntimeError: pass
    assert model.config.use_cache is True

def test_it_stops_when_the_ranking_is_stable(teaching, world):
    model, tokenizer = teaching
    profile = LayerProfiler(model, tokenizer, ["relative_update"], batch_size=4).profile(world.texts(1000), silent, until=stable())
    assert 0 < profile.texts < 1000 and not profile.partial and stable()(profile)
    whole = LayerProfiler(model, tokenizer, ["relative_update"]).profile(world.texts(1000), silent)
    ranks = [np.argsort(np.argsort(LayerScorer(draws=0).score(p).values)) for p in (profile, whole)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9

def test_a_condition_of_ones_own():
    seen = []
    def enough(profile): return seen.append(profile.tokens) or profile.tokens >= 60
    profile = LayerProfiler(tiny("llama"), sites=["update"], batch_size=1, groups=2).profile([[5, 6, 7, 8, 9]] * 100, silent, until=enough)
    assert profile.tokens == 60 and seen == [*range(10, 61, 10)]
    with pytest.raises(InputError, match="until 'later'"): LayerProfiler(tiny("llama")).profile([[5, 6]], silent, until="later")
