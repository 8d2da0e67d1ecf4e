"""Models as users have them: with adapters, compiled, checkpointed, in half precision, dispatched and offloaded.
The same numbers as the plain model, or a refusal that says what to do."""
import copy
import numpy as np, pytest, torch
import transformers as tf
from avss_nb import (
    SITES, Blocks, Evaluator, InputError, LayerProfiler, LayerPruner, Moments, Question,
    silent, sparsity, variance
)
from avss_nb.layers.profiler import site_activations
from avss_nb.model.blocks import fingerprint_blocks, input_device
from test_evaluator import word_tokenizer, words
from tiny import PATHS, VOCABULARY, padded_batch, tiny

ROWS = [torch.randint(3, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (9, 30, 17, 5, 25, 12)]
NAMES = ("llama", "gpt2", "distilbert")

def profiled(model, **settings): return LayerProfiler(model, **{"batch_size": 4, "sites": SITES} | settings).profile(ROWS, progress=silent)

def perplexity(model): return Evaluator(model, batch_size=4).perplexity(ROWS).value

def same_numbers(model, plain, rtol=0.0, fingerprints=True):
    "Profile, ablation, perplexity, answers and skipping, beside those of the plain model."
    found, expected = profiled(model, ablation=True), profiled(plain, ablation=True)
    assert (found.fingerprint == expected.fingerprint) == fingerprints and found.tokens == expected.tokens
    for site in SITES:
        for name, t in vars(expected.sites[site]).items():
            slack = 2 if name == "counts" and rtol else rtol * t.abs().max() if name == "mean" else 0  # rounding moves one over a bin's edge
            np.testing.assert_allclose(getattr(found.sites[site], name), t, rtol=rtol, atol=slack, err_msg=f"{site}.{name}")
    np.testing.assert_allclose(found.losses, expected.losses, rtol=rtol)
    np.testing.assert_allclose(perplexity(model), perplexity(plain), rtol=rtol)
    with LayerPruner(model).remove([1, 2]).preview(): skipped = perplexity(model)
    with LayerPruner(plain).remove([1, 2]).preview(): assert skipped == pytest.approx(perplexity(plain), rel=max(rtol, 1e-12))
    assert abs(skipped / perplexity(plain) - 1) > 1e-3 and perplexity(model) == pytest.approx(perplexity(plain), rel=max(rtol, 1e-12))
    questions = [Question(str(n), ("w007",), prompt=words(n, n)) for n in (3, 8)]
    a, b = (Evaluator(m, word_tokenizer(), max_new_tokens=4).answer(questions) for m in (model, plain))
    assert a.texts == b.texts and np.allclose(a.confidences, b.confidences, rtol=max(rtol, 1e-6))

# --- adapters

def with_adapters(seed=0):
    "A model with LoRA on attention and MLP that does something."
    peft = pytest.importorskip("peft")
    made = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False))
    return made.eval()

def test_adapters_that_are_not_merged():
    model = with_adapters()
    merged = copy.deepcopy(model).merge_and_unload()
    same_numbers(model, merged, rtol=2e-4, fingerprints=False)
    assert fingerprint_blocks(Blocks(model)) != fingerprint_blocks(Blocks(merged)) != fingerprint_blocks(Blocks(tiny("llama")))
    with pytest.raises(InputError, match="merge_and_unload"): LayerPruner(model).remove([1]).apply()
    plan = LayerPruner(merged).plan(search="greedy", count=1, texts=ROWS)
    assert LayerPruner(model).plan(search="greedy", count=1, texts=ROWS).removed == plan.removed and plan.apply().checks["reload_keys_clean"]

def test_adapters_on_a_masked_model_and_a_classifier():
    peft = pytest.importorskip("peft")
    from test_heads import EXAMPLES, TEXTS, TOKENIZER, classifier
    for model, task in (tiny("bert"), None), (classifier("bert"), "SEQ_CLS"):
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False, task_type=task)).eval()
        run = (lambda m: Evaluator(m, TOKENIZER).evaluate(EXAMPLES)) if task else (lambda m: Evaluator(m, TOKENIZER).evaluate(texts=TEXTS))
        with LayerPruner(wrapped).remove([2]).preview(): skipped = run(wrapped)
        merged = copy.deepcopy(wrapped).merge_and_unload()
        with LayerPruner(merged).remove([2]).preview(): expected = run(merged)
        name = "mean_confidence" if task else "pseudo_perplexity"
        assert getattr(skipped, name) == pytest.approx(getattr(expected, name), rel=1e-4) and getattr(skipped, name) != getattr(run(wrapped), name)

# --- compiled

def whole(model): return torch.compile(model, backend="eager")

def in_place(model):
    model.compile(backend="eager")
    return model

def block_by_block(model):
    for block in model.model.layers: block.compile(backend="eager")
    return model

def wrapped_blocks(model):
    for i, block in enumerate(model.model.layers): model.model.layers[i] = torch.compile(block, backend="eager")
    return model

@pytest.mark.parametrize("compiled, has_run", [
    (whole, False), (whole, True), (block_by_block, True),
    *(pytest.param(way, True, marks=pytest.mark.soak(only=True)) for way in (in_place, wrapped_blocks))
])
def test_compiled_models(compiled, has_run):
    torch._dynamo.reset()
    model = compiled(tiny("llama"))
    if has_run:
        with torch.no_grad():
            for lengths in (9, 4, 7), (12, 3), (8,), (30, 17): model(**padded_batch(lengths))
    same_numbers(model, tiny("llama"), rtol=1e-6)
    batch = padded_batch()
    with torch.no_grad(), Blocks(model).skip([1, 2]): skipped = model(**batch).logits
    with torch.no_grad(), Blocks(plain := tiny("llama")).skip([1, 2]): assert torch.allclose(skipped, plain(**batch).logits, rtol=1e-5, atol=1e-5)

def test_a_compiled_model_is_pruned_or_refused():
    model = in_place(tiny("llama"))
    with torch.no_grad(): model(**padded_batch())
    assert LayerPruner(model).remove([1]).apply().checks["logits_max_relative_error"] < 1e-5
    with pytest.raises(InputError, match="the PreTrainedModel itself"): LayerPruner(whole(tiny("llama"))).remove([1]).apply()

# --- training

@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradient_checkpointing_in_training(name):
    model = tiny(name)
    model.gradient_checkpointing_enable()
    model.train()
    same_numbers(model, tiny(name))
    calls = []
    with Blocks(model).watch(lambda layer, x, y: calls.append(layer)): loss = model(**padded_batch(), use_cache=False).logits.sum()
    assert calls == [0, 1, 2, 3] and model.training and model.is_gradient_checkpointing
    loss.backward()
    assert calls == [0, 1, 2, 3]

# --- half precision

@pytest.mark.parametrize("dtype, rtol", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_measured_in_float32_and_more(name, dtype, rtol):
    "The statistics are those of the model's own states, computed independently in float64; the states are close to those in float32."
    model, held = tiny(name, dtype=dtype), [[] for _ in range(4)]
    def hook(layer): return lambda _, args, kwargs, out: held[layer].append(((args[0] if args else kwargs["hidden_states"])[0], (out[0] if isinstance(out, tuple) else out)[0]))
    profiler = LayerProfiler(model, batch_size=1, sites=SITES[:3])
    handles = [block.register_forward_hook(hook(i), with_kwargs=True) for i, block in enumerate(model.get_submodule(PATHS[name]))]
    profile = profiler.profile(ROWS, progress=silent)
    for handle in handles: handle.remove()
    plain = profiled(tiny(name))
    for layer in range(4):
        x, y = (torch.cat([pair[side] for pair in held[layer]]).double() for side in (0, 1))
        states = {"output": y, "update": (y.float() - x.float()).double()}
        for site, a in states.items():
            m = profile.site(site).total()[layer]
            assert float(variance(m)) == pytest.approx(float(a.var(correction=0)), rel=1e-6)  # float32 within a text, float64 beyond
            assert float(sparsity(m, 0.01)) == float((a.abs() < 0.01).double().mean())
            assert float(variance(m)) == pytest.approx(float(variance(plain.site(site).total()[layer])), rel=rtol)
    if name != "distilbert": assert perplexity(model) == pytest.approx(perplexity(tiny(name)), rel=rtol)

# --- dispatched and offloaded

def disk(model, folder, accelerate): return accelerate.disk_offload(model, folder, execution_device=torch.device("cpu"))

def memory(model, folder, accelerate): return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))

def dispatched(model, folder, accelerate):
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk", "model.layers.3": "cpu",
              "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    return accelerate.dispatch_model(model, places, offload_dir=folder, main_device="cpu")

def loaded_in_parts(model, folder, accelerate):
    model.save_pretrained(folder / "model")
    places = {"model.embed_tokens": "disk", "model.layers.0": "disk", "model.layers.1": "cpu", "model.layers.2": "disk", "model.layers.3": "cpu",
              "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    return tf.AutoModelForCausalLM.from_pretrained(folder / "model", device_map=places, offload_folder=folder / "weights")

@pytest.mark.parametrize("offloaded", [disk, memory, dispatched, loaded_in_parts])
def test_offloaded_weights(offloaded, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = offloaded(tiny("llama"), tmp_path, accelerate)
    assert any(p.is_meta for p in model.parameters()) and input_device(model).type == "cpu"
    same_numbers(model, tiny("llama"))
    plan = LayerPruner(model).plan(search="greedy", count=1, texts=ROWS)
    assert plan.removed == LayerPruner(tiny("llama")).plan(search="greedy", count=1, texts=ROWS).removed
    with pytest.raises(InputError, match="offloaded .* load it whole"): plan.apply()

def test_a_profile_of_offloaded_weights_serves_the_whole_model(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    from avss_nb import LayerScorer
    scores = LayerScorer().score(profiled(memory(tiny("llama"), tmp_path, accelerate)))
    pruned = LayerPruner(tiny("llama")).plan(scores, count=1).apply()
    assert pruned.plan.removed == scores.order[:1]

def test_a_map_onto_one_device_is_no_obstacle(tmp_path):
    pytest.importorskip("accelerate")
    tiny("llama").save_pretrained(tmp_path)
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    same_numbers(model, tiny("llama"))
    assert LayerPruner(model).remove([1]).apply().checks["reload_keys_clean"]

def test_weights_without_values_are_refused():
    with torch.device("meta"): model = tf.LlamaForCausalLM(tiny("llama").config)
    with pytest.raises(InputError, match="meta"): profiled(model)
