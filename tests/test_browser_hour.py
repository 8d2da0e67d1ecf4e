"The first hour with a model of one's own, in a real JupyterLab: something happens from the first second, time left is told, one step leads to the next, and the saved notebook shows it."
import os
import re
import pytest
from browsing import (TIMEOUT, browser, close_notebook, lab, needs_browser, new_page, open_notebook, resize,  # noqa: F401
                      run_cell, save, wait_idle)
from conftest import ROOT, SOAK

pytestmark = needs_browser()

TEACHING = """
from avss_nb import EAVSSScorer, LayerLab, TeachingWorld, load_teaching_model
world = TeachingWorld()
model, tokenizer = load_teaching_model()
questions = world.questions("known", 60) + world.questions("unknown", 60)
here = LayerLab(model, tokenizer, world.texts(1500), questions, eavss=EAVSSScorer(draws=100, probe=False, halves=2), batch_size=16)
here"""
OWN = f"""
import torch
from avss_nb import LayerLab, load_model
torch.set_num_threads(1)
model, tokenizer = load_model({str(ROOT / '_real_models/smollm2')!r}, "float32")
here = LayerLab(model, tokenizer, ["The first chapter of a book on rivers and the towns along them. " * 8] * 16)
here"""
OWN_WITH_QUESTIONS = OWN.replace("] * 16)", """] * 16, [
    {"question": f"What is the capital of {land}?", "answer": [town, f"The capital of {land} is {town}"]}
    for land, town in [
        ("France", "Paris"), ("Germany", "Berlin"), ("Japan", "Tokyo"), ("Russia", "Moscow"), ("Greece", "Athens"),
        ("Egypt", "Cairo"), ("China", "Beijing"), ("Peru", "Lima"), ("Austria", "Vienna"), ("Hungary", "Budapest"),
        ("Italy", "Rome"), ("Portugal", "Lisbon"), ("Chad", "N'Djamena"), ("Nauru", "Yaren"), ("Palau", "Ngerulmud"),
        ("Kiribati", "Tarawa"), ("Benin", "Porto-Novo"), ("Bhutan", "Thimphu")]],
    eavss=EAVSSScorer(draws=100, probe=False, halves=2), batch_size=16, prompt=Prompt("chat"),
    max_new_tokens=9)""").replace(
    "import LayerLab,", "import EAVSSScorer, LayerLab, Prompt,")
LISTEN = """() => { window.heard = []; const all = document.querySelector('.avss-lab');
    const note = () => all.querySelectorAll('[role=status]').forEach(s => {
        const last = window.heard[window.heard.length - 1];
        if (!last || last[1] !== s.textContent) window.heard.push([performance.now() / 1000, s.textContent]); });
    new MutationObserver(note).observe(all, {subtree: true, childList: true, characterData: true}); }"""

def start(page, number=1):
    "Run a cell without waiting for it; the seconds at which the kernel became busy."
    page.evaluate(LISTEN)
    return page.evaluate("""number => new Promise(done => {
        const book = jupyterapp.shell.currentWidget, kernel = book.sessionContext.session.kernel;
        const note = (_, status) => { if (status === 'busy') { kernel.statusChanged.disconnect(note); done(performance.now() / 1000); } };
        kernel.statusChanged.connect(note);
        book.content.activeCellIndex = number;
        jupyterapp.commands.execute('notebook:run-cell'); })""", number)

def check_the_estimates(heard, began, ended):
    """From a fifth of the time on, what is said to be left is at most twice, and at least half, of what was, and a second, for words
    round to seconds. Beside other tests, whose load comes and goes, another tenth of the run; `IDLE=1` does without it."""
    checked, slack = 0, 1 if os.environ.get("IDLE") else 1 + 0.1 * (ended - began)
    for when, words in heard:
        told = re.search(r"about (\d+) s left", words)
        if not told or when < began + 0.2 * (ended - began): continue
        left, checked = ended - when, checked + 1
        assert left / 2 - slack <= int(told[1]) <= 2 * left + slack, (words, round(left, 1), round(ended - began, 1))
    return checked

@pytest.mark.parametrize("which", ["teaching", pytest.param("own", marks=pytest.mark.real)])
def test_the_first_run(browser, lab, which, record_property, real):
    if which == "own": real("smollm2")
    page = open_notebook(browser, lab, [TEACHING if which == "teaching" else OWN, "here.profile()"], f"hour_{which}.ipynb")
    run_cell(page, 0)
    page.wait_for_selector(".avss-lab .avss-next >> text=Rank the layers")
    began = start(page)
    page.wait_for_selector(".avss-lab [role=status] >> text=/Least important/", timeout=300_000)
    wait_idle(page)
    heard = [(when, words) for when, words in page.evaluate("window.heard") if when >= began]
    record_property("first_sign_s", round(heard[0][0] - began, 2))
    assert heard[0][0] - began <= 1, heard[:3]
    ended = next(when for when, words in heard if "Least important" in words)
    assert check_the_estimates(heard, began, ended) >= 1, heard
    close_notebook(page)

@pytest.mark.parametrize("which", ["teaching", pytest.param("own", marks=[pytest.mark.real, pytest.mark.soak])])
def test_one_step_leads_to_the_next_and_stays_in_the_file(browser, lab, which, real):
    if which == "own":
        if not SOAK: pytest.skip("takes minutes: make soak")
        real("smollm2")
    code, name = TEACHING.replace("1500", "60") if which == "teaching" else OWN_WITH_QUESTIONS, f"steps_{which}.ipynb"
    page, patience = open_notebook(browser, lab, [code], name), 600_000 if SOAK else TIMEOUT
    run_cell(page, 0)
    for label in "Rank the layers", "Find layers that hallucinate", "Try without the lowest layers":
        page.wait_for_selector(f".avss-next:not([disabled]) >> text={label}", timeout=patience)
        page.locator(".avss-next").click()
    train = "text=/Train (layers that hallucinate|three layers)/"
    page.wait_for_selector(f".avss-next:not([disabled]) >> {train}", timeout=patience)
    wait_idle(page)
    page.wait_for_timeout(1500)  # the page stores half a second after a change
    save(page)
    close_notebook(page)

    # The same JupyterLab, another kernel: every picture with its description, the tables, and no complaint.
    page = new_page(browser)
    page.goto(lab[0].format(name))
    page.wait_for_function("[...document.querySelectorAll('.avss-kept img[alt]')].filter(i => i.alt && i.offsetHeight > 100).length >= 3")
    words = page.locator(".avss-kept").inner_text()
    assert "Next: lab.mitigate()" in words and page.locator(".avss-kept table").count() >= 2
    assert not any(page.locator("text=Error displaying widget").evaluate_all("all => all.map(e => e.offsetHeight > 0)"))
    close_notebook(page)

def test_nothing_is_cut_off_in_a_narrow_window(browser, lab):
    page = open_notebook(browser, lab, [TEACHING.replace("1500", "60"), "here.run()"], "narrow.ipynb")
    for number in range(2): run_cell(page, number)
    page.wait_for_selector(".avss-lab [role=status] >> text=/Next: lab.prune/")
    for width in 1280, 900:
        resize(page, width, 2400)
        for tab in page.locator(".avss-lab .lm-TabBar-tab").all():
            tab.click()
            wide = page.evaluate("""() => { const panel = document.querySelector('.avss-lab').getBoundingClientRect();
                return [...document.querySelectorAll('.avss-lab *')].filter(e => e.offsetWidth && e.getBoundingClientRect().right > panel.right + 2)
                    .map(e => [e.className, Math.round(e.getBoundingClientRect().right - panel.right)]).slice(0, 5); }""")
            assert not wide, (width, tab.inner_text(), wide)
            view = page.evaluate("document.querySelector('.avss-lab').closest('.jp-OutputArea-output').clientWidth")
            assert page.evaluate("document.querySelector('.avss-lab').offsetWidth") <= view + 2, (width, view)
    close_notebook(page)
