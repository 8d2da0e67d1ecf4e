"Healing: the loss, the order of the data, resuming, the control, what is saved, and what is refused."
import importlib.util
import itertools
import json
import math
import random
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
import transformers as tf
from avss_nb import (
    Evaluator, HealingRecipe, InputError, LayerHealer, LayerPruner, Measured, Question, silent
)
from avss_nb.prune.healing import HEALING_MARK, healing_terms, pack_windows
from avss_nb.prune.recovery import share_kept
from killing import run_with_kills
from conftest import SOAK
from tiny import CAUSAL, CONFIGS, VOCABULARY, tiny

RECIPE = dict(steps=8, batch_size=4, window=16, every=2, checkpoint_every=4)

def rows(n=50, length=40, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (n, length), generator=generator).tolist()

def cut(name="llama", removed=(1,), dtype=torch.float32): return LayerPruner(tiny(name, dtype=dtype)).remove(removed).apply(verify=False)

def with_dropout():
    torch.manual_seed(3)
    model = tf.GPT2LMHeadModel(CONFIGS["gpt2"]()).eval()  # its configuration has dropout 0.1
    return LayerPruner(model).remove([2]).apply(verify=False)

def heal(pruned, texts=None, progress=silent, checkpoint=None, held_out=None, control=False, **recipe):
    healer = LayerHealer(pruned, recipe=HealingRecipe(**RECIPE | recipe))
    return healer.heal(rows() if texts is None else texts, held_out, control=control, progress=progress, checkpoint=checkpoint)

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

def state(model): return {name: t.clone() for name, t in model.state_dict().items()}

def stop_at(step, which="healed"):
    def hear(progress):
        if progress.info["model"] == which and progress.done == step: raise KeyboardInterrupt
    return hear

# --- packing ------------------------------------------------------------------------------------------------------------

def test_windows_are_the_texts_end_to_end(teaching):
    tokenizer = teaching[1]
    texts = ["Ada works as a judge.", "", "Emil was born in Oslo."]
    stream = [i for t in texts if t for i in [*tokenizer(t)["input_ids"], tokenizer.eos_token_id]]
    found = pack_windows(texts, tokenizer, 5, bos=False)
    assert found.flatten().tolist() == stream[:len(stream) // 5 * 5] and found.dtype == torch.int32
    begun = pack_windows(texts, tokenizer, 5)
    assert (begin := tokenizer.bos_token_id) == stream[0] and (begun[:, 0] == begin).all() and not (begun[:, 1] == begin).any()
    read, kept = ([t for t in tokens if t != begin] for tokens in (stream, begun.flatten().tolist()))
    assert kept == read[:len(kept)]  # but for the BOS before each window, nothing is lost and nothing doubled
    assert pack_windows([stream, [7] * 9], None, 5).flatten().tolist() == (stream + [7] * 9)[:(len(stream) + 9) // 5 * 5]

def test_an_endless_stream_is_read_only_as_far_as_needed():
    read = itertools.count()
    stream = ([next(read) % 9 + 1] * 10 for _ in itertools.count())
    assert pack_windows(stream, None, 16, count=7, chunk=4).shape == (7, 16)
    assert next(read) == 12                                  # 112 tokens are needed: three chunks of four texts of ten

# --- the loss -----------------------------------------------------------------------------------------------------------

def test_terms_equal_numpy():
    logits, before = torch.randn(2, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(1))
    def logp(x):
        x = x.double().numpy()
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    a, b = logp(logits)[:, :-1], logp(before)[:, :-1]
    next_token = -np.take_along_axis(a, ids[:, 1:, None].numpy(), -1).sum()
    divergence = (np.exp(b) * (b - a)).sum()
    assert healing_terms(logits, ids, before).tolist() == pytest.approx([next_token, divergence], rel=1e-5)
    assert healing_terms(logits, ids)[1] == 0

@pytest.mark.parametrize("weight", [0., 0.3, 1.])
def test_the_first_loss_is_the_promised_mixture(weight):
    pruned, texts = cut(), rows(4, 16)                       # four windows, all in the first step
    first = heal(pruned, texts, distill=weight, steps=2).history[0]
    ids = torch.tensor(texts)
    with torch.no_grad(): after, before = (m(input_ids=ids).logits[:, :-1].log_softmax(-1) for m in (pruned.model, pruned.plan.blocks.model))
    next_token = torch.nn.functional.nll_loss(after.flatten(0, 1), ids[:, 1:].flatten())
    divergence = (before.exp() * (before - after)).sum(-1).mean()
    assert first["step"] == 1 and first["loss"] == pytest.approx(float((1 - weight) * next_token + weight * divergence), rel=1e-4)
    assert first["next_token"] == pytest.approx(float(next_token), rel=1e-4)
    assert first.get("distillation", 0) == pytest.approx(float(divergence) * bool(weight), rel=1e-3)

def test_training_equals_a_loop_by_hand():
    "AdamW, clipping, warm-up and cosine, and the decay that spares norms, written down independently."
    pruned, texts = cut(), rows(24, 16)
    found = heal(pruned, texts, steps=6, warmup=0.3, clip=0.5, weight_decay=0.2, learning_rate=1e-3)
    model, order = cut().model.train(), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    decays = [p for n, p in model.named_parameters() if "norm" not in n]
    spared = [p for n, p in model.named_parameters() if "norm" in n]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.2}, {"params": spared, "weight_decay": 0.}], lr=1e-3, betas=(0.9, 0.95))
    for step in range(6):
        rate = step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 4))
        for group in optimizer.param_groups: group["lr"] = 1e-3 * rate
        ids = torch.tensor(texts)[order[4 * step:4 * step + 4]]
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step(); optimizer.zero_grad()
    for (name, a), b in zip(found.model.named_parameters(), model.parameters()):
        assert torch.allclose(a, b, atol=2e-6), name
    assert found.history[-1]["step"] == 6

def test_micro_batches_change_nothing_but_rounding():
    whole, parts = heal(cut(), distill=0.5), heal(cut(), distill=0.5, micro_batch=1)
    assert max((a - b).abs().max() for a, b in zip(whole.model.parameters(), parts.model.parameters())) < 1e-4
    assert [r["loss"] for r in whole.history] == pytest.approx([r["loss"] for r in parts.history], rel=1e-5)

# --- what stays as it was -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("recipe", [{}, {"lora_rank": 2}, {"lora_rank": 2, "merge": False}, {"distill": 1.}])
def test_given_models_and_randomness_stay_as_they_were(recipe):
    pruned = cut()
    original = pruned.plan.blocks.model.train()              # in training mode, to be given back so
    before, small = state(original), state(pruned.model)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    found = heal(pruned, held_out=rows(3, seed=9), control=True, **recipe)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert all(torch.equal(t, before[n]) for n, t in original.state_dict().items()) and original.training
    assert all(torch.equal(t, small[n]) for n, t in pruned.model.state_dict().items())
    assert all(p.grad is None for m in (original, pruned.model) for p in m.parameters())
    shared = {p.data_ptr() for m in (original, pruned.model) for p in m.parameters()} & {p.data_ptr() for p in found.model.parameters()}
    assert not shared and not found.model.training

def test_half_precision_trains_in_float32_and_goes_back():
    pruned = cut(dtype=torch.float16)
    found = heal(pruned, held_out=rows(3))
    assert {p.dtype for p in found.model.parameters()} == {torch.float16} and all(math.isfinite(r["loss"]) for r in found.history)
    assert [b.dtype for b in found.model.buffers()] == [b.dtype for b in pruned.model.buffers()]
    full = heal(cut(), held_out=rows(3))
    assert found.kept()[0] == pytest.approx(full.kept()[0], abs=0.02)

def test_autocast_leaves_a_plain_model():
    "accelerate wraps `forward`; the healed model must compute in its own precision again, also when it is asked for in mid-training."
    snapshots = []
    found = heal(cut(), precision="bf16", progress=lambda p: snapshots.append(p.partial().model) if p.done == 4 else None)
    ids = torch.tensor(rows(1))
    for model in found.model, snapshots[0]:
        assert "forward" not in vars(model)
        clean = tf.LlamaForCausalLM(model.config).eval()
        clean.load_state_dict(model.state_dict())
        assert torch.equal(clean(ids).logits, model(ids).logits)
    assert not same(found.model, snapshots[0])

@pytest.mark.parametrize("name", CAUSAL)
def test_architectures(name):
    found = heal(cut(name), held_out=rows(5), learning_rate=1e-2, texts=rows(5), steps=12)
    assert found.kept(name="healed")[0] > found.kept(name="pruned")[0] + 0.05  # it learns these texts by heart
    assert same(heal(cut(name), learning_rate=1e-2, texts=rows(5), steps=12).model, found.model)

# --- resuming -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pruned, recipe", [(cut, {"distill": 0.5}), (cut, {"lora_rank": 2}), (cut, {"lora_rank": 2, "merge": False}),
    (cut, {"precision": "bf16"}), (with_dropout, {}), (cut, {"micro_batch": 2})])
def test_resumed_equals_uninterrupted(tmp_path, pruned, recipe):
    whole = heal(pruned(), **recipe)
    stopped = heal(pruned(), progress=stop_at(7), checkpoint=tmp_path / "run", **recipe)
    assert stopped.partial and stopped.step == 7 and "healed" not in stopped.measured
    torch.manual_seed(99)                                    # the state of the session does not matter
    resumed = heal(pruned(), checkpoint=tmp_path / "run", **recipe)
    assert same(resumed.model, whole.model) and resumed.history == whole.history and not resumed.partial
    assert same(heal(pruned(), checkpoint=tmp_path / "run", **recipe).model, whole.model)  # nothing left to do

def test_an_interruption_in_the_control_keeps_the_healed_model(tmp_path):
    whole = heal(cut(), held_out=rows(3), control=True)
    stopped = heal(cut(), held_out=rows(3), control=True, progress=stop_at(8 + 5, "control"), checkpoint=tmp_path / "run")
    assert stopped.partial and same(stopped.model, whole.model) and [*stopped.measured] == ["original", "pruned", "healed"]
    resumed = heal(cut(), held_out=rows(3), control=True, checkpoint=tmp_path / "run")
    assert same(resumed.control, whole.control) and resumed.to_frame().equals(whole.to_frame())

def test_an_interruption_before_the_first_step_is_none_of_ours():
    class Texts(list):
        def __iter__(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): heal(cut(), Texts())

def killed_run(folder):
    torch.set_num_threads(1)
    heal(with_dropout(), checkpoint=Path(folder), steps=120, checkpoint_every=2)

@pytest.mark.soak
def test_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    folder = tmp_path / "run"
    def done(): return max((int(p.name.split("-")[1]) for p in (folder / "healed").glob("checkpoint-*")), default=0)
    run_with_kills(killed_run, (str(folder),), kills=4 if SOAK else 2, done=done, growth=40, longest=0.05)
    assert same(heal(with_dropout(), checkpoint=folder, steps=120, checkpoint_every=2).model, heal(with_dropout(), steps=120, checkpoint_every=2).model)

def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    heal(cut(), progress=stop_at(5), checkpoint=tmp_path / "run")
    (tmp_path / "run/healed/checkpoint-6").mkdir()
    (tmp_path / "run/healed/checkpoint-6/model.safetensors").write_bytes(b"half")
    assert same(heal(cut(), checkpoint=tmp_path / "run").model, heal(cut()).model)
    assert not (tmp_path / "run/healed/checkpoint-6").exists()

@pytest.mark.parametrize("change", [{"texts": rows(seed=2)}, {"seed": 1}, {"steps": 9}, {"distill": 0.1}, {"precision": "bf16"}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    heal(cut(), progress=stop_at(5), checkpoint=tmp_path / "run")
    with pytest.raises(InputError, match="another model, with another recipe or other texts"): heal(cut(), checkpoint=tmp_path / "run", **change)
    with pytest.raises(InputError, match="another model"): heal(cut(removed=(2,)), checkpoint=tmp_path / "run")

def test_foreign_and_damaged_folders_are_refused(tmp_path):
    (tmp_path / "mine/healed").mkdir(parents=True)
    (tmp_path / "mine/healed/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="holds no checkpoints of healing"): heal(cut(), checkpoint=tmp_path / "mine")
    heal(cut(), checkpoint=tmp_path / "run")
    (tmp_path / "run/healed" / HEALING_MARK).write_text("{")
    with pytest.raises(InputError, match="is damaged"): heal(cut(), checkpoint=tmp_path / "run")

# --- adapters -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_adapters_are_on_every_linear_module_of_the_blocks_and_nowhere_else(name):
    from transformers.pytorch_utils import Conv1D
    pruned = cut(name)
    path = LayerPruner(pruned.model).blocks.path
    expected = {n for n, m in pruned.model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and n.startswith(path + ".")}
    apart, merged = heal(pruned, lora_rank=2, merge=False), heal(pruned, lora_rank=2)
    assert set(apart.adapted) == set(merged.adapted) == expected and len(expected) >= 3 * 4
    changed = {n for n, t in merged.model.state_dict().items() if not torch.equal(t, pruned.model.state_dict()[n])}
    assert changed == {f"{n}.weight" for n in expected}
    ids = torch.tensor(rows(1))
    assert torch.allclose(apart.model(ids).logits, merged.model(ids).logits, atol=1e-3)
    assert not any("lora" in n for n, _ in merged.model.named_parameters())

# --- measures and the control -------------------------------------------------------------------------------------------

def test_the_control_is_the_same_training_of_the_whole_model():
    pruned = cut()
    found = heal(pruned, held_out=rows(6, seed=4), control=True)
    alone = LayerHealer(deepcopy(pruned.plan.blocks.model), original=pruned.plan.blocks.model, recipe=HealingRecipe(**RECIPE)).heal(rows(), progress=silent)
    assert same(found.control, alone.model) and found.control_history == alone.history
    assert [*found.to_frame().index] == ["original", "pruned", "healed", "control"]
    assert found.to_frame().blocks.tolist() == [4, 3, 3, 4]

def test_figures_equal_the_evaluator(teaching, world):
    model, tokenizer = teaching
    pruned = LayerPruner(model, tokenizer).remove([3, 7]).apply(verify=False)
    questions, held_out = world.questions("known", 20), world.texts(12, seed=3)
    recipe = HealingRecipe(steps=2, batch_size=2, window=32, every=1, checkpoint_every=1)
    found = LayerHealer(pruned, recipe=recipe, max_new_tokens=8).heal(world.texts(20), held_out, questions, progress=silent)
    for name, m in {"original": model, "pruned": pruned.model, "healed": found.model}.items():
        evaluator = Evaluator(m, tokenizer, max_new_tokens=8)
        perplexity, answers = evaluator.perplexity(held_out, 32), evaluator.answer(questions)
        row = found.to_frame().loc[name]
        assert (row["perplexity"], row["perplexity low"], row["perplexity high"]) == pytest.approx((perplexity.value, perplexity.low, perplexity.high))
        assert row.accuracy == answers.correct.mean()
    base, after = found.measured["original"], found.measured["healed"]
    assert found.kept("answers")[0] == pytest.approx((base.answers.correct & after.answers.correct).sum() / base.answers.correct.sum())
    assert "healed" in found._repr_html_() and found.kept("perplexity", "healed", "pruned")[0] == pytest.approx(
        found.measured["pruned"].perplexity.value / after.perplexity.value)
    with pytest.raises(InputError, match="not one of perplexity, accuracy, answers"): found.kept("bleu")

def test_intervals_cover_as_often_as_they_say():
    "Perplexity kept of texts drawn from a known world, 200 times."
    rng, hits, true = np.random.default_rng(0), 0, math.exp(-0.1)
    for trial in range(200):
        hard, tokens = rng.normal(3, 0.5, 60), np.full(60, 50)
        a, b = (Measured(1, 1, tokens * x, tokens) for x in (hard, hard + 0.1 + rng.normal(0, 0.05, 60)))
        _, low, high = share_kept(a, b, draws=200, seed=trial)
        hits += low <= true <= high
    assert 180 <= hits <= 199

def test_nothing_to_keep_is_not_a_number():
    from avss_nb import Answers
    answers = Answers.judge([Question("a?", ("yes",)), Question("b?", ("yes",))], ["no", "no"], [[-1.], [-1.]])
    value, *_ = share_kept(Measured(1, 1, answers=answers), Measured(1, 1, answers=answers), "answers")
    assert math.isnan(value)
    now = Answers.judge(answers.questions, ["yes", "no"], [[-1.], [-1.]])  # luck where nothing was known: no share either
    assert math.isnan(share_kept(Measured(1, 1, answers=answers), Measured(1, 1, answers=now), "accuracy")[0])

# --- saving -------------------------------------------------------------------------------------------------------------

def test_saved_and_read_in_a_fresh_process(tmp_path, teaching, world):
    model, tokenizer = teaching
    pruned = LayerPruner(model, tokenizer).remove([3, 7]).apply(verify=False)
    recipe = HealingRecipe(steps=2, batch_size=2, window=32, every=1, checkpoint_every=1)
    found = LayerHealer(pruned, recipe=recipe).heal(world.texts(20), world.texts(4, seed=3), progress=silent)
    path = found.save(tmp_path / "healed")
    assert json.loads((path / "pruning.json").read_text()) == json.loads((pruned.save(tmp_path / "pruned") / "pruning.json").read_text())
    notes = json.loads((path / "healing.json").read_text())
    assert notes["recipe"]["steps"] == 2 and notes["history"] == [*found.history] and notes["step"] == 2
    assert notes["figures"]["healed"]["perplexity kept"] == pytest.approx(found.kept()[0])
    code = f"""import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer
model, info = AutoModelForCausalLM.from_pretrained({str(path)!r}, dtype=torch.float32, output_loading_info=True)
assert not any(info.values()), info
ids = AutoTokenizer.from_pretrained({str(path)!r})("Ada works as a judge.", return_tensors="pt")["input_ids"]
print(model.eval()(ids).logits.double().sum().item())"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    ids = tokenizer("Ada works as a judge.", return_tensors="pt")["input_ids"]
    assert float(said) == pytest.approx(found.model(ids).logits.double().sum().item(), rel=1e-6)
    with pytest.raises(InputError, match="not an earlier result of healing"): found.save(tmp_path / "pruned")
    again = LayerHealer(tf.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), tokenizer, model, recipe)
    assert again.pruning["removed"] == [3, 7]                # a second round knows about the cut

def test_adapters_kept_apart_reload_onto_the_pruned_model(tmp_path):
    from peft import PeftModel
    pruned = cut()
    found = heal(pruned, lora_rank=2, merge=False)
    path = found.save(tmp_path / "adapters")
    again = PeftModel.from_pretrained(cut().model, path).eval()
    ids = torch.tensor(rows(1))
    assert torch.equal(again(ids).logits, found.model(ids).logits) and (path / "healing.json").is_file()

# --- refusals -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("setting, words", [({"steps": 0}, "steps=0"), ({"window": 1}, "window=1"), ({"micro_batch": 3}, "does not divide"),
    ({"checkpoint_every": 3}, "not a multiple"), ({"distill": 1.5}, "between 0 and 1"), ({"precision": "fp8"}, "not one of auto, bf16, float32"),
    ({"learning_rate": 0}, "must be positive"), ({"lora_rank": 0}, "lora_rank=0"), ({"weight_decay": -1}, "0 or more")])
def test_recipes_that_make_no_sense(setting, words):
    with pytest.raises(InputError, match=words): HealingRecipe(**RECIPE | setting)

@pytest.mark.parametrize("every", [1, 3, 6, 25, 99, 200, 300])
def test_checkpoints_follow_the_history_unless_they_are_given(every):
    for recipe in HealingRecipe(every=every), replace(HealingRecipe(), every=every):
        steps = recipe.steps_to_checkpoint
        assert steps % every == 0 and 200 <= steps < 200 + every
    assert replace(recipe, checkpoint_every=2 * every).steps_to_checkpoint == 2 * every

def test_a_checkpoint_belongs_to_the_same_run_whether_its_steps_are_given_or_usual(tmp_path):
    usual = {"every": 6, "checkpoint_every": None, "steps": 7}
    stopped = heal(cut(), progress=stop_at(7), checkpoint=tmp_path / "run", **usual)
    assert stopped.step == 7 and json.loads(json.dumps(stopped.to_dict()))["recipe"]["checkpoint_every"] is None
    resumed = heal(cut(), checkpoint=tmp_path / "run", **usual | {"checkpoint_every": 204})
    assert same(resumed.model, heal(cut(), **usual).model)

@pytest.mark.parametrize("texts, words", [([], "0 tokens, fewer than one window of 16"), ([[3, 4]], "2 tokens, fewer than one window"),
    ("a text", "one string was given"), ([3, 4], "one list of token ids"), (["words"], "without a tokenizer"), ([[VOCABULARY] * 40], "the model knows 0 to 599"),
    ([[-1] * 40], "token ids from -1")])
def test_texts_that_cannot_be_used(texts, words):
    with pytest.raises(InputError, match=words): heal(cut(), texts)

def test_pairs_that_do_not_belong_together():
    small = cut().model
    with pytest.raises(InputError, match="no original was given"): LayerHealer(small)
    with pytest.raises(InputError, match="is not what is left of the original"): LayerHealer(small, original=tiny("gpt2"))
    with pytest.raises(InputError, match="4 blocks.*is not what is left"): LayerHealer(tiny("llama"), original=small)
    other = tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=700, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4))
    with pytest.raises(InputError, match="vocabulary of 600, the original one of 700"): LayerHealer(small, original=other)
    with pytest.raises(InputError, match="not a causal language model"): LayerHealer(tiny("bert"), original=tiny("bert"))

def test_a_loss_that_is_not_a_number_ends_the_training():
    with pytest.raises(InputError, match="the loss is not a number at step"): heal(cut(), learning_rate=1e6, clip=1e9, steps=20)

@pytest.mark.parametrize("missing, recipe", [("accelerate", {}), ("peft", {"lora_rank": 2})])
def test_a_missing_extra_is_named(monkeypatch, missing, recipe):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else found(name, *a))
    with pytest.raises(InputError, match=rf"healing needs {missing}: pip install 'avss_nb\[train\]'"): heal(cut(), **recipe)

def test_progress_counts_both_trainings():
    heard = []
    heal(cut(), control=True, progress=heard.append)
    assert [p.done for p in heard if p.info["model"] == "healed"][:8] == [*range(1, 9)]
    assert heard[-1].done == heard[-1].total == 16 and heard[-1].info["step"] == 8
    assert heard[-1].partial().partial and not any(Path("trainer_output").glob("*"))

def test_an_infinite_loss_keeps_nothing():
    "Also in the draws that miss the broken text: they were left out as not a number, and the interval with them."
    tokens, losses = np.full(20, 10), np.full(20, 30.)
    whole, broken = Measured(1, 1, losses, tokens), Measured(1, 1, np.where(np.arange(20) == 7, np.inf, losses), tokens)
    assert share_kept(whole, broken) == (0, 0, 0) and share_kept(whole, whole) == (1, 1, 1)
    assert all(math.isnan(value) for value in share_kept(broken, whole))    # of nothing, nothing can be kept
