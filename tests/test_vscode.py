"""VS Code's rules for outputs, restated, since VS Code itself cannot be started here: the order of MIME types in which its
notebook extension picks one (extensions/ipynb, `orderOfMimeTypes`), and the page that shows all outputs of a notebook
(`webviewPreloads`: `.cell_container` > `.output_container` > `.output`, everything placed absolutely)."""
import pytest
from avss_nb import LayerProfiler, LayerRankingPanel, silent
from browsing import browser, needs_browser, new_page  # noqa: F401
from conftest import published
from tiny import tiny

pytestmark = needs_browser()

ORDER = ["application/vnd.", "application/vdom.", "application/geo+json", "application/x-nteract-model-debug+json",
         "text/html", "application/javascript", "image/gif", "text/latex", "text/markdown", "image/png", "image/svg+xml",
         "image/jpeg", "application/json", "text/plain"]
CELL = '<div class="cell_container" id="{}">{}</div>'
OUTPUT = """<div class="output_container" style="position: absolute; overflow: hidden">
    <div class="output" style="position: absolute">{}</div></div>"""

def chosen(data):
    "The MIME type that is shown; a vendor's that is empty comes last."
    def place(mime):
        if mime.startswith(ORDER[0]) and not data[mime]: return len(ORDER)
        return next((i for i, kind in enumerate(ORDER) if mime.startswith(kind)), len(ORDER))
    return min(data, key=place)

@pytest.fixture(scope="module")
def outputs():
    "The two outputs of a cell that shows a panel."
    profile = LayerProfiler(tiny("llama")).profile([[5, 6, 7, 8], [9, 10, 11]], silent)
    return [data for data, _ in published("panel", panel=LayerRankingPanel(profile=profile))]

def test_a_widget_and_a_page_are_chosen(outputs):
    live, kept = outputs
    assert chosen(live) == "application/vnd.jupyter.widget-view+json" and chosen(kept) == "text/html"
    # where the widget is gone nothing is shown twice
    assert chosen(live | {chosen(live): ""}) == "text/html" and "<img" not in live["text/html"]

@pytest.mark.parametrize("alive", [True, False])
def test_the_picture_is_shown_once(browser, outputs, alive):
    "A live panel hides what is kept of it, and nothing else; elsewhere that has its picture with words."
    page, kept = new_page(browser), OUTPUT.format(outputs[1]["text/html"])
    widget = OUTPUT.format('<div class="avss-panel">live</div>' if alive else "")
    alone = CELL.format("second", OUTPUT.format("") + kept)
    page.set_content(f"<body>{CELL.format('first', widget + kept)}{alone}</body>")
    first, second = (page.locator(f"#{cell} .avss-kept") for cell in ("first", "second"))
    assert first.is_visible() == (not alive) and second.is_visible()
    assert "Dot plot of AVSS" in second.locator("img").get_attribute("alt") and second.locator("table").is_visible()
    page.close()
