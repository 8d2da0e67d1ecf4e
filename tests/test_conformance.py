"""Every architecture of architectures.py is found, profiled, skipped and cut exactly, or refused for the expected reason.

`SOAK=1 WRITE_TABLE=1 pytest tests/test_conformance.py` writes the table nbs/architectures.md again.
"""
import json
import os
import random
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from avss_nb import (
    Blocks, Evaluator, InputError, LayerProfiler, LayerPruner, Question, silent, variance
)
from avss_nb.model import surgery
from avss_nb.model.blocks import find_sublayer
from avss_nb.model.passes import WholePasses, open_passes
from conftest import SOAK
from architectures import CUTS, EXTRA, REGISTRY, SIZES, VOCABULARY, known, made
from fresh_process import difference, outputs, verdict

TABLE = Path(__file__).parent.parent / "nbs/architectures.md"
TOKENS = 40  # in a text; the windows of the models are 8
TOLERANCE = 1e-4
ALWAYS = ("middle pair", "every other")  # the other cuts, where they should be exact: make soak

# --- what the test knows by itself: texts, skipping, and judging in another process

def text(model, rows=2):
    "A batch of random tokens (and of noise, for a model that hears)."
    ids = torch.randint(3, VOCABULARY, (rows, TOKENS), generator=torch.Generator().manual_seed(1))
    if model.main_input_name == "input_features":
        sound = torch.rand(rows, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        return {"input_features": sound, "decoder_input_ids": ids}
    both = {"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | both

@contextmanager
def by_hand(blocks, layers):
    "Blocks that hand on their input, without the package's own hooks."
    def hook(_, args, kwargs, out):
        x = args[0] if args else kwargs["hidden_states"]
        return type(out)((x, *out[1:])) if isinstance(out, (tuple, list)) else x
    handles = [blocks[i].register_forward_hook(hook, with_kwargs=True) for i in layers]
    try: yield
    finally:
        for handle in handles: handle.remove()

@cache
def process():
    "The other process; it imports transformers once and judges every model."
    script = Path(__file__).with_name("fresh_process.py")
    return subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

@pytest.fixture(scope="module", autouse=True)
def _one_process():
    threads, level = torch.get_num_threads(), tf.logging.get_verbosity()
    torch.set_num_threads(1); tf.logging.set_verbosity_error(); tf.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads); tf.logging.set_verbosity(level); tf.logging.enable_progress_bar()
    if process.cache_info().currsize: process().stdin.close(); process().wait(); process.cache_clear()

def faults(model, small, batch, reference, folder):
    "What is wrong with a smaller model, in memory and after a reload in the other process: nothing, one hopes."
    small.save_pretrained(folder)
    save_file({f"batch.{k}": v.contiguous() for k, v in batch.items()}
              | {f"output.{k}": v.contiguous() for k, v in reference.items()}, f"{folder}/reference.safetensors")
    process().stdin.write(json.dumps({"folder": str(folder), "name": type(small).__name__}) + "\n"); process().stdin.flush()
    here = verdict(small, batch, reference)
    answer = json.loads(process().stdout.readline())
    there, found = answer["answer"], [] if not answer["package"] else ["the other process knows the package"]
    if isinstance(there, str): return [f"reloading: {there}"]
    if there["keys"]: found.append(f"reloading: {there['keys']}")
    for place, facts in ("in memory", here), ("reloaded", there):
        wrong = {what: value for what, value in facts.items() if what != "keys" and value is not None and not small_number(value)}
        if "loop" in wrong and not small_number(intact_loop(model)): del wrong["loop"]  # not even the original can be read so
        found += [f"{place}, {what}: {value}" for what, value in wrong.items()]
    return found

def small_number(value): return isinstance(value, float) and value <= TOLERANCE

@cache
def intact_loop(model): return verdict(model, text(model), outputs(model, text(model)))["loop"]

# --- the suite

def profile(pruner):
    "Statistics of texts of different length at all sites that are found, held against those of a capture by hand, text by text."
    model, blocks, lengths = pruner.model, pruner.blocks, (TOKENS, 25, 12)
    sites = ["output", "update", "relative_update", *found_sites(blocks)]
    ids = torch.randint(3, VOCABULARY, (3, TOKENS), generator=torch.Generator().manual_seed(2))
    texts = [row[:n].tolist() for row, n in zip(ids, lengths)]
    told = LayerProfiler(model, sites=sites, stack=pruner.stack).profile(texts, progress=silent).to_frame()
    seen, handles = {}, []
    def hook(layer, part):
        def see(_, args, kwargs, out):
            out = out[0] if isinstance(out, (tuple, list)) else out
            seen.setdefault((part, layer), []).append((args[0] if args else kwargs.get("hidden_states"), out.clone()))
        return see
    for layer, block in enumerate(blocks.modules):
        for part, module in {"block": block, **{site: find_sublayer(block, site) for site in sites[3:]}}.items():
            handles.append(module.register_forward_hook(hook(layer, part), with_kwargs=True))
    try:
        for row in texts:
            batch = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
            outputs(model, batch | ({f"decoder_{name}": value for name, value in batch.items()} if model.config.is_encoder_decoder else {}))
    finally:
        for handle in handles: handle.remove()
    assert all(len(calls) == 3 for calls in seen.values()), "a module runs more than once a text"
    def real(parts): return torch.cat([a.reshape(n, -1) for a, n in zip(parts, lengths)]).double()
    for layer in range(len(blocks)):
        x, y = map(real, zip(*seen["block", layer]))
        states = {"output": y, "update": y - x, "relative_update": (y - x) / x.square().mean(-1, keepdim=True).sqrt()}
        for site, a in (states | {site: real(y for _, y in seen[site, layer]) for site in sites[3:]}).items():
            row = told.query("site == @site and layer == @layer").iloc[0]
            assert row["variance"] == pytest.approx(a.var(unbiased=False).item(), rel=1e-3)
            assert row["max |a|"] == pytest.approx(a.abs().max().item(), rel=1e-4)
    return "yes"

def found_sites(blocks):
    "Which of the two sub-layers every block has under a known name."
    def has(site):
        try: return bool([find_sublayer(block, site) for block in blocks.modules])
        except InputError: return False
    return [site for site in ("attention", "mlp") if has(site)]

def attempt(step, *args):
    "A step's result, or the reason why it is refused; any other exception is an error of the package."
    try: return step(*args)
    except InputError as refusal: return f"refused: {str(refusal).removeprefix('refused: ')}"

@cache
def results(name, folder):
    "What every step says about an architecture: a row of the table."
    a, model = REGISTRY[name], made(name)
    row = {"class": type(model).__name__}
    pruner = attempt(LayerPruner, model, None, a.stack)
    if isinstance(pruner, str): return row | {"blocks": pruner}
    pruner.stack, batch, blocks = a.stack, text(model), pruner.blocks
    intact = outputs(model, batch)
    row |= {"blocks": blocks.path, "sites": found_sites(blocks), "profile": attempt(profile, pruner)}
    for layer in range(len(blocks)):  # else the comparisons below would prove little
        with by_hand(blocks.modules, [layer]): change = difference(outputs(model, batch), intact)
        assert change > 30 * TOLERANCE, f"block {layer} of {name} hardly matters"
    for cut, layers in cuts(blocks).items():
        if not (SOAK or cut in ALWAYS or cut in a.refused): continue
        with by_hand(blocks.modules, layers): reference = outputs(model, batch)
        plan = pruner.remove(layers)
        with plan.preview(): assert difference(outputs(model, batch), reference) == 0
        pruned = attempt(plan.apply)
        if isinstance(pruned, str): row[cut] = pruned
        else:
            wrong = faults(model, pruned.model, batch, reference, folder)
            row[cut] = f"WRONG: {wrong}" if wrong else "exact"
    assert difference(outputs(model, batch), intact) == 0  # the original is as it was
    return row | {"preview": "exact"}

def cuts(blocks):
    "The four cuts; the shorter stacks have their own middle and end."
    n = len(blocks)
    return dict(zip(CUTS, ([n // 2 - 1, n // 2], [0], [n - 1], [*range(1, n, 2)])))

@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("conformance")

@pytest.mark.parametrize("name", REGISTRY)
def test_architecture(name, folder):
    row, refused = results(name, folder), REGISTRY[name].refused
    told = {step: result for step, result in row.items() if isinstance(result, str) and result.startswith(("refused", "WRONG"))}
    assert told.keys() == refused.keys(), told
    for step, reason in told.items(): assert re.search(refused[step], reason), reason

@pytest.mark.parametrize("name", REGISTRY)
def test_sublayers_are_what_is_added_to_the_stream(name):
    "Without a sub-layer the block still hands on its input: a module that adds the stream itself would be no sub-layer."
    try: blocks = Blocks(made(name), REGISTRY[name].stack)
    except InputError: return
    if blocks.shape[:2] != (1, 6): return
    def zero(_, args, out):
        return type(out)((torch.zeros_like(out[0]), *out[1:])) if isinstance(out, (tuple, list)) else torch.zeros_like(out)
    def states(layer):
        seen = []
        with blocks.watch(lambda i, x, y: seen.append(y[0].clone())): outputs(made(name), text(made(name)))
        return seen[layer]
    for site in found_sites(blocks):
        for layer in range(len(blocks)):
            intact, handle = states(layer), find_sublayer(blocks[layer], site).register_forward_hook(zero)
            try: without = states(layer)
            finally: handle.remove()
            assert difference({"y": without}, {"y": intact}) > TOLERANCE, f"{site} of block {layer} does nothing"
            assert (without - without[:1]).abs().max() > .01 * without.abs().max(), f"{site} of block {layer} holds the stream"

def refused_for(name, *steps): return any(step in REGISTRY[name].refused for step in steps)

@pytest.mark.parametrize("name", [name for name in REGISTRY if not refused_for(name, "blocks", "profile")])
def test_statistics_do_not_depend_on_the_batch(name):
    "Texts one by one and in batches, whether the architecture heeds the mask of the padding or not."
    g = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, VOCABULARY, (n,), generator=g).tolist() for n in (5, 31, 2, 17, 31, 8, 23, 5)]
    alone, together = (LayerProfiler(made(name), batch_size=n, stack=REGISTRY[name].stack).profile(rows, silent) for n in (1, 8))
    for site, m in alone.sites.items():
        other, m = together.site(site).total(), m.total()
        assert other.tokens.tolist() == m.tokens.tolist()
        torch.testing.assert_close(variance(other), variance(m), rtol=1e-4, atol=0)
        torch.testing.assert_close(other.token_rms, m.token_rms, rtol=1e-4, atol=0)

@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].head == "CausalLM" and not refused_for(name, "blocks")])
def test_answers_do_not_depend_on_the_batch(name):
    "Whether the architecture skips the padding before a prompt or not."
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    plain = Tokenizer(WordLevel(vocabulary, "w0"))
    plain.pre_tokenizer = WhitespaceSplit()
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="w0")
    g = torch.Generator().manual_seed(0)
    prompts = [" ".join(f"w{i}" for i in torch.randint(3, VOCABULARY, (n,), generator=g)) for n in (5, 31, 2, 17, 8)]
    questions = [Question(prompt, ("w7",), prompt=prompt) for prompt in prompts]
    alone, together = (Evaluator(made(name), tokenizer, batch_size=n, max_new_tokens=3).answer(questions) for n in (1, 8))
    assert together.texts == alone.texts and together.confidences == pytest.approx(alone.confidences, rel=1e-3)

def asked(name):
    "A batch that carries what it asks for: its own tokens."
    batch = text(made(name))
    return batch | {"labels": batch.get("decoder_input_ids", batch["input_ids"])}

@pytest.mark.parametrize("name", [name for name in REGISTRY if not refused_for(name, "blocks", "profile")])
@torch.no_grad()
def test_losses_without_blocks_are_those_of_whole_passes(name):
    "Whether the model can be resumed in the middle or not."
    batch, draw = asked(name), random.Random(name)
    blocks = Blocks(made(name), REGISTRY[name].stack)
    choices = [draw.sample(range(len(blocks)), draw.randint(0, len(blocks) - 1)) for _ in range(5)]
    run, = open_passes(blocks, [batch])
    found, wanted = run.losses_without(choices), WholePasses(blocks, batch).losses_without(choices)
    assert [*found] == [*wanted]
    for choice in wanted: torch.testing.assert_close(found[choice][0], wanted[choice][0], rtol=1e-5, atol=1e-6)
    assert not any("forward" in vars(block) or block._forward_hooks for block in blocks.modules)

def test_the_registry_has_no_typing_errors():
    for a in REGISTRY.values():
        assert a.fields.keys() <= known(a.type or a.name) | EXTRA, (a.name, a.fields.keys() - known(a.type or a.name))
        assert a.refused.keys() <= {"blocks", "profile", *CUTS}, a.name

# --- the table

HEADER = """# Architectures

Made by the tests: every row is a tiny random model that was found, profiled, previewed and cut. **Exact** means: the smaller
model, also after saving and loading in another process, computes what the original computes with those blocks skipped (within
1e-4), on a text longer than its windows; no key is missing or left over; and generation with the cache equals that without.
Everything else is **refused**, with the reason; the original model is never changed. Tested with transformers {version}.

- *blocks*: where the list of blocks was found. *sites*: beside `output`, `update` and `relative_update`, which of the sub-layers
  are known by name. *profile*: statistics equal those of an independent capture. *preview*: blocks skipped in place.
- *middle*, *first*, *last*, *every other*: blocks removed for good, of six (four in the decoder of an encoder–decoder model).

A new architecture is a line in `tests/architectures.py`; `SOAK=1 WRITE_TABLE=1 pytest tests/test_conformance.py` writes this page.

**{models} models of {types} model types: {exact} of {tried} cuts exact, in {pruned} models; {refused} refused; none silently wrong.**

| architecture | class | blocks | sites | profile | preview | middle | first | last | every other | reason of refusal |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

def table(rows):
    "The rows as Markdown."
    def mark(row, step): return "refused" if row.get(step, "").startswith("refused") else row.get(step, "–")
    def reasons(row):
        told = {}
        for step, result in row.items():
            if isinstance(result, str) and result.startswith("refused"):
                plain = re.sub(r" \(relative error [^)]*\)|; the original is untouched", "", result.removeprefix("refused: "))
                told.setdefault(re.sub(r"(\.\d{3})\d+", r"\1", plain).replace("|", "/"), []).append(step)
        return "; ".join(f"{', '.join(steps)}: {reason}" for reason, steps in told.items())
    lines = []
    for name, row in rows.items():
        blocks = "refused" if row["blocks"].startswith("refused") else f"`{row['blocks']}`"
        cells = [name, f"`{row['class']}`", blocks, ", ".join(row.get("sites", [])) or "–",
                 *(mark(row, step) for step in ("profile", "preview", *CUTS)), reasons(row)]
        lines.append(f"| {' | '.join(cells)} |\n")
    cut = [row[step] for row in rows.values() for step in CUTS if step in row]
    counts = dict(models=len(rows), types=len({REGISTRY[name].type or name for name in rows}), tried=len(cut),
                  exact=cut.count("exact"), pruned=sum("exact" in [row.get(step) for step in CUTS] for row in rows.values()),
                  refused=sum(result.startswith("refused") for result in cut), version=tf.__version__)
    return HEADER.format(**counts) + "".join(lines)

@pytest.mark.soak(only=True)
def test_the_table_is_up_to_date(folder):
    rows = {name: results(name, folder) for name in REGISTRY}
    pruned = [name for name, row in rows.items() if "exact" in row.values() and any(row.get(cut) == "exact" for cut in CUTS)]
    assert len(rows) >= 55 and len(pruned) >= 45 and "WRONG" not in str(rows)
    if os.environ.get("WRITE_TABLE"): TABLE.write_text(table(rows), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(rows), "run SOAK=1 WRITE_TABLE=1 pytest tests/test_conformance.py"

def test_the_table_has_a_line_for_every_architecture():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:] == [*REGISTRY]
