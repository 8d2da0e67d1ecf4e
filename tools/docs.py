"The static site: every notebook as a page, every exported name with the table of its parameters. `python tools/docs.py [folder]`"
import argparse
import ast
import base64
import html
import logging
import re
import shutil
import tempfile
from pathlib import Path
import docments
import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS, OURS = ROOT / "nbs", ROOT / "tools/docs"
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)

# Parameters

def table(rows: list[tuple[str, ...]], *names: str) -> str:
    "A table in HTML; columns that say nothing are left out."
    keep = [i for i in range(len(names)) if any(row[i] for row in rows)]
    def line(cells, tag): return "<tr>" + "".join(f"<{tag}>{cells[i]}</{tag}>" for i in keep) + "</tr>"
    return f"<table><thead>{line(names, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>" if rows else ""

def code(node) -> str: return f"<code>{html.escape(node if isinstance(node, str) else ast.unparse(node))}</code>" if node else ""

def said(text: str | None) -> str:
    "A docstring or comment as HTML: backquotes are code."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text or "", quote=False))

def rows(described: list[docments.Described]) -> list[tuple[str, ...]]:
    return [(code(d.name), code(d.type), code(d.default), said(d.what)) for d in described]

def parameters(function: ast.FunctionDef, notes: dict[int, str]) -> str:
    "The table of a function's parameters, and what it returns."
    result = docments.result(function, notes)
    returned = [("<i>returns</i>", code(result.type), "", said(result.what))] if result else []
    return table(rows(docments.parameters(function, notes)) + returned, "parameter", "type", "default", "what")

def called(name: str, function: ast.FunctionDef) -> str:
    "The signature without types."
    args = [p.arg for p in function.args.posonlyargs + function.args.args] + [f"*{p.arg}" for p in [function.args.vararg] if p]
    args += [p.arg for p in function.args.kwonlyargs] + [f"**{p.arg}" for p in [function.args.kwarg] if p]
    return f"{name}({', '.join(a for a in args if a not in ('self', 'cls'))})"

STEPS = {"patch(as_prop=True)": "property", "patch(cls_method=True)": "classmethod"}

def decorated(function) -> set[str]:
    "The names of its decorators; a step of a class (`@patch`) as what it adds to the class."
    return {STEPS.get(text, text.split("(")[0]) for text in map(ast.unparse, function.decorator_list)}

def entry(node, notes: dict[int, str], anchor: str, steps=()) -> str:
    "Heading, docstring and tables of a function or class, with the methods that were added in `steps`."
    methods = [*(m for m in node.body if isinstance(m, ast.FunctionDef)), *steps] if isinstance(node, ast.ClassDef) else []
    made = next((m for m in methods if m.name == "__init__"), None if isinstance(node, ast.ClassDef) else node)
    heading = f"### `{called(node.name, made) if made else node.name}` {{ #{anchor} data-toc-label='{node.name}' }}"
    text = (f"\n\n{heading}\n\n<div><p>{said(docments.summary(ast.get_docstring(node)))}</p>" + (parameters(made, notes) if made else table(rows(docments.fields(node, notes)), "field", "type", "default", "what")))
    for m in methods:
        if m.name.startswith("_"): continue
        name = node.name * bool({"classmethod", "staticmethod"} & decorated(m)) + f".{m.name}"
        shown, at = name if "property" in decorated(m) else called(name, m), f"{anchor}.{m.name}"
        text += (f"<h4 id='{at}'><code>{html.escape(shown)}</code><a class='headerlink' href='#{at}'>¶</a></h4>"
                 f"<p>{said(docments.summary(ast.get_docstring(m)))}</p>{parameters(m, notes)}")
    return text + "</div>"

def reference(module: str) -> tuple[str, list[tuple[str, str, str]]]:  # Markdown; (name, anchor, first line) of each entry
    "The exported functions and classes of a module."
    source = (ROOT / "avss_nb" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    tree, notes = ast.parse(source), docments.comments(source)
    public = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"), [])
    nodes = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in public and not docments.step_of(n)]
    def steps(name): return [n for n in tree.body if docments.step_of(n) == name]
    found = [(n.name, f"{module}.{n.name}", (ast.get_docstring(n) or "").split("\n")[0]) for n in nodes]
    return "".join(entry(n, notes, f"{module}.{n.name}", steps(n.name)) for n in nodes), found

# Notebooks as pages

def output(o, save) -> str:
    "One output of a cell as Markdown; `save` keeps a picture and returns its name."
    data = o.get("data", {})
    plain = re.sub(r"\x1b\[[0-9;]*m", "", o.get("text") or data.get("text/plain", ""))
    if "image/png" in data:
        alt = "picture drawn by the code above" if plain.startswith("<") or not plain else " ".join(plain.split())
        return f"<img alt='{html.escape(alt, quote=True)}' src='{save(base64.b64decode(data['image/png']))}'>"
    if "text/html" in data:
        page = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
        return re.sub(r"<(table|tr)\b[^>]*>", r"<\1>", re.sub(r"\n\s*", "\n", page)).strip()
    if "text/markdown" in data: return f"<div markdown='1'>\n\n{data['text/markdown']}\n\n</div>"
    return f"<pre><code>{html.escape(plain.rstrip())}</code></pre>"

def prose(text: str) -> str:
    "GitHub's Markdown as Python-Markdown reads it: a list needs an empty line before it, folded parts say that they hold Markdown."
    text = re.sub(r"<details>", "<details markdown='1'>", text)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    item = re.compile(r"^(?!\s*(?:[-*]|\d+\.) |\s*$|\s+)(.*)\n(?=(?:[-*]|\d+\.) )", re.M)
    return "".join(part if part.startswith("```") else item.sub(r"\1\n\n", part) for part in parts)

def links(text: str) -> str:
    "Between pages, not between notebooks."
    return re.sub(r"\]\((?!https?:)([^)\s#]+)\.ipynb(#[^)]*)?\)", r"](\1.md\2)", text)

AT_THE_TOP = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}

def from_the_top(text: str) -> str:
    "A document of the project's top folder as a page: its links lead to pages."
    for name, target in AT_THE_TOP.items(): text = text.replace(f"]({name})", f"]({target})")
    return links(prose(text.replace("](nbs/", "](")))

def both_themes(text: str, folder: Path) -> str:
    "A picture that exists for a light and a dark theme is shown in the one that is on."
    def two(found):
        dark = found[2].replace("_light.png", "_dark.png")
        return f"{found[1]}({found[2]}#only-light){found[1]}({dark}#only-dark)" if (folder / dark).exists() else found[0]
    return re.sub(r"(!\[[^\]]*\])\((\S+_light\.png)\)", two, text)

def page(path: Path, target: Path) -> tuple[str, str]:  # title, module ("" for a lesson or study)
    "Write one notebook as a page with its pictures."
    notebook, parts, module, count = nbformat.read(path, as_version=4), [], "", 0
    def save(picture):
        nonlocal count
        count += 1
        name = f"{path.stem}_{count}.png"
        (target.parent / name).write_bytes(picture)
        return name
    for cell in notebook.cells:
        if found := re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M): module = found[1]
        if re.search(r"^#\|\s*(hide|default_exp)", cell.source, re.M): continue
        if cell.cell_type == "markdown": parts.append(links(both_themes(prose(cell.source), path.parent))); continue
        exported = re.search(r"^#\|\s*export", cell.source, re.M)
        source = DIRECTIVE.sub("", cell.source).strip()
        title = f' title="avss_nb/{module.replace(".", "/")}.py"' if exported else ""
        parts.append(f"```python{title}\n{source}\n```")
        if cell.outputs: parts.append("<div class='output'>" + "\n".join(output(o, save) for o in cell.outputs) + "</div>")
    title = re.match(r"# (.*)", parts[0])[1]
    if module:
        text, found = reference(module)
        names = " · ".join(f"[`{name}`](#{anchor})" for name, anchor, _ in found)
        if found: parts[0] += f"\n\nModule `avss_nb.{module}`: {names}\n"; parts.append(f"## Reference{text}")
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return title, module

def pages(folder: Path) -> list:
    "Write every page, and return the navigation."
    def written(path):
        target = folder / path.relative_to(NBS).with_suffix(".md")
        target.parent.mkdir(parents=True, exist_ok=True)
        return (*page(path, target), str(target.relative_to(folder)))
    shutil.copytree(NBS / "images", folder / "images")
    (folder / "assets").mkdir()
    for name in ("site.css", "iframe-worker.js"): shutil.copy(OURS / name, folder / "assets")
    for name in ("architectures.md", "extending.md", "mistakes.md", "panels.md", "tutorials/instructor.md", "studies/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        text = both_themes(prose((NBS / name).read_text(encoding="utf-8")), (NBS / name).parent)
        (folder / name).write_text(links(text), encoding="utf-8")
    for name, target in AT_THE_TOP.items():
        (folder / target).write_text(from_the_top((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    written(NBS / "index.ipynb")
    for name in ("index.md", "architectures.md", "extending.md", "mistakes.md", "panels.md", *AT_THE_TOP.values()):  # alone in their section
        hide = "navigation" if name == "index.md" else "navigation, toc"
        (folder / name).write_text(f"---\nhide: [{hide}]\n---\n" + (folder / name).read_text(encoding="utf-8"), encoding="utf-8")
    lessons = [{f"{int(p.name[:2])} · {title}": url} for p in sorted((NBS / "tutorials").glob("*.ipynb")) for title, _, url in [written(p)]]
    def plain(title): return re.sub(r"^Study: (.)", lambda found: found[1].upper(), title)
    studies = [{plain(title): url} for p in sorted((NBS / "studies").glob("*.ipynb")) for title, _, url in [written(p)]]
    rooms = {place.name[3:]: [written(p) for p in sorted(place.glob("*.ipynb"))] for place in sorted(NBS.glob("[0-9]*/"))}
    doors = [written(p) for p in sorted(NBS.glob("[0-9]*.ipynb"))]
    index = ["# Every name\n\n> What the package exports, module by module, in reading order."]
    for title, module, url in [*sum(rooms.values(), []), *doors]:
        rows = [(f"<a href='{url[:-3]}.html#{anchor}'><code>{name}</code></a>", said(doc)) for name, anchor, doc in reference(module)[1]]
        if rows: index.append(f"## [{title}]({url})\n\n<div>{table(rows, 'name', 'what')}</div>")
    (folder / "names.md").write_text("\n\n".join(index), encoding="utf-8")
    return [{"Home": "index.md"}, {"Lessons": [*lessons, {"For instructors": "tutorials/instructor.md"}]}, {"Studies": [{"All results": "studies/README.md"}, *studies]},
            {"Package": [{"Every name": "names.md"},
                         *({room: [{title: url} for title, _, url in found]} for room, found in rooms.items()),
                         *({title: url} for title, _, url in doors)]},
            {"Panels": "panels.md"}, {"Architectures": "architectures.md"}, {"Mistakes": "mistakes.md"}, {"Extending": "extending.md"}, {"Contributing": "contributing.md"},
             {"Changes": "changes.md"}]

MENDED = {  # what the converter leaves to fonts or forgets
    r"(<mo[^>]*>(?!&#x00029;|&#x0007C;)[^<]*</mo>)<mo>&#x02212;</mo>": r'\1<mo form="prefix">&#x02212;</mo>',  # a sign, not a difference
    r"(<mi>(?:log|exp|cos|arccos)</mi>)(?!<mo)": r'\1<mspace width="0.17em"/>',
    "<mo>&#x23DF;</mo></munder>": '<mspace height="0.1em"/></munder>'}  # a brace that few fonts can stretch: the style sheet draws a line

def rendered(text: str) -> str:
    "Formulas as MathML, which browsers draw without a script."
    from latex2mathml.converter import convert
    def mathml(found):
        tex, block = html.unescape(found[2])[2:-2], found[1] == "div"
        made = convert(tex, display="block" if block else "inline")
        for pattern, better in MENDED.items(): made = re.sub(pattern, better, made)
        return made
    return re.sub(r'<(div|span) class="arithmatex">(.*?)</\1>', mathml, text, flags=re.S)

def build(site: Path) -> None:
    "Write the whole site; a link that leads nowhere stops it."
    from mkdocs.commands.build import build as make
    from mkdocs.config import load_config
    with tempfile.TemporaryDirectory() as folder:
        nav = pages(Path(folder))
        config = load_config(str(OURS / "mkdocs.yml"), docs_dir=folder, site_dir=str(site), nav=nav)
        config.plugins.events["page_content"].append(lambda text, **_: rendered(text))
        make(config)
    (site / "404.html").unlink(missing_ok=True)  # of use to a server only

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=ROOT / "site", type=Path, help="where the site goes; what an earlier site left there is removed")
    site = parser.parse_args().folder.resolve()
    if site.exists() and not (site / "assets/site.css").is_file() and (not site.is_dir() or any(site.iterdir())):
        parser.error(f"{site} holds something else, which a site would remove; give an empty or a new folder")
    build(site)
    print(f"{site / 'index.html'}: {len([*site.rglob('*.html')])} pages")
