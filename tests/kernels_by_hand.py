"The Triton kernels against the plain way; run by test_fused.py in a process of its own."
import torch
import avss_nb.maths.kernels as kernels
import avss_nb.layers.profiler as profiler
from avss_nb import BlockStatistics, LayerProfiler, Segments, silent
from tiny import tiny

DEVICE, cases = "cuda" if torch.cuda.is_available() else "cpu", 0
if DEVICE == "cpu": kernels.COLUMN.update(ROWS=16), kernels.ROW.update(COLS=64)  # more programs in small tensors
kernels.PROGRAMS = 8  # fewer than there are pairs of tokens
SITES = ("output", "update", "relative_update", "mlp")
SMALL, LARGE = 1e-5, 1e5  # |y| against |x|
for dtype, lengths, hidden, sites, *size in ((torch.bfloat16, [45, 20, 7], 96, SITES), (torch.float16, [33, 1], 70, SITES), (torch.float32, [16, 16], 70, SITES),
                                      (torch.bfloat16, [1], 96, ("relative_update",)), (torch.bfloat16, [128, 128], 64, SITES), (torch.float32, [20, 7], 64, ("output", "mlp")),
                                             (torch.float32, [33, 5], 70, SITES, SMALL), (torch.float32, [33, 5], 70, SITES, LARGE), (torch.bfloat16, [45, 20], 96, ("output", "mlp"), 0.),
                                             (torch.bfloat16, [45, 20], 96, SITES, "ties")):
    g, group = torch.Generator().manual_seed(cases), None if cases % 2 else [(0, 3, 0)[i] for i in range(len(lengths))]  # of four groups two or three are empty
    texts = Segments(lengths, DEVICE, group, 1 if group is None else 4)
    x = torch.randn(len(lengths), max(lengths), hidden, generator=g)
    x[..., 3] += 300  # a massive unit, a large value, tiny ones: inside and outside the window
    x[0, 0, 5], x[-1, 0, :4] = 4e4, 1e-6
    y = x + 0.3 * torch.randn(x.shape, generator=g) + 0.2
    y[-1, 0, :3] = 1e-9
    if size == ["ties"]: y = 4 * torch.sign(y)  # every unit is the largest: the first one counts
    else:
        for factor in size: y = factor * torch.randn(x.shape, generator=g)
    if size == [0.]: x[0, :3] = 0  # states of zero before, after, and both
    x, y = x.to(DEVICE, dtype), y.to(DEVICE, dtype)
    waiting = kernels.WAITING if cases % 3 else 0  # several blocks a launch, or one
    found, plain = kernels.KernelStatistics(sites, 2, texts, waiting), BlockStatistics(sites, 2, texts)
    for statistics in found, plain:
        statistics.see(0, x, y)
        statistics.see(1, y, x)
        if "mlp" in sites: statistics.part("mlp", 0, y), statistics.part("mlp", 1, x)
        statistics.done()
    kernel = found
    collected = [(found.moments(), plain.moments()), (found.first_tokens(), plain.first_tokens())]
    if "output" in sites:
        p, q = found.largest().cpu(), plain.largest().cpu()
        assert p.shape == q.shape == (texts.groups, 2, 4) and torch.equal(p[..., :3], q[..., :3]), (p, q)
        assert torch.allclose(p[..., 3], q[..., 3], rtol=1e-5)
    else: assert found.largest() is plain.largest() is None
    for found, plain in collected:
        assert [*found] == [*plain] == [*sites]
        for site in sites:
            a, b = found[site], plain[site]
            assert a.tokens.shape == ((2,) if group is None else (4, 2))
            if found is collected[1][0]: assert (collected[0][0][site].counts >= a.counts).all()  # what is taken away was counted
            assert torch.equal(a.counts, b.counts), (dtype, lengths, hidden, site, (a.counts - b.counts).nonzero())
            assert torch.equal(a.tokens, b.tokens) and torch.equal(a.sequences, b.sequences)
            for name in ("mean", "m2", "maximum", "pooled", "token_rms", "cosine_distance"):
                p, q = getattr(a, name), getattr(b, name)
                assert p.shape == q.shape and p.dtype == q.dtype == torch.float64
                scale = (b.m2 / b.tokens[..., None].clamp_min(1)).sqrt() + q.abs() if name == "mean" else q.abs()
                assert ((p - q).abs() <= 2e-5 * scale + 1e-9).all() or q.isnan().all() and p.isnan().all(), \
                    (dtype, lengths, hidden, site, name, p, q)
    cases += 1
print(f"{cases} cases")

# --- batches that wait for each other ---

for site in SITES:
    twice, once = kernels.merged_batches([kernel, kernel]).moments()[site], kernel.moments()[site]
    both = once + once
    assert torch.equal(twice.counts, both.counts)
    assert all(torch.allclose(getattr(twice, name), getattr(both, name), rtol=1e-9) for name in ("mean", "m2"))

# --- the profiler ---

def profiled(model, collector, sites=SITES):
    "The profile by one collector, and what the profiler found out about the states."
    profiler.fastest_statistics = collector
    made = LayerProfiler(model, sites=sites, batch_size=2)
    return made.profile([list(range(5, 5 + n)) for n in (9, 3, 12, 12, 5, 20, 1, 7, 8, 8, 17)], silent), made._waiting

def fast(sites, layers, texts, dtype, waiting): return kernels.KernelStatistics(sites, layers, texts, waiting)
def plain(sites, layers, texts, dtype, waiting): return BlockStatistics(sites, layers, texts)

def in_place(model):
    "A model whose second block writes over what the first one gave."
    def overwrite(_, args, out): (args[0] if args else out).add_(0.5)
    model.model.layers[1].register_forward_hook(overwrite)
    return model

for model, waits in (tiny("llama"), True), (in_place(tiny("llama")), False):
    (found, waiting), (expected, _) = (profiled(model.to(DEVICE), collector) for collector in (fast, plain))
    assert bool(waiting) == waits, waiting
    assert found.groups == expected.groups and torch.allclose(found.largest, expected.largest, rtol=1e-5)
    for site in SITES:
        for name, a in vars(found.sites[site]).items():
            b = getattr(expected.sites[site], name)
            assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=True), (site, name)
        assert torch.equal(found.first[site].tokens, expected.first[site].tokens)
print("profiles agree")

# --- recordings (CUDA only) ---

class Reads(torch.nn.Module):
    "A block that asks the device for a number, or that reads what the embedding has kept."
    def __init__(self, block, kept=None):
        super().__init__()
        self.block, self.kept = block, kept
    def forward(self, hidden_states, **kwargs):
        states = self.block(hidden_states, **kwargs)
        return states + (float(states[0, 0, 0] > 1e9) if self.kept is None else self.kept.last)

class Keeps(torch.nn.Module):
    "An embedding that keeps something of its tokens for a later block."
    def __init__(self, table):
        super().__init__()
        self.table, self.weight, self.num_embeddings = table, table.weight, table.num_embeddings
    def forward(self, ids):
        self.last = 0.1 * ids[..., None].float().mean(1, keepdim=True)
        return self.table(ids)

def asking(model):
    model.model.layers[1] = Reads(model.model.layers[1])
    return model

def keeping(model):
    model.model.embed_tokens = Keeps(model.model.embed_tokens)
    model.model.layers[1] = Reads(model.model.layers[1], model.model.embed_tokens)
    return model

if DEVICE == "cuda":
    from avss_nb import Replays
    draw, made = torch.Generator().manual_seed(0), []
    rows = [row for shape in ((24, 12), (5, 7)) for row in torch.randint(5, 100, shape, generator=draw).tolist()]
    learn = Replays.learn
    def learned(self, *args): learn(self, *args); made.append(dict(self.made))
    Replays.learn, profiler.fastest_statistics = learned, fast
    models = (tiny("llama"), 2), (tiny("gpt2"), 2), (asking(tiny("llama")), 0), (keeping(tiny("llama")), 0)
    for model, recorded in models:
        found = []
        for on in True, False:
            made.clear()
            p = LayerProfiler(model.to(DEVICE), sites=SITES if recorded else SITES[:3], batch_size=2)
            if not on: p._replays = lambda: None
            found.append(p.profile(rows, silent))
            if on: assert sum(recording is not None for recording in made[-1].values()) == recorded, (type(model), made)
        one, other = found
        for site in one.sites:
            for part in "sites", "first":
                for name, a in vars(getattr(one, part)[site]).items():
                    b = getattr(getattr(other, part)[site], name)
                    assert torch.equal(a.nan_to_num(), b.nan_to_num()), (site, part, name)
        assert torch.equal(one.largest, other.largest)
    print("replays agree, to the last bit")

# --- with ablation: losses, which are on the CPU, beside statistics that are not ---

p = LayerProfiler(tiny("llama").to(DEVICE), batch_size=2, ablation=True)
assert p.profile([list(range(5, 5 + n)) for n in (9, 3, 12, 12)], silent).losses.shape[1] == 1 + len(p.blocks)

# --- in float64, which the kernels leave to the plain way, with enough batches for a recording ---

profiler.fastest_statistics = kernels.fastest_statistics
p = LayerProfiler(tiny("llama").double().to(DEVICE), batch_size=2)
assert p.profile([list(range(5, 13))] * 24, silent).tokens == 24 * 8
