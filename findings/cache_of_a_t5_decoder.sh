#!/usr/bin/env bash
# Losses over many texts are measured with a T5, and config.use_cache = False is set before, as guides to training advise. Does the model keep keys and values?
#
# GUESS      No: the setting is read in forward, as in Llama, GPT-2 and BART, and past_key_values is None.
# VERSIONS   transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  T5, UMT5 and Switch Transformers keep them all the same: their decoder holds a deep copy of the configuration, made when the model was built, and goes by
#            that. The memory of the cache is taken, without a word. BART, PEGASUS and Llama heed the setting.
# OUTPUT     t5 EncoderDecoderCache, after decoder.config.use_cache = False: None
#            umt5 EncoderDecoderCache, after decoder.config.use_cache = False: None
#            switch_transformers EncoderDecoderCache, after decoder.config.use_cache = False: None
#            bart None
#            pegasus None
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
cat > "$work/look.py" <<'PY'
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

T5 = dict(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2)
BART = dict(d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32)
FIELDS = {"t5": T5, "umt5": T5, "switch_transformers": T5 | dict(num_experts=2), "bart": BART, "pegasus": BART}
ids = {"input_ids": torch.tensor([[3, 4, 5]]), "decoder_input_ids": torch.tensor([[0, 6]])}

def kept(model):
    with torch.no_grad(): return type(cache).__name__ if (cache := model(**ids).past_key_values) is not None else None

for name, fields in FIELDS.items():
    config = AutoConfig.for_model(name, vocab_size=32, decoder_start_token_id=0, pad_token_id=1, **fields)
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    assert kept(model) is not None, "without the setting every one of them keeps a cache"
    model.config.use_cache = False
    found = kept(model)
    print(name, found, end="")
    if name in ("bart", "pegasus"):
        assert found is None, f"{name} does not heed the setting any more"
        print()
        continue
    assert found == "EncoderDecoderCache", f"{name} heeds config.use_cache now"
    assert model.decoder.config is not model.config and model.decoder.config.use_cache
    model.decoder.config.use_cache = False
    print(", after decoder.config.use_cache = False:", kept(model))
    assert kept(model) is None
PY
"$work/venv/bin/python" "$work/look.py" 2>/dev/null
