"""Export the notebooks: `nbdev_export`, then a section for parameters in every docstring (see docments.py).

    python tools/export.py           # in the root of the project
"""
import subprocess
import sys
from pathlib import Path
from docments import with_sections

PACKAGE = Path("avss_nb")
APART = ("commands", "_modidx.py")  # typer prints the docstrings of commands, and explains their options itself

def describe_parameters() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in APART: continue
        text = path.read_text(encoding="utf-8")
        if (longer := with_sections(text)) != text: path.write_text(longer, encoding="utf-8")

if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else Path(sys.executable).with_name("nbdev_export")
    subprocess.run([command], check=True)
    describe_parameters()
