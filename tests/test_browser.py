"The panels in a real JupyterLab, seen and used through a real browser. AVSS_SCREENSHOTS=folder keeps pictures."
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
import nbformat
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")]
pytest.importorskip("jupyterlab", reason="needs JupyterLab")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

CELLS = ["""
from avss_nb.live import Throttle
from avss_nb.panels import LayerRankingPanel, PruningPanel
from avss_nb.profiler import LayerProfiler
from avss_nb.teaching import TeachingWorld, load_teaching_model
model, tokenizer = load_teaching_model()
texts = TeachingWorld().texts(300)
panel = LayerRankingPanel(layers=12)
panel.throttle = Throttle(least=0.05, share=0.5)
panel""", """
profile = LayerProfiler(model, tokenizer, batch_size=4).profile(texts, progress=panel)""", """
pruning = PruningPanel(model, tokenizer, panel.scores, lambda: {"accuracy": 0.8, "perplexity": 12.5})
pruning"""]

@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    "A JupyterLab server with settings of its own; yields its address and its folder."
    home, token = tmp_path_factory.mktemp("lab"), "t"
    names = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR"
    folders = {name: str(home / name.lower()) for name in names.split()}
    (home / "work").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'work'}",
               "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=os.environ | folders | {"PYTHONPATH": path}, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=2).close(); break
            except OSError: time.sleep(0.25)
            assert server.poll() is None, (home / "log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset", home / "work"
    finally:
        server.terminate()
        server.wait(20)

@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
        yield chromium
        chromium.close()

def open_notebook(browser, lab, cells, name="panel.ipynb"):
    "A page with the notebook open and its kernel idle."
    address, folder = lab
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, folder / name)
    page = browser.new_page(viewport={"width": 1250, "height": 2400})
    page.set_default_timeout(60_000)
    page.goto(address.format(name))
    page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget && jupyterapp.shell.currentWidget.context")
    page.evaluate("""async () => { const w = jupyterapp.shell.currentWidget;
        await w.context.ready; await w.sessionContext.ready; await w.sessionContext.session.kernel.info; }""")
    wait_idle(page)
    return page

def wait_idle(page):
    page.wait_for_function("""() => { const s = jupyterapp.shell.currentWidget.sessionContext.session;
        return s && s.kernel && s.kernel.connectionStatus === 'connected' && s.kernel.status === 'idle'; }""")

def picture(page, panel=0): return page.locator(".avss-panel").nth(panel).locator("img").first.get_attribute("src")
def status(page, panel=0): return page.locator(".avss-panel").nth(panel).locator("[role=status]").inner_text()

def screenshot(page, name):
    if folder := os.environ.get("AVSS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.mouse.move(5, 5)
        for theme in "Light", "Dark":
            page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
            page.wait_for_timeout(1500)
            for i, panel in enumerate(page.locator(".avss-panel").all()):
                panel.screenshot(path=Path(folder) / f"{name}-{i}-{theme.lower()}.png")

def remaining(page, path):
    "The words beside the picture in the saved file."
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")
    data = next(o["data"] for o in json.loads(path.read_text())["cells"][0]["outputs"] if "image/png" in o.get("data", {}))
    assert len("".join(data["image/png"])) > 10_000
    return "".join(data["text/plain"])

COUNT_FRAMES = """() => { window.frames_seen = new Set(); window.statuses = new Set();
    new MutationObserver(() => {
        const img = document.querySelector('.avss-panel img'), s = document.querySelector('.avss-panel [role=status]');
        if (img) window.frames_seen.add(img.src); if (s) window.statuses.add(s.textContent);
    }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']}); }"""

def test_ranking_panel(browser, lab):
    page = open_notebook(browser, lab, CELLS)
    page.evaluate(COUNT_FRAMES)
    assert page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')"), "a cell failed"
    wait_idle(page)
    page.wait_for_selector(".avss-panel >> nth=1")

    # The bars moved while the profile was made, and the status said how far it was.
    assert page.evaluate("window.frames_seen.size") >= 5
    statuses = page.evaluate("[...window.statuses]")
    said = r"batch \d+ of 75, [\d,]+ tokens, about \d+ (s|min) left; press ■ to stop"
    assert any(re.fullmatch(said, s) for s in statuses), statuses
    page.wait_for_function("document.querySelector('.avss-panel [role=status]').textContent.includes('Least important')")
    screenshot(page, "ranking")

    # ε by keyboard, then by mouse: the picture, its description and the ranking follow.
    before, words = picture(page), status(page)
    handle = page.locator(".avss-eps .noUi-handle")
    handle.focus()
    for _ in range(4): page.keyboard.press("ArrowRight")
    page.wait_for_selector(".avss-panel img[alt*='(elements, ε = 0.1)']")
    by_keyboard = picture(page)
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_selector(".avss-panel img[alt*='(elements, ε = 1)']")
    assert len({before, by_keyboard, picture(page)}) == 3 and page.locator(".avss-eps .widget-readout").inner_text() == "1"
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 1)")
    assert status(page) != words

    # A layer by mouse on the strip, and by keyboard: its bar is pointed at and its histogram shown.
    bars, strip = picture(page), page.locator(".avss-strip button")
    assert strip.count() == 12
    strip.nth(7).click()
    page.wait_for_selector(".avss-panel img[alt*='of layer 7;']")
    strip.nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-panel img[alt*='of layer 3;']")
    assert picture(page) != bars and page.locator(".avss-panel select").nth(3).input_value() == "layer 3"
    screenshot(page, "layer-3")

    # Try a pruned model: the button measures, and the table appears.
    page.locator("button.avss-preview").click()
    page.wait_for_selector(".avss-panel >> nth=1 >> text=12.5")
    assert "keeps 100% of its accuracy" in status(page, 1)
    screenshot(page, "pruned")

    # What remains in the file when the kernel is gone.
    assert "Least important" in remaining(page, lab[1] / "panel.ipynb")
    page.close()

def test_stop_keeps_what_was_measured(browser, lab):
    endless = CELLS[1].replace("texts, progress", "texts * 100, progress")
    page = open_notebook(browser, lab, [CELLS[0], endless], "stop.ipynb")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("(document.querySelector('.avss-panel [role=status]') || {}).textContent?.startsWith('batch')")
    page.wait_for_timeout(1000)
    screenshot(page, "live")
    page.locator('[data-jp-item-name="interrupt"]').first.click()
    page.wait_for_function("document.querySelector('.avss-panel [role=status]').textContent.startsWith('Stopped early')")
    wait_idle(page)
    page.close()

SETTING = """
from avss_nb.evaluator import Evaluator
from avss_nb.hallucination import HallucinationAnalyzer
from avss_nb.hallucination_panels import HallucinationPanel, MitigationPanel
from avss_nb.live import Throttle
from avss_nb.mitigation import ContrastiveMitigator, Recipe
from avss_nb.teaching import TeachingWorld, load_teaching_model
model, tokenizer = load_teaching_model()
world = TeachingWorld()
def questions(n, seed): return world.questions("rare", n, seed) + world.questions("unknown", n, seed)
"""

def test_hallucination_panel(browser, lab):
    page = open_notebook(browser, lab, [SETTING + """
panel = HallucinationPanel(HallucinationAnalyzer(model, tokenizer, batch_size=8), questions(100, 0), batch_size=8)
panel.throttle = Throttle(least=0.05, share=0.5)
panel""", "scores = panel.run()"], "hallucination.ipynb")
    page.evaluate(COUNT_FRAMES)
    assert page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')"), "a cell failed"
    page.wait_for_function("/stands? out/.test(document.querySelector('.avss-panel [role=status]').textContent)")

    # Answers were counted as they came, then the marks moved while the profile grew.
    statuses = page.evaluate("[...window.statuses]")
    for said in r"question \d+ of 200: \d+ right, \d+ wrong, 0 abstained, .* left; press ■ to stop", r"batch \d+ of 25, \d+ faithful .* to stop":
        assert any(re.fullmatch(said, s) for s in statuses), statuses
    assert page.evaluate("window.frames_seen.size") >= 4
    assert page.locator(".avss-panel >> text=✗ wrong").count() == 3
    screenshot(page, "hallucination")

    # ε by keyboard, balance and a layer by mouse and by keyboard.
    before = picture(page)
    page.locator(".avss-eps .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 0.05 RMS")
    by_eps = picture(page)
    page.get_by_label("compare only within the same kind").click()
    page.wait_for_function("before => document.querySelector('.avss-panel img').src !== before", arg=by_eps)
    strip = page.locator(".avss-strip button")
    assert strip.count() == 12
    strip.nth(3).click()
    page.wait_for_selector(".avss-panel img[alt*='of layer 3,']")
    strip.nth(5).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-panel img[alt*='of layer 5,']")
    assert picture(page) not in (before, by_eps) and page.locator(".avss-panel select").nth(1).input_value() == "layer 5"
    assert "log EAVSS of the 12 layers" in remaining(page, lab[1] / "hallucination.ipynb")
    page.close()

def test_mitigation_panel_and_its_stop(browser, lab):
    page = open_notebook(browser, lab, [SETTING + """
recipe = Recipe(steps=2000, every=10, batch_size=16, text_batch=4, learning_rate=2e-3)
panel = MitigationPanel(ContrastiveMitigator(model, tokenizer, [10, 11], recipe), questions(60, 2))
panel.throttle = Throttle(least=0.05, share=0.3)
panel""", """
answers = Evaluator(model, tokenizer).answer(questions(100, 0))
mitigation = panel.run(answers, world.texts(40), questions(20, 1))"""], "mitigation.ipynb")
    page.evaluate(COUNT_FRAMES)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    seen = "training step \\\\d+ of 2000: loss .*, reliability .* on the development questions, about .* left; press ■ to stop"
    page.wait_for_function(f"[...window.statuses].some(s => s.match('^{seen}$'))")
    page.wait_for_function("[...window.statuses].some(s => s.match('^training step 1[2-9]. '))")
    assert page.evaluate("window.frames_seen.size") >= 5
    page.locator('[data-jp-item-name="interrupt"]').first.click()
    page.wait_for_selector(".avss-panel [role=status] >> text=Stopped early. Layers 10, 11 have the weights of step")
    wait_idle(page)
    assert page.locator(".avss-panel img").count() == 2 and page.locator(".avss-panel tr >> text=hallucination rate").count() == 1
    screenshot(page, "mitigation")
    assert "On 120 test questions: right" in remaining(page, lab[1] / "mitigation.ipynb")
    page.close()
