"Execute notebooks in place and clean them: outputs and pictures stay, counts, ids, timings and live widget state go."
import subprocess
import sys
from pathlib import Path
import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"

def noise(output) -> bool:
    "Warnings, and widgets that leave no picture (progress bars)."
    if output.output_type == "stream": return output.name == "stderr"
    return WIDGET in output.get("data", {}) and "image/png" not in output.data

def described(output) -> str:
    "The picture of a panel with its description."
    from avss_nb.draw.style import image_tag
    words = " ".join(output.data["text/plain"].split())
    return image_tag(output.data["image/png"], words, output.metadata.get("image/png", {}))

def execute(path: Path) -> None:
    "Run every cell; a failing cell stops everything and leaves the file as it was."
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code": cell.outputs = []
    NotebookClient(notebook, timeout=7200, resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata.pop("widgets", None)  # a saved widget state would hide the picture behind a script from the network
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell["id"] = {}, f"cell-{number:03d}"
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if not noise(o)]
            for output in cell.outputs: output.pop("execution_count", None)
            for output in cell.outputs:
                if "data" in output: output.data.pop(WIDGET, None)
                if "image/png" in output.get("data", {}) and "avss-kept" in output.data.get("text/html", ""):
                    output.data["text/html"] = described(output)  # instead of words and tables for the front end
                if output.output_type == "execute_result": output["execution_count"] = None
    notebook.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    nbformat.write(notebook, path)

for name in sys.argv[1:]:
    print(name, flush=True)
    execute(Path(name))
subprocess.run([Path(sys.executable).with_name("nbdev_clean")], check=True)
