"A JupyterLab and a Chromium for the whole session, and what is done with them. WRITE_PICTURES=1 keeps the pictures of panels and dashboard in nbs/images."
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.resources import files
from pathlib import Path
import nbformat
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parent.parent
TIMEOUT = int(os.environ.get("BROWSER_TIMEOUT", 60_000))  # milliseconds; a bound for a slow machine, never a wait

def needs_browser():
    "Marks for a module of browser tests."
    for name in "jupyterlab", "playwright.sync_api", "axe_playwright_python": pytest.importorskip(name, reason=f"needs {name}: pip install -e '.[dev]'")
    return [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")]

def once(config, name, start):
    "What the whole session shares, whichever module asks for it; `start` yields it and then cleans up."
    if not hasattr(config, name):
        made = start()
        setattr(config, name, next(made))
        config.add_cleanup(lambda: next(made, None))
    return getattr(config, name)

# --- servers ------------------------------------------------------------------------------------------------------------

def serve(home, module, *settings, ready="/"):
    "Run a Jupyter server with settings of its own until the generator ends; yields its address."
    names = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR"
    folders = {name: str(home / name.lower()) for name in names.split()}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(home / f"{module}.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", module, "--no-browser", f"--port={port}", *settings],
                                  env=os.environ | folders | {"PYTHONPATH": path}, stdout=log, stderr=log, cwd=home)
    address = f"http://127.0.0.1:{port}"
    try:
        began = time.monotonic()
        while True:
            try: urllib.request.urlopen(address + ready, timeout=TIMEOUT / 1000).close(); break
            except urllib.error.HTTPError: break  # it answers
            except OSError: time.sleep(0.25)
            assert server.poll() is None and time.monotonic() - began < 120, (home / f"{module}.log").read_text()[-2000:]
        yield address
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()

def jupyter(home, module, app, path):
    "Run a Jupyter front end; yields its address (a form for the notebook's name) and its folder."
    (home / "work").mkdir()
    server = serve(home, module, "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=t",
                   f"--ServerApp.root_dir={home / 'work'}", "--LabApp.news_url=None", f"--{app}.expose_app_in_browser=True",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", ready="/api?token=t")
    try: yield next(server) + path, home / "work"
    finally: server.close()

@pytest.fixture(scope="session")
def lab(request, tmp_path_factory):
    "A JupyterLab server; its address (a form for the notebook's name) and its folder."
    return once(request.config, "_lab", lambda: jupyter(tmp_path_factory.mktemp("lab"), "jupyterlab", "LabApp", "/lab/tree/{}?token=t&reset"))

@pytest.fixture(scope="session")
def browser(request):
    def start():
        from playwright.sync_api import sync_playwright
        with sync_playwright() as p:
            chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            yield chromium
            chromium.close()
    return once(request.config, "_browser", start)

# --- notebooks ----------------------------------------------------------------------------------------------------------

def new_page(browser, height=2400):
    page = browser.new_page(viewport={"width": 1350, "height": height})
    page.set_default_timeout(TIMEOUT)
    page.outside = []  # addresses asked for that are not ours
    page.on("request", lambda r: None if re.match(r"(data|blob):|http://127\.0\.0\.1:", r.url) else page.outside.append(r.url))
    return page

def write_notebook(path, cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, path)

def open_notebook(browser, lab, cells, name="panel.ipynb", height=2400):
    "A page with the notebook open and its kernel idle."
    address, folder = lab
    write_notebook(folder / name, cells)
    page = new_page(browser, height)
    page.goto(address.format(name))
    page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget && jupyterapp.shell.currentWidget.context")
    page.evaluate("""async () => { const w = jupyterapp.shell.currentWidget;
        await w.context.ready; await w.sessionContext.ready; await w.sessionContext.session.kernel.info; }""")
    wait_idle(page)
    return page

def close_notebook(page):
    "Close the page and end its kernel."
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()

def run_all(page):
    if page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')"): return
    pytest.fail(f"a cell failed: {page.locator('[data-mime-type*=error], [data-mime-type*=stderr]').all_inner_texts()}")

def run_below(page, number=1, wait=True):
    "Run the cells before; when their panel stands, count its frames and run the rest."
    for i in range(number): run_cell(page, i)
    page.wait_for_selector(".avss-panel [role=status]")
    wait_idle(page)
    page.evaluate(COUNT_FRAMES)
    done = page.evaluate("""([number, wait]) => { jupyterapp.shell.currentWidget.content.activeCellIndex = number;
        const done = jupyterapp.commands.execute('notebook:run-all-below'); return wait ? done : true; }""", [number, wait])
    assert done, "a cell failed"

def run_cell(page, number, times=1):
    "Run one cell, again and again."
    page.evaluate("""async ([number, times]) => { const book = jupyterapp.shell.currentWidget.content;
        for (let i = 0; i < times; i++) { book.activeCellIndex = number; await jupyterapp.commands.execute('notebook:run-cell'); } }""", [number, times])

def ask(page, expression):
    "The value of an expression in the kernel, as text."
    return page.evaluate("""async x => { const k = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        const reply = await k.requestExecute({code: '', user_expressions: {x}, store_history: false}).done;
        return reply.content.user_expressions.x.data['text/plain']; }""", expression)

def wait_idle(page):
    page.wait_for_function("""() => { const s = jupyterapp.shell.currentWidget.sessionContext.session;
        return s && s.kernel && s.kernel.connectionStatus === 'connected' && s.kernel.status === 'idle'; }""")

def new_picture(page, *old, panel=0):
    "The first picture of a panel, as soon as it is none of the old ones."
    page.wait_for_function("([panel, old]) => !old.includes(document.querySelectorAll('.avss-panel')[panel].querySelector('img').src)", arg=[panel, list(old)])
    return picture(page, panel)

def wait_value(where, value):
    "Wait until an input or a choice holds a value: the kernel's answer may come in several messages."
    from playwright.sync_api import expect
    expect(where).to_have_value(value, timeout=TIMEOUT)

def picture(page, panel=0): return page.locator(".avss-panel").nth(panel).locator("img").first.get_attribute("src")
def status(page, panel=0): return page.locator(".avss-panel").nth(panel).locator("[role=status]").inner_text()

def pick_layers(page, clicked, pressed, end):
    "Look inside one of twelve layers by mouse on the strip, and inside another by keyboard; `end`: what follows the number in the description."
    strip = page.locator(".avss-strip button")
    assert strip.count() == 12
    strip.nth(clicked).click()
    page.wait_for_selector(f".avss-panel img[alt*='of layer {clicked}{end}']")
    strip.nth(pressed).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f".avss-panel img[alt*='of layer {pressed}{end}']")

def stop(page):
    "Press ■; the seconds until the panel has its result and the kernel is idle."
    page.evaluate("""() => { const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        document.addEventListener('click', () => window.pressed = performance.now(), true);
        kernel.statusChanged.connect((_, s) => { if (s === 'idle') window.rested = performance.now(); }); }""")
    page.locator('[data-jp-item-name="interrupt"]').first.click()
    page.wait_for_selector(".avss-panel [role=status] >> text=/^Stopped early/")
    wait_idle(page)
    return page.evaluate("(window.rested - window.pressed) / 1000")

def save(page):
    "Save; again if a panel has stored what it shows just after that (it does so half a second after the last change)."
    page.wait_for_timeout(700)
    for last in False, False, False, True:
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        try: return page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty", timeout=TIMEOUT / 4)
        except Exception:
            if last: raise

def remaining(page, path):
    "The words beside the picture in the saved file."
    save(page)
    data = next(o["data"] for o in json.loads(path.read_text())["cells"][0]["outputs"] if "image/png" in o.get("data", {}))
    assert len("".join(data["image/png"])) > 10_000
    return "".join(data["text/plain"])

# --- what is seen -------------------------------------------------------------------------------------------------------

COUNT_FRAMES = """() => {
    window.parts_of = panel => [...panel.children].map(part => Math.round(part.getBoundingClientRect().height)).join();
    window.frames_seen = new Set(); window.statuses = new Set(); window.heights = new Set();
    new MutationObserver(() => {
        const panel = document.querySelector('.avss-panel'); if (!panel) return;
        const img = panel.querySelector('img'), s = panel.querySelector('[role=status]');
        if (img) window.frames_seen.add(img.src); if (s) window.statuses.add(s.textContent);
        if (s && s.textContent.endsWith(' to stop')) window.heights.add(parts_of(panel));
    }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']}); }"""

def frames_seen(page): return page.evaluate("window.frames_seen.size")
def statuses(page): return page.evaluate("[...window.statuses]")

def check_nothing_jumped(page):
    "Every part of the panel had one height while the work went on, and has it still."
    seen = page.evaluate("[...window.heights]")
    assert len(seen) == 1, seen
    try: page.wait_for_function("seen => parts_of(document.querySelector('.avss-panel')) === seen", arg=seen[0], timeout=10_000)
    except Exception: pytest.fail(f"{page.evaluate('parts_of(document.querySelector(`.avss-panel`))')} after the run, {seen[0]} in it")

SETTLED = """async width => {
    const moving = '.avss-panel, .avss-panel img, .avss-panel table, .jp-OutputArea';
    const places = () => JSON.stringify([...document.querySelectorAll(moving)].map(e => e.getBoundingClientRect()));
    const fits = () => innerWidth === width && document.getElementById('main').offsetWidth <= width;
    for (let still = 0, before = ''; still < 4;) {
        await new Promise(done => setTimeout(done, 50));
        const now = places();
        still = now === before && fits() ? still + 1 : 0;
        before = now;
    }
    return true; }"""

def resize(page, width, height):
    "Give the window another size and wait until nothing moves any more: JupyterLab follows a resize with a delay."
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_function(SETTLED, arg=width)

def theme(page, name):
    page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: `JupyterLab ${name}`})", name)
    page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=str(name == "Light").lower())

def check_access(page, where=".avss-panel"):
    "axe-core finds nothing serious or critical inside the panels."
    if not page.evaluate("!!window.axe"): page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate("where => axe.run({include: [where]}, {resultTypes: ['violations']})", where)
    assert found["passes"], "axe saw nothing"
    bad = [f"{v['id']} ({v['impact']}): {v['help']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}" for v in found["violations"]
           if v["impact"] in ("serious", "critical") for node in v["nodes"]]
    assert not bad, "\n".join(bad)

def screenshot(page, name, panel=0, where=".avss-panel"):
    "Look at a panel, or at what else `where` finds, in both themes: it is accessible in either, and with WRITE_PICTURES=1 its picture is kept."
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur()")
    for kind in "Dark", "Light":
        theme(page, kind)
        check_access(page, where)
        if os.environ.get("WRITE_PICTURES"): page.locator(where).nth(panel).screenshot(path=ROOT / f"nbs/images/{name}_{kind.lower()}.png")
