"""The conformance suite has teeth: whatever step of the surgery is broken, its independent checks see it.

Each step is broken in turn, twice. With the package's own checks switched off, a wrong model comes out, and the suite must
see that it is wrong. With them on, `apply` must refuse, or the model must be right.
"""
import copy
import pytest
from torch import nn
from avss_nb import InputError, LayerPruner
from avss_nb.model import surgery
from avss_nb.prune import pruner
from architectures import REGISTRY, made
from fresh_process import outputs
from test_conformance import _one_process, by_hand, cuts, faults, folder, text  # noqa: F401 (fixtures)

# entry of surgery's tables → an architecture whose layers it tells apart
PROOF = {"layer_types": "gemma3_text", "mlp_layer_types": "laguna", "layers_block_type": "nemotron_h", "no_rope_layers": "smollm3",
         "attention_layers": "gpt_neo", "layer_rope_theta": "granite_swa", "num_attention_heads_per_layer": "laguna",
         "attention_window": "longformer", "moe_layers": "llama4_text", "attn_layer_indices": "bamba", "hybrid_layer_ids": "zamba2",
         "first_k_dense_replace": "deepseek_v3", "num_dense_layers": "afmoe", "moe_layer_start_index": "ernie4_5_moe",
         "attention_types": "gpt_neo", "block_types": "recurrent_gemma", "mlp_only_layers": "qwen3_moe",
         "moe_layer_end_index": "ernie4_5_moe", "expert_layer_period": "jamba"}
DERIVED = {"max_window_layers"}  # transformers reads layer_types instead; other readers of the file may not

def test_every_entry_is_proven():
    entries = {*surgery.PER_LAYER, *surgery.LAYER_SETS, *surgery.LEADING, *surgery.REWRITES}
    assert entries == PROOF.keys() | DERIVED

# --- ways to break a step

def stale(field):
    "The field keeps its old value, or its first entries: nobody asked which layers stay."
    def break_it(monkeypatch):
        right = surgery.shrunk_fields
        def wrong(config, kept, layers, stack=None):
            edits = right(config, kept, layers, stack)
            for name in {field, *(surgery.REWRITES[field](config, kept) if field in surgery.REWRITES else ())}:
                old = getattr(config, name)
                edits[name] = old[:len(kept)] if isinstance(old, list) and len(old) == layers else old
            if field.startswith("attention_") and "attention_types" in edits:  # gpt_neo says it twice
                first = config.attention_layers[:len(kept)]
                edits |= {"attention_types": [[first, 1]], "attention_layers": first}
            return edits
        monkeypatch.setattr(surgery, "shrunk_fields", wrong)
    return break_it

def same_count(monkeypatch):
    "The configuration still counts the old blocks."
    right, counts = surgery.shrunk_fields, surgery.COUNTS
    monkeypatch.setattr(surgery, "shrunk_fields", lambda *args: {k: v for k, v in right(*args).items() if k not in counts})

def first_weights(monkeypatch):
    "The first blocks' weights are kept, whichever should be."
    right = surgery.remapped_state
    monkeypatch.setattr(surgery, "remapped_state", lambda model, path, kept: right(model, path, range(len(kept))))

def changed(change):
    "Something is done to the smaller model after it was built."
    def break_it(monkeypatch):
        right = pruner.rebuild_model
        def wrong(blocks, kept):
            small = right(blocks, kept)
            change(small)
            return small
        monkeypatch.setattr(pruner, "rebuild_model", wrong)
    return break_it

def old_numbers(small):
    for module in small.modules():
        if hasattr(module, "layer_idx"): module.layer_idx += 1

def old_file(small): small.config.num_hidden_layers += 1

def other_scale(small):
    for block in small.model.layers: block.self_attn.scaling *= 2

def by_deletion(monkeypatch):
    "What people do by hand: delete from the list, and nothing else."
    def naive(blocks, kept):
        small = copy.deepcopy(blocks.model)
        parent, leaf = blocks.path.rsplit(".", 1)
        setattr(small.get_submodule(parent), leaf, nn.ModuleList(small.get_submodule(blocks.path)[i] for i in kept))
        return small
    monkeypatch.setattr(pruner, "rebuild_model", naive)

def emptied(table): return lambda monkeypatch: monkeypatch.setattr(surgery, table, {})

BROKEN = {field: (stale(field), name) for field, name in PROOF.items()} | {
    "count": (same_count, "llama"), "count of gpt2": (same_count, "gpt2"), "weights": (first_weights, "bert"),
    "layer numbers": (changed(old_numbers), "llama"), "count in the file": (changed(old_file), "llama"),
    "scale of attention": (changed(other_scale), "llama"), "deletion": (by_deletion, "llama"),
    "deletion from gemma": (by_deletion, "gemma3_text"),
    "scaled attention": (emptied("REFUSED_FLAGS"), "gpt2 scaled"),
    "table of embeddings": (emptied("REFUSED_FLAGS"), "gemma4_text per layer"),
    "first block": (emptied("FIRST_STAYS"), "deberta-v2")}

def unguarded(monkeypatch):
    "The package's own checks are off: what fits is loaded, nothing is compared."
    def load(model, state):
        own = model.state_dict()
        model.load_state_dict({k: v for k, v in state.items() if k in own and own[k].shape == v.shape}, strict=False)
    monkeypatch.setattr(surgery, "load_exactly", load)
    for check in "same_facts", "same_settings": monkeypatch.setattr(surgery, check, lambda *_: None)
    monkeypatch.setattr(pruner, "run_checks", lambda *_: {})

def outcomes(name, folder):
    "Cut → what is wrong with the model that came out, or the refusal."
    model = made(name)
    plans, batch, found = LayerPruner(model, stack=REGISTRY[name].stack), text(model), {}
    for cut, layers in cuts(plans.blocks).items():
        with by_hand(plans.blocks.modules, layers): reference = outputs(model, batch)
        try: small = plans.remove(layers).apply().model
        except InputError as refusal: found[cut] = f"refused: {refusal}"
        else: found[cut] = faults(model, small, batch, reference, folder)
    return found

@pytest.mark.soak(only=True)
@pytest.mark.parametrize("what", BROKEN)
def test_the_suite_sees_what_is_broken(monkeypatch, what, folder):
    break_it, name = BROKEN[what]
    unguarded(monkeypatch)
    break_it(monkeypatch)
    found = outcomes(name, folder)
    assert any(isinstance(wrong, list) and wrong for wrong in found.values()), found

@pytest.mark.parametrize("what", BROKEN)
def test_apply_refuses_what_is_broken(monkeypatch, what, folder):
    break_it, name = BROKEN[what]
    break_it(monkeypatch)
    found = outcomes(name, folder)
    assert all(isinstance(wrong, str) or not wrong for wrong in found.values()), found
    assert any(isinstance(wrong, str) for wrong in found.values()), found
