"Training of chosen blocks: every loss against an independent one, everything else untouched, every result reloadable and repeatable."
import json, math
from dataclasses import asdict, replace
import numpy as np, pytest, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from avss_nb import (
    Answers, Blocks, ContrastiveMitigator, Evaluator, Example, InputError, Mitigation,
    Question, Recipe, load_teaching_model, silent
)
from avss_nb.hallucination.mitigation import (
    development_measures, examples_of, losses_of, retention_loss, student_of,
    supervised_contrast
)
from test_answer_profile import TOKENIZER, answers as tiny_answers
from tiny import PATHS, padded_batch, tiny

torch.set_num_threads(1)
SMALL = Recipe(steps=4, batch_size=4, text_batch=2, text_length=16, every=2)

@pytest.fixture(scope="module")
def asked(teaching, world):
    "Answers of the teaching model: half right, half wrong."
    return Evaluator(*teaching).answer([q for group in ("known", "unknown") for q in world.questions(group, 10)])

@pytest.fixture(scope="module")
def development(world): return [q for group in ("known", "unknown") for q in world.questions(group, 4, seed=1)]

def trained(teaching, asked, world, development=(), layers=(9, 10), recipe=SMALL, texts=True, **rest):
    return ContrastiveMitigator(*teaching, layers, recipe).train(asked, world.texts(4) if texts else None, development,
                                                                 **{"progress": silent} | rest)

def weights(model, chosen=None):
    return {name: p.detach().clone() for name, p in model.named_parameters() if chosen is None or chosen(name)}

def equal(a, b): return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())

@torch.no_grad()
def logits(model, vocabulary=400):
    batch = padded_batch((12, 5, 9))
    return model(input_ids=batch["input_ids"] % vocabulary, attention_mask=batch["attention_mask"]).logits

def stop_at(n):
    def listen(progress):
        if progress.done == n: raise KeyboardInterrupt
    return listen

# --- losses

def khosla(z, labels, tau):
    "Equation 2 of arXiv 2004.11362 by its letter; the mean over anchors that have a positive."
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            below = sum(math.exp(z[i] @ z[a] / tau) for a in others)
            terms.append(-sum(math.log(math.exp(z[i] @ z[p] / tau) / below) for p in positives) / len(positives))
    return float(np.mean(terms)) if terms else 0.

@pytest.mark.parametrize("labels", [[1, 0, 1, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0]])
@pytest.mark.parametrize("tau", [0.1, 1.])
def test_contrast_equals_a_double_loop(labels, tau):
    states = torch.randn(len(labels), 7, requires_grad=True)
    loss = supervised_contrast(states, torch.tensor(labels, dtype=torch.bool), tau)
    assert float(loss.detach()) == pytest.approx(khosla(states.detach().double().numpy(), labels, tau), rel=1e-5, abs=1e-7)
    loss.backward()
    assert torch.isfinite(states.grad).all()

def test_retention_equals_kl_div_of_unpadded_rows():
    student, original = tiny("llama", seed=1), tiny("llama", seed=0)
    rows = [[5, 9, 30], [7] * 11, [100, 3, 4, 8, 20, 41]]
    found = []
    with torch.no_grad():
        for row in rows:
            after, before = (m(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for m in (student, original))
            found.append(torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1))
    loss = retention_loss(student, original, rows)
    assert float(loss) == pytest.approx(float(torch.cat(found).mean()), rel=1e-5) and loss.requires_grad
    assert float(retention_loss(original, original, rows)) == pytest.approx(0, abs=1e-6)

EXAMPLES = [Example((1, 9, 8, 7, 60, 61), 4, False, False, True), Example((1, 50, 51), 2, True, True, True),
            Example((1, 12, 13, 14, 15, 16, 17, 18, 70, 71, 72), 8, True, False, False), Example((1, 30, 31, 80), 3, False, False, True),
            Example((1, 33, 34, 35, 90, 2), 4, True, True, True), Example((1, 40, 41, 81, 82), 3, True, False, True)]

@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gpt_neox"])
def test_losses_equal_those_of_single_examples(name):
    model = tiny(name)
    layers, sums = (1, 2), {False: [0., 0], True: [0., 0]}
    states = []
    for e in EXAMPLES:
        out = model(input_ids=torch.tensor([e.ids]), output_hidden_states=True)
        states.append([out.hidden_states[layer + 1][0, e.start - 1].detach().double().numpy() for layer in layers])
        logs = out.logits[0].detach().double().log_softmax(-1)
        for at in range(e.start, len(e.ids)) if e.target else ():
            sums[e.abstain][0] -= float(logs[at - 1, e.ids[at]])
            sums[e.abstain][1] += 1
    blocks = [model.get_submodule(PATHS[name])[layer] for layer in layers]
    hooks = [len(b._forward_hooks) for b in blocks]
    found = losses_of(model, blocks, EXAMPLES, Recipe(temperature=0.3))
    assert float(found["answer"]) == pytest.approx(sums[False][0] / sums[False][1], rel=1e-5)
    assert float(found["abstain"]) == pytest.approx(sums[True][0] / sums[True][1], rel=1e-5)
    contrast = np.mean([khosla(np.stack([s[k] for s in states]), [e.wrong for e in EXAMPLES], 0.3) for k in (0, 1)])
    assert float(found["contrast"]) == pytest.approx(contrast, rel=1e-4)
    assert hooks == [len(b._forward_hooks) for b in blocks]

def test_losses_without_targets_are_zero():
    model = tiny("llama")
    found = losses_of(model, [model.model.layers[0]], [e for e in EXAMPLES if not e.abstain], Recipe())
    assert float(found["abstain"]) == 0 and float(found["answer"]) > 0

def test_what_each_answer_teaches(teaching, world):
    evaluator = Evaluator(*teaching)
    known, other, unknown = world.questions("known", 2) + world.questions("unknown", 1)
    asked = Answers.given([known, other, unknown], [known.answers[0], "Paris", "Rome"], [True, False, False], [[-1.]] * 3)
    def taught(wrong):
        found = examples_of(asked, evaluator, Recipe(wrong=wrong))
        assert [e.wrong for e in found] == [False, True, True]
        assert all(evaluator.tokenizer(q.prompt)["input_ids"] == [*e.ids[:e.start]] for e, q in zip(found, asked.questions))
        return [(evaluator.tokenizer.decode(e.ids[e.start:]) if e.target else None, e.abstain) for e in found]
    right, taught_right = (known.answers[0] + ".", False), (other.answers[0] + ".", False)
    assert taught("ignore") == [right, (None, False), ("unknown.", True)]
    assert taught("abstain") == [right, ("unknown.", True), ("unknown.", True)]
    assert taught("learn") == [right, taught_right, ("unknown.", True)]

def test_answers_whose_truth_is_not_written_down(teaching):
    "Labels may be given without an accepted answer: contrast and abstention do not need one."
    questions = [Question(f"q{i}", (), prompt="Question: Where was Ada Barben born? Answer:", stop=(".",)) for i in range(4)]
    asked = Answers.given(questions, ["Paris", "Rome", "Lima", "Oslo"], [True, True, False, False], [[-1.]] * 4)
    for wrong in "ignore", "abstain": assert len(examples_of(asked, Evaluator(*teaching), Recipe(wrong=wrong))) == 4
    with pytest.raises(InputError, match="learn"): examples_of(asked, Evaluator(*teaching), Recipe(wrong="learn"))

# --- what changes, and what does not

def inside(layers, path="model.layers"): return lambda name: any(name.startswith(f"{path}.{layer}.") for layer in layers)

@pytest.mark.parametrize("rank", [None, 2])
def test_only_the_chosen_blocks_change(teaching, asked, world, development, rank):
    model, tokenizer = load_teaching_model()
    for number, p in enumerate(model.parameters()): p.requires_grad_(number % 2 == 0)
    before, flags, modes = weights(model), [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    found = trained((model, tokenizer), asked, world, development, recipe=replace(SMALL, lora_rank=rank))
    assert equal(before, weights(model)) and flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters()) and modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks for m in model.modules())
    original = dict(model.named_parameters())
    for name, p in found.model.named_parameters():
        if rank is None:
            changed = inside((9, 10))(name)
            assert torch.equal(p, original[name]) != changed, name
            assert (p.data_ptr() == original[name].data_ptr()) != changed, name
        else: assert p.requires_grad == (".lora_" in name)
    if rank is None: assert found.model.lm_head.weight is found.model.model.embed_tokens.weight  # tied weights stay tied

@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("rank", [None, 2])
def test_other_architectures(name, rank, tmp_path):
    model = tiny(name)
    before, texts = weights(model), [[5, 6, 7, 8, 9], [30, 31, 32]]
    mitigator = ContrastiveMitigator(model, TOKENIZER, [0, 2], replace(SMALL, lora_rank=rank, learning_rate=1e-2, abstention="w009"), abstentions=["w009"])
    found = mitigator.train(tiny_answers(), texts, progress=silent)
    assert equal(before, weights(model))
    after = logits(found.model)
    assert not torch.allclose(after, logits(model), atol=1e-3)
    found.save(tmp_path / "m")
    found.apply()
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed and all(inside((0, 2), PATHS[name])(n) for n in changed)
    assert torch.equal(logits(model), after) if rank is None else torch.allclose(logits(model), after, atol=1e-4)
    if rank is None: assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()), after)

@pytest.mark.parametrize("rank", [None, 4])
def test_apply_makes_the_original_the_student(asked, world, rank):
    model, tokenizer = load_teaching_model()
    found = trained((model, tokenizer), asked, world, recipe=replace(SMALL, lora_rank=rank, learning_rate=5e-3))
    student = logits(found.model)
    assert not torch.allclose(student, logits(model), atol=1e-2)
    assert found.apply() is model
    assert torch.equal(logits(model), student) if rank is None else torch.allclose(logits(model), student, atol=1e-5)
    assert torch.equal(logits(found.model), student)                       # applied by a copy: the student is as it was
    again = logits(model)
    assert torch.equal(logits(found.apply()), again)                       # twice is once
    assert not any("lora" in name for name, _ in model.named_modules())

def test_a_saved_model_reloads(teaching, asked, world, development, tmp_path):
    found = trained(teaching, asked, world, development)
    assert found.save(tmp_path / "m") == tmp_path / "m"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(logits(model), logits(found.model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer("Where was Ada born?")["input_ids"] == teaching[1]("Where was Ada born?")["input_ids"]
    told = json.loads((tmp_path / "m" / "mitigation.json").read_text())
    assert told == json.loads(json.dumps(found.to_dict())) and Recipe(**told["recipe"]) == found.recipe and told["layers"] == [9, 10]
    found.save(tmp_path / "m")                                             # an earlier result is replaced
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not an earlier result"): found.save(tmp_path / "other")
    assert (tmp_path / "other" / "mine.txt").read_text() == "x"

@pytest.mark.parametrize("name", ["teaching", "gpt2"])
def test_adapters(name, teaching, asked, world, tmp_path):
    "On exactly the linear modules of the chosen blocks; saved, and read again by PEFT."
    peft = pytest.importorskip("peft")
    if name == "teaching": model, layers, path, linear = teaching[0], (3, 10), "model.layers", 7
    else: model, layers, path, linear = tiny("gpt2"), (0, 3), "transformer.h", 4
    recipe = replace(SMALL, lora_rank=3, learning_rate=1e-2)
    found = (trained(teaching, asked, world, layers=layers, recipe=recipe) if name == "teaching" else
             ContrastiveMitigator(model, TOKENIZER, layers, replace(recipe, abstention="w009"), abstentions="w009").train(tiny_answers(), progress=silent))
    adapted = {n.removeprefix("base_model.model.") for n, m in found.model.named_modules() if hasattr(m, "lora_A")}
    assert len(adapted) == 2 * linear and all(inside(layers, path)(n) for n in adapted)
    assert {m.r["default"] for m in found.model.modules() if hasattr(m, "lora_A")} == {3}
    assert not any(hasattr(m, "lora_A") for m in model.modules())
    found.save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    base = load_teaching_model()[0] if name == "teaching" else tiny("gpt2")
    again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.allclose(logits(again), logits(found.model), atol=1e-6)
    assert not torch.allclose(logits(again), logits(model), atol=1e-2)

# --- terms

@pytest.mark.parametrize("changes, evaluation", [
    (dict(contrast=0., temperature=5.), {}), (dict(retention=0., text_batch=7, text_length=9), {}), (dict(answer=0., wrong="learn"), {}),
    (dict(abstain=0., abstention="nobody"), dict(abstentions=("nobody",)))])
def test_a_term_that_is_switched_off_has_no_effect(teaching, asked, world, changes, evaluation):
    "Another value of what belongs to the term changes nothing, bit by bit, unless the term is on."
    term, *_ = changes
    def trained(recipe): return ContrastiveMitigator(*teaching, [9], recipe, **evaluation).train(asked, world.texts(4), progress=silent)
    asked = asked + replace(asked[~asked.correct][:4], questions=tuple(replace(q, answerable=True) for q in asked[~asked.correct][:4].questions))
    off, other = trained(replace(SMALL, **{term: 0.})), trained(replace(SMALL, **changes))
    assert equal(weights(off.model), weights(other.model))
    on, different = trained(SMALL), trained(replace(SMALL, **changes | {term: 1.}))
    assert not equal(weights(on.model), weights(off.model)) and not equal(weights(on.model), weights(different.model))

def test_the_loss_is_the_weighted_sum(teaching, asked, world):
    recipe = replace(SMALL, answer=0.7, abstain=0.4, contrast=0.2, retention=3., every=1)
    for row in trained(teaching, asked, world, recipe=recipe).history:
        assert row["loss"] == pytest.approx(sum(getattr(recipe, t) * row[t] for t in ("answer", "abstain", "contrast", "retention")), rel=1e-5)

def test_training_does_what_it_says(teaching, asked, world):
    "The terms fall, and without retention the original's words are forgotten more."
    recipe = replace(SMALL, steps=30, batch_size=16, every=1, learning_rate=2e-3)
    kept, free = (trained(teaching, asked, world, layers=(8, 9, 10), recipe=replace(recipe, retention=r)) for r in (3., 0.))
    first, last = kept.history[0], kept.history[-1]
    assert last["abstain"] < first["abstain"] / 2 and last["answer"] < 0.1
    rows = [teaching[1](text)["input_ids"][:32] for text in world.texts(8, seed=5)]
    with torch.no_grad(): lost = [float(retention_loss(m.model, teaching[0], rows)) for m in (kept, free)]
    assert lost[0] < lost[1]

def test_neutral_text_may_be_left_out(teaching, asked, world):
    found = trained(teaching, asked, world, texts=False)
    assert "retention" not in found.history[-1]

# --- repeatability

@pytest.mark.parametrize("rank", [None, 2])
def test_a_seed_decides_everything(teaching, asked, world, development, rank):
    recipe = replace(SMALL, lora_rank=rank)
    a = trained(teaching, asked, world, development, recipe=recipe)
    torch.manual_seed(99), np.random.seed(99)
    state = torch.random.get_rng_state()
    b = trained(teaching, asked, world, development, recipe=recipe)
    assert torch.equal(state, torch.random.get_rng_state())                # and nobody else's random numbers are touched
    c = trained(teaching, asked, world, development, recipe=replace(recipe, seed=1))
    assert equal(weights(a.model), weights(b.model)) and a.history == b.history
    assert not equal(weights(a.model), weights(c.model))

def test_listeners_and_looks_change_nothing(teaching, asked, world, development):
    a = trained(teaching, asked, world, development, recipe=replace(SMALL, every=4))
    b = trained(teaching, asked, world, development, recipe=replace(SMALL, every=4), progress=lambda p: p.partial())
    assert equal(weights(a.model), weights(b.model))

@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("stop", [1, 2, 5, 6])
def test_interrupted_and_resumed(teaching, asked, world, development, tmp_path, rank, stop):
    recipe, path = replace(SMALL, steps=6, lora_rank=rank), tmp_path / "c"
    whole = trained(teaching, asked, world, development, recipe=recipe)
    part = trained(teaching, asked, world, development, recipe=recipe, checkpoint=path, progress=stop_at(stop))
    assert part.partial and len(part.history) == stop // 2 and path.exists() == (stop > 1)
    torch.manual_seed(5)
    steps = []
    again = trained(teaching, asked, world, development, recipe=recipe, checkpoint=path, progress=lambda p: steps.append(p.done))
    assert steps == [*range(stop // 2 * 2 + 1, 7)] and not again.partial
    assert equal(weights(again.model), weights(whole.model)) and again.history == whole.history and again.step == whole.step

def test_a_finished_checkpoint_trains_nothing(teaching, asked, world, tmp_path):
    whole = trained(teaching, asked, world, checkpoint=tmp_path / "c")
    again = trained(teaching, asked, world, checkpoint=tmp_path / "c", progress=lambda p: pytest.fail("it trained"))
    assert equal(weights(again.model), weights(whole.model)) and not again.partial

def test_a_parameter_without_a_gradient_survives_a_checkpoint(asked, world, tmp_path):
    "As an expert that no token chose."
    model, tokenizer = load_teaching_model()
    model.model.layers[9].register_parameter("idle", torch.nn.Parameter(torch.ones(3)))
    whole = trained((model, tokenizer), asked, world)
    trained((model, tokenizer), asked, world, checkpoint=tmp_path / "c", progress=stop_at(2))
    again = trained((model, tokenizer), asked, world, checkpoint=tmp_path / "c")
    assert equal(weights(again.model), weights(whole.model))

@pytest.mark.parametrize("change", [dict(layers=(9,)), dict(recipe=replace(SMALL, seed=3)), dict(recipe=replace(SMALL, contrast=0.)), dict(texts=False)])
def test_a_checkpoint_of_another_training_is_refused(teaching, asked, world, tmp_path, change):
    trained(teaching, asked, world, checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(InputError, match="belongs to a training with another"): trained(teaching, asked, world, checkpoint=tmp_path / "c", **change)
    assert (tmp_path / "c").read_bytes() == before

def test_a_checkpoint_knows_data_and_model(teaching, asked, world, development, tmp_path):
    path = tmp_path / "c"
    trained(teaching, asked, world, development, checkpoint=path)
    other = replace(asked, correct=asked.correct ^ (np.arange(len(asked)) == 3))
    changed, tokenizer = load_teaching_model()
    with torch.no_grad(): changed.model.layers[2].mlp.up_proj.weight.mul_(1.1)
    for args in (teaching, other, world, development), (teaching, asked, world, development[1:]), ((changed, tokenizer), asked, world, development):
        with pytest.raises(InputError, match="belongs to a training with another"): trained(*args, checkpoint=path)
    mitigator = ContrastiveMitigator(*teaching, (9, 10), SMALL, max_new_tokens=1)  # other answers, another best look
    with pytest.raises(InputError, match="belongs to a training with another"):
        mitigator.train(asked, world.texts(4), development, silent, path)

def test_a_foreign_or_damaged_checkpoint_is_refused(teaching, asked, world, tmp_path):
    path = tmp_path / "c"
    trained(teaching, asked, world, checkpoint=path)
    content = path.read_bytes()
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    for message, data in {"damaged": content[:len(content) // 2], "damaged ": b"notes of mine", "but no checkpoint": (tmp_path / "foreign").read_bytes()}.items():
        path.write_bytes(data)
        with pytest.raises(InputError, match=message.strip()): trained(teaching, asked, world, checkpoint=path)
        assert path.read_bytes() == data
    with pytest.raises(InputError, match="is a folder"): trained(teaching, asked, world, checkpoint=tmp_path)

# --- the best look

@pytest.fixture
def judged(monkeypatch):
    "Looks whose verdicts are given."
    def use(*values):
        verdicts = iter(values)
        monkeypatch.setattr("avss_nb.hallucination.mitigation.development_measures", lambda answers: {"reliability": next(verdicts), "right": 0.5})
    return use

def snapshots(run):
    "The weights at every step, and what a listener is offered there."
    seen, offered = {}, {}
    def listen(p):
        offered[p.done] = p.partial()
        seen[p.done] = offered[p.done].step
    return run(listen), offered

def test_the_best_look_is_kept(teaching, asked, world, development, judged):
    recipe = replace(SMALL, steps=5, every=1)
    judged(0.1, 0.7, 0.7, 0.2, 0.6)
    found, offered = snapshots(lambda listen: trained(teaching, asked, world, development, recipe=recipe, progress=listen))
    assert found.step == 2 and [row["reliability"] for row in found.history] == [0.1, 0.7, 0.7, 0.2, 0.6] and not found.partial
    assert {n: offered[n].step for n in offered} == {1: 1, 2: 2, 3: 2, 4: 2, 5: 2}
    assert equal(weights(found.model), weights(offered[2].model)) and not equal(weights(found.model), weights(offered[1].model))
    straight = trained(teaching, asked, world, recipe=recipe, progress=stop_at(2))  # two steps of the same course
    assert equal(weights(found.model), weights(straight.model))
    assert list(found.to_frame().index) == [1, 2, 3, 4, 5] and "step 2 of 5" in repr(found)

def test_without_development_the_last_step_is_kept(teaching, asked, world):
    assert trained(teaching, asked, world, recipe=replace(SMALL, steps=5, every=2)).step == 5

@pytest.mark.parametrize("patience, looks", [(1, 3), (2, 4), (None, 6)])
def test_patience(teaching, asked, world, development, judged, patience, looks, tmp_path):
    judged(*[0.1, 0.7, 0.5, 0.6, 0.9, 0.2] * 3)
    recipe = replace(SMALL, steps=6, every=1, patience=patience)
    found = trained(teaching, asked, world, development, recipe=recipe, checkpoint=tmp_path / "c")
    assert len(found.history) == looks and found.step == (2 if patience else 5) and not found.partial
    again = trained(teaching, asked, world, development, recipe=recipe, checkpoint=tmp_path / "c", progress=lambda p: pytest.fail("it trained"))
    assert again.step == found.step and equal(weights(again.model), weights(found.model))

def test_stop_button_gives_the_best_so_far(teaching, asked, world, development, judged):
    judged(0.4, 0.3, 0.2)
    found = trained(teaching, asked, world, development, recipe=replace(SMALL, every=1), progress=stop_at(3))
    assert found.partial and found.step == 1 and len(found.history) == 3 and "PARTIAL" in repr(found)
    straight = trained(teaching, asked, world, recipe=replace(SMALL, every=1), progress=stop_at(1))
    assert equal(weights(found.model), weights(straight.model))

@pytest.mark.parametrize("rank", [None, 2])
def test_stopped_before_the_first_look(teaching, asked, world, tmp_path, rank):
    found = trained(teaching, asked, world, recipe=replace(SMALL, every=4, lora_rank=rank), progress=stop_at(1))
    assert found.partial and found.step == 1 and found.history == ()
    assert "PARTIAL" in repr(found) and "PARTIAL" in found._repr_html_() and len(found.to_frame()) == 0
    found.save(tmp_path / "m")
    original = dict(teaching[0].named_parameters())                        # a copy of what was trained, and of nothing else
    if rank is None: assert all(p.data_ptr() == original[name].data_ptr() for name, p in found.model.named_parameters() if not inside((9, 10))(name))

def test_what_a_listener_was_offered_stays_as_it_was(teaching, asked, world):
    offered = []
    def listen(p): offered.append((p.partial(), weights(p.partial().model)))
    trained(teaching, asked, world, recipe=replace(SMALL, every=1), progress=listen)
    for result, then in offered: assert equal(weights(result.model), then)
    assert not equal(offered[0][1], offered[1][1])

def test_measures_of_the_development_questions(asked):
    given = replace(asked, abstained=~asked.correct & (np.arange(len(asked)) % 3 == 0))
    found = development_measures(given)
    wrong = ~given.correct & ~given.abstained
    assert found["reliability"] == pytest.approx(given.correct.mean() - wrong.mean())
    assert found["hallucination_rate"] == pytest.approx(wrong.mean()) and found["abstention_rate"] == pytest.approx(given.abstained.mean())

# --- bad input

@pytest.mark.parametrize("changes, message", [
    (dict(answer=-1.), "answer=-1"), (dict(contrast=float("nan")), "contrast=nan"), (dict(steps=0), "steps=0"), (dict(every=0), "every=0"),
    (dict(batch_size=3), "batch_size=3"), (dict(temperature=0.), "temperature"), (dict(learning_rate=0.), "learning_rate"),
    (dict(wrong="forget"), "wrong='forget'"), (dict(answer=0., abstain=0., contrast=0., retention=0.), "every term is switched off"),
    (dict(lora_rank=0), "lora_rank=0"), (dict(patience=0), "patience=0")])
def test_bad_recipes(changes, message):
    with pytest.raises(InputError, match=message): Recipe(**changes)

def test_bad_models_and_layers(teaching):
    for layers, message in ([12], "there is no layer 12"), ([-1], "there is no layer -1"), ([], "no layers were given"):
        with pytest.raises(InputError, match=message): ContrastiveMitigator(*teaching, layers)
    half, tokenizer = load_teaching_model(dtype=torch.float16)
    with pytest.raises(InputError, match="float16"): ContrastiveMitigator(half, tokenizer, [3])
    assert ContrastiveMitigator(*teaching, [5, 3, 5]).layers == (3, 5)

def test_nothing_to_train_on(teaching, asked, world):
    with pytest.raises(InputError, match="0 hallucinated"): trained(teaching, asked[asked.correct], world)
    alone = replace(SMALL, answer=0., abstain=0., contrast=0.)
    with pytest.raises(InputError, match="text"): trained(teaching, asked, world, recipe=alone, texts=False)
    silent_ = replace(SMALL, answer=0., contrast=0., retention=0.)          # and nobody abstains
    with pytest.raises(InputError, match="abstain"):
        trained(teaching, replace(asked, questions=tuple(replace(q, answerable=True) for q in asked.questions)), world, recipe=silent_)
    with pytest.raises(InputError, match="at least 2 tokens"): ContrastiveMitigator(*teaching, [3], SMALL).train(asked, [], progress=silent)
    trained(teaching, asked, world, recipe=replace(alone, steps=1))        # retention alone is a training, if a dull one

def test_abstentions_that_cannot_be_taught(teaching, asked, world):
    with pytest.raises(InputError, match="abstention"): ContrastiveMitigator(*teaching, [3], replace(SMALL, abstention="Paris"))
    ContrastiveMitigator(*teaching, [3], replace(SMALL, abstention="Paris"), abstentions="Paris")
    for silence in "", "  ":
        with pytest.raises(InputError, match="abstention"): ContrastiveMitigator(*teaching, [3], replace(SMALL, abstention=silence))

def test_loss_that_is_no_number(asked, world):
    model, tokenizer = load_teaching_model()
    found = ContrastiveMitigator(model, tokenizer, [3], SMALL)
    with torch.no_grad(): model.model.layers[4].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not a number at step 0"): found.train(asked, progress=silent)

def test_bfloat16(asked, world, development, tmp_path):
    model, tokenizer = load_teaching_model(dtype=torch.bfloat16)
    whole = trained((model, tokenizer), asked, world, development)
    trained((model, tokenizer), asked, world, development, checkpoint=tmp_path / "c", progress=stop_at(3))
    again = trained((model, tokenizer), asked, world, development, checkpoint=tmp_path / "c")
    assert equal(weights(again.model), weights(whole.model)) and again.model.dtype == torch.bfloat16

def test_student_of_shares_what_is_frozen(teaching):
    blocks = Blocks(teaching[0])
    student = student_of(blocks, [4])
    original = dict(teaching[0].named_parameters())
    for name, p in student.named_parameters():
        assert p.requires_grad == inside((4,))(name) and (p.data_ptr() == original[name].data_ptr()) != inside((4,))(name)
    assert torch.equal(logits(student), logits(teaching[0]))

@pytest.mark.parametrize("rank", [None, 2])
def test_a_stopped_training_can_be_applied(asked, world, rank):
    model, tokenizer = load_teaching_model()
    found = trained((model, tokenizer), asked, world, recipe=replace(SMALL, lora_rank=rank, learning_rate=5e-3), progress=stop_at(3))
    student = logits(found.model)
    assert not torch.allclose(student, logits(model), atol=1e-3)
    assert torch.allclose(logits(found.apply()), student, atol=1e-5)
