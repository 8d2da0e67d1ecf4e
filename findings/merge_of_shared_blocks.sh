#!/usr/bin/env bash
# A LoRA adapter on a model that uses one attention block at several depths (Zamba, Zamba2), trained, then merged. Does the merged model compute the same?
#
# GUESS      Yes, up to rounding: merge_and_unload folds an adapter into the weights that it was trained on, as it does for Llama. What cannot be
#            merged (tied embeddings, the output projection of Mamba) PEFT refuses or warns of.
# VERSIONS   peft 0.21.2, transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  No. The places where the block is used are modules of their own that share one weight, so each place gets and trains its own adapter.
#            Merging adds all of them to the one weight: every place then has the sum of all adapters. What was learned is gone, and no error or
#            warning says so; safe_merge=True changes nothing. If each place is given its own copy of the weight first, merging is exact.
# OUTPUT     llama    18 adapters on 18 weights: loss 4.67, adapted 0.29, merged 0.29; logits off by 1.4e-05 (weights copied first: 1.4e-05)
#            zamba     9 adapters on  3 weights: loss 5.06, adapted 0.89, merged 4.72; logits off by 6.6 (weights copied first: 2.2e-05)
#            zamba2    9 adapters on  3 weights: loss 4.85, adapted 1.01, merged 4.74; logits off by 7.7 (weights copied first: 3.3e-05)
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 numpy==2.4.6 2>/dev/null
cat > "$work/look.py" <<'PY'
import copy, warnings
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
TINY = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=64, initializer_range=0.2)
PLACES = dict(layers_block_type=["mamba", "hybrid"] * 3)  # three places, one attention block
KINDS = {
    "llama": {},
    "zamba": dict(attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8, n_mamba_heads=2, mamba_dt_rank=4) | PLACES,
    "zamba2": dict(mamba_d_state=8, mamba_headdim=8, n_mamba_heads=8, mamba_ngroups=1, chunk_size=16, num_mem_blocks=1) | PLACES,
}
ids = torch.randint(3, 64, (4, 16), generator=torch.Generator().manual_seed(1))

def seen(model):
    with torch.no_grad(): out = model(input_ids=ids, labels=ids)
    return float(out.loss), out.logits

def adapted(model):
    return [module for module in model.modules() if hasattr(module, "lora_A")]

def merged(model, unshare=False, **how):
    model = copy.deepcopy(model)
    if unshare:
        for module in adapted(model): module.base_layer.weight = torch.nn.Parameter(module.base_layer.weight.detach().clone())
    return seen(model.merge_and_unload(**how))

results = {}
for kind, fields in KINDS.items():
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TINY, **fields)).eval()
    start, _ = seen(base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])).eval()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(200):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        trained, want = seen(model)
        after, got = merged(model)
        _, safely = merged(model, safe_merge=True)
        _, copied = merged(model, unshare=True)
    words = [str(w.message) for w in caught if any(word in str(w.message).lower() for word in ("merg", "tied", "share"))]
    places, weights = len(adapted(model)), len({id(module.base_layer.weight) for module in adapted(model)})
    off, off_safe, off_copied = (float((logits - want).abs().max()) for logits in (got, safely, copied))
    results[kind] = dict(places=places, weights=weights, start=start, trained=trained, after=after, off=off, safe=off_safe, copied=off_copied, words=words)
    print(f"{kind:8} {places:2} adapters on {weights:2} weights: loss {start:.2f}, adapted {trained:.2f}, merged {after:.2f}; "
          f"logits off by {off:.2g} (weights copied first: {off_copied:.2g})")
for kind, r in results.items():
    shared = kind != "llama"
    assert (r["places"], r["weights"]) == ((9, 3) if shared else (18, 18)), "the behaviour has changed"
    assert r["copied"] < 1e-3 and not r["words"] and r["trained"] < r["start"] - 0.1, "the control has changed"
    assert (r["off"] > 0.1 and r["safe"] > 0.1 and r["after"] > r["trained"] + 0.1) == shared, "the behaviour has changed"
    assert shared or r["off"] < 1e-3, "the control has changed"
print("as described")
PY
TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/look.py"
