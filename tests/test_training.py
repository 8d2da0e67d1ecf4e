"The Trainer callback: it changes nothing, measures what the profiler measures, and its history survives."
import copy
import json
import math
import subprocess
import sys
from pathlib import Path
import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn
from avss_nb import (
    AVSSCallback, InputError, LayerProfiler, LayerScorer, TrainingHistory, silent
)
from avss_nb.layers.training import MARK
from avss_nb.model.handling import unwrap_model, leave_no_trace
from tiny import CONFIGS, VOCABULARY, tiny

def texts(n=6, length=12, seed=1):
    return torch.randint(3, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()

ROWS = [{"input_ids": row, "labels": row} for row in texts(200, 12, 2)]
PROBE = texts()

def with_dropout(name="gpt2", seed=0):
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    for field in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "dropout"):
        if hasattr(config, field): setattr(config, field, 0.3)
    return tf.AutoModelForCausalLM.from_config(config)

def trainer(model, folder, *callbacks, **settings):
    args = tf.TrainingArguments(**dict(output_dir=str(folder), max_steps=12, per_device_train_batch_size=4, learning_rate=1e-3, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True) | settings)
    made = tf.Trainer(model, args, train_dataset=ROWS, eval_dataset=ROWS[:8], callbacks=[*callbacks])
    made.remove_callback(tf.PrinterCallback)
    return made

def run(model, folder, *callbacks, resume=None, **settings):
    made = trainer(model, folder, *callbacks, **settings)
    made.train(resume_from_checkpoint=resume)
    return made

def rows(made): return [{k: v for k, v in row.items() if not k.endswith(("runtime", "per_second"))} for row in made.state.log_history if MARK not in row]
def same(a, b): return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
def equal(a, b): return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("steps", "scores", "variance", "sparsity", "floored", "losses"))

class Stop(tf.TrainerCallback):
    def __init__(self, step, how=None): self.step, self.how = step, how
    def on_step_end(self, args, state, control, **_):
        if state.global_step != self.step: return
        if self.how == "early": control.should_training_stop = True
        else: raise KeyboardInterrupt

# --- nothing is changed -------------------------------------------------------------------------------------------------

def adapted(model):
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=2, lora_dropout=0.2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True))

def restless():
    "Outside training its forward pass draws random numbers and counts in a buffer that training reads."
    model = with_dropout()
    model.register_buffer("seen", torch.zeros(1), persistent=False)
    def look(module, *_):
        if not module.training: torch.rand(3), np.random.rand(), model.seen.add_(1)
    def scaled(module, args, out): return out * (1 + model.seen) if module.training else None
    model.transformer.register_forward_pre_hook(look)
    model.transformer.drop.register_forward_hook(scaled)
    return model

@pytest.mark.parametrize("make, settings", [(with_dropout, {}), (restless, {}), (lambda: with_dropout("opt"), {}), (with_dropout, {"bf16": True}),
    (with_dropout, {"gradient_accumulation_steps": 3, "max_steps": 6}), (lambda: adapted(with_dropout()), {}),
    (with_dropout, {"eval_strategy": "steps", "eval_steps": 3}), (with_dropout, {"checkpointing": True})])
def test_losses_and_weights_are_equal_bit_for_bit(tmp_path, make, settings):
    settings, checkpointing = dict(settings), settings.get("checkpointing")
    settings.pop("checkpointing", None)
    found = []
    for callbacks in ([], [AVSSCallback(PROBE, every=2)], [AVSSCallback(PROBE, every=1, scorer=LayerScorer("ablation", site="output", draws=0))]):
        model = make()
        if checkpointing: model.gradient_checkpointing_enable()
        made = run(model, tmp_path, *callbacks, **settings)
        found.append((rows(made), model))
        if callbacks: assert len(callbacks[0].history) == settings.get("max_steps", 12) // callbacks[0].every + 1
    (plain, model), *others = found
    assert any("loss" in row for row in plain)
    for watched, other in others: assert watched == plain and same(other, model)

def test_the_dropout_of_the_test_is_at_work(tmp_path):
    "Without the restored random state the losses would differ: a draw more shows."
    class Draw(tf.TrainerCallback):
        def on_step_end(self, *_, **__): torch.rand(1)
    assert rows(run(with_dropout(), tmp_path)) != rows(run(with_dropout(), tmp_path, Draw()))

def test_a_model_that_draws_counts_and_replaces_is_put_back():
    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.frozen = nn.BatchNorm1d(2), nn.Dropout()
            self.register_buffer("scale", torch.ones(1))
        def forward(self, x):
            self.register_buffer("scale", self.scale * 2)
            return self.norm(x) * torch.rand(1) * np.random.rand() * self.scale
    model = Restless().train()
    model.frozen.eval()
    scale, expected = model.scale, copy.deepcopy(model.state_dict())
    torch.manual_seed(0), np.random.seed(0)
    draws = torch.rand(1), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    with leave_no_trace(model): assert not model(torch.randn(4, 2)).requires_grad
    assert (torch.rand(1), np.random.rand()) == draws and model.scale is scale
    assert all(torch.equal(t, expected[n]) for n, t in model.state_dict().items())
    assert model.training and model.norm.training and not model.frozen.training

# --- what is measured ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scorer", [LayerScorer(draws=0), LayerScorer.published(aggregation="pooled"), LayerScorer("block_influence"),
                                    LayerScorer(site="mlp", eps=0.1, relative=True), LayerScorer("ablation", site="output")])
def test_values_are_those_of_the_profiler(tmp_path, scorer):
    callback, model = AVSSCallback(PROBE, every=5, scorer=scorer), with_dropout()
    def expected():
        profile = LayerProfiler(model, sites=("output", "relative_update", "mlp"), ablation=scorer.measure == "ablation", batch_size=16, groups=1).profile(PROBE, silent)
        return scorer.score(profile)
    start = expected()
    made = run(model, tmp_path, callback)
    h, end = callback.history, expected()
    assert h.steps.tolist() == [0, 5, 10, 12] and h.title == end.title and h.layers == 4
    for row, scores in (0, start), (-1, end):
        assert np.array_equal(h.scores[row], scores.values) and np.array_equal(h.variance[row], scores.variance)
        assert np.array_equal(h.sparsity[row], scores.sparsity) and np.array_equal(h.floored[row], scores.floored)
    last = [row for row in made.state.log_history if MARK in row][-1]
    assert last[f"{scorer.measure}/layer_03"] == end.values[3] and last["variance/layer_00"] == end.variance[0] and last["step"] == 12
    assert h.losses.tolist() == [[row["step"], row["loss"]] for row in made.state.log_history if "loss" in row]

def test_change_is_the_log_of_the_quotient(tmp_path):
    callback = AVSSCallback(PROBE, every=6)
    run(with_dropout(), tmp_path, callback)
    h = callback.history
    assert h.change("variance")[1, 2] == pytest.approx(math.log(h.variance[1, 2] / h.variance[0, 2])) and not h.change()[0].any()
    assert h.change() == pytest.approx(h.change("variance") - h.change("sparsity"))
    frame = h.to_frame()
    assert len(frame) == 3 * 4 and frame.query("step == 12 and layer == 1")["score change"].item() == h.change()[2, 1]

def test_undefined_changes_are_not_numbers_but_shown(tmp_path):
    h = TrainingHistory(np.array([0, 1]), np.array([[0., 1.], [1., -1.]]), np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2), bool),
                        np.empty((0, 2)), np.empty((0, 2)))
    assert np.isnan(h.change()).tolist() == [[True, False], [True, True]]
    h.plot()

def test_wrappers_are_opened():
    model = tiny("gpt2")
    assert unwrap_model(nn.DataParallel(adapted(model))) is model and unwrap_model(torch.compile(model)) is model
    wrapped = adapted(tiny("gpt2"))
    assert unwrap_model(wrapped) is wrapped.get_base_model()

def test_adapters_are_seen(tmp_path):
    "The profile is of the adapted model: with the base weights frozen it changes all the same."
    callback = AVSSCallback(PROBE, every=6)
    run(adapted(with_dropout()), tmp_path, callback, learning_rate=0.05)
    assert np.abs(callback.history.change()[-1]).min() > 1e-3

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from test_training import *
for watch in (False, True):
    callback, model = AVSSCallback(PROBE, every=3), with_dropout()
    made = run(model, {folder!r}, *[callback] * watch, per_device_train_batch_size=2, ddp_find_unused_parameters=False)
    assert made.args.world_size == 2 and type(made.model_wrapped).__name__ == "DistributedDataParallel"
    if made.state.is_world_process_zero:
        print("RESULT" + json.dumps([[r["loss"] for r in made.state.log_history if "loss" in r], callback.history.steps.tolist(),
                                     sum(p.double().sum().item() for p in model.parameters())]))
    else: assert not len(callback.history)
"""

def test_two_processes(tmp_path):
    "Data parallelism: the main process measures, nothing is changed."
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "out")))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (losses, none, weights), (watched, steps, watched_weights) = (json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("RESULT"))
    assert losses == watched and weights == watched_weights and none == [] and steps == [0, 3, 6, 9, 12]

# --- beginning, ending, going on ----------------------------------------------------------------------------------------

def test_resumed_history_equals_the_uninterrupted_one(tmp_path):
    whole, first, second = (AVSSCallback(PROBE, every=2) for _ in range(3))
    model = with_dropout()
    run(model, tmp_path / "a", whole, save_strategy="steps", save_steps=4)
    with pytest.raises(KeyboardInterrupt): run(with_dropout(), tmp_path / "b", first, Stop(7), save_strategy="steps", save_steps=4)
    assert first.history.steps.tolist() == [0, 2, 4, 6]      # what there was is kept
    again = with_dropout(seed=5)
    run(again, tmp_path / "b", second, resume=True, save_strategy="steps", save_steps=4)
    assert second.history.steps.tolist() == [0, 2, 4, 6, 8, 10, 12] and equal(second.history, whole.history) and same(model, again)
    assert equal(first.history + second.history, whole.history)

def test_a_checkpoint_measured_otherwise_is_refused(tmp_path):
    run(with_dropout(), tmp_path, AVSSCallback(PROBE, every=2), save_strategy="steps", save_steps=4, max_steps=4)
    for other in AVSSCallback(texts(seed=9), every=2), AVSSCallback(PROBE, every=2, scorer=LayerScorer(eps=0.1)):
        with pytest.raises(InputError, match="other probe texts or another scorer"): run(with_dropout(), tmp_path, other, resume=True, max_steps=8)

def test_early_stopping_and_the_best_model(tmp_path):
    stopped = AVSSCallback(PROBE, every=4)
    run(with_dropout(), tmp_path, stopped, Stop(6, "early"))
    assert stopped.history.steps.tolist() == [0, 4, 6]
    best = AVSSCallback(PROBE, every=4)
    made = run(with_dropout(), tmp_path / "best", best, learning_rate=0.5, eval_strategy="steps", eval_steps=4, save_strategy="steps", save_steps=4,
               load_best_model_at_end=True, metric_for_best_model="loss", warmup_steps=8)
    assert best.history.best_step == made.state.best_global_step != 12 and best.history.steps.tolist() == [0, 4, 8, 12]
    assert best.history.evaluations[:, 0].tolist() == [4, 8, 12]

def test_epochs_and_a_second_training(tmp_path):
    callback, model = AVSSCallback(PROBE, every=20), with_dropout()
    made = trainer(model, tmp_path, callback, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=8)
    made.train()
    assert callback.history.steps.tolist() == [0, 20, 25]
    first = callback.history
    made.train()                                             # from the trained weights, as a training of its own
    assert callback.history.steps.tolist() == [0, 20, 25] and np.array_equal(callback.history.scores[0], first.scores[-1])

def test_every_step_is_told_once_and_reporters_hear(tmp_path):
    heard, logs = [], []
    class Reporter(tf.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_): reported.append(logs)
    reported = []
    made = trainer(with_dropout(), tmp_path, Reporter())
    AVSSCallback(PROBE, every=4, progress=heard.append).attach(made)
    made.train()
    assert [p.done for p in heard] == [*range(13)] and {p.total for p in heard} == {12}
    assert len(heard[5].partial()) == 4 and heard[-1].info["loss"] == [r["loss"] for r in made.state.log_history if "loss" in r][-1]
    ours = [logs for logs in reported if "avss/layer_00" in logs]
    assert len(ours) == 4 and all(isinstance(v, (int, float)) for row in ours for v in row.values())
    assert sum(isinstance(c, AVSSCallback) for c in made.callback_handler.callbacks) == 1

def test_an_interruption_in_a_measurement_stops_the_training(tmp_path, monkeypatch):
    callback, counted = AVSSCallback(PROBE, every=2, batch_size=2), []
    measure = LayerProfiler._measure
    def interrupted(self, batch, number, *rest):
        counted.append(number)
        if len(counted) == 8: raise KeyboardInterrupt        # in the middle of the third profile
        return measure(self, batch, number, *rest)
    monkeypatch.setattr(LayerProfiler, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt): run(with_dropout(), tmp_path, callback)
    assert callback.history.steps.tolist() == [0, 2]

# --- the history --------------------------------------------------------------------------------------------------------

def test_saved_and_loaded(tmp_path):
    callback = AVSSCallback(PROBE, every=5)
    run(with_dropout(), tmp_path, callback)
    h = callback.history
    h.save(tmp_path / "history.safetensors")
    again = TrainingHistory.load(tmp_path / "history.safetensors")
    assert equal(h, again) and (again.title, again.identity, again.measure, again.best_step) == (h.title, h.identity, h.measure, None)
    assert again.evaluations.shape == (0, 2) and "steps 0 to 12, 4 times" in repr(again) and "avss" in again._repr_html_()
    (tmp_path / "bad").write_bytes(b"x" * 50)
    for path, words in (tmp_path / "none", "there is no history"), (tmp_path / "bad", "damaged"):
        with pytest.raises(InputError, match=words): TrainingHistory.load(path)
    LayerProfiler(tiny("llama"), sites=["output"]).profile(PROBE, silent).save(tmp_path / "profile")
    with pytest.raises(InputError, match="but no history"): TrainingHistory.load(tmp_path / "profile")

def test_an_empty_history_shows_itself_and_refuses_to_be_drawn():
    h = AVSSCallback(PROBE).history
    assert len(h) == 0 and "nothing measured" in repr(h) and h.to_frame().empty and h._repr_html_()
    with pytest.raises(InputError, match="the history is empty"): h.plot()

def test_histories_that_do_not_belong_together(tmp_path):
    a, b = AVSSCallback(PROBE, every=6), AVSSCallback(texts(seed=3), every=6)
    for callback in a, b: run(with_dropout(), tmp_path, callback)
    with pytest.raises(InputError, match="different probe texts"): a.history + b.history
    c = AVSSCallback(PROBE, every=6)
    run(with_dropout(seed=4), tmp_path, c)
    with pytest.raises(InputError, match="step 0, with different values"): a.history + c.history

@pytest.mark.parametrize("settings, words", [({"every": 0}, "every=0"), ({"scorer": "avss"}, "'avss' was given as scorer where a LayerScorer is expected"),
    ({"scorer": LayerScorer("random")}, "measures nothing"), ({"texts": []}, "no text"), ({"texts": ["words"]}, "without a tokenizer"),
    ({"texts": "words"}, "one string was given")])
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(InputError, match=words): AVSSCallback(**{"texts": PROBE} | settings)

def test_weights_in_many_processes_are_refused(tmp_path):
    class Arguments: deepspeed, fsdp = "zero3.json", []
    with pytest.raises(InputError, match="spread over processes"): AVSSCallback(PROBE).on_train_begin(Arguments(), None, None)
