#!/usr/bin/env bash
# Does a model of transformers read every text in the same direction, alone and beside a longer text, whatever the attention implementation?
#
# GUESS      Yes. A decoder reads from left to right; where the configuration says otherwise (is_causal=False, use_bidirectional_attention=True),
#            it reads both ways. Padding and the implementation ("eager", or "sdpa", the default) change nothing but the rounding.
# VERSIONS   transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  Llama and Gemma 3 do. Four others do not under "sdpa": there, whether a token sees later ones depends on whether its batch has padding.
#            A batch with padding gets a mask, and the mask decides; a batch without gets none, and an attribute of the attention module decides.
#            In StableLM and Nemotron is_causal=False reaches the mask alone, in Gemma use_bidirectional_attention=True reaches the attribute alone
#            ("eager" always has a mask, so it ignores Gemma's option). PaliGemma turns Gemma's option on by itself: with nothing set, a text given
#            without token_type_ids is read both ways alone and left to right beside a longer one. So a text gets other logits by its
#            neighbours, and a next-token perplexity may rate a model that has seen the answers. No error or warning in any case.
# OUTPUT                                         does an earlier token see a later one?              logits under sdpa,
#                                                eager, alone | padded | sdpa, alone | padded        alone against padded
#            llama        is_causal=False                  yes      yes          yes      yes                       7e-07
#            gemma3_text  bidirectional                    yes      yes          yes      yes                       7e-07
#            stablelm     is_causal=False                  yes      yes           no      yes                           2
#            nemotron     is_causal=False                  yes      yes           no      yes                           4
#            gemma        bidirectional                     no       no          yes       no                         0.9
#            paligemma    nothing set                       no       no          yes       no                           1
#            stablelm     nothing set                       no       no           no       no                       6e-07
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
cat > "$work/look.py" <<'PY'
import logging, warnings
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from transformers.utils.logging import disable_default_handler

torch.set_num_threads(1)
TEXT = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=8,
            max_position_embeddings=64, initializer_range=0.1)
SIGHT = dict(model_type="siglip_vision_model", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
BOTH_WAYS = dict(use_bidirectional_attention=True)

def made(kind, attention, fields):
    "A small random model; the same one for either attention."
    torch.manual_seed(0)
    if kind == "paligemma":
        config = PaliGemmaConfig(text_config=TEXT | dict(model_type="gemma"), vision_config=SIGHT, image_token_index=63, projection_dim=32)
        return PaliGemmaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TEXT, **fields), attn_implementation=attention).eval()

text, longer = torch.arange(1, 13)[None], torch.arange(20, 36)[None]
other = text.clone()
other[0, -1] = 40  # all but the last token are the same

@torch.no_grad()
def logits(model, ids, padded):
    "Logits of a text, alone or as the shorter row of a padded batch."
    if not padded: return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    short = torch.nn.functional.pad(ids, (0, longer.shape[1] - ids.shape[1]))
    mask = torch.ones(2, longer.shape[1], dtype=torch.long)
    mask[0, ids.shape[1]:] = 0
    return model(input_ids=torch.cat([short, longer]), attention_mask=mask).logits[:1, :ids.shape[1]]

def look(kind, fields):
    sees = []
    for attention in ("eager", "sdpa"):
        model = made(kind, attention, fields)
        for padded in (False, True):
            moved = (logits(model, text, padded) - logits(model, other, padded))[:, :-1]
            sees.append(float(moved.abs().max()) > 1e-4)
    return sees, float((logits(model, text, False) - logits(model, text, True)).abs().max())

said = []
class Heard(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
disable_default_handler()
logging.getLogger("transformers").addHandler(Heard(logging.WARNING))
warnings.showwarning = lambda message, *rest, **named: said.append(str(message))
warnings.simplefilter("always")

expected = [  # the model; what is set; whether earlier tokens see later ones: eager alone, eager padded, sdpa alone, sdpa padded
    ("llama", dict(is_causal=False), [True, True, True, True]),
    ("gemma3_text", BOTH_WAYS, [True, True, True, True]),
    ("stablelm", dict(is_causal=False), [True, True, False, True]),
    ("nemotron", dict(is_causal=False), [True, True, False, True]),
    ("gemma", BOTH_WAYS, [False, False, True, False]),
    ("paligemma", {}, [False, False, True, False]),
    ("stablelm", {}, [False, False, False, False])]
print(f"{'':34} does an earlier token see a later one?              logits under sdpa,")
print(f"{'':34} eager, alone | padded | sdpa, alone | padded        alone against padded")
changed = []
for kind, fields, want in expected:
    sees, apart = look(kind, fields)
    setting = "is_causal=False" if "is_causal" in fields else "bidirectional" if fields else "nothing set"
    words = ["yes" if see else "no" for see in sees]
    print(f"{kind:12} {setting:21} {words[0]:>12}   {words[1]:>6}   {words[2]:>10}   {words[3]:>6} {apart:27.1g}")
    depends = want[2] != want[3]
    if sees != want or (apart < 0.1 if depends else apart > 1e-4): changed.append(kind)
assert not changed, f"the behaviour has changed: {changed}"
assert not said, f"something was said: {said}"
print("as described")
PY
TRANSFORMERS_VERBOSITY=warning HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/look.py"
