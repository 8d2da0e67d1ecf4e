"The notebooks are the source of truth: the package is their export, and every one of them runs."
import re
import subprocess
import sys
from pathlib import Path
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"
ALL = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
BIN = Path(sys.executable).parent

def test_package_is_the_export_of_the_notebooks(tmp_path):
    from nbdev.export import nb_export
    names = set()
    for path in NBS.glob("[0-9]*.ipynb"):
        nb_export(path, lib_path=tmp_path)
        name, = {m for c in nbformat.read(path, 4).cells for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M)}
        names.add(f"{name}.py")
        assert (tmp_path / f"{name}.py").read_text() == (ROOT / "avss_nb" / f"{name}.py").read_text(), f"run nbdev_export: {name}.py differs from {path.name}"
    orphans = {p.name for p in (ROOT / "avss_nb").glob("*.py")} - names - {"__init__.py", "_modidx.py"}
    assert not orphans, f"modules without a notebook: {orphans}"

def test_modules_import_only_from_above():
    order = [next(m for c in nbformat.read(p, 4).cells for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M))
             for p in sorted(NBS.glob("[0-9]*.ipynb"))]
    order.remove("basics"); order.insert(0, "basics")
    for name in order:
        for line in (ROOT / "avss_nb" / f"{name}.py").read_text().splitlines():
            if (used := re.match(r"from \.(\w+) import", line)) and used[1] in order:
                assert order.index(used[1]) < order.index(name), f"{name}.py imports {used[1]} from below"

def test_notebooks_are_committed_executed():
    for path in ALL:
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert any(c.outputs for c in cells), f"{path.name} has no outputs: run `make notebooks`"
        assert not any(o.output_type == "error" for c in cells for o in c.outputs), f"{path.name} holds an error"

def test_readme_is_the_executed_index(tmp_path):
    before = (ROOT / "README.md").read_bytes()
    try:
        subprocess.run([sys.executable, ROOT / "tools/readme.py"], check=True, cwd=ROOT)
        assert (ROOT / "README.md").read_bytes() == before, "run `make readme`"
    finally: (ROOT / "README.md").write_bytes(before)

@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(NBS)))
def test_notebook_runs(path):
    run = subprocess.run([BIN / "nbdev_test", "--path", path, "--n_workers", "0", "--do_print"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
