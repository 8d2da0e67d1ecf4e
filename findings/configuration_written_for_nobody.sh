#!/usr/bin/env bash
# A program looks for the settings that give a list of layers: it builds many configurations of transformers, by `from_dict` or by the class itself. Logging is off. What is the difference?
#
# GUESS      None worth a word: both build the same configuration, and what would be logged costs nothing where nobody listens.
# VERSIONS   transformers 5.23.0
# BEHAVIOUR  `from_dict` (and `from_pretrained` through it) writes each configuration out as JSON, whatever the level of logging: the message is put together before the logger is
#            asked. The class itself, called with the same dictionary, writes nothing and builds the same. Where thousands of candidates are tried, the writing is a
#            large part of the time.
# OUTPUT     LlamaConfig(**data) written out 0 times
#            LlamaConfig.from_dict(data) written out 1 times
#            LlamaConfig.from_pretrained(folder) written out 1 times
#            the same: True
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 2>/dev/null
cat > "$work/look.py" <<'PY'
import tempfile
from transformers import LlamaConfig, logging
from transformers.configuration_utils import PreTrainedConfig

logging.set_verbosity_error()
written, write = [], PreTrainedConfig.to_json_string

def noted(self, *args, **kwargs):
    written.append(type(self).__name__)
    return write(self, *args, **kwargs)

PreTrainedConfig.to_json_string = noted
data = LlamaConfig().to_dict()
with tempfile.TemporaryDirectory() as folder:
    LlamaConfig().save_pretrained(folder)
    ways = {
        "LlamaConfig(**data)": lambda: LlamaConfig(**data),
        "LlamaConfig.from_dict(data)": lambda: LlamaConfig.from_dict(data),
        "LlamaConfig.from_pretrained(folder)": lambda: LlamaConfig.from_pretrained(folder),
    }
    built = []
    for name, way in ways.items():
        written.clear()
        built.append(way())
        print(f"{name} written out {len(written)} times")
print("the same:", built[0].to_dict() == built[1].to_dict())
PY
found=$("$work/venv/bin/python" "$work/look.py" 2>/dev/null)
echo "$found"
[ "$found" = "LlamaConfig(**data) written out 0 times
LlamaConfig.from_dict(data) written out 1 times
LlamaConfig.from_pretrained(folder) written out 1 times
the same: True" ] || { echo "the behaviour has changed"; exit 1; }
