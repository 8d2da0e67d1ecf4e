#!/usr/bin/env bash
# A GGUF file of Llama 3.1 and later keeps the scaling of its rotary positions as a tensor (rope_freqs.weight); files of models with linear
# or YaRN scaling keep it as metadata (llama.rope.scaling.*). Does a model that transformers loads from such a file turn its heads by it?
#
# GUESS      Yes: the scaling is part of the model (not only of long contexts: every frequency below a bound is divided by 8 from the
#            second token on), so transformers either reads it into config.rope_parameters or names what it leaves out.
# VERSIONS   transformers 5.23.0, gguf 0.19.0, torch 2.13.0
# BEHAVIOUR  Neither. In all three cases rope_type is "default", no key is missing, none unexpected, nothing is logged. The logits of the
#            first token are right, so a quick look finds nothing; those of token 100 have nothing to do with the model.
#            Only gpt-oss files have their scaling read.
# OUTPUT     control (no scaling)   rope_type default; largest difference of logits at token 0: 0.00, at token 100: 0.00
#            llama3 (rope_freqs)    rope_type default; largest difference of logits at token 0: 0.00, at token 100: 0.92
#            linear                 rope_type default; largest difference of logits at token 0: 0.00, at token 100: 1.45
#            yarn                   rope_type default; largest difference of logits at token 0: 0.00, at token 100: 0.77
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0 2>/dev/null
cat > "$work/look.py" <<'PY'
import sys
from pathlib import Path
import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

def stored_name(name):
    module, kind = name.rsplit(".", 1)
    if module in TOP: return f"{TOP[module]}.{kind}"
    number, part = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{number}.{PARTS[part]}.{kind}"

def stored(name, tensor):
    "llama.cpp turns neighbouring rows of queries and keys, transformers rows that are half a head apart."
    if "q_proj" in name or "k_proj" in name: tensor = tensor.view(2, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
    return tensor.contiguous().numpy()

def write(path, model, scaling):
    c, w = model.config, gguf.GGUFWriter(path, "llama")
    w.add_block_count(c.num_hidden_layers); w.add_context_length(c.max_position_embeddings); w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size); w.add_head_count(c.num_attention_heads); w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps); w.add_rope_freq_base(10000.0); w.add_rope_dimension_count(64); w.add_vocab_size(c.vocab_size)
    w.add_tokenizer_model("gpt2"); w.add_token_list([f"t{i}" for i in range(c.vocab_size)]); w.add_token_merges(["t 1"])
    scaling(w, model)
    for name, tensor in model.state_dict().items(): w.add_tensor(stored_name(name), stored(name, tensor))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

def factors(w, model):
    "As the converter of llama.cpp writes them for Llama 3.1: unscaled frequency / scaled frequency."
    plain = 1 / 10000 ** (torch.arange(0, 64, 2).float() / 64)
    w.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())

def linear(w, model): w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR); w.add_rope_scaling_factor(4.0)

def yarn(w, model):
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN); w.add_rope_scaling_factor(4.0); w.add_rope_scaling_orig_ctx_len(256)

CASES = {
    "control (no scaling)": ({"rope_type": "default"}, lambda w, model: None),
    "llama3 (rope_freqs)": ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}, factors),
    "linear": ({"rope_type": "linear", "factor": 4.0}, linear),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, yarn),
}
ids = torch.arange(3, 203)[None]
for name, (rope, scaling) in CASES.items():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                         max_position_embeddings=1024, tie_word_embeddings=False, initializer_range=0.3, rope_parameters={"rope_theta": 10000.0, **rope})
    model = LlamaForCausalLM(config).eval()
    file = Path(sys.argv[1]) / f"{name.split()[0]}.gguf"
    write(str(file), model, scaling)
    loaded, info = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True)
    with torch.no_grad(): right, found = model(ids).logits[0], loaded(ids).logits[0]
    off = [float((right - found)[t].abs().max() / right.abs().max()) for t in (0, 100)]
    kind = loaded.config.rope_parameters["rope_type"]
    print(f"{name:22} rope_type {kind}; largest difference of logits at token 0: {off[0]:.2f}, at token 100: {off[1]:.2f}")
    assert kind == "default" and not info["missing_keys"] and not info["unexpected_keys"] and off[0] < 0.001, "the behaviour has changed"
    assert off[1] < 0.001 if name.startswith("control") else off[1] > 0.3, "the behaviour has changed"
print("as described")
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/look.py" "$work" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
