"Answering and training that are killed, interrupted or torn go on where they stood, and end with the same bits."
import json, random
import numpy as np, pytest, torch
from safetensors import safe_open
from avss_nb import Answers, Blocks, Evaluator, InputError, Question, silent
from conftest import SOAK
from killing import run_with_kills

def asked(world, n): return [q for group in ("known", "rare", "unknown") for q in world.questions(group, n)]

def equal(a, b):
    "The same to the last bit."
    assert a.questions == b.questions and a.texts == b.texts and a.token_logprobs == b.token_logprobs
    for name in "confidences", "correct", "abstained": assert np.array_equal(getattr(a, name), getattr(b, name)), name

def answer(path):
    "The work that is killed: 201 batches of two."
    from avss_nb import TeachingWorld, load_teaching_model
    torch.set_num_threads(1)
    return Evaluator(*load_teaching_model(), batch_size=2).answer(asked(TeachingWorld(), 134), resume=path)

@pytest.mark.soak
def test_sigkill_at_random_moments(tmp_path):
    path, threads = tmp_path / "answers.jsonl", torch.get_num_threads()
    def done(): return max(path.read_bytes().count(b"\n") - 1, 0) // 2 * 2 if path.exists() else 0  # answers in whole batches
    kills = 12 if SOAK else 5
    history = run_with_kills(answer, (path,), kills=kills, done=done, growth=12)
    try: reference = answer(tmp_path / "uninterrupted.jsonl")
    finally: torch.set_num_threads(threads)
    assert history == sorted(history), "something that was finished got lost"
    assert len({*history}) > kills and history[-2] < history[-1] == 402 == len(reference)
    equal(Answers.load(path), reference)
    assert path.read_bytes() == (tmp_path / "uninterrupted.jsonl").read_bytes()

def train(path):
    "The work that is killed: 40 steps, with a look and a checkpoint after each."
    from avss_nb import ContrastiveMitigator, Recipe, TeachingWorld, load_teaching_model
    torch.set_num_threads(1)
    (model, tokenizer), world = load_teaching_model(), TeachingWorld()
    questions = [q for group in ("known", "unknown") for q in world.questions(group, 4)]
    right = np.array([q.group == "known" for q in questions])
    answers = Answers.given(questions, [q.answers[0] if fine else "Paris" for q, fine in zip(questions, right)], right, [[-1.]] * 8)
    recipe = Recipe(steps=40, batch_size=4, text_batch=2, text_length=16, every=1)
    return ContrastiveMitigator(model, tokenizer, [9], recipe, max_new_tokens=2).train(answers, world.texts(3), questions[3:5], silent, path)

@pytest.mark.soak
def test_sigkill_in_training(tmp_path):
    path, threads = tmp_path / "checkpoint", torch.get_num_threads()
    def done(): return json.loads(safe_open(path, "pt").metadata()["avss_nb"])["step"] if path.exists() else 0
    kills = 10 if SOAK else 5
    history = run_with_kills(train, (path,), kills=kills, done=done, growth=4, longest=0.1)
    try: reference, again = train(tmp_path / "uninterrupted"), train(path)
    finally: torch.set_num_threads(threads)
    assert history == sorted(history) and len({*history}) > kills and history[-1] == 40
    assert not again.partial and again.history == reference.history and again.step == reference.step
    assert [row["step"] for row in again.history] == [*range(1, 41)]
    trained = dict(reference.model.named_parameters())
    assert all(torch.equal(p, trained[name]) for name, p in again.model.named_parameters())
    assert path.read_bytes() == (tmp_path / "uninterrupted").read_bytes()

@pytest.fixture(scope="module")
def run(teaching, world, tmp_path_factory):
    "An evaluator, questions, their answers and the finished file."
    evaluator, questions = Evaluator(*teaching, batch_size=8), asked(world, 12)
    path = tmp_path_factory.mktemp("run") / "answers.jsonl"
    return evaluator, questions, evaluator.answer(questions, resume=path), path

def test_answers_with_and_without_a_file_are_the_same(run):
    evaluator, questions, answers, path = run
    equal(answers, evaluator.answer(questions))
    equal(answers, Answers.load(path))

def test_cut_anywhere(run, tmp_path):
    evaluator, questions, answers, path = run
    content, rng = path.read_bytes(), random.Random(0)
    lines = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    batches = []
    evaluator.answer(questions, lambda progress: batches.append(progress.done))
    cuts = {0, 1, *lines[:3], *(lines[[1, 8, 9, -2]] - 1), *(lines[[8, 9, 16]] + 1), *rng.sample(range(len(content)), 12)}
    for cut in sorted(map(int, cuts)):
        torn, seen = tmp_path / f"{cut}.jsonl", []
        torn.write_bytes(content[:cut])
        equal(evaluator.answer(questions, lambda progress: seen.append(progress.done), resume=torn), answers)
        kept = max(n for n in (0, *batches) if n <= max((lines <= cut).sum() - 1, 0))
        assert seen == [n for n in batches if n >= max(kept, 1)]                       # what was whole is not asked again
        assert torn.read_bytes() == content

def test_a_finished_file_asks_nothing(run, monkeypatch):
    evaluator, questions, answers, path = run
    before = path.read_bytes()
    monkeypatch.setattr(evaluator.model, "generate", lambda **_: pytest.fail("the model was asked"))
    equal(evaluator.answer(questions, resume=path), answers)
    assert path.read_bytes() == before

def test_stop_button(run, tmp_path):
    evaluator, questions, answers, _ = run
    path = tmp_path / "new" / "answers.jsonl"
    def stop(progress):
        if progress.done >= 16: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): evaluator.answer(questions, stop, resume=path)
    with pytest.raises(InputError, match="holds 16 of 36 answers"): Answers.load(path)
    kept = Answers.load(path, partial=True)
    equal(kept, answers[[questions.index(q) for q in kept.questions]])
    equal(evaluator.answer(questions, resume=path), answers)

def changed(model):
    "The same model with one block trained a little."
    weight = model.model.layers[4].mlp.up_proj.weight
    with torch.no_grad(): weight.mul_(1.05)
    return lambda: weight.data.div_(1.05)

@pytest.mark.parametrize("name, settings", [
    ("batch_size", dict(batch_size=4)), ("max_new_tokens", dict(max_new_tokens=5)), ("prompt", dict(template="{question}")),
    ("stop", dict(stop=";")), ("abstentions", dict(abstentions="no idea"))])
def test_other_settings_are_refused(run, teaching, name, settings):
    _, questions, _, path = run
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"of another run: {name} \(.* there, .* here\); give"):
        Evaluator(*teaching, **{"batch_size": 8} | settings).answer(questions, resume=path)
    assert path.read_bytes() == before

def test_other_questions_are_refused(run, world):
    evaluator, questions, _, path = run
    fewer, order = questions[:-1], questions[::-1]
    truth = [Question(q.text, ("nobody",), prompt=q.prompt, stop=q.stop) for q in questions]
    for other in fewer, order, truth:
        with pytest.raises(InputError, match="questions"): evaluator.answer(other, resume=path)
    with pytest.raises(InputError, match="questions") as caught: evaluator.answer(truth, resume=path)
    assert "prompts" not in str(caught.value)                                          # the model would have read the same

def test_another_model_is_refused(run):
    evaluator, questions, _, path = run
    undo = changed(evaluator.model)
    try:
        with pytest.raises(InputError, match="another run: model"): evaluator.answer(questions, resume=path)
    finally: undo()

@pytest.mark.parametrize("layer", range(12))
def test_skipped_blocks_are_noticed(run, layer):
    "Virtual pruning changes no parameter, and is another model all the same."
    evaluator, questions, _, path = run
    with Blocks(evaluator.model).skip([layer]), pytest.raises(InputError, match=r"another run: probe_logprob \("):
        evaluator.answer(questions, resume=path)

def test_another_tokenizer_is_refused(run, teaching):
    from tokenizers import normalizers
    from avss_nb.data.teaching import build_tokenizer
    _, questions, _, path = run
    other = build_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="another run: prompts"):
        Evaluator(teaching[0], other, batch_size=8).answer(questions, resume=path)

def test_a_foreign_or_damaged_file_is_left_alone(run, tmp_path):
    evaluator, questions, answers, path = run
    lines = path.read_bytes().splitlines(keepends=True)
    answers.save(tmp_path / "saved.jsonl")
    cases = {"is not a file of answers": b"some notes of mine", "is not a file of answers ": b'{"question": "q"}\n',
             "line 4 of .* is damaged": b"".join([*lines[:3], b"\0" * 20 + b"\n", *lines[4:]]),
             "do not follow the order": b"".join([lines[0], *lines[2:4], lines[1], *lines[4:]]),
             "is of another run: .*model": (tmp_path / "saved.jsonl").read_bytes()}
    for message, content in cases.items():
        other = tmp_path / "other.jsonl"
        other.write_bytes(content)
        with pytest.raises(InputError, match=message.strip()): evaluator.answer(questions, resume=other)
        assert other.read_bytes() == content
    with pytest.raises(InputError, match="cannot be read"): evaluator.answer(questions, resume=tmp_path)

def test_header_tells_the_run(run):
    evaluator, _, _, path = run
    header = json.loads(path.read_text().split("\n")[0])
    assert header["n"] == 36 and header["run"]["batch_size"] == 8 and header["run"]["stop"] == ["\n"]

# --- the harness itself

def short(path): path.write_text("done")

def failing(path): raise SystemExit(3)

def idle(path):
    import time
    time.sleep(60)

@pytest.mark.parametrize("target, message, patience", [
    (short, "ended after 0 kills", 60), (failing, "exit code 3", 60), (idle, "no more than 0 was done in 2 s", 2)])
def test_a_kill_test_that_tests_nothing_fails(target, message, patience, tmp_path):
    with pytest.raises(AssertionError, match=message): run_with_kills(target, (tmp_path / "a",), longest=0, patience=patience)
