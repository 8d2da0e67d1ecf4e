"The panels in a real JupyterLab, seen and used through a real browser."
import json
import os
import re
import subprocess
import sys
import nbformat
import pytest
from bs4 import BeautifulSoup
from browsing import (COUNT_FRAMES, ask, browser, check_access, check_nothing_jumped, close_notebook, frames_seen, jupyter, lab,  # noqa: F401
                      needs_browser, new_page, new_picture, open_notebook, pick_layers, picture, remaining, resize, run_all, run_below, run_cell, save,
                      screenshot, serve, status, statuses, stop, theme, wait_idle, wait_value, write_notebook)

pytestmark = needs_browser()

CELLS = ["""
from avss_nb import (
    Evaluator, LayerProfiler, LayerRankingPanel, PruningPanel, TeachingWorld, Throttle,
    load_teaching_model
)
model, tokenizer = load_teaching_model()
world = TeachingWorld()
texts = world.texts(300)
panel = LayerRankingPanel(layers=12)
panel.throttle = Throttle(least=0.05, share=0.5)
panel""", """
profile = LayerProfiler(model, tokenizer, batch_size=4).profile(texts, progress=panel)""", """
pruning = PruningPanel(model, tokenizer, panel.scores, lambda: Evaluator(model, tokenizer).evaluate(world.questions("known", 60), texts[:40]))
pruning"""]

def check_pictures_without_a_kernel(browser, lab):
    "The saved file as a page, as Markdown, and in the JupyterLab of somebody else, who has not run it."
    folder = lab[1]
    for kind in "html", "markdown":
        subprocess.run([sys.executable, "-m", "nbconvert", "--log-level=WARN", "--to", kind, "panel.ipynb"], cwd=folder, check=True)
    page = new_page(browser)
    page.route(re.compile("^https?:"), lambda route: route.abort())
    page.goto((folder / "panel.html").as_uri())
    assert page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)") == [1520, 1520]
    page.close()
    shown = BeautifulSoup((folder / "panel.md").read_text(), "lxml").find_all("img")
    assert len(shown) == 2 and all("Dot plot of AVSS" in i["alt"] and i["src"].startswith("data:image/png") for i in shown)

    # In the JupyterLab that has run it, which trusts it and looks for the widget first: the picture, and no complaint.
    page = new_page(browser)
    page.goto(lab[0].format("panel.ipynb"))
    page.wait_for_function("[...document.querySelectorAll('.jp-OutputArea img[alt*=\"Dot plot of AVSS\"]')].filter(i => i.offsetHeight > 100).length === 2")
    page.wait_for_selector("text=Error displaying widget", state="attached")
    assert not any(page.locator("text=Error displaying widget").evaluate_all("all => all.map(e => e.offsetHeight > 0)"))
    assert page.locator(".avss-kept table").count() >= 2 and not page.locator(".avss-panel").count()
    close_notebook(page)

    notebook = nbformat.read(folder / "panel.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("Sent by mail."))
    nbformat.write(notebook, folder / "sent.ipynb")
    page = new_page(browser)
    page.goto(lab[0].format("sent.ipynb"))
    page.wait_for_function("[...document.querySelectorAll('.jp-OutputArea img')].filter(i => i.naturalWidth === 1520 && i.offsetHeight > 100).length === 2")
    assert not page.locator(".avss-panel").count()
    close_notebook(page)

def test_ranking_and_pruning_panels(browser, lab):
    page = open_notebook(browser, lab, CELLS)
    run_below(page)
    page.wait_for_selector(".avss-panel >> nth=1")
    page.wait_for_selector(".avss-panel [role=status] >> text=Least important")

    # The dots moved while the profile was made, the status said how far it was, and nothing jumped.
    assert frames_seen(page) >= 5
    said = r"batch \d+ of 75, [\d,]+ tokens, about \d+ (s|min) left; press ■ to stop"
    assert any(re.fullmatch(said, s) for s in statuses(page)), statuses(page)
    check_nothing_jumped(page)

    # A layer by mouse on the strip, and by keyboard: its dot is pointed at and its histogram shown.
    bars, other = picture(page), picture(page, 1)
    pick_layers(page, 7, 3, ";")
    new_picture(page, bars)
    wait_value(page.locator(".avss-panel select").nth(3), "layer 3")
    screenshot(page, "ranking_panel")

    # ε by keyboard, then by mouse: the picture, its description and the ranking follow.
    before, words = picture(page), status(page)
    handle = page.locator(".avss-eps .noUi-handle")
    handle.focus()
    for _ in range(4): page.keyboard.press("ArrowRight")
    page.wait_for_selector(".avss-panel img[alt*='(elements, ε = 0.1)']")
    by_keyboard = new_picture(page, before)
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_selector(".avss-panel img[alt*='(elements, ε = 1)']")
    new_picture(page, before, by_keyboard)
    wait_value(page.locator(".avss-set-typed input"), "1")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 1)")
    assert status(page) != words

    # A dropdown: another score, other words.
    page.locator(".avss-panel select").first.select_option("block_influence")
    page.wait_for_selector(".avss-panel img[alt*='lock']")
    page.locator(".avss-panel select").first.select_option("avss")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 1)")
    assert picture(page, 1) == other                          # the other panel did not stir
    check_nothing_jumped(page)

    # How many layers go, by keyboard; try the pruned model: the button measures, and the table appears.
    page.locator(".avss-count .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".avss-panel >> nth=1 >> text=8 of 12 layers stay")
    page.locator("button.avss-preview").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-panel >> nth=1 >> text=all layers")
    costs = ask(page, "pruning.costs(pruning.removed)").strip("'")
    assert re.fullmatch(r"accuracy \S+ → \S+, perplexity \S+ → \S+ \(×\S+\)", costs)
    page.wait_for_selector(f".avss-panel >> nth=1 >> [role=status] >> text=: {costs}.")
    assert "ε = 1)" in status(page)
    screenshot(page, "pruning_panel", 1)
    assert not page.outside

    # While it lives, the picture that is stored is not seen. What remains in the file when the kernel is gone is what was seen last.
    assert not any(page.locator(".avss-kept").evaluate_all("all => all.map(e => e.offsetHeight > 0)"))
    page.wait_for_timeout(1000)  # the page stores half a second after a change
    assert "ε = 1)" in remaining(page, lab[1] / "panel.ipynb")
    close_notebook(page)
    check_pictures_without_a_kernel(browser, lab)

DEPTHS = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from avss_nb import LayerProfiler, LayerRankingPanel
def profile(layers):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4))
    return LayerProfiler(model, batch_size=4, ablation=layers == 12).profile([[*range(1, 40)]] * 16, lambda progress: None)
panels = [*(LayerRankingPanel(profile=profile(layers)) for layers in (12, 30, 80)), LayerRankingPanel(layers=12)]
display(*panels)"""

@pytest.fixture(scope="module")
def depths(browser, lab):
    "Panels of 12, 30 and 80 layers, and one that waits."
    page = open_notebook(browser, lab, [DEPTHS, "1 + 1"], "depths.ipynb", height=4500)
    run_cell(page, 0)
    page.wait_for_selector(".avss-panel >> nth=3")
    wait_idle(page)
    yield page
    close_notebook(page)

def test_controls_explain_themselves_and_take_a_typed_threshold(depths):
    page, panel = depths, depths.locator(".avss-panel").first
    site, typed = panel.locator(".avss-set-site select"), panel.locator(".avss-set-typed input")
    assert site.get_attribute("title").startswith("Where in a layer") and "what the layer adds" in panel.inner_text()
    panel.locator(".avss-set-score select").select_option("ablation")
    page.wait_for_selector(".avss-set-site select[title*='ablation is measured by the loss']")
    for name in "site select", "aggregation select", "typed input", "relative input":
        page.wait_for_selector(f".avss-panel >> nth=0 >> .avss-set-{name}[disabled]")
    assert "Switched off" in panel.locator(".avss-eps .noUi-handle").get_attribute("title")
    panel.locator(".avss-set-score select").select_option("random")
    page.wait_for_selector(".avss-panel [role=status] >> text=Random order: a control, not a ranking.")
    panel.locator(".avss-set-score select").select_option("avss")
    page.wait_for_selector(".avss-set-site select[title^='Where in a layer']")
    for name in "site select", "typed input": page.wait_for_selector(f".avss-panel >> nth=0 >> .avss-set-{name}:not([disabled])")
    typed.fill("0.0123")
    typed.press("Enter")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 0.0123)")
    typed.fill("-1")
    typed.press("Enter")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = -1 was typed; it must be a positive number")
    wait_value(typed, "0.0123")
    panel.locator(".avss-eps .noUi-handle").focus()
    page.keyboard.press("ArrowRight")                        # the slider knows the new step: the next one is 0.02
    wait_value(typed, "0.02")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 0.02)")
    check_access(page)

@pytest.mark.parametrize("number, layers", enumerate([12, 30, 80]))
def test_the_strip_is_a_toolbar_and_a_click_on_a_dot_picks_its_layer(depths, number, layers):
    page, panel = depths, depths.locator(".avss-panel").nth(number)
    strip = panel.locator(".avss-strip [role=toolbar] button")
    assert strip.count() == layers
    def focused(): return page.evaluate("document.activeElement.textContent")
    def reached(): return strip.evaluate_all("all => all.filter(b => b.tabIndex === 0).map(b => b.textContent).join()")
    def pressed(): return strip.evaluate_all("all => all.filter(b => b.getAttribute('aria-pressed') === 'true').map(b => b.textContent).join()")
    def picked(layer): page.wait_for_selector(f".avss-panel >> nth={number} >> img[alt*='of layer {layer};']")

    # In command mode the notebook hears nothing of these keys, but of others it does.
    page.evaluate("""() => { jupyterapp.shell.currentWidget.content.mode = 'command'; jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
        window.heard = []; document.onkeydown = event => window.heard.push(event.key); }""")
    strip.nth(0).focus()
    last = str(layers - 1)
    for key, there in [("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("End", last), ("ArrowRight", last), ("Home", "0"), ("ArrowLeft", "0"),
                       ("End", last)]:
        page.keyboard.press(key)
        assert focused() == reached() == there, key
    assert pressed() == "0"                                  # moving is not picking
    page.keyboard.press("Enter")
    picked(last)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    picked(layers - 2)
    assert pressed() == focused() == str(layers - 2)
    assert page.evaluate("window.heard.join()") == "" and page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex") == 0
    page.keyboard.press("Control+ArrowLeft")
    assert page.evaluate("window.heard.length") == 2 and focused() == str(layers - 2)
    page.keyboard.press("Tab")                               # one stop, whatever the number of layers
    assert focused() != last

    # Dots are where matplotlib has drawn them, at any size of the picture.
    for width in 1350, 900:
        resize(page, width, 4500)
        image = panel.locator(".avss-layers img")
        for layer in 0, layers // 3, layers - 1:
            dot = f"panels[{number}].picture.ax.transData.transform(({layer}, panels[{number}].scores.values[{layer}]))"
            x, y = (float(ask(page, f"float({dot}[{i}] / panels[{number}].picture.figure.bbox.size[{i}])")) for i in (0, 1))
            box = image.bounding_box()
            page.mouse.click(box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"])
            picked(layer)
            assert pressed() == str(layer)
        page.mouse.click(box["x"] + 5, box["y"] + 50)        # left of the axes there is no layer
        page.wait_for_timeout(200)
        assert pressed() == str(layers - 1)
    resize(page, 1350, 4500)

TOO_WIDE = """panel => { const edge = panel.getBoundingClientRect();
    return [panel, ...panel.querySelectorAll('*')].filter(e => e.offsetParent && !e.closest('.noUi-target')).filter(e =>
        e.getBoundingClientRect().right > edge.right + 1 || e.getBoundingClientRect().left < edge.left - 1 ||
        (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')).map(e => e.outerHTML.slice(0, 120)); }"""

@pytest.mark.parametrize("kind", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1150, 900, 640])
def test_the_ranking_panel_fits_a_narrow_window(depths, width, kind):
    page = depths
    ask(page, "panels[3]._fill_frame(panels[3].measuring)")
    page.wait_for_selector(".avss-panel >> nth=3 >> text=Measuring: the first result comes after the first batch")
    theme(page, kind)
    resize(page, width, 4500)
    try:
        for panel in page.locator(".avss-panel").all():
            page.wait_for_function("""panel => panel.clientWidth > 200
                && panel.getBoundingClientRect().width <= panel.closest('.jp-OutputArea').clientWidth""", arg=panel.element_handle())
            assert not panel.evaluate(TOO_WIDE)
        first = page.locator(".avss-panel").first
        histogram, numbers = (first.locator(f".avss-inside {part}").bounding_box() for part in ("img", "table"))
        below = numbers["y"] >= histogram["y"] + histogram["height"] - 1
        assert below == (width < 1000)                       # side by side where there is room
        check_access(page)
        if folder := os.environ.get("ALL_PICTURES"):
            for i, panel in enumerate(page.locator(".avss-panel").all()): panel.screenshot(path=f"{folder}/narrow_{i}_{width}_{kind}.png")
    finally:
        resize(page, 1350, 4500)
        theme(page, "Light")

def test_stop_keeps_what_was_measured(browser, lab, record_property):
    endless = CELLS[1].replace("texts, progress", "texts * 100, progress")
    page = open_notebook(browser, lab, [CELLS[0], endless], "stop.ipynb")
    run_below(page, wait=False)
    page.wait_for_selector(".avss-panel [role=status] >> text=/^batch \\d\\d/")
    seconds = stop(page)
    record_property("seconds from ■ to the idle kernel", seconds)
    print(f"ranking panel: {seconds:.2f} s from ■ to the idle kernel")
    assert seconds < 5
    assert ask(page, "profile.partial and profile.texts > 0 and panel.profile is not None and panel.scores.order is not None") == "True"
    close_notebook(page)

SETTING = """
from avss_nb import (
    ContrastiveMitigator, EAVSSScorer, Evaluator, HallucinationAnalyzer, HallucinationPanel,
    MitigationPanel, Recipe, TeachingWorld, Throttle, load_teaching_model, one_per_subject
)
model, tokenizer = load_teaching_model()
world = TeachingWorld()
def questions(n, seed): return world.questions("rare", n, seed) + world.questions("unknown", n, seed)
def people(group, n): return one_per_subject(world.questions(group))[:n]
"""

def test_hallucination_panel(browser, lab):
    page = open_notebook(browser, lab, [SETTING + """
asked = people("asked", 200) + people("known", 100) + people("unknown", 300)  # one question about each: enough for layers to stand out
panel = HallucinationPanel(HallucinationAnalyzer(model, tokenizer, batch_size=16, scorer=EAVSSScorer(draws=300)), asked, batch_size=16)
panel.throttle = Throttle(least=0.05, share=0.5)
panel""", "scores = panel.run()"], "hallucination.ipynb")
    run_below(page)
    page.wait_for_selector(".avss-panel [role=status] >> text=/stands? out/")

    # Answers were counted as they came, then the marks moved while the profile grew.
    for said in r"question \d+ of 600: \d+ right, \d+ wrong, 0 abstained, .* left; press ■ to stop", r"batch \d+ of \d+, \d+ faithful .* to stop":
        assert any(re.fullmatch(said, s) for s in statuses(page)), statuses(page)
    assert frames_seen(page) >= 5
    assert page.locator(".avss-panel >> text=✗ wrong").count() == 6  # a page of them
    check_nothing_jumped(page)
    assert "Layers 11, 10 stand out (q < 0.05)" in status(page)
    screenshot(page, "hallucination_panel")

    # ε by keyboard, balance and a layer by mouse and by keyboard.
    before = picture(page)
    page.locator(".avss-eps .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".avss-panel [role=status] >> text=ε = 0.05 RMS")
    by_eps = new_picture(page, before)
    page.get_by_label("compare only within the same kind").click()
    new_picture(page, by_eps)
    pick_layers(page, 3, 5, ",")
    new_picture(page, before, by_eps)
    wait_value(page.locator(".avss-panel select").nth(1), "layer 5")
    assert "log EAVSS of the 12 layers" in remaining(page, lab[1] / "hallucination.ipynb")
    close_notebook(page)

def test_mitigation_panel_and_its_stop(browser, lab, record_property):
    page = open_notebook(browser, lab, [SETTING + """
recipe = Recipe(steps=1000, every=10, batch_size=8, text_batch=2, learning_rate=2e-3)
panel = MitigationPanel(ContrastiveMitigator(model, tokenizer, [10, 11], recipe), questions(60, 2))
panel.throttle = Throttle(least=0.05, share=0.3)
panel""", """
answers = Evaluator(model, tokenizer).answer(questions(100, 0))
mitigation = panel.run(answers, world.texts(40), questions(10, 1))"""], "mitigation.ipynb")
    run_below(page, wait=False)
    seen = r"^training step ([89]\d|\d{3,}) of 1000: loss .*, reliability .* on the development questions, about .* left; press ■ to stop$"
    page.wait_for_function("seen => [...window.statuses].some(s => s.match(seen)) && window.frames_seen.size >= 5", arg=seen)
    seconds = stop(page)
    record_property("seconds from ■ to the idle kernel", seconds)
    print(f"mitigation panel: {seconds:.2f} s from ■ to the idle kernel")
    assert status(page).startswith("Stopped early. Layers 10, 11 have the weights of step")
    assert "The 120 test questions are not asked yet: press the button, or call ask()" in status(page) and page.locator(".avss-panel img").count() == 1
    ask(page, "len(panel.ask())")
    page.wait_for_selector(".avss-panel [role=status] >> text=On 120 test questions: right")
    assert page.locator(".avss-panel img").count() == 2 and page.locator(".avss-panel tr >> text=hallucination rate").count() == 1
    right, made_up = (ask(page, f"float(panel.compare().loc['{name}', 'change'])") for name in ("right", "hallucination rate"))
    assert float(right) > 0 > float(made_up), "the training has changed nothing"
    screenshot(page, "mitigation_panel")
    assert "On 120 test questions: right" in remaining(page, lab[1] / "mitigation.ipynb")
    close_notebook(page)

def test_training_panel(browser, lab):
    page = open_notebook(browser, lab, ["""
import tempfile, torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from avss_nb import AVSSCallback, Throttle, TrainingPanel
torch.set_num_threads(1)
rows = [[(start + i * step) % 64 for i in range(16)] for start in range(64) for step in range(1, 9)]
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4))
args = TrainingArguments(tempfile.mkdtemp(), max_steps=120, per_device_train_batch_size=16, learning_rate=2e-3, logging_steps=5,
                         save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True)
trainer = Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row} for row in rows])
trainer.remove_callback(PrinterCallback)
panel = TrainingPanel(AVSSCallback(rows[:64], every=10))
panel.throttle = Throttle(least=0.02, share=0.5)
panel""", "history = panel.run(trainer)"], "training.ipynb")
    run_below(page)
    page.wait_for_selector(".avss-panel [role=status] >> text=Measured 13 times up to step 120")
    assert frames_seen(page) >= 5
    check_nothing_jumped(page)
    assert any(re.fullmatch(r"training step \d+ of 120: loss .*, about \d+ s left; press ■ to stop", s) for s in statuses(page))
    buttons = page.locator(".avss-panel .widget-toggle-button")
    buttons.nth(1).click()
    page.wait_for_selector(".avss-panel img[alt*='change in variance']")
    buttons.nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".avss-panel img[alt*='change in sparsity']")
    buttons.nth(0).click()
    page.wait_for_selector(".avss-panel img[alt*='change in score']")
    screenshot(page, "training_panel")
    assert "change in score of 6 layers" in remaining(page, lab[1] / "training.ipynb")
    close_notebook(page)

EIGHTY = ["""
import ipywidgets, torch
from transformers import LlamaConfig, LlamaForCausalLM
from avss_nb import LayerProfiler, LayerRankingPanel
from avss_nb.panels.picture import CELLS
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=80, num_attention_heads=4))
profile = LayerProfiler(model, batch_size=4).profile([[*range(1, 40)]] * 16, lambda progress: None)
first, second = LayerRankingPanel(profile=profile), LayerRankingPanel(profile=profile)
display(first, second)""", """
again = LayerRankingPanel(layers=4)
again"""]

@pytest.mark.soak(only=True)
def test_two_panels_of_eighty_layers_and_a_cell_that_runs_again(browser, lab):
    page = open_notebook(browser, lab, EIGHTY, "eighty.ipynb", height=3000)
    run_all(page)
    page.wait_for_selector(".avss-panel >> nth=2")

    # Two panels side by side: what is done to one does not touch the other. All 80 layers have a button that can be pressed.
    before, words = picture(page, 0), status(page, 0)
    strip = page.locator(".avss-panel").nth(1).locator(".avss-strip button")
    assert strip.count() == 80
    strip.nth(79).click()
    page.wait_for_selector(".avss-panel >> nth=1 >> img[alt*='of layer 79;']")
    new_picture(page, before, panel=1)
    assert picture(page, 0) == before and status(page, 0) == words
    panel, last = (box.bounding_box() for box in (page.locator(".avss-panel").nth(1), strip.nth(79)))
    assert last["width"] >= 24 and last["x"] + last["width"] <= panel["x"] + panel["width"]
    screenshot(page, "eighty_layers", 1)

    # A cell that runs again replaces its panel, in the page and in the kernel; those of the other cell stay.
    counts = "len(ipywidgets.widget._instances), len(CELLS.panels)"
    run_cell(page, 1)
    known = ask(page, counts)
    run_cell(page, 1, 25)
    assert ask(page, counts) == known and known.endswith(", 3)")
    assert page.locator(".avss-panel").count() == 3
    page.locator(".avss-panel").nth(0).locator(".avss-strip button").nth(5).click()
    page.wait_for_selector(".avss-panel >> nth=0 >> img[alt*='of layer 5;']")

    # A closed panel leaves its picture to a notebook that is trusted, as it was run here, and whose kernel is gone.
    ask(page, "first.close(), second.close()")
    page.wait_for_function("[...document.querySelectorAll('.avss-kept img')].filter(i => i.offsetHeight > 100).length === 2")
    save(page)
    close_notebook(page)
    page = new_page(browser)
    page.goto(lab[0].format("eighty.ipynb"))
    page.wait_for_function("[...document.querySelectorAll('.avss-kept img')].filter(i => i.naturalWidth === 1520 && i.offsetHeight > 100).length >= 2")
    assert page.evaluate("jupyterapp.shell.currentWidget.content.widgets[0].model.trusted")
    close_notebook(page)

@pytest.mark.soak(only=True)
def test_voila_serves_a_panel(browser, tmp_path):
    pytest.importorskip("voila", reason="needs voila: pip install -e '.[dev]'")
    write_notebook(tmp_path / "app.ipynb", EIGHTY[:1])
    server = serve(tmp_path, "voila", "app.ipynb", "--Voila.ip=127.0.0.1", ready="/api")
    try:
        page = new_page(browser)
        page.route(re.compile("^https:"), lambda route: route.abort())  # Voilà's own page asks for an icon font; panels need none
        page.goto(next(server))
        page.wait_for_selector(".avss-panel >> nth=1")
        page.locator(".avss-panel").nth(1).locator(".avss-strip button").nth(7).click()
        page.wait_for_selector(".avss-panel >> nth=1 >> img[alt*='of layer 7;']")
        check_access(page)
        page.close()
    finally: server.close()

@pytest.mark.soak(only=True)
def test_notebook_7_shows_a_live_panel(browser, tmp_path):
    pytest.importorskip("notebook", reason="needs notebook: pip install -e '.[dev]'")
    server = jupyter(tmp_path, "notebook", "JupyterNotebookApp", "/notebooks/{}?token=t")
    try:
        page = open_notebook(browser, next(server), CELLS[:2])
        assert page.evaluate("jupyterapp.name") == "Jupyter Notebook"
        run_below(page)
        page.wait_for_selector(".avss-panel [role=status] >> text=Least important")
        assert frames_seen(page) >= 5
        pick_layers(page, 7, 3, ";")
        check_access(page)
        check_nothing_jumped(page)
        close_notebook(page)
    finally: server.close()
