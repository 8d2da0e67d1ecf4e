"What a model reads: one BOS, the right beginning of an answer, the same prompt from the question to the analysis."
import json, subprocess, sys
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from avss_nb import (
    AnswerProfiler, Answers, ContrastiveMitigator, Evaluator, InputError, Prompt, Question,
    Recipe, plan_asking, draw_examples, silent, with_examples
)
from avss_nb.hallucination.mitigation import examples_of

SPECIALS = ["<pad>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>"]
CHAT = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
THINKING = CHAT.replace("<|assistant|>{% endif", "<|assistant|>{% if not enable_thinking %}<think></think>{% endif %}{% endif")

def byte_tokenizer(chat_template=CHAT, bos=True, extra=()):
    "Bytes, special tokens, and a BOS before each text."
    names = [*SPECIALS, *extra]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({name: i for i, name in enumerate([*names, *alphabet])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(names)
    if bos: made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                           clean_up_tokenization_spaces=False)
    tokenizer.chat_template = chat_template
    return tokenizer

def talker(tokenizer, letters="abcdefgh \n", seed=2):
    "A small Llama that says some letters, spaces and line ends."
    torch.manual_seed(seed)
    model = tf.LlamaForCausalLM(tf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2)).eval()
    bias = torch.full((len(tokenizer),), -30.)
    bias[[i for c in letters for i in tokenizer(c, add_special_tokens=False)["input_ids"]]] = 0
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(4)
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model

QUESTIONS = [Question(f"who {chr(97 + i)}{chr(97 + 3 * i % 26)}", ("abc",), subject=str(i)) for i in range(12)]
EXAMPLES = [("who zz", "abc"), ("who yy", "fed")]
PROMPTS = {
    "plain": Prompt(), "after a line end": Prompt(template="Q: {question}\nA:\n"), "after a space": Prompt(template="Q: {question} A: "),
    "after a special token": Prompt(template="<|user|>{question}<|assistant|>"), "shots": Prompt(examples=EXAMPLES, system="hi"),
    "chat": Prompt("chat"), "chat with system and shots": Prompt("chat", system="be brief", examples=EXAMPLES)}

@pytest.fixture(scope="module")
def tokenizer(): return byte_tokenizer()

@pytest.fixture(scope="module")
def model(tokenizer): return talker(tokenizer)

# --- token ids ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("system, examples", [("", ()), ("be brief", ()), ("", EXAMPLES), ("be brief", EXAMPLES)])
def test_a_chat_is_what_the_template_renders(tokenizer, system, examples):
    turns = [{"role": "system", "content": system}] * bool(system)
    for q, a in examples: turns += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    turns.append({"role": "user", "content": QUESTIONS[0].text})
    by_hand = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False)
    prompt = Prompt("chat", system=system, examples=examples)
    assert prompt.ids(QUESTIONS[:1], tokenizer) == [by_hand] and by_hand.count(tokenizer.bos_token_id) == 1
    assert tokenizer(prompt.text(QUESTIONS[0], tokenizer), add_special_tokens=False)["input_ids"] == by_hand

@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_every_prompt_has_one_bos_and_without_bos_none(tokenizer, prompt):
    with_bos, without = prompt.ids(QUESTIONS, tokenizer), replace(prompt, bos=False).ids(QUESTIONS, tokenizer)
    assert all(ids.count(1) == 1 and ids[0] == 1 for ids in with_bos) and without == [ids[1:] for ids in with_bos]

def test_a_tokenizer_without_bos_gets_none():
    plain = byte_tokenizer(CHAT.replace("{{ bos_token }}", ""), bos=False)
    assert not any(1 in ids for prompt in PROMPTS.values() for ids in prompt.ids(QUESTIONS, plain))

def test_an_end_token_that_the_user_wrote_stays_and_one_of_the_tokenizer_goes(tokenizer):
    asked = Question("q", ("a",), prompt="hello</s>")
    assert Prompt().ids([asked], tokenizer)[0][-1] == tokenizer.eos_token_id
    closing = byte_tokenizer()
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    assert closing("hello")["input_ids"][-1] == 2 and Prompt().ids([replace(asked, prompt="hello")], closing)[0][-1] != 2
    assert Prompt().ids([asked], closing)[0].count(2) == 1

def test_a_template_without_a_system_turn_reads_it_before_the_first_user_turn():
    polite = byte_tokenizer(NO_SYSTEM)
    prompt = Prompt("chat", system="be brief", examples=EXAMPLES)
    text = prompt.text(QUESTIONS[0], polite)
    assert text.startswith(f"<s><|user|>be brief\n\n{EXAMPLES[0][0]}</s>") and text.count("be brief") == 1
    assert polite(text, add_special_tokens=False)["input_ids"] == prompt.ids(QUESTIONS[:1], polite)[0]

@pytest.mark.parametrize("thinking", [False, True])
def test_thinking_is_the_templates_own_switch(thinking):
    text = Prompt("chat", thinking=thinking).text(QUESTIONS[0], byte_tokenizer(THINKING))
    assert text.endswith("<|assistant|>" if thinking else "<|assistant|><think></think>")

def test_shots_read_as_written_by_hand_and_no_question_is_its_own_example():
    prompt = with_examples(Prompt(), QUESTIONS[:2])
    assert prompt.text(QUESTIONS[5]) == f"Q: {QUESTIONS[0].text}\nA: abc\nQ: {QUESTIONS[1].text}\nA: abc\nQ: {QUESTIONS[5].text}\nA:"
    assert prompt.text(QUESTIONS[0]) == f"Q: {QUESTIONS[1].text}\nA: abc\nQ: {QUESTIONS[0].text}\nA:"

def test_examples_are_drawn_once_and_not_asked():
    twice = QUESTIONS + [replace(q, text=q.text.upper()) for q in QUESTIONS]  # the same questions again
    examples, rest = draw_examples(twice, 3, seed=1)
    assert draw_examples(twice, 3, seed=1) == (examples, rest) != draw_examples(twice, 3, seed=2) and len(rest) == 18
    assert not {q.text.lower() for q in examples} & {q.text.lower() for q in rest}
    with pytest.raises(InputError, match="20 examples and at least one question"): draw_examples(QUESTIONS, 20)

@pytest.mark.parametrize("make, message", [
    (lambda: Prompt("chatty"), "style 'chatty'"), (lambda: Prompt(template="no place"), "no place for {question}"),
    (lambda: Prompt("chat").ids(QUESTIONS, byte_tokenizer(None)), "cannot render a chat"),
    (lambda: Prompt("chat", system="x").ids(QUESTIONS, byte_tokenizer(None)), "cannot render a chat"),
    (lambda: Evaluator(talker(byte_tokenizer()), prompt=Prompt(), template="{question}"), "prompt and template were given")])
def test_what_cannot_be_rendered_is_refused(make, message):
    with pytest.raises(InputError, match=message): make()

# --- answers -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PROMPTS)
def test_answers_read_again_have_the_log_probabilities_with_which_they_were_given(tokenizer, model, name):
    "After a special token this model begins with spaces and line ends."
    evaluator = Evaluator(model, tokenizer, prompt=PROMPTS[name], max_new_tokens=9, batch_size=5)
    answers = evaluator.answer(QUESTIONS)
    begun = [tokenizer.decode(ids)[:1].isspace() for ids in answers.token_ids]
    assert answers.prompt == PROMPTS[name] and any(answers.texts) and any(begun) == (name in ("after a special token", "chat"))
    for again, said in zip(Evaluator(model, tokenizer, batch_size=3).score(answers), answers.token_logprobs):
        assert np.allclose(again, said, atol=1e-4)

def test_answers_that_the_limit_ended_are_marked(tokenizer, model):
    evaluator = Evaluator(model, tokenizer, stop="\n", max_new_tokens=6)
    answers = evaluator.answer(QUESTIONS)
    ended = [any("\n" in piece for piece in [tokenizer.decode(ids).lstrip()]) for ids in
             (model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None)[0, len(ids):].tolist()
              for ids in evaluator.prompt.ids(QUESTIONS, tokenizer))]
    assert answers.cut_off.tolist() == [not end for end in ended] and 0 < answers.cut_off.sum() < len(answers)

def test_the_prompt_travels_with_the_answers(tokenizer, model, tmp_path):
    prompt = PROMPTS["chat with system and shots"]
    answers = Evaluator(model, tokenizer, prompt=prompt, max_new_tokens=5).answer(QUESTIONS)
    answers.save(tmp_path / "a.jsonl")
    loaded = Answers.load(tmp_path / "a.jsonl")
    assert loaded.prompt == prompt and loaded.token_ids == answers.token_ids and loaded[:3].prompt == prompt
    verdicts = dict(enumerate([True, False] * 6))
    profile = AnswerProfiler(model, tokenizer).profile(loaded.relabel(verdicts), silent)
    for i, ids in enumerate(prompt.ids(QUESTIONS, tokenizer)):
        with torch.no_grad(): states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        assert torch.allclose(profile.states[i, 0], states[1][0, -1], atol=1e-4) and profile.prompt_tokens[i] == len(ids)

def test_an_analysis_cannot_read_another_prompt_than_the_answers_had(tokenizer, model):
    answers = Evaluator(model, tokenizer, max_new_tokens=5).answer(QUESTIONS).relabel(dict(enumerate([True, False] * 6)))
    with pytest.raises(InputError, match="given to the prompt"): AnswerProfiler(model, tokenizer, prompt=Prompt("chat")).profile(answers, silent)
    with pytest.raises(InputError, match="do not say how"): AnswerProfiler(model, tokenizer).profile(replace(answers, prompt=None), silent)
    mitigator = ContrastiveMitigator(model, tokenizer, [1], Recipe(steps=1), prompt=Prompt("chat"))
    with pytest.raises(InputError, match="given to the prompt"): mitigator.train(answers, progress=silent)
    same = AnswerProfiler(model, tokenizer, prompt=Prompt()).profile(replace(answers, prompt=None), silent)
    assert torch.equal(same.states, AnswerProfiler(model, tokenizer).profile(answers, silent).states)

def test_training_reads_what_the_answers_read(tokenizer, model):
    prompt = PROMPTS["chat"]
    evaluator = Evaluator(model, tokenizer, prompt=prompt, max_new_tokens=5)
    answers = evaluator.answer(QUESTIONS).relabel(dict(enumerate([True, False] * 6)))
    for example, ids in zip(examples_of(answers, Evaluator(model, tokenizer), Recipe()), prompt.ids(QUESTIONS, tokenizer)):
        assert list(example.ids[:example.start]) == ids

# --- choosing ------------------------------------------------------------------------------------------------------------

def test_what_is_tried_is_not_asked(teaching, world):
    bare = [replace(q, prompt="", stop=()) for q in world.questions("known", 100)]
    found = plan_asking(Evaluator(*teaching), bare, draws=2, develop=15)
    assert found.prompt.style == "plain" and len(found.prompt.examples) == 5 and len(found.questions) == 100 - 15 - 5
    assert not {q.text for q in found.questions} & {text.split("\n")[0].removeprefix("Q: ") for text, _ in found.prompt.examples}
    assert found.tried.loc["5 shots", "right"] > 0.5 and "15 other questions" in found.why

@pytest.mark.parametrize("name, options, label, left", [
    ("plain", {}, "template 'Q: {question}\\nA:'", 12), ("shots", {}, "template 'Q: {question}\\nA:', 5 examples", 7),
    ("shots", {"shots": 2}, "template 'Q: {question}\\nA:', 2 examples", 10), ("chat", {}, "chat template", 12),
    ("chat", {"shots": 3, "system": "hi"}, "chat template, 3 examples, system 'hi'", 9), ("auto", {}, "template 'Q: {question}\\nA:', 5 examples", 7)])
def test_prompts_by_name(tokenizer, model, name, options, label, left):
    found = plan_asking(Evaluator(model, tokenizer), QUESTIONS, name, **options)
    assert found.prompt.label == label and len(found.questions) == left

def test_auto_takes_the_chat_where_its_answers_are_right(tokenizer, monkeypatch):
    "An evaluator that answers rightly when it reads the chat template, and in sentences when it reads examples."
    many = [Question(f"who {i}", (f"name {i}",)) for i in range(60)]
    evaluator = Evaluator(talker(tokenizer), tokenizer)
    def answer(self, questions, *_):
        texts = [q.answers[0] if self.prompt.style == "chat" else f"It is {q.answers[0]}" for q in questions]
        return Answers.judge(questions, texts, [(-1.,)] * len(texts), warn=False)
    monkeypatch.setattr(Evaluator, "answer", answer)
    found = plan_asking(evaluator, many, draws=1)
    assert found.prompt.style == "chat" and found.tried["right by both rules"].to_dict() == {"5 shots": 0, "chat": 1}

def test_auto_asks_nothing_where_there_is_nothing_to_choose(teaching, world):
    own = plan_asking(Evaluator(*teaching), world.questions("known", 60))
    assert own.prompt == Prompt() and len(own.questions) == 60 and "own prompts" in own.why
    choices = [Question(f"q{i}", ("a",), choices=("a", "b")) for i in range(60)]
    assert "choices are scored" in plan_asking(Evaluator(*teaching), choices).why

@pytest.mark.parametrize("options, message", [({"prompt": "chatty"}, "prompt 'chatty'"), ({"shots": -1}, "-1 shots"), ({"draws": 0}, "draws=0")])
def test_unknown_ways_of_asking_are_refused(tokenizer, model, options, message):
    with pytest.raises(InputError, match=message): plan_asking(Evaluator(model, tokenizer), QUESTIONS, **options)

# --- tokenizers that are not those of transformers -----------------------------------------------------------------------

class Sparse:
    "Knows only what mistral-common's tokenizers know."
    eos_token_id, bos_token_id, pad_token_id, unk_token_id = 2, 1, 0, None
    def __init__(self, inner): self.inner = inner
    def __call__(self, text, text_pair=None, add_special_tokens=True, truncation=None, max_length=None, padding=False, return_tensors=None):
        return self.inner(text, add_special_tokens=add_special_tokens)
    def decode(self, ids, skip_special_tokens=False): return self.inner.decode(ids, skip_special_tokens=skip_special_tokens)
    def batch_decode(self, ids, skip_special_tokens=False): return self.inner.batch_decode(ids, skip_special_tokens=skip_special_tokens)

def test_a_sparse_tokenizer_gives_the_same_answers(tokenizer, model):
    full, sparse = (Evaluator(model, t, max_new_tokens=6, stop=("\n", "</s>")) for t in (tokenizer, Sparse(tokenizer)))
    answers = full.answer(QUESTIONS)
    assert sparse.answer(QUESTIONS).texts == answers.texts and sparse._ends() == full._ends()
    assert np.allclose(np.concatenate(sparse.score(QUESTIONS, ["abc"] * 12)), np.concatenate(full.score(QUESTIONS, ["abc"] * 12)))
    assert sparse.perplexity(["abc def"]) == full.perplexity(["abc def"])

# --- the command line, and a real model ----------------------------------------------------------------------------------

def test_the_command_says_how_it_asked(tmp_path, world):
    file = tmp_path / "questions.csv"
    bare = world.questions("known", 60)
    pd.DataFrame({"question": [q.text for q in bare], "answer": [q.answers[0] for q in bare]}).to_csv(file, index=False)
    def run(*options):
        done = subprocess.run([sys.executable, "-m", "avss_nb.cli", "evaluate", "teaching", "--questions", str(file), "--json", "-", *options],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    auto, plain = run(), run("--prompt", "plain", "--rules", "contains")
    assert len(auto["asked"]["prompt"]["examples"]) == 5 and auto["n"] == auto["asked"]["questions"] == 60 - 12 - 5 and auto["rules"] == "squad"
    assert plain["asked"]["label"] == "template 'Q: {question}\\nA:'" and plain["n"] == 60 and plain["rules"] == "contains"
    assert auto["asked"]["tried"]["5 shots"]["right"] > 0.5 and auto["rule_gap"] is not None
