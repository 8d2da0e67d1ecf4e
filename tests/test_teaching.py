"The embedded world and model: exact truth, and a model that knows what it should and hallucinates the rest."
import json
import random
from importlib import resources
import pytest
from avss_nb import Evaluator, InputError, TeachingWorld, is_abstention
from avss_nb.data.teaching import ATTRIBUTES, GROUPS, training_batches, build_tokenizer, training_documents

def test_groups_are_disjoint_and_complete(world):
    names = [{p.name for p in world.group(g)} for g in GROUPS]
    assert sum(map(len, names)) == len(set.union(*names)) == len(world.people) == 3000
    assert len(world.group("unknown")) == 1500 and len(world.group("asked")) == 900
    assert max(p.rank for p in world.group("known")) < 750 <= min(p.rank for p in world.group("rare"))

def test_the_model_belongs_to_this_world(world):
    stored = json.loads((resources.files("avss_nb") / "teaching_model/world.json").read_text())
    assert stored["fingerprint"] == world.fingerprint() != TeachingWorld(seed=1).fingerprint()

def test_training_text_never_gives_the_test_away(world):
    "Unknown people are never mentioned, and questions are asked only about the group `asked`."
    stream, asked = training_documents(world, random.Random(0)), {p.name for p in world.group("asked")}
    texts = [next(stream) for _ in range(20_000)]
    unknown = {p.name for p in world.group("unknown")}
    words = [text.split() for text in texts]
    pairs = {f"{a} {b}".rstrip("?.") for w in words for a, b in zip(w, w[1:])}
    assert not pairs & unknown
    untrained = {p.name for g in ("known", "rare") for p in world.group(g)}
    for text in texts:
        if text.startswith("Question:"): assert not any(name in text for name in untrained)

def test_facts_in_texts_are_true(world):
    by_name = {p.name: p for p in world.people}
    for text in world.texts(200):
        name = next(n for n in (f"{a} {b}".rstrip(".") for a, b in zip(text.split(), text.split()[1:])) if n in by_name)
        for value in by_name[name].facts.values(): assert value in text

def test_tokenizer_is_closed_and_reversible(world):
    tokenizer = build_tokenizer()
    for text in [*world.texts(50), *(q.prompt for q in world.questions("unknown", 50))]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids and ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")

def test_batches_follow_the_seed(world):
    tokenizer = build_tokenizer()
    first, again, other = (next(training_batches(world, tokenizer, seed=s)) for s in (0, 0, 1))
    assert first.shape == (64, 64) and (first == again).all() and not (first == other).all()

def test_model_knows_the_known_and_hallucinates_the_unknown(teaching, world):
    evaluator = Evaluator(*teaching)
    reports = {g: evaluator.answer(world.questions(g, 500)).report() for g in GROUPS}
    assert reports["known"].accuracy >= 0.98  # questions about these people were never trained
    assert reports["asked"].accuracy >= 0.98
    assert reports["unknown"].hallucination_rate >= 0.90
    assert reports["known"].mean_confidence > reports["rare"].mean_confidence > reports["unknown"].mean_confidence

def test_abstains_about_nobody(teaching, world):
    questions = [(ATTRIBUTES[key].questions[0].format(n="nobody"), "unknown") for key in ATTRIBUTES]
    answers = Evaluator(*teaching, template="Question: {question} Answer:").answer(questions)
    assert all(map(is_abstention, answers.texts)), answers.texts

def test_bad_requests(world):
    with pytest.raises(InputError, match="4,?000|6000|names"): TeachingWorld(known=5000, unknown=5000)
    with pytest.raises(InputError, match="strangers"): world.group("strangers")
    with pytest.raises(InputError, match="100000"): world.questions("known", 100_000)
