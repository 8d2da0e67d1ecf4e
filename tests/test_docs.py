"The site is whole, needs nobody else, and says of every parameter what the code says; links of README and notebooks resolve where they are read."
import importlib
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit
import nbformat
import pytest
from browsing import CHROMIUM, browser  # noqa: F401

ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)

@pytest.fixture(scope="session")
def site(tmp_path_factory):
    for name in ("mkdocs", "material", "latex2mathml"):
        pytest.importorskip(name, reason="the site is built by the extra `docs`: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run([sys.executable, ROOT / "tools/docs.py", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder

def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.md").write_text("years of work")
    for given in (tmp_path, tmp_path / "thesis.md"):
        run = subprocess.run([sys.executable, ROOT / "tools/docs.py", given], capture_output=True, text=True)
        assert run.returncode == 2 and "holds something else" in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.md"] and (tmp_path / "thesis.md").read_text() == "years of work"

@cache
def parsed(path):
    from bs4 import BeautifulSoup
    return BeautifulSoup(path.read_text(encoding="utf-8"), "lxml")

@cache
def anchors(path): return {tag[key] for tag in parsed(path).find_all(True) for key in ("id", "name") if tag.get(key)}

def well_formed(url): return re.fullmatch(r"https?://[\w.-]+\.[a-z]{2,}(/\S*)?", url) is not None

def test_every_link_of_the_site_leads_somewhere(site):
    wrong, seen = [], 0
    for page in site.rglob("*.html"):
        for tag in parsed(page).find_all(["a", "link", "img", "script", "source"]):
            url = tag.get("href") or tag.get("src")
            if not url or url.startswith("data:"): continue
            seen += 1
            parts = urlsplit(url)
            if parts.scheme:
                if not well_formed(url): wrong.append((page.name, url))
                continue
            target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
            if target.is_dir(): target /= "index.html"
            if not target.is_relative_to(site.resolve()) or not target.exists(): wrong.append((page.name, url))
            elif target.suffix == ".html" and parts.fragment and unquote(parts.fragment) not in anchors(target):
                wrong.append((page.name, url))
    assert seen > 5000 and not wrong, wrong

def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for tag in parsed(page).find_all(["script", "link", "img", "iframe", "source", "video"]):
            assert not re.match(r"(https?:)?//", tag.get("src") or tag.get("href") or ""), (page, tag)
        assert not parsed(page).select(".mermaid"), "a diagram would be drawn by a script from the network"
    for sheet in site.rglob("*.css"): assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet

def test_every_exported_name_is_explained(site):
    for path in sorted(p for p in NOTEBOOKS if re.match(r"\d+_", str(p.relative_to(NBS)))):
        name, = {m for c in nbformat.read(path, 4).cells for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M)}
        module = importlib.import_module(f"avss_nb.{name}".removesuffix(".__init__"))
        page = parsed(site / path.relative_to(NBS).with_suffix(".html"))
        for public in getattr(module, "__all__", []):
            thing = getattr(module, public)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)) or thing.__module__ != module.__name__: continue
            heading = page.find(id=f"{name}.{public}")
            assert heading, f"{public} is missing on the page of {name}"
            below = heading.find_next("div")
            assert " ".join((inspect.getdoc(thing) or "").split("\n")[0].replace("`", "").split()) in " ".join(below.get_text().split()), public
            if inspect.isfunction(thing):
                listed = [row.td.get_text().lstrip("*") for row in below.select("tbody tr") if row.td.get_text() != "returns"]
                assert listed == [*inspect.signature(thing).parameters], public

def test_a_comment_stands_beside_its_parameter(site):
    rows = {tuple(cell.get_text() for cell in row.find_all("td")) for row in parsed(site / "05_layers/02_scores.html").find_all("tr")}
    assert ("eps", "float", "0.01", "threshold ε of the sparsity") in rows
    assert ("top", "int", "3", "how many") in rows                                      # of a method
    rows = {tuple(cell.get_text() for cell in row.find_all("td")) for row in parsed(site / "02_maths/00_moments.html").find_all("tr")}
    assert ("returns", "Tensor", "int64, (BINS,)") in rows                             # a column without an entry is left out

def test_formulas_are_drawn_without_a_script(site):
    drawn = 0
    for page in site.rglob("*.html"):
        assert not parsed(page).select(".arithmatex, merror"), page
        drawn += len(parsed(page).find_all("math"))
        text = re.sub(r"<(pre|code|script|annotation)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
        assert not re.search(r"\\(frac|sum|mathrm|text|log|cdot|varepsilon)(?![a-z])|\\\(", text), page
    assert drawn > 100

def test_every_picture_of_a_notebook_is_on_its_page(site):
    for path in NOTEBOOKS:
        pictures = sum("image/png" in o.get("data", {}) for c in nbformat.read(path, 4).cells for o in c.get("outputs", []))
        shown = parsed(site / path.relative_to(NBS).with_suffix(".html")).select(".output img")
        assert len(shown) == pictures and all(image.get("alt") for image in shown), path
        assert not parsed(site / path.relative_to(NBS).with_suffix(".html")).select(".jupyter-widgets"), path

def test_a_picture_is_shown_in_the_theme_that_is_on(site):
    for page, times in ("index.html", 1), ("09_panels/09_lab.html", 4), ("tutorials/07_reading_the_panels.html", 1):
        shown = [image["src"] for image in parsed(site / page).select("p > img")]
        light, dark = ([name.split("#")[0] for name in shown if name.endswith(f"#only-{kind}")] for kind in ("light", "dark"))
        assert len(light) == times and dark == [name.replace("_light", "_dark") for name in light], page

def test_every_kept_picture_is_shown_somewhere():
    told = "".join(markdown(path) for path in [*NOTEBOOKS, *NBS.rglob("*.md")])
    for picture in (NBS / "images").glob("*.png"): assert picture.name.replace("_dark.png", "_light.png") in told, picture.name

@pytest.mark.browser
def test_the_search_answers_from_a_folder(site, request):
    "Opened as a file, without a server; nothing is asked of the network."
    if not CHROMIUM: pytest.skip("Chromium is not installed")
    pytest.importorskip("playwright.sync_api")
    page, asked = request.getfixturevalue("browser").new_page(viewport={"width": 1280, "height": 900}), []
    page.on("request", lambda r: asked.append(r.url))
    page.goto((site / "index.html").as_uri())
    page.click(".md-search__input")
    page.keyboard.type("benjamini")
    page.wait_for_selector(".md-search-result__link", timeout=20_000)
    found = page.eval_on_selector_all(".md-search-result__link", "links => links.map(a => a.getAttribute('href'))")
    assert any("08_hallucination/01_scores.html" in link for link in found), found
    for name in ("tutorials/02_avss_by_hand.html", "05_layers/02_scores.html", "architectures.html"):
        for width in (390, 1280):                         # a phone, a laptop: no page is wider than the window
            page.set_viewport_size({"width": width, "height": 900})
            page.goto((site / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
    page.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "about:"))]

# What is read on GitHub and in Jupyter

def slug(heading):
    "GitHub's anchor of a heading."
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()).replace(" ", "-")

@cache
def headings(path): return {slug(h) for h in re.findall(r"^#+ (.*)$", markdown(path), re.M)}

@cache
def markdown(path):
    "The prose of a file, without its code."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb": text = "\n\n".join(c.source for c in nbformat.reads(text, 4).cells if c.cell_type == "markdown")
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.M | re.S)

@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted(ROOT.glob("*.md")), *sorted(NBS.rglob("*.md"))], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve_where_they_are_read(path):
    for url in re.findall(r"\]\(\s*([^)\s]+)\s*\)", markdown(path)):
        parts = urlsplit(url)
        if parts.scheme: assert well_formed(url), url; continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert target.exists() and target.is_relative_to(ROOT), f"{path.name} links to {url}"
        if parts.fragment: assert parts.fragment in headings(target), f"{path.name}: no heading {url}"
