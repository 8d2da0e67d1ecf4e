"README.md from the executed nbs/index.ipynb; its pictures go to index_files/."
import re
import shutil
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent
notebook = nbformat.read(root / "nbs/index.ipynb", as_version=4)
notebook.cells = [c for c in notebook.cells if not re.search(r"^#\|\s*(hide|default_exp)", c.source, re.M)]
for cell in notebook.cells:
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}): output.data = {"image/png": output.data["image/png"]}
notebook.metadata["language_info"] = {"name": "python"}
body, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": "index_files", "unique_key": "index"})
shutil.rmtree(root / "index_files", ignore_errors=True)
for name, data in resources["outputs"].items():
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(data)
body = re.sub(r"\]\((?!https?:|index_files/)([\w/]+\.(?:ipynb|png|md))\)", r"](nbs/\1)", body)  # links are relative to nbs/ in the notebook
(root / "README.md").write_text(re.sub(r"\n{3,}", "\n\n", body).strip() + "\n", encoding="utf-8")
