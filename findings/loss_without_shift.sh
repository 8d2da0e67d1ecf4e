#!/usr/bin/env bash
# A causal language model is given labels=input_ids, as the usual collator does. Is its loss the one of the next token, and exp(loss) a perplexity?
#
# GUESS      Yes: each class that AutoModelForCausalLM returns moves the labels by one itself, and does not see a token before it has to predict it.
# VERSIONS   transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  GPT-2, Llama and OPT do. BART, mBART, Pegasus, Marian, Whisper and TrOCR (as decoders), XLNet, XLM and CPM-Ant do not move the labels:
#            their loss is that of the token just read. Trained by it on random tokens, of which nothing can be known, they learn to copy, and
#            exp(loss) of new random tokens is near 1, where nothing under 28 is possible (the number of tokens drawn from); by the next token
#            it is in the hundreds and above. XLNet, XLM and CPM-Ant also see later tokens: trained by the next token, XLNet and XLM get near 1 on
#            the same noise, so a next-token perplexity of them means nothing, however it is computed. No error or warning in any of the nine;
#            BERT, which moves the labels and sees later tokens, at least says "add is_decoder=True".
# OUTPUT               moves the  sees later  trained by its own loss:     by the next token:
#                      labels     tokens      exp(loss) | next-token perplexity of noise
#            gpt2      yes        no              28.2      28.2              28.2
#            llama     yes        no              28.2      28.2              28.2
#            opt       yes        no              28.2      28.2              28.2
#            bart      no         no              1.08       462              28.2
#            mbart     no         no              1.08       459              28.2
#            pegasus   no         no              1.02  6.32e+03              28.2
#            trocr     no         no              1.08       462              28.2
#            marian    no         no              1.04  3.14e+03              28.2
#            whisper   no         no               1.1       353              28.2
#            xlnet     no         yes             1.06       558              1.02
#            xlm       no         yes             1.08       484              1.02
#            cpmant    no         yes             1.13   1.3e+05              23.2
#            bert      yes        yes             1.03      1.03              1.03   (warned)
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
cat > "$work/look.py" <<'PY'
import logging, math, warnings
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_default_handler

torch.set_num_threads(1)
KNOWN, FIRST = 32, 4  # random tokens are 4 to 31: 28 of them
LLAMA = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
DECODER = dict(d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, max_position_embeddings=64)
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
KINDS = {
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
    "llama": LLAMA | dict(intermediate_size=64),
    "opt": LLAMA | dict(ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64),
    "bart": DECODER, "mbart": DECODER, "pegasus": DECODER, "trocr": DECODER, "marian": DECODER | SPECIAL,
    "whisper": DECODER | SPECIAL | dict(max_target_positions=64),
    "xlnet": dict(d_model=32, n_layer=2, n_head=4, d_inner=64),
    "xlm": dict(emb_dim=32, n_layers=2, n_heads=4, max_position_embeddings=64),
    "cpmant": LLAMA | dict(dim_head=8, dim_ff=64, prompt_length=4, segment_types=4, position_bias_num_buckets=32, position_bias_max_distance=64),
    "bert": LLAMA | dict(intermediate_size=64, max_position_embeddings=64),
}
noise = torch.Generator()

def draw(rows):
    return torch.randint(FIRST, KNOWN, (rows, 16), generator=noise)

def next_token(logits, ids):
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

def made(kind):
    torch.manual_seed(0)
    noise.manual_seed(1)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=KNOWN, **KINDS[kind]))

@torch.no_grad()
def looked_at(model):
    "Whether the labels are moved, and whether an earlier token sees a later one."
    ids = draw(1)
    other = ids.clone()
    other[0, -1] = FIRST if ids[0, -1] != FIRST else FIRST + 1
    out = model.eval()(input_ids=ids, labels=ids)
    moved, still = float(next_token(out.logits, ids)), float(cross_entropy(out.logits[0], ids[0]))
    loss = float(out.loss)
    assert min(abs(loss - moved), abs(loss - still)) < 1e-3 < abs(moved - still), "neither of the two losses"
    ahead = float((out.logits - model(input_ids=other).logits)[:, :-1].abs().max())
    return abs(loss - moved) < 1e-3, ahead > 1e-5

def perplexities(model, by_own_loss, steps):
    "Trained on noise: exp(its own loss) of new noise, and the perplexity by the next token."
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for _ in range(steps):
        ids = draw(16)
        out = model(input_ids=ids, labels=ids)
        loss = out.loss if by_own_loss else next_token(out.logits, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.1: break
    ids = draw(64)
    with torch.no_grad(): out = model.eval()(input_ids=ids, labels=ids)
    return math.exp(out.loss), math.exp(next_token(out.logits, ids))

said = []
class Heard(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
disable_default_handler()
logging.getLogger("transformers").addHandler(Heard(logging.WARNING))

expected = {  # moves the labels, sees later tokens
    "gpt2": (True, False), "llama": (True, False), "opt": (True, False), "xlnet": (False, True), "xlm": (False, True), "cpmant": (False, True),
    "bert": (True, True)}
print("          moves the  sees later  trained by its own loss:     by the next token:")
print("          labels     tokens      exp(loss) | next-token perplexity of noise")
changed = []
for kind in KINDS:
    said.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        moves, ahead = looked_at(made(kind))
        own, real = perplexities(made(kind), True, 100 if moves and not ahead else 1500)
        _, by_hand = perplexities(made(kind), False, 1500 if ahead else 100)
    said += [str(w.message) for w in caught]
    warned = any(word in line for line in said for word in ("is_decoder", "shift", "label", "causal"))
    words = "yes" if moves else "no", "yes" if ahead else "no", "   (warned)" if warned else ""
    print(f"{kind:9} {words[0]:10} {words[1]:10} {own:9.3g} {real:9.3g} {by_hand:17.3g}{words[2]}", flush=True)
    right = ((moves, ahead) == expected.get(kind, (False, False)) and warned == (kind == "bert")
             and (moves or own < 2 and real > 100)  # copies, if the labels are not moved
             and (ahead or by_hand > 27.5)  # noise is noise, unless later tokens are seen
             and (kind not in ("xlnet", "xlm") or by_hand < 2))
    if not right: changed.append(kind)
assert not changed, f"the behaviour has changed: {changed}"
print("as described")
PY
TRANSFORMERS_VERBOSITY=warning HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/look.py"
