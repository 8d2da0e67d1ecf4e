"Passes that share what they have in common: how many blocks run, what they leave behind, what they keep. test_conformance.py compares them on every architecture."
import random
import pytest
import torch
from avss_nb import Blocks, InputError, LayerProfiler, LayerPruner, silent
from avss_nb.model.heads import model_batch
from avss_nb.model.passes import OpenPasses, Passes, open_passes, replace_forward, resumes
from architectures import made
from tiny import tiny

ROWS = torch.randint(3, 60, (6, 12), generator=torch.Generator().manual_seed(0)).tolist()

def test_the_usual_decoders_are_resumed():
    names = "llama", "qwen2", "gpt2", "gpt_neox", "mistral", "phi3", "opt"
    with torch.no_grad(): assert all(resumes(Blocks(made(name)), model_batch(made(name), [row[:8] for row in ROWS])) for name in names)

def test_an_error_in_the_middle_leaves_no_trace():
    model = tiny("llama")
    blocks, inner, calls = Blocks(model), model.model.layers[3].forward, []
    def fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4: raise KeyboardInterrupt
        return inner(*args, **kwargs)
    with torch.no_grad(), replace_forward(model.model.layers[3], fails):
        with pytest.raises(KeyboardInterrupt): Passes(blocks, model_batch(model, ROWS)).losses_without([[0], [1], [2]])
    assert not any("forward" in vars(block) or block._forward_hooks for block in blocks.modules)
    assert model.config.use_cache

def test_a_search_and_an_ablation_run_few_blocks(monkeypatch):
    "A search for two of n blocks, and the ablation, run as many blocks as the tree of their choices has edges."
    model, ran = tiny("llama"), []
    n = len(Blocks(model))
    for block in model.model.layers: block.mlp.register_forward_hook(lambda *_: ran.append(1))
    profiler, pruner = LayerProfiler(model, ablation=True, batch_size=6), LayerPruner(model)
    ran.clear()
    profiler.profile(ROWS, silent)
    tested = len(ran)
    ran.clear()
    profiler.profile(ROWS, silent)  # the model was asked whether it resumes
    assert len(ran) == n + n + sum(range(n)) + n - 1 < tested
    monkeypatch.setattr("avss_nb.model.passes.resumes", lambda *_: True)
    ran.clear()
    gone = pruner.plan(count=2, search="greedy", texts=ROWS, progress=silent).trace[0][0]
    first, stay = n - 1 + sum(range(n)), [layer for layer in range(n) if layer != gone]
    second = len(stay) - 1 + sum(len([b for b in stay if b > layer]) for layer in stay)
    assert len(ran) == n + first + second

def test_a_model_that_breaks_without_a_block_is_infinite_and_resumes():
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
        run, = open_passes(Blocks(model), [model_batch(model, ROWS)])
        found = run.losses_without([[0], [1]])
    assert not found[frozenset({0})][0].isfinite().any() and found[frozenset({1})][0].isfinite().all()

def test_states_at_forks_need_no_more_memory_than_is_given():
    model = tiny("llama")
    blocks, batch = Blocks(model), model_batch(model, ROWS)
    draw = random.Random(1)
    choices = [draw.sample(range(len(blocks)), 2) for _ in range(12)]
    with torch.no_grad():
        size = Passes(blocks, batch).first.numel() * 4 / 2**20
        for states in 0, 1, 2:
            run, deepest = Passes(blocks, batch, states * size), []
            walk, depth = run._walk, [0]
            def watched(*args):
                depth[0] += 1
                deepest.append(depth[0])
                try: return walk(*args)
                finally: depth[0] -= 1
            run._walk = watched
            found = run.losses_without(choices)
            assert max(deepest) == states + 1 and len(found) == len({frozenset(c) for c in choices})

def test_a_search_keeps_no_more_states_than_memory_allows(monkeypatch):
    "Batches that find no room are begun anew at each step; the choices and the losses are the same."
    model = tiny("llama")
    monkeypatch.setattr("avss_nb.prune.pruner.texts_at_once", lambda model: 2)  # three batches
    batch = model_batch(model, ROWS[:2])
    with torch.no_grad(): one = Passes(Blocks(model), batch).megabytes
    assert one >= Passes(Blocks(model), batch).first.nbytes / 2**20
    opened, found = [], []
    class Counted(OpenPasses):
        def __init__(self, *args): super().__init__(*args); opened.append(self)
    monkeypatch.setattr("avss_nb.model.passes.OpenPasses", Counted)
    for memory, kept in (512, 3), (4.5 * one, 2), (0, 0):
        pruner = LayerPruner(model, memory=memory)
        found.append(pruner.plan(count=2, search="greedy", texts=ROWS, progress=silent).trace)
        assert len(opened[-1].kept) == kept and sum(run.megabytes for run in opened[-1].kept.values()) <= memory / 2
    assert found[0] == found[1] == found[2]
    for memory in -1, float("nan"), "1 GB":
        with pytest.raises(InputError, match="memory"): LayerPruner(model, memory=memory)
