"""README.md from the executed nbs/index.ipynb; its pictures go to index_files/.

Two things are for the README alone. What stands in `<!-- README: … -->` is shown there and
not on the site, which has its own navigation. `#| output: false` leaves a cell's outputs out.
"""
import re
import shutil
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent
notebook = nbformat.read(root / "nbs/index.ipynb", as_version=4)
hidden = re.compile(r"^#\|\s*(hide|default_exp)", re.M)
notebook.cells = [cell for cell in notebook.cells if not hidden.search(cell.source)]
for cell in notebook.cells:
    if re.search(r"^#\|\s*output:\s*false", cell.source, re.M): cell.outputs = []
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
    cell.source = re.sub(r"<!-- README: (.*?) -->", r"\1", cell.source, flags=re.S)
    for output in cell.get("outputs", []):
        picture = output.get("data", {}).get("image/png")
        if picture: output.data = {"image/png": picture}
notebook.metadata["language_info"] = {"name": "python"}
settings = {"output_files_dir": "index_files", "unique_key": "index"}
body, resources = MarkdownExporter().from_notebook_node(notebook, settings)
shutil.rmtree(root / "index_files", ignore_errors=True)
for name, data in resources["outputs"].items():
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(data)

# Links are relative to nbs/ in the notebook, to the root in the README
body = re.sub(r"\]\((?!https?:|index_files/)([\w/]+\.(?:ipynb|png|md))\)", r"](nbs/\1)", body)
body = re.sub(r"\]\(\.\./", "](", body)
text = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
(root / "README.md").write_text(text, encoding="utf-8")
