#!/usr/bin/env bash
# A LoRA adapter on the shared experts of a mixture-of-experts model (Laguna), saved and loaded by PEFT. Does the model that comes back compute the same?
#
# GUESS      Yes: all tensors are in the file, shapes and names are those of an ordinary linear module, and q_proj and routed experts of the same model work.
# VERSIONS   peft 0.21.2, transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  No: on loading, the names of the shared experts are rewritten to those of the checkpoint format, nothing matches, and the adapter of every shared
#            expert stays at its initial zeros. A warning on missing keys is all; no error. What was trained there is gone from the loaded model.
# OUTPUT     q_proj                 4 of 4 tensors saved, largest difference of the logits 0.0, missing on loading 0
#            shared experts         8 of 8 tensors saved, largest difference of the logits 0.35, missing on loading 8
#            down_proj              4 of 4 tensors saved, largest difference of the logits 0.24, missing on loading 4
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 numpy==2.4.6 2>/dev/null
cat > "$work/look.py" <<'PY'
import tempfile, warnings
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)

def base():
    "A small random model; the same one at each call."
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "laguna", vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        layer_types=["full_attention"] * 2, num_attention_heads_per_layer=[2, 2], mlp_layer_types=["sparse"] * 2, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=8)).eval()

ids, seen = torch.arange(12)[None], {}
for name, targets in {"q_proj": ["q_proj"], "shared experts": ["shared_experts.gate_proj", "shared_experts.up_proj"], "down_proj": ["down_proj"]}.items():
    model = get_peft_model(base(), LoraConfig(r=2, target_modules=targets)).eval()
    made = [p for n, p in model.named_parameters() if "lora_" in n]
    with torch.no_grad():
        for p in made: p.normal_(std=0.5)  # as training would move them
        before = model(input_ids=ids).logits
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save_pretrained(folder)
        saved = load_file(f"{folder}/adapter_model.safetensors")
        again = PeftModel.from_pretrained(base(), folder).eval()
    with torch.no_grad(): difference = float((again(input_ids=ids).logits - before).abs().max())
    missing = sum(str(w.message).count("lora_") for w in caught if "missing adapter keys" in str(w.message))
    seen[name] = difference
    print(f"{name:22} {len(saved)} of {len(made)} tensors saved, largest difference of the logits {difference:.2g}, missing on loading {missing}")
    assert len(saved) == len(made), "the behaviour has changed"
assert seen["q_proj"] == 0 and seen["shared experts"] > 0.05 and seen["down_proj"] > 0.05, "the behaviour has changed"
print("as described")
PY
TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" "$work/look.py" 2>/dev/null
