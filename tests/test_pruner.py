"Cutting blocks out is exact in every architecture, survives a reload, and refuses where it cannot be exact."
import copy
import json
import re
import subprocess
import sys
from dataclasses import replace
import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from torch import nn
from avss_nb import Blocks, InputError, LayerPruner, LayerScores, PrunePlan
from avss_nb.model import surgery
from avss_nb.model.blocks import fingerprint_blocks
from avss_nb.prune import pruner as pruner_module
from conftest import shared
from tiny import CAUSAL, CONFIGS, SIZES, VOCABULARY, padded_batch, tiny

WINDOWED = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
GROUPED = dict(**SIZES, intermediate_size=48, num_key_value_heads=2)
HEAD = dict(head_dim=8)
ENDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
MORE = {  # beside the architectures of tiny.py
    "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=8),
    "qwen2 mixed": lambda: tf.Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=8, layer_types=WINDOWED),
    "gemma2": lambda: tf.Gemma2Config(**GROUPED, **HEAD, sliding_window=8),
    "gemma3": lambda: tf.Gemma3TextConfig(**GROUPED, **HEAD, sliding_window=8, layer_types=WINDOWED),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, **HEAD),
    "phi3": lambda: tf.Phi3Config(**GROUPED, **ENDS),
    "smollm3": lambda: tf.SmolLM3Config(**GROUPED, **ENDS, no_rope_layers=[1, 0, 0, 1]),
    "gpt_neo": lambda: tf.GPTNeoConfig(vocab_size=VOCABULARY, hidden_size=32, num_layers=4, num_heads=4, window_size=8,
                                       attention_types=[[["global", "local"], 2]], max_position_embeddings=128, **ENDS),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(**GROUPED, **HEAD, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                                           decoder_sparse_step=2, mlp_only_layers=[3]),
}
LAYER_COUNT = {"gpt2": "n_layer", "distilbert": "n_layers", "gpt_neo": "num_layers"}  # else num_hidden_layers
LISTS = {"qwen2": {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "qwen2 mixed": {"layer_types": WINDOWED},
         "gemma2": {"layer_types": ["sliding_attention", "full_attention"] * 2}, "gemma3": {"layer_types": WINDOWED},
         "smollm3": {"no_rope_layers": [1, 0, 0, 1], "layer_types": ["full_attention"] * 4}}
REMOVALS = [[2], [0], [3], [0, 2], [1, 2, 3]]

def make(name):
    "A random model with the embedded vocabulary, of tiny.py or of the list above."
    if name in CONFIGS: return tiny(name)
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(MORE[name]()).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(4)
    return model

def outcome(model, batch=None):
    with torch.no_grad(): return next(iter(model(**(batch or padded_batch((40, 9)))).values()))

def generated(model, use_cache, ids=padded_batch((12,))["input_ids"]):
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False,
                          use_cache=use_cache, pad_token_id=0)[0].tolist()

def stepwise(model):
    "Greedy generation by a plain loop over the cache, which takes the position from it."
    read, cache, text = padded_batch((12,))["input_ids"], None, []
    for _ in range(8):
        with torch.no_grad(): out = model(input_ids=read, past_key_values=cache, use_cache=True)
        read, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        text.append(int(read))
    return text

def removed_by_hand(name, model, removed):
    "A new model made from a configuration written by hand, each block filled from its original."
    kept = [i for i in range(4) if i not in removed]
    config = CONFIGS[name]() if name in CONFIGS else MORE[name]()
    data = config.to_dict() | {LAYER_COUNT.get(name, "num_hidden_layers"): len(kept)}
    data |= {field: [values[i] for i in kept] for field, values in LISTS.get(name, {}).items()}
    small = type(model)(type(config).from_dict(data)).eval()
    old, new = Blocks(model), Blocks(small)
    for j, i in enumerate(kept): new[j].load_state_dict(old[i].state_dict())
    rest = {key: value for key, value in model.state_dict().items() if not key.startswith(old.path + ".")}
    assert not small.load_state_dict(rest, strict=False).unexpected_keys
    return small

@pytest.mark.parametrize("removed", REMOVALS, ids=str)
@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_removal_is_exact(name, removed):
    model = make(name)
    pruner = LayerPruner(model)
    plan = pruner.remove(removed)
    with plan.preview(): skipped = outcome(model)
    pruned = plan.apply()
    assert not torch.equal(skipped, outcome(model))
    torch.testing.assert_close(outcome(pruned.model), skipped, rtol=0, atol=0)
    if name in LISTS or name in CONFIGS:
        torch.testing.assert_close(outcome(removed_by_hand(name, model, removed)), skipped, rtol=1e-5, atol=1e-5)
    assert len(Blocks(pruned.model)) == 4 - len(removed) and type(pruned.model) is type(model)
    assert pruned.checks == {"logits_max_relative_error": pytest.approx(0, abs=1e-6), "reload_keys_clean": True,
                             "cached_equals_uncached": True if name in CAUSAL or name in MORE else None}
    assert plan.parameters_after == sum(p.numel() for p in pruned.model.parameters()) < plan.parameters_before
    if name in CAUSAL or name in MORE:
        assert generated(pruned.model, True) == generated(pruned.model, False)
        assert stepwise(pruned.model) == generated(pruned.model, False)[12:]

def test_a_model_without_a_head_loses_blocks_too():
    torch.manual_seed(0)
    model = tf.AutoModel.from_config(CONFIGS["bert"]()).eval()
    plan = LayerPruner(model).remove([0, 3])
    with plan.preview(), torch.no_grad(): wanted = model(**padded_batch())
    with torch.no_grad(): found = plan.apply().model(**padded_batch())
    for name in "last_hidden_state", "pooler_output": assert torch.equal(found[name], wanted[name])

@pytest.mark.parametrize("stack, fine, refused", [("encoder", [2], [0]), ("decoder", [1, 2], [0])])
def test_t5_loses_any_block_but_the_first(stack, fine, refused):
    torch.manual_seed(0)
    config = tf.T5Config(vocab_size=80, d_model=32, d_kv=8, d_ff=48, num_layers=4, num_decoder_layers=3, num_heads=4,
                         decoder_start_token_id=0)
    model = tf.T5ForConditionalGeneration(config).eval()
    pruner = LayerPruner(model, stack=stack)
    small = pruner.remove(fine).apply().model
    counts = (small.config.num_layers, small.config.num_decoder_layers)
    assert counts == ((3, 3) if stack == "encoder" else (4, 1))
    with pytest.raises(InputError, match="relative_attention_bias.*protect"): pruner.remove(refused).apply()

def test_reload_in_a_fresh_process(tmp_path):
    "Another process, which knows nothing of this package, reads the same model: also without block 0, also with the cache."
    cases = {"llama": [0], "gpt2": [0, 2], "qwen2": [0, 3]}
    batch = padded_batch((40,))
    for name, removed in cases.items():
        model = tiny(name)
        plan = LayerPruner(model).remove(removed)
        plan.apply().save(tmp_path / name)
        with plan.preview(): save_file({"logits": outcome(model, batch), **batch}, tmp_path / f"{name}.safetensors")
    code = """if True:
        import sys, torch, transformers as tf
        from safetensors.torch import load_file
        for name in sys.argv[2:]:
            model, info = tf.AutoModelForCausalLM.from_pretrained(f"{sys.argv[1]}/{name}", output_loading_info=True)
            assert not any(info.values()), info
            wanted = load_file(f"{sys.argv[1]}/{name}.safetensors")
            ids = wanted["input_ids"]
            with torch.no_grad(): torch.testing.assert_close(model(input_ids=ids).logits, wanted["logits"])
            settings = dict(attention_mask=torch.ones_like(ids), max_new_tokens=12, min_new_tokens=12, do_sample=False,
                            pad_token_id=0)
            slow = model.generate(ids, use_cache=False, **settings)
            assert torch.equal(model.generate(ids, use_cache=True, **settings), slow)
            with torch.no_grad():
                out, loop = model(input_ids=ids, use_cache=True), []
                for _ in range(12):
                    loop.append(out.logits[:, -1:].argmax(-1))
                    out = model(input_ids=loop[-1], past_key_values=out.past_key_values, use_cache=True)
            assert torch.equal(torch.cat(loop, 1), slow[:, ids.shape[1]:])
            assert "avss_nb" not in sys.modules
            print(name, len([m for m in model.modules() if type(m).__name__.endswith(("DecoderLayer", "GPT2Block"))]))
        """
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), *cases], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["llama", "3", "gpt2", "2", "qwen2", "2"]

def test_the_original_is_untouched():
    model = tiny("gpt2")
    model.train(); model.transformer.drop.eval()
    model.transformer.h[1].requires_grad_(False)
    pruner = LayerPruner(model)  # finding the blocks runs the model once
    state, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    modes, random = [m.training for m in model.modules()], torch.random.get_rng_state()
    small = pruner.remove([0]).apply().model
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert model.config.to_dict() == config and [m.training for m in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [p.requires_grad for p in small.transformer.h[0].parameters()] == [False] * 12 and small.lm_head.weight.requires_grad
    with torch.no_grad(): small.transformer.h[0].ln_1.weight.add_(1)  # nothing is shared
    assert torch.equal(model.transformer.h[1].ln_1.weight, state["transformer.h.1.ln_1.weight"])

@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_precision_ties_and_generation_settings_stay(dtype):
    torch.manual_seed(0)
    config = tf.LlamaConfig(**SIZES, intermediate_size=48, tie_word_embeddings=True)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").eval()
    model.generation_config.update(max_length=77, do_sample=True, temperature=0.7)
    small = LayerPruner(model).remove([0, 1]).apply().model
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert small.lm_head.weight is small.model.embed_tokens.weight and small.config._attn_implementation == "eager"
    assert (small.generation_config.max_length, small.generation_config.temperature) == (77, 0.7)

@pytest.mark.parametrize("settings", [
    dict(stop_strings=["x"]), dict(penalty_alpha=.6, top_k=4), dict(dola_layers="low"), dict(max_time=0.),
    dict(force_words_ids=[[5]]), dict(token_healing=True), dict(cache_implementation="offloaded"),
    dict(num_beams=4), dict(do_sample=True, temperature=.7), dict(do_sample=False, temperature=.7)], ids=str)
def test_generation_settings_neither_stop_a_cut_nor_get_lost(settings, tmp_path):
    model = tiny("llama")
    for name, value in settings.items(): setattr(model.generation_config, name, value)
    cut = LayerPruner(model).remove([1]).apply()
    assert cut.checks["cached_equals_uncached"]
    again = tf.AutoModelForCausalLM.from_pretrained(cut.save(tmp_path / "cut")).generation_config
    for settled in model.generation_config, cut.model.generation_config, again:
        assert {name: getattr(settled, name) for name in settings} == settings

def test_generation_settings_that_nobody_can_read_are_refused():
    model = tiny("llama")
    model.generation_config.num_return_sequences = 3  # without sampling or beams
    with pytest.raises(InputError, match="cannot be read again.*num_return_sequences"): LayerPruner(model).remove([1]).apply()
    assert model.generation_config.num_return_sequences == 3

# --- refusals

def gpt2(**settings):
    sizes = dict(vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=4, n_positions=128)
    return tf.GPT2LMHeadModel(tf.GPT2Config(**sizes, **settings)).eval()

def with_adapter():
    model = tiny("llama")
    adapter = type("Linear", (nn.Linear,), {"__module__": "peft.tuners.lora.layer"})
    model.model.layers[1].mlp.up_proj = adapter(32, 48)
    return model

def quantised():
    pruner = LayerPruner(tiny("llama"))
    up = pruner.model.model.layers[1].mlp.up_proj
    up.weight = nn.Parameter(torch.zeros_like(up.weight, dtype=torch.int8), requires_grad=False)
    return pruner

def partly_offloaded():
    model = tiny("llama")
    pruner = LayerPruner(model)
    model.model.layers[2].to("meta")
    return pruner

def foreign_code():
    model = tiny("llama")
    model.__class__ = type("Own", (type(model),), {"__module__": "transformers_modules.own"})
    return model

@pytest.mark.parametrize("make_model, reason", [
    (lambda: tf.AlbertForMaskedLM(tf.AlbertConfig(**SIZES, embedding_size=16, intermediate_size=48)), "one shared block"),
    (lambda: gpt2(scale_attn_by_inverse_layer_idx=True), "scaled by the number of the block"),
    (lambda: tiny("llama").to("meta"), "offloaded"),
    (partly_offloaded, "offloaded"),
    (with_adapter, "adapters that are not merged"),
    (quantised, "quantised"),
    (foreign_code, "code that came with its weights"),
    (lambda: tiny("llama").to(torch.bfloat16), "cast after loading.*dtype="),
    (lambda: nn.Sequential(nn.Linear(2, 2)), "not a transformers model"),
], ids=["albert", "scaled gpt2", "meta", "partly meta", "adapter", "quantised", "foreign code", "cast", "no model"])
def test_refusals_name_the_reason(make_model, reason):
    with pytest.raises(InputError, match=reason):
        model = make_model()
        pruner = model if isinstance(model, LayerPruner) else LayerPruner(model)
        pruner.remove([1]).apply()

def test_modernbert_keeps_its_first_block():
    torch.manual_seed(0)
    config = tf.ModernBertConfig(**SIZES, **ENDS, cls_token_id=1, sep_token_id=2, intermediate_size=48, local_attention=8,
                                 global_attn_every_n_layers=2)
    pruner = LayerPruner(tf.ModernBertForMaskedLM(config).eval())
    assert pruner.remove([1, 2]).apply().checks["reload_keys_clean"]
    with pytest.raises(InputError, match="protect"): pruner.remove([0]).apply()

def test_what_is_not_known_beforehand_is_found_by_comparing(monkeypatch):
    monkeypatch.setattr(surgery, "REFUSED_FLAGS", {})
    plan = LayerPruner(gpt2(scale_attn_by_inverse_layer_idx=True)).remove([1])
    with pytest.raises(InputError, match="scaling of kept block"): plan.apply()

# --- a broken operation refuses: it never returns a wrong model

def break_weights(monkeypatch):
    right = surgery.remapped_state
    def wrong(model, path, kept): return right(model, path, [*kept[1:], kept[0]])  # every name is there, blocks changed places
    monkeypatch.setattr(surgery, "remapped_state", wrong)

def break_numbers(monkeypatch):
    monkeypatch.setattr(surgery, "new_name", lambda name, path, kept: name)

def break_lists(monkeypatch):
    right = surgery.shrunk_fields
    def wrong(config, kept, *rest): return right(config, kept, *rest) | {"layer_types": config.layer_types[:len(kept)]}
    monkeypatch.setattr(surgery, "shrunk_fields", wrong)

def break_window(monkeypatch):
    build = tf.Qwen2ForCausalLM._from_config.__func__
    def wrong(cls, config, **settings):
        model = build(cls, config, **settings)
        for block in model.model.layers:
            if block.self_attn.sliding_window: block.self_attn.sliding_window = 4096  # no test text is long enough to see this
        return model
    monkeypatch.setattr(tf.Qwen2ForCausalLM, "_from_config", classmethod(wrong))

def break_config(monkeypatch):
    read = tf.Qwen2Config.from_dict.__func__
    def wrong(cls, data, **settings): return read(cls, data | {"rms_norm_eps": 1e-5}, **settings)
    monkeypatch.setattr(tf.Qwen2Config, "from_dict", classmethod(wrong))

def break_cache(monkeypatch):
    right = surgery.rebuild_model
    def wrong(blocks, kept):
        small = right(blocks, kept)
        for block in small.model.layers: block.self_attn.layer_idx += 1  # as if the numbers had not been renewed
        return small
    monkeypatch.setattr(pruner_module, "rebuild_model", wrong)

def break_saving(monkeypatch):
    save = tf.Qwen2ForCausalLM.save_pretrained
    def wrong(self, folder, **settings):
        save(self, folder, **settings)
        config = self.config.to_dict() | {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}
        type(self.config).from_dict(config).save_pretrained(folder)
    monkeypatch.setattr(tf.Qwen2ForCausalLM, "save_pretrained", wrong)

@pytest.mark.parametrize("breakage, reason", [(break_weights, "does not compute"), (break_numbers, "no place for"),
    (break_lists, "changed .*of kept block|does not compute"), (break_window, "sliding_window of kept block"),
    (break_config, "rms_norm_eps"), (break_cache, "does not run .IndexError"), (break_saving, "missing keys")])
def test_a_broken_operation_is_refused(monkeypatch, breakage, reason):
    model = make("qwen2 mixed")
    plan = LayerPruner(model).remove([0])
    state = copy.deepcopy(model.state_dict())
    breakage(monkeypatch)
    with pytest.raises(InputError, match=reason): plan.apply()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    monkeypatch.undo()
    plan.apply()

@pytest.mark.parametrize("removed, reason", [([0], "loop over past_key_values"), ([2], "missing keys")])
def test_deleting_from_the_list_is_refused(monkeypatch, removed, reason):
    "What people do by hand: the logits are right, the cache without block 0 is not, and nothing survives a reload."
    def naive(blocks, kept):
        small = copy.deepcopy(blocks.model)
        small.model.layers = nn.ModuleList(small.model.layers[i] for i in kept)
        return small
    monkeypatch.setattr(pruner_module, "rebuild_model", naive)
    plan = LayerPruner(tiny("llama")).remove(removed)
    wrong = plan.apply(verify=False).model
    with plan.preview(): assert torch.equal(outcome(wrong), outcome(plan.blocks.model))
    assert (stepwise(wrong) == generated(wrong, False)[12:]) == (0 not in removed)
    with pytest.raises(InputError, match=reason): plan.apply()

# --- plans

def scores_of(model, values, title="a score"):
    "Scores with these values."
    return LayerScores.of(title, values, fingerprint=fingerprint_blocks(Blocks(model)))

@pytest.fixture(scope="module")
def llama(): return tiny("llama")

@pytest.fixture(scope="module")
def scores(llama): return scores_of(llama, [4, 1, 3, 2])  # cumulative: 0.1 (1), 0.3 (3), 0.6 (2), 1.0 (0)

@pytest.mark.parametrize("settings, removed", [
    (dict(fraction=0.01), (1,)), (dict(fraction=0.25), (1,)), (dict(fraction=0.374), (1,)), (dict(fraction=0.375), (1, 3)),
    (dict(fraction=0.99), (1, 2, 3)), (dict(count=1), (1,)), (dict(count=3), (1, 2, 3)), (dict(count=np.int64(2)), (1, 3)),
    (dict(threshold=0.1), (1,)), (dict(threshold=0.29), (1,)), (dict(threshold=0.3), (1, 3)), (dict(threshold=0.99), (1, 2, 3)),
    (dict(count=2, protect=[1]), (2, 3)), (dict(threshold=0.6, protect=(3,)), (1, 2)),
    (dict(fraction=0.5, protect={1, 3}), (0, 2))])
def test_which_layers_a_plan_removes(llama, scores, settings, removed):
    plan = LayerPruner(llama).plan(scores, **settings)
    assert plan.removed == removed and sorted(plan.removed + plan.kept) == [0, 1, 2, 3] and "a score" in plan.how

@pytest.mark.parametrize("settings, reason", [
    (dict(fraction=0), "between 0 and 1"), (dict(fraction=1), "between 0 and 1"), (dict(fraction=1.5), "1.5 was given"),
    (dict(fraction=float("nan")), "nan"), (dict(fraction="a quarter"), "a quarter"), (dict(count=0), "between 1 and 3"),
    (dict(count=4), "between 1 and 3"), (dict(count=-1), "between 1 and 3"), (dict(count=1.5), "whole number"),
    (dict(threshold=0), "between 0 and 1"), (dict(threshold=0.05), "removes nothing"), ({}, "exactly one"),
    (dict(fraction=0.25, count=1), "exactly one"), (dict(count=1, threshold=0.5), "exactly one"),
    (dict(count=1, protect=[0, 1, 2, 3]), "only 0 are unprotected"), (dict(count=3, protect=[0, 1]), "only 2 are unprotected"),
    (dict(count=1, protect=[7]), "no layer 7"), (dict(count=1, search="exhaustive"), "exhaustive"),
    (dict(count=1, search="greedy"), "texts"), (dict(count=1, search="greedy", texts=[[1, 2]]), "no scores")])
def test_wrong_arguments_are_named(llama, scores, settings, reason):
    with pytest.raises(InputError, match=reason): LayerPruner(llama).plan(scores, **settings)

def test_plans_without_scores_or_with_those_of_another_model(llama, scores):
    with pytest.raises(InputError, match="give scores"): LayerPruner(llama).plan(count=1)
    with pytest.raises(InputError, match="scores of another model"): LayerPruner(tiny("llama", seed=1)).plan(scores, count=1)
    with pytest.raises(InputError, match="threshold needs scores"):
        LayerPruner(llama).plan(threshold=0.5, search="greedy", texts=[[1, 2, 3]])
    for layers in [], [0, 1, 2, 3]:
        with pytest.raises(InputError, match="at least one must go and one stay"): LayerPruner(llama).remove(layers)
    with pytest.raises(InputError, match="no layer 4"): LayerPruner(llama).remove([4])

def test_a_plan_is_plain_and_shows_itself(llama, scores):
    plan = LayerPruner(llama).plan(scores, count=2)
    assert plan == LayerPruner(llama).plan(scores, fraction=0.5) and "Blocks" not in repr(plan)
    told = json.loads(json.dumps(plan.to_dict()))
    assert (told["removed"], told["kept"], told["checks"], told["path"]) == ([1, 3], [0, 2], None, None)
    block = sum(p.numel() for p in llama.model.layers[0].parameters())
    assert told["parameters_before"] - told["parameters_after"] == 2 * block
    assert "1, 3 (2 of 4)" in plan._repr_html_() and "&lt;b&gt;" in PrunePlan((1,), 4, "<b>", plan.blocks)._repr_html_()
    with pytest.raises(InputError, match="5 layers"): PrunePlan((1,), 5, "wrong", plan.blocks)

def test_unverified_is_said(llama):
    pruned = LayerPruner(llama).remove([0]).apply(verify=False)
    assert pruned.checks == {} and torch.equal(outcome(pruned.model), outcome(LayerPruner(llama).remove([0]).apply().model))

# --- what a cut costs

def test_a_cut_that_nobody_measured_says_so_with_a_line_that_measures_it(teaching, capsys):
    "The line is Python: it runs as it stands, in the preview and on the smaller model."
    from avss_nb import Evaluator
    model, tokenizer = teaching
    plan = LayerPruner(*teaching).remove([4, 5])
    pruned, texts = plan.apply(samples=0), ["Ivan Garner is known as a chemist."]
    lines = [said.partition("; to measure it: ")[2] for said in (plan.quality(), pruned.quality)]
    assert plan.quality().startswith("not measured; ") and pruned.quality.startswith("not measured; ")
    for line in lines: exec(line, dict(plan=plan, pruned=pruned, model=model, tokenizer=tokenizer, texts=texts, Evaluator=Evaluator))
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and "perplexity" in first and not any(block._forward_hooks for block in model.model.layers)
    for shown in plan._repr_html_(), pruned._repr_html_(), json.dumps(pruned.to_dict()): assert "not measured; to measure it: " in shown

def test_a_measured_cut_says_what_it_costs(llama, tmp_path):
    plan = replace(LayerPruner(llama).remove([1]), measured="accuracy <1 → 0")
    pruned = plan.apply()
    assert plan.quality() == plan.quality("a line") == pruned.quality == "accuracy <1 → 0" and plan == LayerPruner(llama).remove([1])
    assert "accuracy &lt;1 → 0" in pruned._repr_html_() and "not measured" not in pruned._repr_html_()
    assert json.loads((pruned.save(tmp_path / "m") / "pruning.json").read_text())["quality"] == "accuracy <1 → 0"

def test_a_search_measures_on_its_own_texts_only(llama):
    plan = LayerPruner(llama).plan(search="greedy", count=1, texts=TEXTS)
    assert plan.quality("a line") == "not measured on texts that the search has not read; to measure it: a line"

def test_without_a_head_the_line_compares_states():
    plan = LayerPruner(tiny("llama").base_model).remove([1])
    assert plan.quality("avss-nb evaluate") == plan.apply().quality == "not measured; to measure it: plan.similarity(texts)"

def test_verified_names_what_was_verified(llama):
    pruned = LayerPruner(llama).remove([1]).apply()
    assert re.fullmatch(r"computes the same as the preview \(largest relative error \S+\), loads again completely,"
                        r" generates the same with and without its cache", pruned.verified)
    assert "cache" not in LayerPruner(tiny("bert")).remove([1]).apply().verified
    assert LayerPruner(llama).remove([1]).apply(verify=False).verified == "nothing (made with verify=False)"
    for shown in pruned._repr_html_(), json.dumps(pruned.to_dict()): assert "computes the same as the preview" in shown
    assert "not yet; apply() checks that the smaller model computes the same as the preview" in LayerPruner(llama).remove([1])._repr_html_()

class Letters:
    "A tokenizer whose tokens are characters; it hands special ones to nobody."
    bos_token_id = eos_token_id = None
    def __call__(self, text, add_special_tokens=True, **_):
        if not isinstance(text, str): return {"input_ids": [self(t)["input_ids"] for t in text]}
        return {"input_ids": [3 + ord(c) % 500 for c in text]}
    def decode(self, ids, skip_special_tokens=False): return "".join(f"<{int(i)}>\x1b" for i in ids)
    def convert_ids_to_tokens(self, ids): return [*map(str, ids)]
    def save_pretrained(self, folder): pass

def greedy_by_hand(model, ids, tokens):
    for _ in range(tokens):
        with torch.no_grad(): ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-tokens:]

@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_continuations_are_those_of_both_models(name):
    model, reader = tiny(name), Letters()
    model.generation_config.update(do_sample=True, num_beams=3, eos_token_id=None)
    plan = LayerPruner(model, reader).remove([0, 2])
    pruned = plan.apply(texts=iter([[5, 6, 7] * 4, [9, 8], [20] * 9, [1, 2, 3]]))
    prompts = [[5, 6, 7, 5, 6, 7, 5, 6], [9, 8], [20] * 8]
    assert [s["prompt"] for s in pruned.samples] == [reader.decode(ids) for ids in prompts]
    for sample, ids in zip(pruned.samples, prompts):
        assert sample["before"] == reader.decode(greedy_by_hand(model, ids, 12))
        assert sample["after"] == reader.decode(greedy_by_hand(pruned.model, ids, 12))
    assert any(s["before"] != s["after"] for s in pruned.samples)
    shown = pruned._repr_html_()
    assert "&lt;5&gt;" in shown and "<5>" not in shown and json.loads(json.dumps(pruned.to_dict()))["samples"] == [*pruned.samples]

def test_prompts_come_from_a_search_and_can_be_left_out():
    model, reader = tiny("llama"), Letters()
    for search in dict(search="greedy"), dict(search="iterative", scorer=lambda texts: LayerScores.of("x", np.arange(4.))):
        plan = LayerPruner(model, reader).plan(count=1, texts=TEXTS, **search)
        assert [s["prompt"] for s in plan.apply().samples] == [reader.decode(text[:8]) for text in TEXTS[:3]]
    assert len(plan.apply(samples=1).samples) == 1 and plan.apply(samples=0).samples == ()
    assert len(LayerPruner(model, reader).remove([1]).apply().samples) == len(pruner_module.PROMPTS)

def test_what_does_not_write_text_has_no_continuations(llama):
    assert LayerPruner(llama).remove([1]).apply().samples == ()
    for model in tiny("bert"), tiny("llama").base_model:
        assert pruner_module.continue_texts(model, Letters(), [[4, 5]]) == {}

def test_a_look_that_fails_does_not_stop_the_cut(monkeypatch):
    class Mute(Letters):
        def decode(self, *_, **__): raise RuntimeError("no words")
    with pytest.warns(UserWarning, match="no continuations were written .RuntimeError: no words"):
        pruned = LayerPruner(tiny("llama"), Mute()).remove([1]).apply()
    assert pruned.samples == () and pruned.checks["reload_keys_clean"]

# --- greedy search

TEXTS = [torch.randint(3, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (12, 30, 7, 21, 18)]

def loss_by_hand(model, removed, texts):
    "Mean next-token loss of a copy from which blocks are deleted, text by text, without padding."
    model = copy.deepcopy(model)
    model.model.layers = nn.ModuleList(b for i, b in enumerate(model.model.layers) if i not in removed)
    total, tokens = 0., 0
    with torch.no_grad():
        for text in texts:
            logits = model(input_ids=torch.tensor([text]), use_cache=False).logits[0].double()
            total -= logits[:-1].log_softmax(-1).gather(1, torch.tensor(text[1:])[:, None]).sum().item()
            tokens += len(text) - 1
    return total / tokens

def test_greedy_takes_the_lowest_loss_and_measures_again(llama):
    heard = []
    plan = LayerPruner(llama).plan(search="greedy", count=2, texts=TEXTS, progress=heard.append)
    first = {i: loss_by_hand(llama, [i], TEXTS) for i in range(4)}
    best = min(first, key=first.get)
    second = {i: loss_by_hand(llama, [best, i], TEXTS) for i in range(4) if i != best}
    then = min(second, key=second.get)
    assert [layer for layer, _ in plan.trace] == [best, then] and plan.removed == tuple(sorted([best, then]))
    assert [loss for _, loss in plan.trace] == pytest.approx([first[best], second[then]], rel=1e-5)
    assert [h.done for h in heard] == [*range(1, 8)] and {h.total for h in heard} == {7} and heard[0].unit == "candidate"
    assert {h.info["layer"]: h.info["loss"] for h in heard[:4]} == pytest.approx(first, rel=1e-5)
    assert heard[3].partial is None and heard[4].partial().removed == (best,)
    assert "greedy" in plan.how and "88 tokens" in plan.how

def test_greedy_protects_and_leaves_the_model_as_it_was(llama):
    llama.train()
    try:
        first = LayerPruner(llama).plan(search="greedy", fraction=0.25, texts=TEXTS).removed
        plan = LayerPruner(llama).plan(search="greedy", fraction=0.25, texts=TEXTS, protect=first)
        assert llama.training and plan.removed != first and len(plan.removed) == 1
    finally: llama.eval()
    assert not any(m._forward_hooks for m in llama.modules())

def test_greedy_needs_a_known_loss_and_finite_losses():
    t5 = tf.T5ForConditionalGeneration(tf.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4))
    with pytest.raises(InputError, match="no head whose loss is known"):
        LayerPruner(t5, stack="encoder").plan(search="greedy", count=1, texts=TEXTS)
    model = tiny("llama")
    with torch.no_grad(): model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="infinite or not a number"):
        LayerPruner(model).plan(search="greedy", count=1, texts=TEXTS)
    with pytest.raises(InputError, match="without a tokenizer"):
        LayerPruner(tiny("llama")).plan(search="greedy", count=1, texts=["words"])

@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_model_without_a_head_is_measured_by_its_pooled_states(name):
    "Mean of the last states over the tokens, text by text without padding; greedy takes what turns it least."
    model = tiny(name).base_model
    def pooled(removed):
        with torch.no_grad(), Blocks(model).skip(removed):
            return torch.stack([model(input_ids=torch.tensor([text])).last_hidden_state[0].double().mean(0) for text in TEXTS])
    intact = pooled([])
    def cosine(removed): return torch.cosine_similarity(pooled(removed), intact).mean().item()
    first = max(range(4), key=lambda i: cosine([i]))
    then = max((i for i in range(4) if i != first), key=lambda i: cosine([first, i]))
    plan = LayerPruner(model).plan(search="greedy", count=2, texts=TEXTS)
    assert [layer for layer, _ in plan.trace] == [first, then]
    assert [1 - loss for _, loss in plan.trace] == pytest.approx([cosine([first]), cosine([first, then])], abs=1e-6)
    found = plan.similarity(TEXTS, batch_size=2)
    assert found.value == pytest.approx(cosine([first, then]), abs=1e-6) and found.low <= found.value <= found.high
    assert found.texts == 5 and f"cosine {found.value:.3f} [" in plan.how and "pooled states" in plan.how
    alone = plan.similarity(TEXTS[:1])
    assert alone.low != alone.low, "a single text gives no interval"
    assert not any(m._forward_hooks for m in model.modules())

# --- saving

def test_saving_is_all_or_nothing(tmp_path, llama):
    pruned = LayerPruner(llama).remove([1]).apply()
    path = pruned.save(tmp_path / "new" / "model")
    note = json.loads((path / "pruning.json").read_text())
    assert (note["removed"], note["kept"], note["how"]) == ([1], [0, 2, 3], "chosen by hand") and note["checks"] == pruned.checks
    assert json.loads(json.dumps(pruned.to_dict(path)))["path"] == str(path)
    class Broken:
        def save_pretrained(self, folder): raise OSError("disk full")
    broken = type(pruned)(pruned.model, Broken(), LayerPruner(llama).remove([2]), {})
    for target in path, tmp_path / "other":
        with pytest.raises(InputError, match="was not written .disk full."): broken.save(target)
    assert json.loads((path / "pruning.json").read_text()) == note and not (tmp_path / "other").exists()
    LayerPruner(llama).remove([2]).apply(verify=False).save(path)  # an earlier result may be replaced
    assert json.loads((path / "pruning.json").read_text())["removed"] == [2]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["model"]

def test_saving_never_replaces_what_is_not_its_own(tmp_path, llama):
    pruned = LayerPruner(llama).remove([1]).apply(verify=False)
    (tmp_path / "thesis.tex").write_text("two years of work")
    for target in tmp_path, tmp_path / "thesis.tex":
        with pytest.raises(InputError, match="not an earlier result"): pruned.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

# --- a real model

def test_real_weights(tmp_path):
    folder = shared("models/stories260k")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends."
    pruner = LayerPruner(model, tokenizer)
    plan = pruner.plan(search="greedy", count=2, texts=[text])
    batch = tokenizer(text, return_tensors="pt")
    with plan.preview(): wanted = outcome(model, batch)
    pruned = plan.apply()
    assert torch.equal(outcome(pruned.model, batch), wanted)
    path = pruned.save(tmp_path / "stories")
    again, tokens = tf.AutoModelForCausalLM.from_pretrained(path), tf.AutoTokenizer.from_pretrained(path)
    assert torch.equal(outcome(again, tokens(text, return_tensors="pt")), wanted)
    first, second = plan.trace
    singles = {i: loss_by_hand(model, [i], [batch["input_ids"][0].tolist()]) for i in range(5)}
    assert first[0] == min(singles, key=singles.get) and first[1] == pytest.approx(singles[first[0]], rel=1e-5)
    assert generated(again, True, batch["input_ids"]) == generated(again, False, batch["input_ids"])
