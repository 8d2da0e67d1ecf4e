"A real instruct model, real questions: how it is asked decides what is measured; a real tokenizer that needs its BOS."
import numpy as np, pytest, torch
from avss_nb import Evaluator, Prompt, plan_asking, load_model, load_questions
from conftest import shared

pytestmark = pytest.mark.real

@pytest.fixture(scope="module")
def smollm2(real): return load_model(str(real("smollm2")), "float32", "cpu")

@pytest.fixture(scope="module")
def questions(): return load_questions(shared("data/sciq/test.txt"))[:110]

@pytest.mark.soak(only=True)
@pytest.mark.parametrize("count", [60, 110])
def test_auto_finds_short_answers_that_can_be_judged(smollm2, questions, count):
    evaluator = Evaluator(*smollm2)
    found = plan_asking(evaluator, questions[:count], draws=2, develop=16)
    answers = evaluator.asking(found.prompt).answer(found.questions)
    report = answers.report(draws=0)
    assert found.prompt.style == "plain" and len(found.prompt.examples) == 5 and [*found.tried.index] == ["5 shots", "chat"]
    assert report.accuracy > 0.08 and report.by_rule["contains"] >= report.accuracy and all(answers.texts)
    plain = evaluator.answer(found.questions[:count // 3])  # as it was asked before
    assert plain.correct.mean() < 0.05 and plain.abstained.mean() > 0.05 and plain.warnings()

@pytest.mark.parametrize("prompt", [Prompt(), Prompt("chat", system="Answer with a word."), Prompt(examples=[("Capital of France?", "Paris")])],
                         ids=["plain", "chat", "shots"])
def test_answers_read_again_have_their_log_probabilities(smollm2, questions, prompt):
    evaluator = Evaluator(*smollm2, prompt=prompt, max_new_tokens=8)
    answers = evaluator.answer(questions[:6])
    for again, said in zip(evaluator.score(answers), answers.token_logprobs): assert np.allclose(again, said, atol=2e-3)

def test_the_chat_template_is_read_as_the_model_was_trained_on_it(smollm2, questions):
    tokenizer = smollm2[1]
    (ids,) = Prompt("chat").ids(questions[:1], tokenizer)
    assert tokenizer.decode(ids).endswith(f"<|im_start|>user\n{questions[0].text}<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(ids).count("<|im_start|>") == 3

def test_every_window_of_gemma_begins_with_the_bos_that_it_needs(real):
    model, tokenizer = load_model(str(real("gemma3")), "float32", "cpu")
    text = shared("data/wikipedia/heldout_simplewiki.txt").read_text(encoding="utf-8").replace("\0", "\n")[:6200]
    body = tokenizer(text, add_special_tokens=False)["input_ids"][:10 * 127]
    text = tokenizer.decode(body)
    rows = [[tokenizer.bos_token_id, *body[i:i + 127]] for i in range(0, len(body), 127)]
    with torch.no_grad(): losses = [float(model(x := torch.tensor([row]), labels=x).loss) for row in rows]
    by_hand = float(np.exp(np.mean(losses)))
    assert Evaluator(model, tokenizer).perplexity([text], max_length=128).value == pytest.approx(by_hand, rel=0.01)
    ids = [body[i:i + 127] for i in range(0, len(body), 127)]
    assert Evaluator(model).perplexity(ids).value > 3 * by_hand  # without it
