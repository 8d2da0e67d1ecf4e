"The dashboard in a real JupyterLab, seen and used through a real browser."
import json
import pandas as pd
import pytest
from browsing import browser, lab, needs_browser, open_notebook, screenshot, wait_idle, wait_value  # noqa: F401
from test_browser import SETTING

pytestmark = needs_browser()

CELLS = [SETTING + """
from avss_nb import LayerLab
here = LayerLab(model, tokenizer, world.texts(120), people("asked", 150) + people("known", 150) + people("unknown", 300),
                eavss=EAVSSScorer(draws=200, halves=2), batch_size=8)
here""", "here.run()", "here.prune(3)", """
here.mitigate([10, 11], recipe=Recipe(steps=60, every=15, batch_size=16, text_batch=4, learning_rate=1e-3))
here.tabs.selected_index = 0"""]
TABS = ".avss-lab .lm-TabBar-tab"

def test_the_dashboard(browser, lab):
    page = open_notebook(browser, lab, CELLS, "dashboard.ipynb")
    assert page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')"), "a cell failed"
    wait_idle(page)
    page.wait_for_selector(".avss-lab >> text=Every step has been taken")
    tabs = page.locator(TABS)
    assert tabs.all_inner_texts() == ["Ranking", "Hallucination", "Pruning", "Mitigation"]

    # A layer picked in the ranking is the one of every tab: the line beside it, the histogram, EAVSS, the cost, the training.
    page.locator(".avss-lab .avss-strip:visible button").nth(7).click()
    page.wait_for_selector(".avss-lab img[alt*='of layer 7;']")
    wait_value(page.locator(".avss-pick input"), "7")
    facts = page.locator(".avss-lab >> text=log EAVSS").first
    page.wait_for_function("document.querySelector('.avss-lab').innerText.includes('not trained')")
    assert "rank" in facts.inner_text()
    screenshot(page, "lab_ranking", where=".avss-lab")

    # Tabs by keyboard.
    tabs.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-lab img[alt*='of layer 7,']")
    wait_value(page.locator(".avss-lab .avss-panel:visible select").last, "layer 7")
    screenshot(page, "lab_hallucination", where=".avss-lab")
    tabs.nth(2).click()
    page.wait_for_selector(".avss-alone >> text=Try without layer 7")
    page.locator(".avss-alone").click()
    page.wait_for_selector(".avss-lab >> text=Without it alone: accuracy")
    screenshot(page, "lab_pruning", where=".avss-lab")

    # And the other way: picked above the tabs, by keyboard.
    page.locator(".avss-pick input").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".avss-alone >> text=Try without layer 8")
    tabs.nth(3).click()
    page.wait_for_selector(".avss-lab >> text=Layer 8 is not trained")
    screenshot(page, "lab_mitigation", where=".avss-lab")

    # The menu writes files, and refuses what cannot be.
    folder = lab[1] / "out"
    folder.mkdir()
    name, where = page.locator(".avss-name input"), page.locator(".avss-folder input")
    where.fill(str(folder))
    wait_value(name, "mitigation")
    page.locator(".avss-save-csv").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-lab [role=status] >> text=mitigation.csv")
    assert list(pd.read_csv(folder / "mitigation.csv").columns) == ["measure", "before", "after", "change"]
    name.fill("mitigation.csv")
    page.locator(".avss-save-csv").click()
    page.wait_for_selector(".avss-lab [role=status] >> text=exists already; mitigation-2.csv is free")
    (folder / "file").touch()
    where.fill(str(folder / "file"))
    name.fill("a")
    page.locator(".avss-save-csv").click()
    page.wait_for_selector(".avss-lab [role=status] >> text=cannot be made")
    where.fill(str(folder))
    name.fill("report")
    page.locator(".avss-save-html").click()
    page.wait_for_selector(".avss-lab [role=status] >> text=report.html")

    # The report stands alone: opened as a file it asks for nothing and shows every picture.
    report, asked = browser.new_page(), []
    report.on("request", lambda request: asked.append(request.url))
    report.goto(f"file://{folder / 'report.html'}")
    sizes = report.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(sizes) == 7 and min(sizes) > 300 and [url for url in asked if not url.startswith("data:")] == [report.url]
    report.close()

    # Every control has a name, and what remains in the file is a picture and words.
    assert page.evaluate("""[...document.querySelectorAll('.avss-lab input, .avss-lab select, .avss-lab button')]
        .filter(e => !(e.labels && e.labels.length && e.labels[0].innerText) && !e.innerText && !e.title && !e.getAttribute('aria-label')).length""") == 0
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")
    outputs = json.loads((lab[1] / "dashboard.ipynb").read_text())["cells"][0]["outputs"]
    data = next(o["data"] for o in outputs if "image/png" in o.get("data", {}))
    assert len("".join(data["image/png"])) > 100_000 and "mitigation: " in "".join(data["text/plain"])
    page.close()

def test_stop_reaches_a_step(browser, lab):
    page = open_notebook(browser, lab, [CELLS[0].replace("world.texts(120)", "world.texts(300) * 100"), "here.run()"], "stopped.ipynb")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("(document.querySelector('.avss-lab') || {}).innerText?.includes('press ■ to stop')")
    page.wait_for_timeout(1000)
    page.locator('[data-jp-item-name="interrupt"]').first.click()
    page.wait_for_selector(".avss-lab [role=status] >> text=Stopped early, partial result")
    page.wait_for_selector(".avss-lab [role=status] >> text=Next: lab.hallucinations()")
    wait_idle(page)
    page.locator(TABS).nth(2).click()                        # what there is can be used
    page.wait_for_selector(".avss-count:visible")
    page.close()
