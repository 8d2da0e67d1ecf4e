"""Every panel at two widths, in both themes, for models of 12, 30 and 80 layers: nothing is cut off, nothing overflows.

`SOAK=1 WRITE_PICTURES=1 pytest tests/test_browser_pictures.py` writes the pictures: the selection of nbs/panels.md to nbs/images/panels, all of them to the folder
that ALL_PICTURES names."""
import io
import os
from pathlib import Path
import pytest
from PIL import Image
from browsing import (ROOT, browser, close_notebook, lab, needs_browser, open_notebook, resize, run_all,  # noqa: F401
                      theme)

pytestmark = needs_browser()

WIDTHS, THEMES, DEPTHS = (1280, 900), ("Light", "Dark"), (12, 30, 80)
SHOWN = {  # of the page: panel, layers → width
    ("ranking", 12): 1280, ("ranking", 30): 1280, ("ranking", 80): 900, ("pruning", 12): 1280, ("pruning", 80): 900,
    ("hallucination", 12): 1280, ("hallucination", 80): 900, ("mitigation", 12): 1280, ("training", 30): 1280, ("lab", 12): 1280}

CELLS = ["""
import logging, tempfile, torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar
from avss_nb import (
    AVSSCallback, Answers, ContrastiveMitigator, EAVSSScorer, Evaluator, HallucinationAnalyzer, HallucinationPanel, LayerLab,
    LayerProfiler, LayerRankingPanel, LayerScorer, MitigationPanel, PruningPanel, Recipe, TeachingWorld, TrainingPanel,
    load_teaching_model, silent
)
disable_progress_bar()
teacher, tokenizer = load_teaching_model()
def random_llama(seed):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=teacher.config.vocab_size, hidden_size=32, intermediate_size=64, num_attention_heads=4)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=LAYERS, bos_token_id=tokenizer.bos_token_id,
                                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)).eval()
    with torch.no_grad():  # as in trained models: some layers write much, others little, the first one most
        for i, block in enumerate(model.model.layers):
            for p in (block.mlp.down_proj.weight, block.self_attn.o_proj.weight): p.mul_(8 * torch.rand(1) + 1 + 30 * (i == 0))
    return model
model = teacher if LAYERS == 12 else random_llama(0)
world = TeachingWorld()
texts = world.texts(60)
questions = world.questions("known", 40) + world.questions("unknown", 40)
if LAYERS == 12: answers = Evaluator(model, tokenizer).answer(questions, progress=silent)
else:  # a random model knows nothing: give it answers, right and wrong ones
    right = [i % 2 == 0 for i in range(len(questions))]
    words = [q.answers[0] if ok and q.answers else "nobody" for q, ok in zip(questions, right)]
    answers = Answers.given(questions, words, right, [[-0.1 - 0.02 * i] for i in range(len(questions))])
profile = LayerProfiler(model, tokenizer, batch_size=8).profile(texts, progress=silent)
scores = LayerScorer().score(profile)
ranking = LayerRankingPanel(profile=profile)
ranking.layer = LAYERS - 2
ranking""", """
def evaluate(): return Evaluator(model, tokenizer).evaluate(questions[:20], texts[:10], progress=silent)
pruning = PruningPanel(model, tokenizer, scores, evaluate)
pruning.preview()
pruning.layer = LAYERS // 2
pruning""", """
scorer = EAVSSScorer(draws=99, halves=2, probe=LAYERS == 12)
analyzer = HallucinationAnalyzer(model, tokenizer, batch_size=16, scorer=scorer)
hallucination = HallucinationPanel(analyzer)
hallucination.run(answers=answers)
hallucination""", """
chosen = [LAYERS - 2, LAYERS - 1]
mitigator = ContrastiveMitigator(model, tokenizer, chosen, Recipe(steps=16, every=4, batch_size=8, text_batch=2))
mitigation = MitigationPanel(mitigator, Evaluator(model, tokenizer).answer(questions[10:70], progress=silent))
mitigation.run(answers, texts[:20], questions[:10])
mitigation.layer = LAYERS - 1
mitigation""", """
rows = [[(start + i * step) % 59 + 5 for i in range(16)] for start in range(64) for step in range(1, 9)]
student = random_llama(1)
args = TrainingArguments(tempfile.mkdtemp(), max_steps=20, per_device_train_batch_size=8, learning_rate=2e-3, logging_steps=2,
                         save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True)
trainer = Trainer(student, args, train_dataset=[{"input_ids": row, "labels": row} for row in rows])
trainer.remove_callback(PrinterCallback)
training = TrainingPanel(AVSSCallback(rows[:16], every=2))
training.run(trainer)
training""", """
here = LayerLab(model, tokenizer, texts, questions, eavss=scorer)
here.profile()
here.hallucinations(answers)
here.prune([LAYERS // 2])
here.layer = LAYERS // 2
here.tabs.selected_index = 0
here"""]
PANELS = "ranking", "pruning", "hallucination", "mitigation", "training", "lab"

OVERFLOWING = """panel => { const edge = panel.getBoundingClientRect().right + 1;
    return [...panel.querySelectorAll('img, button, input, select, table, [role=status]')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().width && e.getBoundingClientRect().right > edge)
        .map(e => e.outerHTML.slice(0, 120)); }"""

def keep(shown, name: str, panel: str, layers: int, width: int) -> None:
    "Write a picture of 128 colours, if it is asked for."
    if not os.environ.get("WRITE_PICTURES"): return
    png = shown.screenshot()
    folders = [ROOT / "nbs/images/panels"] if SHOWN.get((panel, layers)) == width else []
    folders += [Path(os.environ["ALL_PICTURES"])] if "ALL_PICTURES" in os.environ else []
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)

@pytest.mark.soak(only=True)
@pytest.mark.parametrize("layers", DEPTHS)
def test_panels_fit_their_window(browser, lab, layers):
    page = open_notebook(browser, lab, [f"LAYERS = {layers}\n{CELLS[0]}", *CELLS[1:]], f"pictures{layers}.ipynb", height=9000)
    run_all(page)
    page.wait_for_selector(".avss-lab")
    panels = page.locator(".avss-panel:not(.avss-lab .avss-panel)")
    assert panels.count() == len(PANELS)
    for width in WIDTHS:
        resize(page, width, 9000)
        for kind in THEMES:
            theme(page, kind)
            for name, number in zip(PANELS, range(len(PANELS))):
                panel = panels.nth(number)
                keep(panel, f"{name}_{layers}_{width}_{kind.lower()}", name, layers, width)
                assert not panel.evaluate(OVERFLOWING), (name, width)
            strip = panels.nth(0).locator(".avss-strip")
            picked, box = strip.locator(".mod-active").bounding_box(), panels.nth(0).bounding_box()
            assert box["x"] <= picked["x"] and picked["x"] + picked["width"] <= box["x"] + box["width"]
    close_notebook(page)
