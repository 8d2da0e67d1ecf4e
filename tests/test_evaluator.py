"Perplexity and answers, against unpadded one-by-one computation, teacher forcing and Hugging Face's own loss."
import math, random, warnings
import numpy as np, pytest, torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from avss_nb import (
    Answers, Evaluator, InputError, Labelled, Perplexity, Question, Report, load_texts, windows
)
from avss_nb.answering.choices import mc2
from avss_nb.answering.evaluator import (
    answer_ended, answer_span, generation_settings, left_padded, reads_left_padding, retention
)
from avss_nb.data.batches import tokenize
from avss_nb.model.heads import find_head
from conftest import shared
from tiny import CAUSAL, VOCABULARY, tiny

END = 2

def word_tokenizer(**kwargs) -> tf.PreTrainedTokenizerFast:
    "One token a word: w003 … w599; a text starts with <s>."
    words = ["<unk>", "<s>", "</s>", *(f"w{i:03}" for i in range(3, VOCABULARY))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **kwargs)

def spaceless_tokenizer() -> tf.PreTrainedTokenizerFast:
    "One token a word, and nothing before a text: whitespace alone has no tokens."
    made = word_tokenizer().backend_tokenizer
    made.post_processor = processors.Sequence([])
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")

@pytest.fixture(scope="module")
def tokenizer(): return word_tokenizer()

def words(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{i:03}" for i in torch.randint(3, VOCABULARY, (n,), generator=generator).tolist())

@pytest.fixture(scope="module")
def questions():
    "Prompts of 2 to 40 tokens, in no order of length."
    lengths = [7, 1, 23, 12, 39, 2, 23, 5, 18, 1, 30]
    return [Question(f"question {i}", ("w007",), prompt=words(n, i)) for i, n in enumerate(lengths)]

@torch.no_grad()
def greedy(model, ids, steps, ends=(END,)):
    "Greedy continuation by hand: no padding, no cache, no generate. Tokens, and log-probabilities of those before the end."
    tokens, logprobs = [], []
    for _ in range(steps):
        scores = model(input_ids=torch.tensor([ids + tokens])).logits[0, -1].double().log_softmax(-1)
        token = int(scores.argmax())
        logprobs.append(float(scores[token]))
        if token in ends: break
        tokens.append(token)
    return tokens, logprobs[:max(len(tokens), 1)]

def ending_model(name):
    "A random model with the tokenizer's end-of-text token."
    model = tiny(name)
    model.generation_config.eos_token_id = END
    return model

# --- generation

@pytest.mark.parametrize("name", CAUSAL)
def test_batched_answers_equal_unpadded_ones(name, tokenizer, questions):
    model = ending_model(name)
    references = [greedy(model, tokenizer(question.prompt)["input_ids"], 5) for question in questions]
    for batch_size in 1, 4, 64:
        answers = Evaluator(model, tokenizer, batch_size=batch_size, max_new_tokens=5).answer(questions)
        assert answers.questions == tuple(questions)
        found = zip(answers.texts, answers.confidences, answers.token_logprobs)
        for (tokens, by_hand), (text, confidence, logprobs) in zip(references, found):
            assert text == tokenizer.decode(tokens) and logprobs == pytest.approx(by_hand, abs=1e-4)
            assert confidence == pytest.approx(math.exp(np.mean(by_hand)), abs=1e-4)

@pytest.mark.parametrize("name", CAUSAL)
def test_confidence_is_that_of_teacher_forcing(name, tokenizer, questions):
    "The probability of the whole answer, read again in one pass with right padding."
    model = ending_model(name)
    answers = Evaluator(model, tokenizer, max_new_tokens=5).answer(questions)
    for question, text, confidence in zip(questions, answers.texts, answers.confidences):
        prompt, own = tokenizer(question.prompt)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
        if not own: continue
        ids = torch.tensor([prompt + own + [0, 0]])
        mask = torch.tensor([[1] * (len(prompt) + len(own)) + [0, 0]])
        with torch.no_grad(): scores = model(input_ids=ids, attention_mask=mask).logits[0].log_softmax(-1)
        forced = [float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(own)]
        assert confidence == pytest.approx(math.exp(sum(forced) / len(own)), abs=1e-4)

def early_end(model, tokenizer, questions) -> int:
    "A token that comes early in some continuations and in others not at all."
    continuations = [greedy(model, tokenizer(q.prompt)["input_ids"], 6, ends=())[0] for q in questions]
    return next(t for c in continuations for t in c[1:4] if sum(t in other for other in continuations) < len(continuations))

def test_answers_that_end_early_and_late(tokenizer, questions):
    model = tiny("llama")
    model.generation_config.eos_token_id = end = early_end(model, tokenizer, questions)
    answers = Evaluator(model, tokenizer, max_new_tokens=6).answer(questions)
    lengths = [len(text.split()) for text in answers.texts]
    assert min(lengths) < 6 == max(lengths)
    for question, text, logprobs in zip(questions, answers.texts, answers.token_logprobs):
        tokens, by_hand = greedy(model, tokenizer(question.prompt)["input_ids"], 6, ends=(end, END))
        assert text == tokenizer.decode(tokens) and logprobs == pytest.approx(by_hand, abs=1e-4)

@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [None, "</s>", "w005"])
def test_padding_side_and_pad_token_do_not_matter(side, pad, questions):
    model = ending_model("gpt2")
    tokenizer = word_tokenizer(padding_side=side, **({"pad_token": pad} if pad else {}))
    answers = Evaluator(model, tokenizer, max_new_tokens=4).answer(questions)
    reference = Evaluator(model, word_tokenizer(), max_new_tokens=4, batch_size=1).answer(questions)
    assert answers.texts == reference.texts and np.allclose(answers.confidences, reference.confidences, atol=1e-4)
    assert tokenizer.padding_side == side and tokenizer.pad_token == pad

def test_pad_token_beyond_the_embedding(tokenizer, questions):
    "A pad token that was added without resizing the model must not be looked up, not even after a row's end."
    model, padding = tiny("llama"), word_tokenizer(pad_token="<pad>")
    assert padding.pad_token_id >= VOCABULARY
    model.generation_config.eos_token_id = early_end(model, tokenizer, questions)
    assert Evaluator(model, padding).answer(questions).texts == Evaluator(model, tokenizer).answer(questions).texts

def test_stop_string_ends_an_answer_and_does_not_count(tokenizer, questions):
    model = ending_model("llama")
    full = {q: greedy(model, tokenizer(q.prompt)["input_ids"], 6) for q in questions}
    stop = next(tokenizer.decode([tokens[2]]) for tokens, _ in full.values() if len(set(tokens[:3])) == 3)
    answers = Evaluator(model, tokenizer, max_new_tokens=6, stop=stop).answer(questions)
    cut = 0
    for question, text, logprobs in zip(questions, answers.texts, answers.token_logprobs):
        tokens, by_hand = full[question]
        own = tokenizer.decode(tokens).split(stop)[0].split()
        cut += len(own) < len(tokens)
        assert text.split() == own and logprobs == pytest.approx(by_hand[:max(len(own), 1)], abs=1e-4)
    assert cut

def test_generation_stops_when_every_row_has_stopped(tokenizer, questions):
    model, steps = ending_model("llama"), []
    first = {tokenizer.decode(greedy(model, tokenizer(q.prompt)["input_ids"], 1)[0]) for q in questions}
    assert not reads_left_padding(model) and find_head(model) == "causal"  # found once a model
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    answers = Evaluator(model, tokenizer, max_new_tokens=50, stop=tuple(first - {""})).answer(questions)
    hook.remove()
    assert len(steps) == 1 and set(answers.texts) == {""}
    assert all(len(row) == 1 for row in answers.token_logprobs) and answers.abstained.all()

def test_stop_string_that_is_a_special_token(tokenizer, questions):
    "Decoding skips special tokens, so that such a string never appears in the text."
    model = ending_model("llama")
    tokens = next(t for t in (greedy(model, tokenizer(q.prompt)["input_ids"], 4)[0] for q in questions) if len(set(t)) == 4)
    asked = [q for q in questions if greedy(model, tokenizer(q.prompt)["input_ids"], 4)[0] == tokens]
    special = word_tokenizer(extra_special_tokens=[tokenizer.decode([tokens[2]])])
    assert special.decode(tokens, skip_special_tokens=True).split() == tokenizer.decode([*tokens[:2], tokens[3]]).split()
    answers = Evaluator(model, special, max_new_tokens=4, stop=tokenizer.decode([tokens[2]])).answer(asked)
    assert answers.texts[0] == tokenizer.decode(tokens[:2]) and len(answers.token_logprobs[0]) == 2

def test_the_model_is_left_as_it_was(tokenizer, questions):
    model = ending_model("gpt2")
    reference = Evaluator(model, tokenizer, max_new_tokens=4).answer(questions)
    for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)): dropout.p = 0.5
    model.train(); model.transformer.h[1].eval()
    model.generation_config.update(do_sample=True, temperature=3.0, repetition_penalty=5.0, num_beams=3,
                                   suppress_tokens=[*range(100, 600)])
    kept = model.generation_config
    answers = Evaluator(model, tokenizer, max_new_tokens=4).answer(questions)
    assert answers.texts == reference.texts and np.allclose(answers.confidences, reference.confidences, atol=1e-5)
    assert model.training and not model.transformer.h[1].training and not model.transformer.h[1].mlp.training
    assert model.transformer.h[0].training and model.generation_config is kept and kept.num_beams == 3
    assert all(p.grad is None for p in model.parameters())

def test_the_model_is_restored_after_an_interruption(tokenizer, questions):
    model = ending_model("llama").train()
    kept = model.generation_config
    def interrupt(progress): raise KeyboardInterrupt
    for work in (lambda: Evaluator(model, tokenizer).answer(questions, interrupt),
                 lambda: Evaluator(model, tokenizer).perplexity([words(9, 0)], progress=interrupt)):
        with pytest.raises(KeyboardInterrupt): work()
        assert model.training and model.generation_config is kept and torch.is_grad_enabled()

def test_a_wrapped_model_is_set_back_too():
    inner = ending_model("llama")
    outer = torch.nn.Sequential(inner)
    outer.generation_config = inner.generation_config
    other = tf.GenerationConfig()
    with generation_settings(outer, other): assert inner.generation_config is other and outer.generation_config is other
    assert inner.generation_config is outer.generation_config is not other

def test_progress_offers_what_is_done(tokenizer, questions):
    model, seen = ending_model("llama"), []
    def listen(progress): seen.append((progress.done, progress.total, progress.unit, progress.partial()))
    answers = Evaluator(model, tokenizer, batch_size=4, max_new_tokens=3).answer(questions, listen)
    assert [done for done, *_ in seen] == [4, 8, 11] or [done for done, *_ in seen][-1] == 11
    for done, total, unit, partial in seen:
        assert (total, unit, len(partial)) == (11, "question", done)
        assert [answers.texts[questions.index(q)] for q in partial.questions] == list(partial.texts)
    seen.clear()
    found = Evaluator(model, tokenizer, batch_size=2).perplexity([words(n, n) for n in (5, 9, 14)], progress=listen)
    assert [done for done, *_ in seen][-1] == 3 and seen[-1][3].value == found.value and seen[0][3].tokens < found.tokens

def test_reduced_precision(tokenizer, questions):
    answers = Evaluator(tiny("llama", dtype=torch.bfloat16), tokenizer, max_new_tokens=4).answer(questions)
    assert answers.confidences.dtype == np.float64
    assert ((answers.confidences > 0) & (answers.confidences <= 1)).all()

def test_template_prompt_and_pairs(tokenizer):
    seen, model = [], ending_model("llama")
    assert find_head(model) == "causal"  # tried once a model
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    asked = [("w011 w012", ["w013"]), Question("w011 {w012}", ("w013",), prompt="w020 w021")]
    answers = Evaluator(model, tokenizer, batch_size=1, max_new_tokens=1, template="w030 {question} w031 {braces}").answer(asked)
    hook.remove()
    assert sorted(map(tuple, (ids[0].tolist() for ids in seen))) == [(1, 20, 21), (1, 30, 11, 12, 31, 0)]
    assert answers.questions[0] == Question("w011 w012", ("w013",))

def test_end_token_that_a_tokenizer_appends_is_not_part_of_the_prompt(questions):
    model, appending = ending_model("llama"), word_tokenizer()
    both = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    appending.backend_tokenizer.post_processor = both
    assert appending("w011")["input_ids"] == [1, 11, 2]
    with_end, without = (Evaluator(model, t, max_new_tokens=3).answer(questions) for t in (appending, word_tokenizer()))
    assert with_end.texts == without.texts

T5 = tf.T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)

def small_vocabulary(): return tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=2, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2))

@pytest.mark.parametrize("make, message", [
    (lambda t: Evaluator(tiny("bert"), t).answer([("q", "a")]), "BertForMaskedLM cannot answer questions"),
    (lambda t: Evaluator(tf.LlamaModel(tiny("llama").config), t), "LlamaModel has no head whose loss is known"),
    (lambda t: Evaluator(tf.GPT2ForSequenceClassification(tiny("gpt2").config), t).answer([("q", "a")]), "cannot answer questions"),
    (lambda t: Evaluator(tf.T5ForConditionalGeneration(T5), t), "has no head whose loss is known"),
    (lambda t: Evaluator(tiny("llama"), t, batch_size=0), "at least 1"),
    (lambda t: Evaluator(small_vocabulary(), t).answer([(words(9, 0), "a")]), "token id .* was given; the model knows 0 to 1; use the model's own tokenizer"),
    (lambda t: Evaluator(small_vocabulary(), t).perplexity([words(9, 0)]), "token id .* was given; the model knows 0 to 1"),
    (lambda t: Evaluator(small_vocabulary(), t).score([(words(9, 0), "a")], ["a"]), "token id .* was given; the model knows 0 to 1"),
    (lambda t: Evaluator(tiny("llama"), t, template="no place"), "has no place for"),
    (lambda t: Evaluator(tiny("llama"), t, stop=("",)), "empty stop string"),
    (lambda t: Evaluator(tiny("llama"), t).answer([]), "at least one"),
    (lambda t: Evaluator(tiny("llama")).answer([("q", "a")]), "need a tokenizer"),
    (lambda t: Evaluator(tiny("llama"), t).answer(["q"]), "not a question with answers"),
    (lambda t: Evaluator(tiny("llama"), t).evaluate(), "nothing to evaluate"),
    (lambda t: Evaluator(tiny("gpt2"), t).answer([("q", "a"), (words(110, 0), "a")]), "129 tokens are too long for a model"),
    (lambda t: Evaluator(tiny("llama"), t).score([], []), "at least one"),
    (lambda t: Evaluator(tiny("llama")).score([("q", "a")], ["a"]), "need a tokenizer"),
    (lambda t: Evaluator(tiny("llama"), t).score([("q", "a")], ["a", "b"]), "2 texts were given for 1 questions"),
    (lambda t: Evaluator(tiny("llama"), t).score([("q", "a"), ("r", "a")], ["a", " "]), "answer to 'r' is empty"),
    (lambda t: Evaluator(tiny("gpt2"), t).score([("q", "a")], [words(140, 0)]), "tokens are too long for a model of 128"),
    (lambda t: Evaluator(tiny("gpt2"), spaceless_tokenizer()).score([Question("q", (), prompt=" ")], ["a"]), "' ' has no tokens"),
    (lambda t: Evaluator(tiny("llama"), t).choose([("q", "a")]), "'q' has no choices"),
    (lambda t: Evaluator(tiny("llama"), t).choose([]), "at least one"),
    (lambda t: Evaluator(tiny("llama"), t).choose([Question("q", ("A",), choices=("a", "b"))]), "no choice of 'q' is among"),
    (lambda t: Evaluator(tiny("llama"), t).choose([Question("q", ("a",), choices=("a", "b"))], by="max"), "by='max' was given"),
    (lambda t: Evaluator(tiny("llama"), t).choose([Question("q", ("a",), choices=("a", ""))]), "answer to 'q' is empty"),
    (lambda t: Evaluator(tiny("gpt2"), t).perplexity([words(150, 0)]), "151 tokens are too long for a model of 128 positions"),
    (lambda t: Evaluator(tiny("gpt2")).perplexity(["text"]), "without a tokenizer"),
    (lambda t: Evaluator(tiny("gpt2")).perplexity([[5]]), "at least 2 tokens")])
def test_errors_say_what_to_do(make, message):
    with pytest.raises(InputError, match=message): make(word_tokenizer())

# --- where an answer ends

def byte_tokenizer():
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tf.PreTrainedTokenizerFast(tokenizer_object=made)

@pytest.mark.parametrize("generated, stop, text, span", [
    (" Paris\nQ: next", ["\n"], "Paris", (1, 6)), (" Paris", ["\n"], "Paris", (1, 6)), (" Paris.", ["\n"], "Paris", (1, 6)),
    (" Paris. \n", ["\n"], "Paris", (1, 6)), ("\nParis", ["\n"], "Paris", (1, 6)), (" ", ["\n"], "", (0, 1)), ("é\n", ["\n"], "é", (0, 2)),
    ("日本\n", ["\n"], "日本", (0, 6)), ("Washington, D.C.\n", ["\n"], "Washington, D.C.", (0, 16)), ("a b###c", ["###"], "a b", (0, 3)),
    ("a;b.c", [".", ";"], "a", (0, 1)), ("U.S.", [], "U.S.", (0, 4)), ("Mr. Fox.", ["\n"], "Mr. Fox", (0, 7)), (".", [], "", (0, 1)),
    ("\n\n \tParis\n\nQ", ["\n"], "Paris", (4, 9)), ("\n\nQ: x", ["\n", "Q:"], "", (2, 3)), ("\n\nQ: x", ["\n\nQ:"], "", (2, 3)),
    ("\r\nParis\n", ["\n"], "Paris", (2, 7)), (" Paris .\n", ["\n"], "Paris", (1, 6)), ("\n\n", ["\n"], "", (1, 2)),
    ("<think>\nRome?\n</think>\n\nParis\n", ["\n"], "Paris", (24, 29)), ("<think>\nParis\nor", ["\n"], "", (15, 16)),
    (" [THINK]a[/THINK]<think>b</think> 1\n", ["\n", "a", "b"], "1", (34, 35)), ("hm\n</think>Paris\n", ["\n"], "Paris", (11, 16)),
    ("a <think> b", ["\n"], "a <think> b", (0, 11))])
def test_answers_of_bytes(generated, stop, text, span):
    tokenizer = byte_tokenizer()
    tokens = tokenizer(generated)["input_ids"]
    assert len(tokens) == len(generated.encode())
    assert answer_span(tokens, [], stop, lambda ids: tokenizer.decode(ids)) == (text, span)

@pytest.mark.parametrize("generated, ended", [
    ("", False), ("\n", False), (" \n\n", False), ("\n Paris", False), ("\nParis\n", True), ("<think>\n\nhm\n", False), ("<think>a</think>\n", False),
    ("<think>a</think>\nb\n", True), ("\nQ:", True)])
def test_generation_goes_on_until_the_answer_has_ended(generated, ended):
    assert answer_ended(generated, ["\n", "Q:"]) is ended

def test_thoughts_that_the_prompt_opened():
    said, decode = "Rome?\nNo.\n</think>\nParis\n", lambda ids: bytes(ids).decode()
    assert [answer_ended(said[:n], ["\n"], thinking=True) for n in range(len(said) + 1)] == [False] * len(said) + [True]
    assert answer_span([*said.encode()], [], ["\n"], decode, thinking=True) == ("Paris", (19, 24))
    assert answer_span([*said[:9].encode()], [], ["\n"], decode, thinking=True) == ("", (8, 9))

def test_the_answer_is_cut_where_generation_stops():
    "For any text, stopping at the first token after which the answer has ended changes neither the answer nor its tokens."
    rng, decode = random.Random(0), "".join
    for _ in range(3000):
        tokens = [rng.choice(["\n", " ", "a", "b.", ".", "<think>", "</think>", "x\n"]) for _ in range(rng.randrange(1, 9))]
        ended = [n for n in range(len(tokens) + 1) if answer_ended(decode(tokens[:n]), ["\n"])]
        whole = answer_span(tokens, [], ["\n"], decode)
        if ended and not any("</think>" in t for t in tokens[ended[0]:]): assert answer_span(tokens[:ended[0]], [], ["\n"], decode) == whole
        text, (begin, end) = whole
        assert 0 <= begin < end <= len(tokens) and text == text.strip() and text in decode(tokens[begin:end])

def test_an_incomplete_character_at_the_end_counts():
    tokenizer = byte_tokenizer()
    assert answer_span(tokenizer("é")["input_ids"][:1], [], [], lambda ids: tokenizer.decode(ids))[1] == (0, 1)

def test_left_padding():
    batch = left_padded([[7, 8, 9], [4], (5, 6)])
    assert batch["input_ids"].tolist() == [[7, 8, 9], [0, 0, 4], [0, 5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]

# --- given answers, read again

def test_score_of_spoken_answers_is_how_they_were_spoken(teaching, world):
    questions = [q for group in ("known", "rare", "unknown") for q in world.questions(group, 40)]
    answers = Evaluator(*teaching).answer(questions)
    assert len({len(row) for row in answers.token_logprobs}) > 1
    for batch_size in 1, 7, 64:
        scored = Evaluator(*teaching, batch_size=batch_size).score(questions, answers.texts)
        assert [len(row) for row in scored] == [len(row) for row in answers.token_logprobs]
        assert np.allclose([x for row in scored for x in row], [x for row in answers.token_logprobs for x in row], atol=1e-4)

@torch.no_grad()
def forced(model, prompt, own):
    "Log-probabilities of given tokens after a prompt: one at a time, in float64, no padding."
    return [float(model(input_ids=torch.tensor([prompt + own[:i]])).logits[0, -1].double().log_softmax(-1)[token])
            for i, token in enumerate(own)]

TEXTS = [words(n, 100 + n) for n in (1, 4, 2, 9, 1, 3, 7, 2, 5, 6, 1)]

@pytest.mark.parametrize("name", CAUSAL)
def test_score_equals_one_by_one_computation(name, tokenizer, questions):
    model = tiny(name)
    scored = Evaluator(model, tokenizer, batch_size=4).score(questions, TEXTS)
    for question, text, found in zip(questions, TEXTS, scored):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found == pytest.approx(forced(model, tokenizer(question.prompt)["input_ids"], own), abs=1e-3, rel=1e-4)

def test_score_of_a_real_model_reads_the_joined_text():
    folder = shared("models/wiki12")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = ["The capital of France is", "Hamlet was written by", "Q: Where is Rome?\nA:"]
    texts = ["Paris", "William Shakespeare", "Italy"]
    scored = Evaluator(model, tokenizer).score([Question("q", (), prompt=prompt) for prompt in prompts], texts)
    for prompt, text, found in zip(prompts, texts, scored):
        start, row = (tokenizer(x)["input_ids"] for x in (prompt, f"{prompt} {text}"))
        assert row[:len(start)] == start and found == pytest.approx(forced(model, start, row[len(start):]), abs=1e-3)
    paris, rome = Evaluator(model, tokenizer).score([Question("q", (), prompt=prompts[0])] * 2, ["Paris", "Rome"])
    assert sum(paris) > sum(rome)

def test_score_tells_its_progress_and_makes_small_batches(tokenizer, questions, monkeypatch):
    import avss_nb.answering.evaluator as module
    seen, model = [], tiny("llama")
    monkeypatch.setattr(module, "LOGITS", 50 * VOCABULARY * 2)
    scored = Evaluator(model, tokenizer).score(questions, TEXTS, lambda p: seen.append((p.done, p.total)))
    assert len(seen) >= 6 and seen[-1] == (11, 11)
    monkeypatch.undo()
    whole = Evaluator(model, tokenizer).score(questions, TEXTS)
    assert [x for row in scored for x in row] == pytest.approx([x for row in whole for x in row], abs=1e-4)

def test_scores_make_answers(teaching, world):
    "Labels that are given: the right answer, and one that is wrong."
    questions = world.questions("known", 20)
    texts = [q.answers[0] for q in questions[:10]] + ["nowhere"] * 10
    scored = Evaluator(*teaching).score(questions, texts)
    answers = Answers.given(questions, texts, [True] * 10 + [False] * 10, scored)
    assert answers.confidences == pytest.approx([math.exp(np.mean(row)) for row in scored])
    assert answers.report().auroc == 1 and answers.hallucinated.sum() == 10

# --- choosing

@pytest.fixture(scope="module")
def multiple(questions):
    "Questions with three to five choices of one to six tokens; one or two of them are right."
    made = []
    for i, q in enumerate(questions):
        choices = tuple(words(1 + (5 * i + 3 * j) % 6, 50 * i + j) for j in range(3 + i % 3))
        made.append(Question(q.text, choices[:1 + i % 2], prompt=q.prompt, choices=choices[::-1]))
    return made

@pytest.mark.parametrize("by, join", [("mean", np.mean), ("sum", np.sum)])
def test_choice_is_the_most_probable_text(by, join, tokenizer, multiple):
    model = tiny("qwen2")
    answers, picks = Evaluator(model, tokenizer, batch_size=5).choose(multiple, by), []
    for i, q in enumerate(multiple):
        start = tokenizer(q.prompt)["input_ids"]
        scores = np.array([join(forced(model, start, tokenizer(c, add_special_tokens=False)["input_ids"])) for c in q.choices])
        picks.append(int(scores.argmax()))
        assert answers.texts[i] == q.choices[picks[-1]] and answers.correct[i] == (answers.texts[i] in q.answers)
        assert answers.confidences[i] == pytest.approx(1 / np.exp(scores - scores.max()).sum(), abs=1e-3)
        assert join(answers.token_logprobs[i]) == pytest.approx(scores.max(), abs=1e-3)
    assert not answers.abstained.any() and len({*picks}) > 1

def test_mc2_is_the_probability_of_the_right_texts(tokenizer, multiple):
    model = tiny("gpt2")
    found = mc2(multiple, Evaluator(model, tokenizer).score_choices(multiple))
    for q, share in zip(multiple, found):
        start = tokenizer(q.prompt)["input_ids"]
        p = {c: math.exp(sum(forced(model, start, tokenizer(c, add_special_tokens=False)["input_ids"]))) for c in q.choices}
        assert share == pytest.approx(sum(p[c] for c in q.answers) / sum(p.values()), rel=0.02, abs=1e-6)

def test_the_teaching_model_chooses_what_it_knows(teaching, world):
    from avss_nb.data.teaching import CITIES
    questions = [q for q in world.questions("known") if q.kind == "birthplace"][:30]
    def choices(q): return (*q.answers, *[city for city in CITIES if city not in q.answers][:3])
    answers = Evaluator(*teaching).choose([Question(q.text, q.answers, prompt=q.prompt, choices=choices(q)) for q in questions])
    assert answers.correct.mean() > 0.9 and answers.confidences.min() > 1 / 4

# --- abstaining

def test_further_phrases_of_abstention(tokenizer, questions):
    model = ending_model("llama")
    texts = Evaluator(model, tokenizer, max_new_tokens=3).answer(questions).texts
    answers = Evaluator(model, tokenizer, max_new_tokens=3, abstentions=texts[4].upper() + "!").answer(questions)
    assert answers.abstained[4] and answers.abstained.tolist() == [text == texts[4] for text in texts]

# --- perplexity

@pytest.mark.parametrize("name", CAUSAL)
def test_perplexity_is_the_token_weighted_loss_of_single_texts(name, tokenizer):
    model, texts = tiny(name), [words(n, n) for n in (3, 40, 11, 25, 4)]
    losses, tokens = [], []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad(): losses.append(model(input_ids=ids, labels=ids).loss.item())
        tokens.append(ids.shape[1] - 1)
    for batch_size in 1, 2, 64:                                                     # padding does not matter
        found = Evaluator(model, tokenizer, batch_size=batch_size).perplexity(texts)
        assert found.loss == pytest.approx(np.average(losses, weights=tokens), abs=1e-4) and found.tokens == sum(tokens)
        assert found.value == pytest.approx(math.exp(found.loss)) and found.low < found.value < found.high
    assert abs(found.loss - np.mean(losses)) > 1e-3                                 # and the plain mean is another number

def test_text_losses_come_in_the_order_of_the_texts(tokenizer):
    texts, model = [words(n, n) for n in (30, 4, 17, 50, 9)], tiny("llama")
    losses, tokens = Evaluator(model, tokenizer, batch_size=2).text_losses(texts)
    alone = [Evaluator(model, tokenizer).perplexity([text]) for text in texts]
    assert losses.dtype == np.float64 and np.allclose(losses / tokens, [found.loss for found in alone], rtol=1e-5)
    assert tokens.tolist() == [found.tokens for found in alone] == [30, 4, 17, 50, 9]

def test_perplexity_interval_is_that_of_resampled_texts():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 100, 60)
    losses = tokens * rng.normal(3, .5, 60)
    found = Perplexity.of(losses, tokens)
    drawn = rng.integers(60, size=(20_000, 60))
    low, high = np.percentile(np.exp(losses[drawn].sum(1) / tokens[drawn].sum(1)), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02) and found == Perplexity.of(losses, tokens)

def test_one_text_has_no_interval(tokenizer):
    found = Evaluator(tiny("llama"), tokenizer).perplexity([words(9, 0)])
    assert math.isfinite(found.value) and math.isnan(found.low) and math.isnan(found.high)

def test_long_texts_are_cut_and_token_ids_need_no_tokenizer(tokenizer):
    model, ids = tiny("llama"), tokenizer(words(50, 0))["input_ids"]
    by_text = Evaluator(model, tokenizer).perplexity([words(50, 0)], max_length=20)
    by_ids = Evaluator(model).perplexity([ids[:20], ids[20:40], ids[40:]])
    assert Evaluator(model).perplexity(tokenize([words(50, 0)], tokenizer, 20, bos=False)) == by_ids
    begun = [ids[:20], ids[:1] + ids[20:39], ids[:1] + ids[39:]]  # every window has the BOS
    assert by_text == Evaluator(model).perplexity(begun) and by_text.tokens == 51 - 1

def test_large_vocabularies_make_small_batches(tokenizer, monkeypatch):
    "The logits of one batch stay within memory."
    import avss_nb.answering.evaluator as module
    rows, original = [], module.batch_losses
    def count(model, batch):
        rows.append(len(batch["input_ids"]))
        return original(model, batch)
    monkeypatch.setattr(module, "batch_losses", count)
    monkeypatch.setattr(module, "LOGITS", 16 * VOCABULARY * 3)
    Evaluator(tiny("llama"), tokenizer).perplexity([words(15, i) for i in range(8)])
    assert sorted(rows) == [2, 3, 3]

def test_evaluate_puts_both_together(tokenizer, questions):
    evaluator, texts = Evaluator(ending_model("llama"), tokenizer, max_new_tokens=3), [words(n, n) for n in (5, 9, 14)]
    both = evaluator.evaluate(questions, texts)
    assert both.accuracy == evaluator.answer(questions).report().accuracy and both.n == 11
    assert both.perplexity == evaluator.perplexity(texts).value and both.intervals["perplexity"][0] < both.perplexity
    only = evaluator.evaluate(texts=texts)
    assert only.n == 0 and only.accuracy is None and only.perplexity == both.perplexity
    assert list(only.to_frame().index) == ["perplexity"] and evaluator.evaluate(questions).perplexity is None

def test_retention():
    before, after = Report(accuracy=.8, perplexity=20.), Report(accuracy=.6, perplexity=50.)
    assert retention(before, after) == {"accuracy": pytest.approx(.75), "perplexity": pytest.approx(.4)}
    assert retention(before, Report(accuracy=.4)) == {"accuracy": pytest.approx(.5)}
    assert retention(Report(accuracy=0.), Report(accuracy=0.)) == {"accuracy": None} and retention(Report(), after) == {}

# --- real models

STORY = ("Once upon a time, there was a little girl named Lily. She loved to play outside with her dog. One morning they found "
         "an old key under a tree. Lily showed the key to her grandmother, and together they opened a small box full of letters.")

def test_a_real_small_model_reads_a_story():
    folder = shared("models/stories260k")
    evaluator = Evaluator(tf.AutoModelForCausalLM.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder))
    ids = evaluator.tokenizer(STORY, return_tensors="pt")["input_ids"]
    with torch.no_grad(): loss = evaluator.model(input_ids=ids, labels=ids).loss.item()
    found = evaluator.perplexity([STORY])
    assert found.loss == pytest.approx(loss, abs=1e-4) and 0.8 < found.loss < 1.5
    answers = evaluator.answer([Question("", ("a",), prompt="Once upon a time, there was"), Question("", ("a",), prompt="Lily")])
    assert answers.texts[0].startswith("a little")

def test_a_real_model_on_english_text():
    "The protocol of 256-token windows, here 20 of the 300 windows on which the perplexity is 27.5."
    folder, text = shared("models/wiki12"), shared("data/wikipedia/heldout_simplewiki.txt").read_text(encoding="utf-8")
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    cut = windows([text[:600_000].replace("\0", "\n")], tokenizer, 256)[200:220]
    found = Evaluator(model, tokenizer).perplexity(cut)
    with torch.no_grad(): losses = [model(input_ids=torch.tensor([w]), labels=torch.tensor([w])).loss.item() for w in cut]
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-4) and found.tokens == 20 * 255
    assert found.low < 27.5 < found.high
    answers = Evaluator(model, tokenizer, max_new_tokens=6).answer([Question("", ("Paris",), prompt="The capital of France is")])
    assert answers.texts[0].startswith("Paris")

def test_a_closing_full_stop_belongs_to_the_sentence(teaching, world):
    "With and without the full stop as a stop string: the same answers at the same confidence."
    asked = world.questions("unknown", 30)
    with_stop, without = Evaluator(*teaching, stop=".").answer(asked), Evaluator(*teaching).answer(asked)
    assert with_stop.texts == without.texts and np.allclose(with_stop.confidences, without.confidences, atol=1e-5)
    assert not any(text.endswith(".") for text in with_stop.texts) and with_stop.hallucinated.mean() > 0.9

# --- models that are broken

def test_probabilities_that_are_no_numbers_are_refused(tokenizer):
    model, classifier = tiny("llama"), tf.BertForSequenceClassification(tf.BertConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2,
                                                                                      num_attention_heads=4, intermediate_size=48))
    for broken in model, classifier: broken.get_input_embeddings().weight.data[7] = math.nan
    evaluator, text = Evaluator(model, tokenizer), "w007 w008"
    ask = [lambda: evaluator.perplexity([text]), lambda: evaluator.answer([Question("q", ("a",), prompt=text)]), lambda: evaluator.score([("q", "a")], [text]),
           lambda: Evaluator(classifier, tokenizer).classify([Labelled(text, 1)])]
    for call in ask:
        with pytest.raises(InputError, match="probabilities are NaN"): call()
    assert evaluator.perplexity(["w008 w009"]).value > 1

def test_a_perplexity_beyond_float64():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Perplexity.of(np.array([8000., 9000.]), np.array([5, 6]))
    assert found.value == math.inf and found.loss == 17000 / 11

def test_prompts_of_equal_length_where_padding_is_read(tokenizer, questions):
    "RWKV is recurrent: it reads the padding before a prompt."
    torch.manual_seed(0)
    model = tf.RwkvForCausalLM(tf.RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)).eval()
    assert reads_left_padding(model) and not reads_left_padding(tiny("llama"))
    widths = []
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: widths.append((kwargs["input_ids"] != 0).all().item()), with_kwargs=True)
    Evaluator(model, tokenizer, max_new_tokens=2).answer(questions)
    handle.remove()
    assert widths and all(widths)

def test_what_a_stopped_run_answered_is_kept_whatever_the_prompt(teaching, world):
    from avss_nb import Prompt
    evaluator, questions = Evaluator(*teaching, batch_size=2), world.questions("known", 6)
    assert evaluator.so_far is None
    def stop(progress):
        if progress.done == 4: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match="4 of 6 questions are answered; they are in evaluator.so_far"):
        evaluator.asking(Prompt(template="Question: {question} Answer:")).answer(questions, progress=stop)
    assert len(evaluator.so_far) == 4 and evaluator.so_far.prompt.template.startswith("Question:")
    assert Evaluator(*teaching).so_far is None                              # another evaluator has nothing to do with it
