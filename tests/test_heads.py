"Causal, masked and classifying models: losses, pseudo-perplexity, accuracy and pruning, against one-by-one computation and Hugging Face's own loss."
import collections
import copy
import json
import math
import re
import warnings
import numpy as np, pandas as pd, pytest, torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from avss_nb import (
    Blocks, Evaluator, InputError, Labelled, LabelledRow, LayerProfiler, LayerPruner,
    LayerScorer, Report, calibration_error, load_labelled, silent
)
from avss_nb.answering.evaluator import retention
from avss_nb.data.batches import tokenize
from avss_nb.model.blocks import find_blocks
from avss_nb.model.heads import (
    LOOKS_AHEAD, batch_loss, batch_losses, find_head, looks_ahead, masked_copies, model_batch,
    target_batch, word_places
)
from conftest import shared
from test_cli import done, refused
from tiny import CAUSAL, CONFIGS, VOCABULARY, tiny

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

def masked_tokenizer(words=[f"w{i:03}" for i in range(5, VOCABULARY)]) -> tf.PreTrainedTokenizerFast:
    "One token a word, in the manner of BERT: [CLS] text [SEP], pairs with segments."
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
                                      **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")})

TOKENIZER = masked_tokenizer()

def words(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{i:03}" for i in torch.randint(5, VOCABULARY, (n,), generator=generator).tolist())

TEXTS = [words(n, n) for n in (9, 3, 14, 1, 6, 22)]
EXAMPLES = [Labelled(text, i % 3) for i, text in enumerate(TEXTS)]
CLASSIFIERS = ("bert", "distilbert", "gpt2", "llama", "opt", "qwen2")

def classifier(name, classes=3, pad=0):
    "A random classifier; those that read the last token know a padding token."
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.num_labels, config.pad_token_id = classes, pad
    model = tf.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(4)
    return model

def alone(model, ids, **more): return model(input_ids=torch.tensor([ids]), **more)

# --- which head

@pytest.mark.parametrize("make, kind", [
    *((lambda name=name: tiny(name), "causal") for name in CAUSAL), (lambda: tiny("bert"), "masked"), (lambda: tiny("distilbert"), "masked"),
    *((lambda name=name: classifier(name), "classes") for name in CLASSIFIERS),
    (lambda: torch.compile(tiny("bert"), backend="eager"), "masked"), (lambda: torch.compile(tiny("gpt2"), backend="eager"), "causal")])
def test_head_is_that_of_the_model(make, kind): assert find_head(make()) == kind

@pytest.mark.parametrize("make, message", [
    (lambda: tiny("llama").model, "LlamaModel has no head whose loss is known"),
    (lambda: tf.BertForTokenClassification(CONFIGS["bert"]()), "no head whose loss is known"),
    (lambda: tf.T5ForConditionalGeneration(tf.T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)), "no head"),
    (lambda: classifier("bert", classes=1), "predicts a number"),
    (lambda: tf.BertForSequenceClassification(tf.BertConfig(**CONFIGS["bert"]().to_dict() | {"problem_type": "multi_label_classification"})), "multi_label")])
def test_heads_without_a_known_loss_are_refused(make, message):
    with pytest.raises(InputError, match=message): find_head(make())

# --- losses

@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_loss_of_a_classifier_is_that_of_single_texts(name):
    model, rows = classifier(name), tokenize(EXAMPLES, TOKENIZER)
    losses, targets = batch_losses(model, target_batch(model, TOKENIZER, rows))
    expected = [alone(model, list(row), labels=torch.tensor([row.label])).loss.item() for row in rows]
    assert losses.tolist() == pytest.approx(expected, abs=1e-4) and targets.tolist() == [1] * len(rows)

@torch.no_grad()
def test_padding_of_a_classifier_is_its_own_padding_token():
    "Padding by another token would move the place from which the class is read."
    model, rows = classifier("llama", pad=7), tokenize(EXAMPLES, TOKENIZER)
    found, wrong = batch_losses(model, target_batch(model, TOKENIZER, rows))[0], target_batch(model, TOKENIZER, rows)
    wrong["input_ids"] = wrong["input_ids"].masked_fill(wrong["attention_mask"] == 0, 0)
    expected = [alone(model, list(row), labels=torch.tensor([row.label])).loss.item() for row in rows]
    assert found.tolist() == pytest.approx(expected, abs=1e-4) and not torch.allclose(found, batch_losses(model, wrong)[0])
    model.config.pad_token_id = None
    with pytest.raises(InputError, match="no padding token"): model_batch(model, rows)
    assert batch_losses(model, target_batch(model, TOKENIZER, rows[:1]))[0].item() == pytest.approx(expected[0], abs=1e-4)

@torch.no_grad()
def test_loss_of_a_masked_model_is_that_of_single_texts():
    model, rows = tiny("bert"), tokenize(TEXTS, TOKENIZER)
    batch = target_batch(model, TOKENIZER, rows, share=0.3)
    losses, targets = batch_losses(model, batch)
    for row, ids, labels, loss, count in zip(rows, batch["input_ids"], batch["labels"], losses, targets):
        n, hidden = len(row), (labels != -100).nonzero().flatten().tolist()
        assert [int(labels[i]) for i in hidden] == [row[i] for i in hidden] and all(ids[i] == TOKENIZER.mask_token_id for i in hidden)
        assert set(hidden) <= {*range(1, n - 1)} and len(hidden) == count == max(1, round(0.3 * (n - 2)))
        single = alone(model, ids[:n].tolist(), labels=labels[None, :n]).loss.item()
        assert loss.item() == pytest.approx(single * len(hidden), abs=1e-3)

def test_hidden_tokens_depend_on_the_text_and_the_seed_alone():
    model, rows = tiny("bert"), tokenize(TEXTS, TOKENIZER)
    together = target_batch(model, TOKENIZER, rows)["labels"]
    for i, row in enumerate(rows): assert torch.equal(target_batch(model, TOKENIZER, [row])["labels"][0], together[i, :len(row)])
    assert not torch.equal(target_batch(model, TOKENIZER, rows, seed=1)["labels"], together)

def test_an_unknown_word_is_a_word():
    ids = TOKENIZER("w007 never-heard w008")["input_ids"]
    assert ids[2] == TOKENIZER.unk_token_id and word_places(ids, TOKENIZER) == [1, 2, 3]

# --- pseudo-perplexity

@torch.no_grad()
@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_pseudo_perplexity_hides_each_token_once(name):
    model, losses, counts = tiny(name), [], []
    for text in TEXTS:
        ids, total = TOKENIZER(text)["input_ids"], 0
        for i in range(1, len(ids) - 1):
            hidden = ids[:i] + [TOKENIZER.mask_token_id] + ids[i + 1:]
            total -= alone(model, hidden).logits[0, i].double().log_softmax(-1)[ids[i]].item()
        losses.append(total)
        counts.append(len(ids) - 2)
    for batch_size in 3, 64:
        evaluator = Evaluator(model, TOKENIZER, batch_size)
        found, tokens = evaluator.text_losses(TEXTS)
        assert found.tolist() == pytest.approx(losses, rel=1e-4) and tokens.tolist() == counts
        report = evaluator.evaluate(texts=TEXTS)
        assert report.pseudo_perplexity == pytest.approx(math.exp(sum(losses) / sum(counts)), rel=1e-4) and report.perplexity is None
    low, high = report.intervals["pseudo_perplexity"]
    assert low < report.pseudo_perplexity < high and list(report.to_frame().index) == ["pseudo-perplexity"]
    assert retention(report, Report(pseudo_perplexity=2 * report.pseudo_perplexity)) == {"pseudo_perplexity": pytest.approx(0.5)}

def test_copies_are_as_many_as_words_and_fit_the_batch():
    rows = tokenize(TEXTS, TOKENIZER)
    batches = [*masked_copies(tiny("bert"), TOKENIZER, rows, size=8)]
    assert collections.Counter(i for owners, _ in batches for i in owners) == {i: len(row) - 2 for i, row in enumerate(rows)}
    assert max(len(owners) for owners, _ in batches) == 8 and all((batch["labels"] != -100).sum(1).eq(1).all() for _, batch in batches)

def test_progress_of_pseudo_perplexity_offers_what_is_done():
    seen = []
    Evaluator(tiny("bert"), TOKENIZER, batch_size=2).perplexity(TEXTS, progress=lambda p: seen.append((p.done, p.total, p.partial().tokens)))
    assert seen[-1] == (6, 6, 55) and seen[0][2] == 2 and seen == sorted(seen)

# --- classification

@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_and_confidences_are_those_of_single_texts(name):
    model = classifier(name)
    rows = tokenize(EXAMPLES, TOKENIZER)
    shares = np.stack([alone(model, list(row)).logits[0].double().softmax(-1).numpy() for row in rows])
    for batch_size in 1, 4:
        answers = Evaluator(model, TOKENIZER, batch_size).classify(EXAMPLES)
        assert answers.texts == tuple(f"LABEL_{i}" for i in shares.argmax(1)) and np.allclose(answers.confidences, shares.max(1), atol=1e-5)
        assert answers.correct.tolist() == [int(i) == e.label for i, e in zip(shares.argmax(1), EXAMPLES)]
    report = Evaluator(model, TOKENIZER).evaluate(EXAMPLES)
    assert report.n == len(EXAMPLES) and report.accuracy == answers.correct.mean() and report.right is None
    assert report.ece == pytest.approx(calibration_error(answers.confidences, answers.correct), abs=1e-6)

@torch.no_grad()
def test_pairs_are_read_with_their_segments():
    model = classifier("bert")
    pairs = [Labelled(words(5, i), i % 3, words(3 + i, 10 + i)) for i in range(6)]
    answers = Evaluator(model, TOKENIZER, batch_size=4).classify(pairs)
    logits = [model(**TOKENIZER(p.text, p.pair, return_tensors="pt")).logits[0] for p in pairs]
    without = [alone(model, TOKENIZER(p.text, p.pair)["input_ids"]).logits[0] for p in pairs]
    assert np.allclose(answers.confidences, [row.softmax(-1).max().item() for row in logits], atol=1e-5)
    assert not np.allclose(answers.confidences, [row.softmax(-1).max().item() for row in without], atol=1e-3)

def test_long_texts_are_truncated_and_keep_their_class():
    rows = tokenize([Labelled(words(50, 0), 2), Labelled(words(5, 1), 1, words(40, 2))], TOKENIZER, max_length=16)
    assert [len(row) for row in rows] == [16, 16] and [row.label for row in rows] == [2, 1]

@pytest.mark.parametrize("run, message", [
    (lambda: Evaluator(classifier("bert"), TOKENIZER).evaluate(texts=TEXTS), "texts with their class"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).perplexity(TEXTS), "classifier has no perplexity"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).evaluate(TEXTS), "give `Labelled` texts"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).evaluate([("q", "a")]), "give `Labelled` texts"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).evaluate([]), "at least one"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).text_losses(TEXTS), "texts with their class"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).evaluate([Labelled("w007", 3)]), "class 3 was given; the model has classes 0 to 2"),
    (lambda: Evaluator(classifier("bert")).evaluate([Labelled("w007", 1)]), "without a tokenizer"),
    (lambda: Evaluator(classifier("bert"), TOKENIZER).answer([("q", "a")]), "BertForSequenceClassification cannot answer questions"),
    (lambda: Evaluator(tiny("bert"), TOKENIZER).choose([("q", "a")]), "has no choices|cannot answer"),
    (lambda: Evaluator(tiny("bert"), TOKENIZER).classify(EXAMPLES), "BertForMaskedLM cannot classify texts"),
    (lambda: Evaluator(tiny("bert")).perplexity([[2, 9, 3]]), "needs a tokenizer that has a mask token"),
    (lambda: Evaluator(tiny("bert"), TOKENIZER).perplexity([""]), "at least one"),
    (lambda: Evaluator(tiny("bert"), TOKENIZER).perplexity([[2, 3]]), "no text with a word")])
def test_errors_say_what_to_do(run, message):
    with pytest.raises(InputError, match=message): run()

# --- profiles, searches and pruned models

def without(model, removed):
    "A copy of the model from whose list some blocks are deleted."
    path, blocks, _ = find_blocks(model)
    made = copy.deepcopy(model)
    owner, _, name = path.rpartition(".")
    setattr(made.get_submodule(owner), name, torch.nn.ModuleList(b for i, b in enumerate(made.get_submodule(path)) if i not in removed))
    return made

@torch.no_grad()
def loss_by_hand(model, texts):
    "Mean loss of the head, text by text."
    parts = [batch_loss(model, target_batch(model, TOKENIZER, [row])) for row in tokenize(texts, TOKENIZER)]
    return sum(float(loss) for loss, _ in parts) / sum(n for _, n in parts)

@pytest.mark.parametrize("make, texts", [(lambda: tiny("bert"), TEXTS), (lambda: tiny("distilbert"), TEXTS), (lambda: classifier("distilbert"), EXAMPLES),
                                         (lambda: classifier("bert"), EXAMPLES), (lambda: classifier("gpt2"), EXAMPLES)])
def test_ablation_and_search_measure_the_loss_of_the_head(make, texts):
    model = make()
    profile = LayerProfiler(model, TOKENIZER, ablation=True, batch_size=4).profile(texts, progress=silent)
    rises = [loss_by_hand(without(model, [i]), texts) - loss_by_hand(model, texts) for i in range(4)]
    np.testing.assert_allclose(LayerScorer("ablation").score(profile).values, rises, atol=1e-4)
    plan = LayerPruner(model, TOKENIZER).plan(search="greedy", count=2, texts=texts)
    first, second = (layer for layer, _ in plan.trace)
    assert first == np.argmin(rises) and second == min(set(range(4)) - {first}, key=lambda i: loss_by_hand(without(model, [first, i]), texts))
    assert plan.trace[1][1] == pytest.approx(loss_by_hand(without(model, plan.removed), texts), rel=1e-4)
    def report(m): return Evaluator(m, TOKENIZER).evaluate(texts) if find_head(m) == "classes" else Evaluator(m, TOKENIZER).evaluate(texts=texts)
    with plan.preview(): previewed = report(model)
    pruned = plan.apply()
    assert report(pruned.model) == previewed != report(model) and pruned.checks["reload_keys_clean"]

def test_activations_of_labelled_texts_are_those_of_the_texts():
    model = classifier("distilbert")
    a, b = (LayerProfiler(model, TOKENIZER).profile(texts, progress=silent) for texts in (EXAMPLES, TEXTS))
    assert a.tokens == b.tokens and all(torch.equal(a.sites[s].m2, b.sites[s].m2) for s in a.sites) and a.losses is None

# --- tables of labelled texts

@pytest.mark.parametrize("table, expected", [
    ({"text": ["a b", "c"], "label": ["1", "0"]}, [Labelled("a b", 1), Labelled("c", 0)]),
    ({"idx": ["0"], "sentence": ["a"], "label": ["positive"]}, [Labelled("a", 1)]),
    ({"sentence1": ["a"], "sentence2": ["b"], "label": ["Negative"]}, [Labelled("a", 0, "b")]),
    ({"premise": ["a"], "hypothesis": ["b"], "label": ["0"]}, [Labelled("a", 0, "b")]),
    ({"text": ["a", "", "b"], "label": ["1", "1", "0"]}, [Labelled("a", 1), Labelled("b", 0)])])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_labelled_texts(tmp_path, table, expected, suffix):
    path, frame = tmp_path / f"t.{suffix}", pd.DataFrame(table)
    {"csv": lambda: frame.to_csv(path, index=False), "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
     "jsonl": lambda: frame.to_json(path, orient="records", lines=True), "parquet": lambda: frame.to_parquet(path)}[suffix]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_labelled(path, {"negative": 0, "positive": 1}) == expected
    assert ("1 empty" in str(caught[-1].message)) if "" in table.get("text", []) else not caught

@pytest.mark.parametrize("content, message", [
    ("text,label\na,positive\n", "column label holds 'positive'; .* or give classes"), ("text,label\n", "no text with a class"),
    ("review,label\na,1\n", "no column text"), ("text,stars\na,1\n", "no column label"), ("text,label\na,-1\n", "column label holds '-1'")])
def test_tables_that_are_none(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message): load_labelled(tmp_path / "t.csv")

# --- the setting of the AVSS authors: DistilBERT on SST-2, here a small one trained for seconds

@pytest.fixture(scope="module")
def sst2():
    "A classifier trained on a part of SST-2's sentences; tokenizer, training part, the other part."
    data = load_labelled(shared("data/sst2/sst2_dev.tsv"))
    assert len(data) == 872 and sum(text.label for text in data) == 444
    train, test = data[:672], data[672:]
    counts = collections.Counter(word for text in train for word in text.text.split())
    tokenizer = masked_tokenizer([word for word, n in counts.items() if n > 1])
    torch.manual_seed(0)
    config = tf.DistilBertConfig(vocab_size=len(tokenizer), dim=64, hidden_dim=128, n_layers=4, n_heads=4, max_position_embeddings=128, num_labels=2)
    model, rows = tf.DistilBertForSequenceClassification(config).train(), tokenize(train, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(5):
        for part in torch.randperm(len(rows)).split(32):
            loss, n = batch_loss(model, target_batch(model, tokenizer, [rows[i] for i in part]))
            optimizer.zero_grad(); (loss / n).backward(); optimizer.step()
    return model.eval(), tokenizer, train, test

def test_a_trained_classifier_before_and_after_a_block_is_pruned(sst2):
    model, tokenizer, train, test = sst2
    evaluator = Evaluator(model, tokenizer)
    before = evaluator.evaluate(test)
    assert evaluator.evaluate(train).accuracy > 0.95 and before.accuracy > 0.55 and before.intervals["accuracy"][0] > 0.5
    plan = LayerPruner(model, tokenizer).plan(search="greedy", count=1, texts=train[:200])
    with plan.preview(): previewed = evaluator.evaluate(test)
    after = Evaluator(plan.apply().model, tokenizer).evaluate(test)
    assert after == previewed and retention(before, after)["accuracy"] > 0.9

# --- the command line

def kept(folder, model, tokenizer=TOKENIZER):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

def test_a_classifier_on_the_command_line(tmp_path):
    model = classifier("distilbert")
    folder, table = kept(tmp_path / "model", model), tmp_path / "labels.tsv"
    pd.DataFrame({"sentence": [e.text for e in EXAMPLES], "label": [f"label_{e.label}" for e in EXAMPLES]}).to_csv(table, sep="\t", index=False)
    found = json.loads(done("evaluate", folder, "--labels", table, "--json", "-").stdout)
    assert found["accuracy"] == Evaluator(model, TOKENIZER).evaluate(EXAMPLES).accuracy and found["n"] == 6 and found["hallucination_rate"] is None
    done("profile", folder, "--labels", table, "--ablation", "--out", tmp_path / "p")
    profile = LayerProfiler(model, TOKENIZER, ablation=True).profile(EXAMPLES, progress=silent)
    scores = [layer["score"] for layer in json.loads(done("rank", tmp_path / "p", "--score", "ablation", "--json", "-").stdout)["layers"]]
    assert scores == pytest.approx(LayerScorer("ablation").score(profile).values.tolist(), abs=1e-6)
    line = ["prune", folder, "--search", "greedy", "--labels", table, "--count", 1, "--out", tmp_path / "small", "--json", "-"]
    removed = json.loads(done(*line).stdout)["removed"]
    with LayerPruner(model).remove(removed).preview(): expected = Evaluator(model, TOKENIZER).evaluate(EXAMPLES).to_dict()
    assert json.loads(done("evaluate", tmp_path / "small", "--labels", table, "--json", "-").stdout) == json.loads(json.dumps(expected))
    refused("evaluate", folder, "--texts", "teaching", match="--labels")
    refused("evaluate", folder, "--labels", table, "--texts", table, match="give one kind")
    refused("profile", folder, "--out", tmp_path / "q", match="give either --texts or", absent=tmp_path / "q")
    refused("profile", folder, "--labels", table, "--tokens", 5, "--out", tmp_path / "q", match="--limit instead", absent=tmp_path / "q")
    refused("evaluate", folder, "--labels", tmp_path / "none.csv", match="there is no file")
    refused("evaluate", "teaching", "--labels", table, match="column label holds 'label_0'")

def test_a_masked_model_on_the_command_line(tmp_path):
    folder, texts = kept(tmp_path / "model", tiny("bert")), tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS))
    found = json.loads(done("evaluate", folder, "--texts", texts, "--json", "-").stdout)
    assert found["pseudo_perplexity"] == pytest.approx(Evaluator(tiny("bert"), TOKENIZER).perplexity(TEXTS).value) and found["perplexity"] is None
    assert "pseudo-perplexity" in done("evaluate", folder, "--texts", texts).stdout
    refused("evaluate", folder, "--questions", "teaching", match="BertForMaskedLM cannot answer questions")

def test_a_checkpoint_keeps_the_head_that_it_names(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS))
    folder = kept(tmp_path / "model", tf.BertForTokenClassification(CONFIGS["bert"]()))
    done("profile", folder, "--texts", texts, "--out", tmp_path / "p")
    done("prune", folder, "--profile", tmp_path / "p", "--count", 1, "--out", tmp_path / "small")
    again, info = tf.BertForTokenClassification.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert len(Blocks(again)) == 3 and not any(info.values())
    refused("evaluate", folder, "--texts", texts, match="BertForTokenClassification has no head whose loss is known")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForEverything"]}
    (folder / "config.json").write_text(json.dumps(config))
    refused("profile", folder, "--texts", texts, "--out", tmp_path / "q", match="'BertForEverything', which transformers .* does not have")

def test_a_classifier_without_its_pooler_is_incomplete(tmp_path):
    folder = kept(tmp_path / "model", tf.BertModel(CONFIGS["bert"](), add_pooling_layer=False))
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config))
    table = tmp_path / "t.csv"
    table.write_text("text,label\nw007,1\n")
    refused("evaluate", folder, "--labels", table, match="lacks weights, for example bert.pooler")

# --- a language model that looks ahead

def ahead(make, config, causal, dtype=torch.float32):
    "A model whose configuration says whether it sees the whole text."
    torch.manual_seed(0)
    grouped = {"num_key_value_heads": 2, "head_dim": 8} if config is tf.Qwen3Config else {}
    model = make(config(**SIZES, intermediate_size=48, **grouped, **causal)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(4)
    return model.to(dtype)

SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
BOTH = [(tf.LlamaForCausalLM, tf.LlamaConfig, "is_causal"), (tf.Qwen3ForCausalLM, tf.Qwen3Config, "is_causal"),
        (tf.BertLMHeadModel, tf.BertConfig, "is_decoder"), (tf.RobertaForCausalLM, tf.RobertaConfig, "is_decoder")]

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make, config, name", BOTH)
def test_a_causal_class_that_looks_ahead_has_no_next_token_loss(make, config, name, dtype):
    causal, other = (ahead(make, config, {name: value}, dtype) for value in (True, False))
    assert find_head(causal) == "causal" and not looks_ahead(causal)
    refusal = re.escape(LOOKS_AHEAD.format(name=make.__name__)[:60])
    rows = [[5, 6, 7, 8]] * 4
    for use in (find_head, lambda m: Evaluator(m, TOKENIZER).perplexity(rows), lambda m: LayerProfiler(m, TOKENIZER, ablation=True),
                lambda m: target_batch(m, TOKENIZER, rows), lambda m: LayerPruner(m, TOKENIZER).plan(search="greedy", count=1, texts=rows)):
        with pytest.raises(InputError, match=refusal): use(other)
    assert LayerProfiler(other).profile(rows, silent).tokens == 16                        # its states can be measured

def test_a_class_that_looks_ahead_by_itself():
    model = tf.XLNetLMHeadModel(tf.XLNetConfig(vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48)).eval()
    with pytest.raises(InputError, match="looks ahead.*AutoModelForMaskedLM"): find_head(model)

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_do_not_look_ahead(name, dtype): assert not looks_ahead(tiny(name, dtype=dtype)) and find_head(tiny(name)) == "causal"

def test_looking_ahead_is_tried_once_and_leaves_no_trace():
    model, passes = tiny("llama").train(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    assert [find_head(model) for _ in range(3)] == ["causal"] * 3 and len(passes) == 1
    assert model.training and all(p.grad is None for p in model.parameters())

def test_the_command_line_says_it_in_one_line(tmp_path):
    ahead(tf.LlamaForCausalLM, tf.LlamaConfig, {"is_causal": False}).save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text(words(30, 0))
    refused("evaluate", tmp_path / "model", "--texts", tmp_path / "texts.txt", match="looks ahead")
    done("profile", tmp_path / "model", "--texts", tmp_path / "texts.txt", "--out", tmp_path / "p.st")
