"""The profiler and the scorer against NumPy in float64 on stored activations, captured by raw hooks."""
import gc, json, math
from dataclasses import replace
import numpy as np, pytest, torch
from safetensors.torch import save_file
from torch import nn
from transformers import (AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, BigBirdConfig, BigBirdForMaskedLM, DistilBertConfig, GPT2Config,
                          GPTNeoXConfig, LlamaConfig, OPTConfig, Qwen2Config, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM)
from avss_nb import (
    EDGES, SCORES, SITES, Blocks, InputError, LayerProfile, LayerProfiler, LayerScorer,
    Moments, TeachingWorld, silent, sparsity, stable, variance
)
from avss_nb.base.basics import Reporter
from avss_nb.data.teaching import build_tokenizer
from avss_nb.maths.moments import AGGREGATIONS, rms
from avss_nb.model.blocks import position_limit

torch.set_num_threads(1)
LAYERS, HIDDEN, EPSILONS = 3, 16, (1e-5, 0.01, 0.03)
TOKENIZER = build_tokenizer()
MASKING = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer, unk_token="<unk>", mask_token="<unk>")
WORLD = TeachingWorld(known=40, unknown=5)
TEXTS = WORLD.texts(14) + [q.prompt for q in WORLD.questions("known", 9)]  # of different lengths, so that batches are padded

# architecture -> configuration, path of the block list, paths of the two sub-layers inside a block
TINY = {
    "llama": (LlamaConfig, "model.layers", "self_attn", "mlp"),
    "gpt2": (GPT2Config, "transformer.h", "attn", "mlp"),
    "opt": (OPTConfig, "model.decoder.layers", "self_attn", "fc2"),
    "gpt_neox": (GPTNeoXConfig, "gpt_neox.layers", "attention", "mlp"),
    "qwen2": (Qwen2Config, "model.layers", "self_attn", "mlp"),
    "bert": (BertConfig, "bert.encoder.layer", "attention.output.dense", "output.dense"),
    "distilbert": (DistilBertConfig, "distilbert.transformer.layer", "attention", "ffn"),
}

def tiny(kind="llama", dtype=torch.float32, layers=LAYERS, seed=0):
    torch.manual_seed(seed)
    size = dict(vocab_size=len(TOKENIZER), initializer_range=0.2)
    if kind == "distilbert": size |= dict(dim=HIDDEN, hidden_dim=32, n_layers=layers, n_heads=2)
    else: size |= dict(hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=2)
    if kind in ("llama", "qwen2"): size |= dict(intermediate_size=32, num_key_value_heads=2)
    if kind in ("bert", "gpt_neox"): size |= dict(intermediate_size=32)
    if kind == "opt": size |= dict(ffn_dim=32, word_embed_proj_dim=HIDDEN, init_std=0.2)
    auto = AutoModelForMaskedLM if "bert" in kind else AutoModelForCausalLM
    return auto.from_config(TINY[kind][0](**size), dtype=dtype).eval()

class Raw:
    "Raw hooks of the test's own: every activation that passes, per layer, without padding, as float32 or float64."
    def __init__(self, model, kind):
        _, path, *sub = TINY[kind]
        self.seen = [{"x": [], "y": [], "attention": [], "mlp": []} for _ in range(LAYERS)]
        self.masks, self.ids = [], []
        self.handles = [model.base_model.register_forward_pre_hook(self.batch, with_kwargs=True)]  # the head need not run
        for i, block in enumerate(model.get_submodule(path)):
            self.handles.append(block.register_forward_hook(self.block(i), with_kwargs=True))
            for name, where in zip(("attention", "mlp"), sub):
                self.handles.append(block.get_submodule(where).register_forward_hook(self.part(i, name)))

    def batch(self, module, args, kwargs):
        self.masks.append(kwargs["attention_mask"].bool().numpy())
        self.ids.append(kwargs["input_ids"].numpy())

    def keep(self, layer, name, states):
        states = states[0] if isinstance(states, tuple) else states
        states = states.detach().to(torch.promote_types(states.dtype, torch.float32)).numpy()
        self.seen[layer][name].append(states.reshape(*self.masks[-1].shape, -1)[self.masks[-1]])

    def block(self, i):
        def hook(module, args, kwargs, out):
            self.keep(i, "x", args[0] if args else kwargs["hidden_states"])
            self.keep(i, "y", out)
        return hook

    def part(self, i, name): return lambda module, args, out: self.keep(i, name, out)

    @property
    def lengths(self): return np.concatenate([mask.sum(1) for mask in self.masks])

    def activations(self, layer, site):
        stored = {name: np.concatenate(parts) for name, parts in self.seen[layer].items()}
        if site in ("attention", "mlp"): return stored[site]
        if site == "output": return stored["y"]
        update = stored["y"] - stored["x"]
        if site == "update": return update
        scale = np.sqrt((stored["x"].astype(np.float64) ** 2).mean(1, keepdims=True))
        return update * (1 / scale).astype(update.dtype)

def numpy_variance(a, lengths, aggregation):
    a = a.astype(np.float64)
    if aggregation == "elements": return a.var()
    if aggregation == "neurons": return a.var(0).mean()
    if aggregation == "mean_state": return a.mean(0).var()
    return np.mean([part.mean(0).var(ddof=1) for part in np.split(a, np.cumsum(lengths)[:-1])])

def numpy_sparsity(a, eps, aggregation):
    a = a.astype(np.float64)
    if aggregation == "mean_state": return (np.abs(a.mean(0)) < eps).mean()
    return (np.abs(a) < eps).sum() / a.size

def profiled(model, kind="llama", texts=TEXTS, tokenizer=TOKENIZER, **settings):
    "A profile, and the activations that raw hooks stored during the same passes."
    profiler = LayerProfiler(model, tokenizer, **{"batch_size": 4, "sites": SITES} | settings)
    raw = Raw(model, kind)
    try: return profiler.profile(texts, progress=silent), raw
    finally:
        for handle in raw.handles: handle.remove()

def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())

def same(a, b):
    "Are two profiles equal to the last bit?"
    return a.sites.keys() == b.sites.keys() and all(torch.equal(torch.nan_to_num(getattr(a.sites[s], f), -7.), torch.nan_to_num(t, -7.))
                                                    for s in a.sites for f, t in vars(b.sites[s]).items())

# ---------------------------------------------------------------- statistics

FLOAT32 = 1e-6  # sums within a text are float32; for a float64 model all is float64

def check_statistics(profile, raw, rtol=FLOAT32):
    assert profile.layers == LAYERS and profile.tokens == raw.lengths.sum()
    for site in SITES:
        total = profile.site(site).total()
        assert total.sequences.tolist() == [len(raw.lengths)] * LAYERS
        for layer in range(LAYERS):
            a, m = raw.activations(layer, site), total[layer]
            close = lambda got, want: np.testing.assert_allclose(float(got), want, rtol=rtol, err_msg=f"{site}, layer {layer}")
            for aggregation in AGGREGATIONS:
                close(variance(m, aggregation), numpy_variance(a, raw.lengths, aggregation))
                for eps in EPSILONS: assert float(sparsity(m, eps, aggregation)) == numpy_sparsity(a, eps, aggregation)
            for i in range(0, len(EDGES), 7): assert int(m.counts[:i + 1].sum()) == (np.abs(a.astype(np.float64)) < float(EDGES[i])).sum()
            close(rms(m), np.sqrt((a.astype(np.float64) ** 2).mean()))
            assert float(m.maximum) == np.abs(a).max()
            close(m.token_rms, np.sqrt((a.astype(np.float64) ** 2).mean(1)).sum())
        assert torch.isnan(total.cosine_distance).all() == (site != "output")
    for layer in range(LAYERS):
        x, y = (np.concatenate(raw.seen[layer][name]).astype(np.float64) for name in "xy")
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(float(profile.site("output").total().cosine_distance[layer]), (1 - cosine).sum(), rtol=max(rtol, 1e-9))

@pytest.mark.parametrize("kind", TINY)
def test_statistics_equal_numpy(kind):
    profile, raw = profiled(tiny(kind), kind)
    assert any(not mask.all() for mask in raw.masks)  # there was padding to ignore
    check_statistics(profile, raw)

@pytest.mark.parametrize("kind", TINY)
def test_statistics_equal_numpy_in_bfloat16(kind):
    profile, raw = profiled(tiny(kind, torch.bfloat16), kind)
    check_statistics(profile, raw)
    assert profile.settings["dtype"] == "bfloat16"

def test_statistics_equal_numpy_without_padding_and_in_float64():
    check_statistics(*profiled(tiny(), texts=[[5, 6, 7, 8, 9]] * 9, tokenizer=None))
    check_statistics(*profiled(tiny(dtype=torch.float64)), rtol=1e-10)

def test_every_token_is_read_once():
    _, raw = profiled(tiny(), texts=TEXTS, max_length=7)
    read = sorted(tuple(row[mask]) for ids, masks in zip(raw.ids, raw.masks) for row, mask in zip(ids, masks))
    whole_texts = [TOKENIZER(text)["input_ids"] for text in TEXTS]
    def begun(ids): return [(ids[0], *ids[i:i + 6]) for i in range(1, len(ids), 6)]  # every window has the BOS of its text
    assert all(ids[0] == TOKENIZER.bos_token_id for ids in whole_texts)
    assert read == sorted(row for ids in whole_texts for row in begun(ids))

@pytest.mark.parametrize("kind", TINY)
def test_padding_changes_nothing(kind):
    "Padded batches and one text at a time: different kernels, so equal to rounding."
    model = tiny(kind)
    padded, alone = (LayerProfiler(model, TOKENIZER, SITES, batch_size=size).profile(TEXTS, progress=silent) for size in (8, 1))
    for site in SITES:
        torch.testing.assert_close(variance(padded.site(site).total()), variance(alone.site(site).total()), rtol=1e-4, atol=0)
        assert torch.equal(padded.site(site).total().tokens, alone.site(site).total().tokens)

def test_padding_side_of_the_tokenizer_changes_nothing():
    model, left = tiny("gpt2"), build_tokenizer()
    left.padding_side = "left"
    a, b = (LayerProfiler(model, t, SITES, batch_size=4).profile(TEXTS, progress=silent) for t in (TOKENIZER, left))
    assert same(a, b)

def test_table_has_a_row_for_each_site_and_layer():
    profile, raw = profiled(tiny())
    table = profile.to_frame(eps=0.03).set_index(["site", "layer"])
    assert len(table) == LAYERS * len(SITES)
    a = raw.activations(1, "update")
    assert math.isclose(table.loc[("update", 1), "variance"], a.astype(np.float64).var(), rel_tol=FLOAT32)
    assert table.loc[("update", 1), "sparsity"] == numpy_sparsity(a, 0.03, "elements")

# ---------------------------------------------------------------- merge, save, memory

def test_two_halves_merge_into_the_whole():
    "Rows of one length in batches of one length: the same forward passes, however they are grouped."
    model, rows = tiny(), [list(range(3 + i, 11 + i)) for i in range(24)]
    def profile(part): return LayerProfiler(model, sites=SITES, batch_size=1, ablation=True).profile(part, progress=silent)
    merged, whole = profile(rows[:10]) + profile(rows[10:]), profile(rows)
    for site in SITES:
        a, b = merged.site(site).total(), whole.site(site).total()
        assert torch.equal(a.counts, b.counts) and torch.equal(a.tokens, b.tokens) and torch.equal(a.maximum, b.maximum)
        for aggregation in AGGREGATIONS: torch.testing.assert_close(variance(a, aggregation), variance(b, aggregation), rtol=1e-12, atol=0)
        torch.testing.assert_close(a.token_rms, b.token_rms, rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.losses.sum(0), whole.losses.sum(0), rtol=1e-12, atol=0)
    assert merged.predicted.sum() == whole.predicted.sum() == 24 * 7

def test_merging_is_the_same_from_either_side():
    model = tiny()
    few = LayerProfiler(model, TOKENIZER, SITES, batch_size=2).profile(TEXTS[:6], progress=silent)    # 3 groups
    many = LayerProfiler(model, TOKENIZER, SITES, batch_size=1).profile(TEXTS, progress=silent)       # 16 groups
    a, b = few + many, many + few
    assert a.groups == b.groups == 16 and a.texts == b.texts == len(TEXTS) + 6
    torch.testing.assert_close(variance(a.site("mlp").total()), variance(b.site("mlp").total()), rtol=1e-12, atol=0)

def test_profiles_that_do_not_belong_together_do_not_merge():
    def profile(model, **settings): return LayerProfiler(model, TOKENIZER, **settings).profile(TEXTS[:2], progress=silent)
    one = profile(tiny(), sites=["update"])
    with pytest.raises(InputError, match="two models"): one + profile(tiny(seed=1), sites=["update"])
    with pytest.raises(InputError, match="different sites"): one + profile(tiny(), sites=["update", "mlp"])
    with pytest.raises(InputError, match="ablation"): one + profile(tiny(), sites=["update"], ablation=True)

def test_a_profile_survives_its_file_to_the_last_bit(tmp_path):
    profile = LayerProfiler(tiny(), TOKENIZER, ablation=True).profile(TEXTS, progress=silent)
    profile = replace(profile, partial=True)
    profile.save(tmp_path / "new folder" / "p.safetensors")
    again = LayerProfile.load(tmp_path / "new folder" / "p.safetensors")
    assert same(again, profile) and torch.equal(again.losses, profile.losses) and torch.equal(again.predicted, profile.predicted)
    for name in ("model", "fingerprint", "partial", "settings"): assert getattr(again, name) == getattr(profile, name)
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["p.safetensors"]

def test_files_that_are_no_profile_are_refused(tmp_path):
    profile = LayerProfiler(tiny(), TOKENIZER, sites=["update"]).profile(TEXTS[:2], progress=silent)
    profile.save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(InputError, match="damaged"): LayerProfile.load(tmp_path / "cut")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other")
    with pytest.raises(InputError, match="but no profile"): LayerProfile.load(tmp_path / "other")
    with pytest.raises(InputError, match="there is no profile"): LayerProfile.load(tmp_path / "absent")
    with pytest.raises(InputError, match="there is no profile"): LayerProfile.load(tmp_path)

def test_a_profile_does_not_grow_with_the_texts():
    model = tiny(layers=2)
    alive = {}
    def watch(progress):
        if progress.done in (40, 120):
            gc.collect()
            alive[progress.done] = sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor)
    def profile(n): return LayerProfiler(model, TOKENIZER, batch_size=2, sites=["update"]).profile(TEXTS[:1] * n, progress=watch)
    def size(profile): return [(name, t.shape, t.dtype) for name, t in vars(profile.site("update")).items()]
    assert size(profile(40)) == size(profile(300))
    assert alive[40] == alive[120]  # nor does the memory that the pass holds

# ---------------------------------------------------------------- bad input, errors, interruptions

@pytest.mark.parametrize("texts", [[], [""], ["", ""], [[]]])
def test_no_text_is_refused(texts):
    with pytest.raises(InputError, match="no text"): LayerProfiler(tiny(), TOKENIZER).profile(texts, progress=silent)

def test_texts_without_tokens_are_refused():
    bare = build_tokenizer()
    bare.backend_tokenizer.post_processor = None
    from tokenizers import processors
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert bare("   ")["input_ids"] == []
    with pytest.raises(InputError, match="no text"): LayerProfiler(tiny(), bare).profile(["   "], progress=silent)

def test_wrong_settings_are_refused():
    model = tiny()
    with pytest.raises(InputError, match="residual"): LayerProfiler(model, TOKENIZER, sites=["residual"])
    with pytest.raises(InputError): LayerProfiler(model, TOKENIZER, sites=[])
    for bad in ("batch_size", "max_length", "groups"):
        for value in 0, 2.5, "2", True, *[None] * (bad != "batch_size"):
            with pytest.raises(InputError, match=f"{bad}={value!r} .*at least 1"): LayerProfiler(model, TOKENIZER, **{bad: value})
    assert LayerProfiler(model, sites=(s for s in ["mlp", "output"])).sites == ("output", "mlp") and LayerProfiler(model, sites="mlp").sites == ("mlp",)
    for wrong in -1, 10**6:
        with pytest.raises(InputError, match=f"token id {wrong} was given.*own tokenizer"): LayerProfiler(model).profile([[1, 2], [3, wrong]], silent)
    assert not any(block._forward_hooks for block in model.model.layers)
    with pytest.raises(InputError, match="one string"): LayerProfiler(model, TOKENIZER).profile("one text", progress=silent)
    with pytest.raises(InputError, match="tokenizer"): LayerProfiler(model).profile(["a text"], progress=silent)
    with pytest.raises(InputError, match="no head whose loss is known"): LayerProfiler(tiny().model, TOKENIZER, ablation=True)
    with pytest.raises(InputError, match="mask token"): LayerProfiler(tiny("bert"), TOKENIZER, ablation=True).profile(TEXTS, progress=silent)

def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="no list of blocks"): LayerProfiler(nn.Sequential(nn.Linear(3, 3)))

def test_nan_weights_name_layer_and_batch():
    model = tiny()
    with torch.no_grad(): model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    before = hooks(model)
    model.train()
    with pytest.raises(InputError, match=r"layer 1 \(.*batch 0"): LayerProfiler(model, TOKENIZER).profile(TEXTS, progress=silent)
    assert model.training and hooks(model) == before

def test_nan_for_one_word_names_the_batch():
    model = tiny()
    word = TOKENIZER.convert_tokens_to_ids("Zoe")
    with torch.no_grad(): model.model.embed_tokens.weight[word] = torch.inf
    model.config.tie_word_embeddings = False
    rows = [[5, 6, 7]] * 8
    profiler = LayerProfiler(model, batch_size=1)
    profiler.profile(rows, progress=silent)
    with pytest.raises(InputError, match=r"layer 0 \(.*batch \d"): profiler.profile(rows + [[5, word, 7]], progress=silent)

@pytest.mark.parametrize("training", [True, False])
def test_mode_and_hooks_are_as_before(training):
    model = tiny().train(training)
    before = hooks(model)
    LayerProfiler(model, TOKENIZER, ablation=True).profile(TEXTS[:3], progress=silent)
    assert model.training is training and hooks(model) == before

def test_an_error_in_a_listener_leaves_nothing_behind():
    model = tiny().train()
    before = hooks(model)
    def fail(progress): raise RuntimeError("listener")
    with pytest.raises(RuntimeError, match="listener"): LayerProfiler(model, TOKENIZER).profile(TEXTS, progress=fail)
    assert model.training and hooks(model) == before

def test_an_error_inside_the_model_leaves_nothing_behind():
    model = tiny().train()
    before = hooks(model)
    profiler = LayerProfiler(model, TOKENIZER)
    forward = model.model.layers[1].mlp.forward
    def broken(x): raise RuntimeError("broken kernel")
    model.model.layers[1].mlp.forward = broken
    with pytest.raises(RuntimeError, match="broken kernel"): profiler.profile(TEXTS, progress=silent)
    model.model.layers[1].mlp.forward = forward
    assert model.training and hooks(model) == before

def test_an_interruption_keeps_the_complete_batches():
    model, seen = tiny().train(), []
    before = hooks(model)
    def stop(progress):
        seen.append(progress.info["tokens"])
        if progress.done == 3: raise KeyboardInterrupt
    partial = LayerProfiler(model, TOKENIZER, batch_size=4).profile(TEXTS, progress=stop)
    assert partial.partial and partial.texts == 12 and partial.tokens == sum(seen)
    assert model.training and hooks(model) == before
    assert LayerScorer().score(partial).partial

def test_an_interruption_in_the_middle_of_a_batch_keeps_only_complete_ones():
    model, finished, calls = tiny(), [], []
    before = hooks(model)
    profiler = LayerProfiler(model, TOKENIZER, ("output", "update"), batch_size=4, ablation=True)
    inner = model.model.layers[2].mlp.forward
    def interrupting(x):
        if len(finished) == 2: calls.append(1)
        if len(calls) == 4: raise KeyboardInterrupt  # in the ablation of the third batch: one run for the statistics, one intact
        return inner(x)
    model.model.layers[2].mlp.forward = interrupting
    partial = profiler.profile(TEXTS, progress=lambda p: finished.append(p.done))
    assert len(calls) == 4
    assert partial.partial and partial.texts == 8 and hooks(model) == before
    assert torch.equal(partial.site("update").total().tokens, partial.site("output").total().tokens)

def test_an_interruption_before_the_first_batch_is_raised():
    model = tiny()
    profiler = LayerProfiler(model, TOKENIZER, SITES)
    model.base_model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): profiler.profile(TEXTS, progress=silent)

def test_a_listener_can_ask_for_the_profile_so_far():
    parts = []
    whole = LayerProfiler(tiny(), TOKENIZER, SITES, batch_size=8).profile(TEXTS, progress=lambda p: parts.append(p.partial()))
    assert len(parts) == 3 and parts[0].texts < parts[1].texts < parts[2].texts == len(TEXTS)
    assert parts[0].partial and not whole.partial and torch.equal(parts[-1].site("mlp").m2, whole.site("mlp").m2)

# ---------------------------------------------------------------- scores

@pytest.fixture(scope="module")
def measured():
    return profiled(tiny(), ablation=False, batch_size=2)

@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_avss_is_variance_over_sparsity(measured, site, aggregation):
    profile, raw = measured
    scores = LayerScorer(site=site, aggregation=aggregation, eps=0.03, draws=0).score(profile)
    for layer in range(LAYERS):
        a = raw.activations(layer, site)
        share = numpy_sparsity(a, 0.03, aggregation) or 1 / (2 * a.size)
        np.testing.assert_allclose(scores.values[layer], numpy_variance(a, raw.lengths, aggregation) / share, rtol=FLOAT32)
    assert scores.order == tuple(np.argsort(scores.values))
    normalized = LayerScorer("normalized_avss", site, aggregation, 0.03, draws=0).score(profile)
    np.testing.assert_allclose(normalized.values, scores.values / scores.values.sum(), rtol=1e-12)

def test_the_published_form(measured):
    profile, raw = measured
    scores = LayerScorer.published().score(profile)
    a = raw.activations(1, "output")
    share = (np.abs(a) < np.float64(1e-5)).mean() or 1 / (2 * a.size)
    np.testing.assert_allclose(scores.values[1], a.astype(np.float64).var() / share, rtol=FLOAT32)

def test_a_sparsity_of_zero_becomes_half_a_count_and_is_marked():
    rows = [[5, 6, 7, 8]]
    profile, raw = profiled(tiny(), texts=rows, tokenizer=None)
    scores = LayerScorer(site="output", eps=1e-8, draws=0).score(profile)
    a = raw.activations(0, "output")
    assert scores.floored.all() and np.isfinite(scores.values).all()
    np.testing.assert_allclose(scores.values[0], a.astype(np.float64).var() * 2 * a.size, rtol=FLOAT32)
    assert all(layer["floored"] for layer in scores.to_dict()["layers"])
    assert not LayerScorer("block_influence", eps=1e-8).score(profile).floored.any()  # uses no sparsity

def test_eps_can_change_after_the_pass(measured):
    profile, raw = measured
    for eps in (1e-4, 2e-3, 1.25e-2, 0.1, 0.5):  # edges of the histogram
        share = LayerScorer(eps=eps, draws=0).score(profile).sparsity
        for layer in range(LAYERS):
            a = raw.activations(layer, "relative_update")
            assert share[layer] == (numpy_sparsity(a, eps, "elements") or 1 / (2 * a.size))

def test_relative_eps_is_interpolated_within_one_bin(measured):
    profile, raw = measured
    edges = EDGES.numpy()
    scores = LayerScorer(site="output", eps=0.07, relative=True, draws=0).score(profile)
    for layer in range(LAYERS):
        a = np.abs(raw.activations(layer, "output").astype(np.float64))
        at = 0.07 * np.sqrt((a ** 2).mean())
        i = np.searchsorted(edges, at)
        assert (a < edges[i - 1]).mean() <= scores.sparsity[layer] <= (a < edges[i]).mean()
        assert abs(scores.sparsity[layer] - (a < at).mean()) < 0.01

def test_block_influence_and_update_norm(measured):
    profile, raw = measured
    influence, norm = (LayerScorer(score, draws=0).score(profile).values for score in ("block_influence", "update_norm"))
    for layer in range(LAYERS):
        x, y = (np.concatenate(raw.seen[layer][name]).astype(np.float64) for name in "xy")
        np.testing.assert_allclose(influence[layer], np.mean(1 - (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)), rtol=FLOAT32)
        r = raw.activations(layer, "relative_update").astype(np.float64)
        np.testing.assert_allclose(norm[layer], np.sqrt((r ** 2).mean(1)).mean(), rtol=FLOAT32)

def test_ablation_equals_removing_the_block_by_hand():
    model = tiny()
    profile = LayerProfiler(model, TOKENIZER, batch_size=4, ablation=True).profile(TEXTS, progress=silent)
    def mean_loss():
        total = count = 0
        with torch.no_grad():
            for text in TEXTS:
                ids = torch.tensor([TOKENIZER(text)["input_ids"]])
                total += model(input_ids=ids, labels=ids, use_cache=False).loss.double().item() * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
        return total / count
    blocks, intact = model.model.layers, mean_loss()
    rises = []
    for layer in range(LAYERS):
        model.model.layers = nn.ModuleList(b for i, b in enumerate(blocks) if i != layer)
        rises.append(mean_loss() - intact)
    np.testing.assert_allclose(LayerScorer("ablation").score(profile).values, rises, rtol=1e-4, atol=2e-6)

def test_random_is_a_seeded_permutation(measured):
    orders = {LayerScorer("random", seed=seed).score(measured[0]).order for seed in range(30)}
    assert orders == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert LayerScorer("random", seed=4).score(measured[0]).order == LayerScorer("random", seed=4).score(measured[0]).order

def test_cumulative_rises_from_the_least_important_to_one(measured):
    for score in (s for s in SCORES if s != "ablation"):
        scores = LayerScorer(score, draws=0).score(measured[0])
        assert (np.diff(scores.cumulative) >= 0).all() and math.isclose(scores.cumulative[-1], 1)
        np.testing.assert_allclose(scores.cumulative[0], scores.values.min() / scores.values.sum(), rtol=1e-12)
    negative = replace(scores, values=np.array([-1., 2., 1.]))
    np.testing.assert_allclose(negative.cumulative, [0, 1 / 3, 1])

def test_intervals_contain_the_truth():
    "Normal activations, of which variance and sparsity are known: 95 % intervals contain the true score nearly as often."
    sigma, eps, hit, repeats = np.array([0.5, 1., 2.]), 0.5, 0, 100
    truth = sigma ** 2 / np.array([math.erf(eps / s / math.sqrt(2)) for s in sigma])
    for repeat in range(repeats):
        rng = torch.Generator().manual_seed(repeat)
        groups = [Moments.stack([Moments.of(float(s) * torch.randn(40, 8, generator=rng, dtype=torch.float64)) for s in sigma]) for _ in range(16)]
        profile = LayerProfile("synthetic", "none", {"update": Moments.stack(groups)})
        scores = LayerScorer(site="update", eps=eps, draws=200).score(profile)
        assert (scores.low <= scores.values).all() and (scores.values <= scores.high).all()
        hit += ((scores.low <= truth) & (truth <= scores.high)).mean() / repeats
    assert 0.8 < hit < 1, hit

def test_intervals_shrink_with_the_data_and_follow_the_confidence():
    def scores(tokens, **settings):
        rng = torch.Generator().manual_seed(0)
        groups = [Moments.stack([Moments.of(s * torch.randn(tokens, 8, generator=rng, dtype=torch.float64)) for s in (1., 3.)]) for _ in range(16)]
        return LayerScorer(site="update", eps=0.5, **settings).score(LayerProfile("synthetic", "none", {"update": Moments.stack(groups)}))
    few, many, half = scores(20), scores(500), scores(20, confidence=0.5)
    assert ((many.high - many.low) < (few.high - few.low) / 2).all() and ((half.high - half.low) < (few.high - few.low)).all()
    assert many.rank_low.tolist() == many.rank_high.tolist() == [0, 1]  # far apart: the ranks are certain
    assert scores(20).low.tolist() == few.low.tolist()  # seeded

def test_no_intervals_without_groups_or_draws(measured):
    one = LayerProfiler(tiny(), TOKENIZER, groups=1).profile(TEXTS, progress=silent)
    for scores in LayerScorer().score(one), LayerScorer(draws=0).score(measured[0]), LayerScorer("random").score(measured[0]):
        assert np.isnan(scores.low).all() and np.isnan(scores.rank_high).all()
        assert all(layer["low"] is None for layer in scores.to_dict()["layers"])

def test_scores_as_a_dictionary(measured):
    import json
    scores = LayerScorer().score(measured[0])
    found = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert found["order"] == list(scores.order) and [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    assert {"model", "score", "site", "aggregation", "eps", "tokens", "layers", "order"} <= set(found)
    assert found["tokens"] == measured[0].tokens and found["layers"][2]["score"] == scores.values[2]

def test_wrong_questions_to_a_profile_are_refused(measured):
    for bad in ({"score": "magic"}, {"site": "residual"}, {"aggregation": "median"}, {"eps": 0}, {"eps": -1}, {"eps": math.nan}, {"confidence": 1}):
        with pytest.raises(InputError): LayerScorer(**bad)
    with pytest.raises(InputError, match="ablation"): LayerScorer("ablation").score(measured[0])
    only = LayerProfiler(tiny(), TOKENIZER, sites=["output"]).profile(TEXTS[:2], progress=silent)
    with pytest.raises(InputError, match="not profiled"): LayerScorer().score(only)

def test_skipping_by_hooks_left_the_model_alone(measured):
    model = tiny()
    with torch.no_grad():
        ids = torch.arange(4, 16)[None]
        before = model(input_ids=ids).logits
        LayerProfiler(model, TOKENIZER, ablation=True).profile(TEXTS[:4], progress=silent)
        assert torch.equal(model(input_ids=ids).logits, before)
    assert len(Blocks(model)) == LAYERS

# ---------------------------------------------------------------- what cannot be measured is refused before it is

def test_texts_longer_than_the_positions():
    for kind, most in (("gpt2", 1024), ("opt", 2048), ("bert", 512)):
        with pytest.raises(InputError, match=f"{most + 1} tokens are too long for a model of {most} positions; shorten the texts, or lower max_length"):
            LayerProfiler(tiny(kind), max_length=4000).profile([[5] * (most + 1)], silent)
        assert LayerProfiler(tiny(kind), max_length=most).profile([[5] * most], silent).tokens == most

def test_positions_that_begin_behind_the_padding():
    torch.manual_seed(0)
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                             max_position_embeddings=34)).eval()
    assert position_limit(model) == 32 and LayerProfiler(model).profile([[5] * 32], silent).tokens == 32
    with pytest.raises(InputError, match="33 tokens are too long for a model of 32 positions"): LayerProfiler(model).profile([[5] * 33], silent)

def test_a_model_that_changes_its_attention_for_short_texts_gets_it_back():
    torch.manual_seed(0)
    config = BigBirdConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, block_size=16, num_random_blocks=1,
                           max_position_embeddings=512)
    model = BigBirdForMaskedLM(config).train()
    def kinds(): return {type(layer.attention.self).__name__ for layer in model.bert.encoder.layer}
    before, profiler = kinds(), LayerProfiler(model, batch_size=1)
    profiler.profile([[5, 6, 7]], silent)
    assert kinds() == before == {"BigBirdBlockSparseAttention"} and model.bert.attention_type == "block_sparse"
    assert all(module.training for module in model.modules())
    assert profiler.profile([[5] * 256], silent).tokens == 256  # whole blocks: sparse attention
    with pytest.raises(InputError, match="adds positions of its own"): profiler.profile([[5] * 200], silent)

@pytest.mark.parametrize("settings, message", [
    (dict(groups=4), "at least 8 groups of texts, and groups=4"), (dict(sites=["output"]), "by relative_update was asked for, and sites output")])
def test_a_stable_ranking_that_cannot_be_told(settings, message):
    endless = ([5, 6, 7] for _ in iter(int, 1))
    with pytest.raises(InputError, match=message): LayerProfiler(tiny(), **settings).profile(endless, silent, until=stable())

def test_one_layer_is_stable_at_once():
    found = LayerProfiler(tiny(layers=1), batch_size=1).profile([[5, 6, 7]] * 100, silent, until=stable())
    assert found.texts == 16

@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_ablation_leaves_no_token_out_of_the_statistics(kind):
    rows = [[5, 6, 7], [8], [9, 10], [11]]
    plain, ablated = (LayerProfiler(tiny(kind), MASKING, ablation=ablation, batch_size=2).profile(rows, silent) for ablation in (False, True))
    assert same(plain, ablated) and ablated.tokens == 7
    assert int(ablated.predicted.sum()) == (3 if kind == "llama" else 4)
    if kind == "llama":
        with pytest.raises(InputError, match="at least 2 tokens"): LayerProfiler(tiny(kind), ablation=True).profile([[5], [6]], silent)

def test_settings_that_are_none():
    with pytest.raises(InputError, match="sites=None"): LayerProfiler(tiny(), sites=None)
    numbers = LayerProfiler(tiny(), batch_size=1).profile([[5, 6]] * 4, silent, share=tuple(np.array([1, 2])))
    assert json.dumps(numbers.settings) and numbers.settings["share"] == [1, 2]

class Listener(list):
    "Keeps all that it hears."
    hears_parts = True
    def __call__(self, progress): self.append(progress)

def test_a_run_is_heard_of_before_its_first_batch_ends(monkeypatch):
    "A listener that asks for it hears that work begins, and how far it is inside a batch; ablation counts its passes."
    monkeypatch.setattr(Reporter.__init__, "__defaults__", (0, 0.0))
    for ablation, passes in (False, 1), (True, 2 + LAYERS):
        heard = Listener()
        LayerProfiler(tiny(), TOKENIZER, ablation=ablation, batch_size=8).profile(TEXTS, progress=heard)
        assert heard[0].begins and (heard[0].done, heard[0].part) == (0, 0) and not any(p.begins for p in heard[1:])
        first = [p.part for p in heard if p.done == 0][1:]
        assert first[:LAYERS] == pytest.approx([(i + 1) / LAYERS / passes for i in range(LAYERS)])
        shares = [p.share() for p in heard[1:]]
        assert shares == sorted(shares) and shares[-1] == 1

def test_a_small_study_makes_at_least_eight_batches():
    "Its numbers are those of any other batches; a size that was asked for is kept."
    seen, asked = [], []
    small = LayerProfiler(tiny(), TOKENIZER, SITES).profile(TEXTS[:20], progress=lambda p: seen.append((p.done, p.total)))
    assert seen[-1][0] == seen[-1][1] >= 8
    whole = LayerProfiler(tiny(), TOKENIZER, SITES, batch_size=20).profile(TEXTS[:20], progress=lambda p: asked.append(p.done))
    assert len(asked) == 1
    for site in SITES: torch.testing.assert_close(small.site(site).total().m2, whole.site(site).total().m2, rtol=1e-5, atol=1e-9)

def test_only_what_the_kernels_measure_is_recorded(monkeypatch):
    "Models in float64 are measured in the plain way on CUDA, too, and there is nothing to replay."
    model, rows = tiny("llama"), [[5, 6, 7, 8]] * 16
    expected = LayerProfiler(model, batch_size=2).profile(rows, silent)
    class Eager:
        def recording(self, texts): return None
        def wants(self, texts, left): return True
        def note(self, run): raise AssertionError("a batch was noted that cannot be recorded")
    monkeypatch.setattr(LayerProfiler, "_replays", lambda self: Eager())
    found = LayerProfiler(model, batch_size=2).profile(rows, silent)
    assert torch.equal(found.site("output").m2, expected.site("output").m2)
