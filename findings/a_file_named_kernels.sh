#!/usr/bin/env bash
# Beside a notebook or a script lies a file of one's own, kernels.py. The package `kernels` (the Hub's GPU kernels) is not installed. Does a model of transformers care?
#
# GUESS      No: whether the optional package is there is decided by its metadata, and a file of another kind is left alone.
# VERSIONS   transformers 5.23.0, torch 2.13.0
# BEHAVIOUR  Importing a model class, or only its configuration, runs the file from top to bottom, as an import does: benchmarks, compilations, whatever stands there without
#            a guard. Its numbers, files and errors appear in the middle of `from transformers import …`. `import transformers` alone does not. The package counts as absent afterwards.
# OUTPUT     transformers imported
#            kernels.py ran
#            LlamaConfig imported
#            LlamaForCausalLM imported; is_kernels_available: False
set -euo pipefail
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6 2>/dev/null
mkdir "$work/study"
echo 'print("kernels.py ran")' > "$work/study/kernels.py"
cat > "$work/study/look.py" <<'PY'
import importlib.metadata
try: importlib.metadata.version("kernels")
except importlib.metadata.PackageNotFoundError: pass
else: raise SystemExit("the package kernels is installed, so this shows nothing")
import transformers
print("transformers imported")
from transformers import LlamaConfig
print("LlamaConfig imported")
from transformers import LlamaForCausalLM
from transformers.utils.import_utils import is_kernels_available
print(f"LlamaForCausalLM imported; is_kernels_available: {is_kernels_available()}")
PY
found=$(cd "$work/study" && "$work/venv/bin/python" look.py 2>/dev/null)
echo "$found"
[ "$found" = "transformers imported
kernels.py ran
LlamaConfig imported
LlamaForCausalLM imported; is_kernels_available: False" ] || { echo "the behaviour has changed"; exit 1; }
