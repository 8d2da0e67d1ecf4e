"Texts, questions, batches and the judgement of answers, against files written here and real data sets."
import json, random
import numpy as np, pandas as pd, pytest, torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from avss_nb import (
    Corpus, InputError, Question, is_abstention, is_correct, load_questions, load_texts,
    normalize_answer, windows
)
from avss_nb.base.basics import save_tensors
from avss_nb.data.batches import (
    length_batches, prompt_ids, right_padded, text_frame, text_ids, tokenize
)
from avss_nb.data.teaching import build_tokenizer
from conftest import shared

@pytest.fixture(scope="module")
def tokenizer(): return build_tokenizer()

def write(path, content, encoding="utf-8"):
    path.write_text(content, encoding=encoding)
    return path

# --- texts

def test_texts_end_at_blank_lines(tmp_path):
    file = write(tmp_path / "a.txt", "one\nstill one\n\n \t\n\ntwo\r\n\r\nthree\n\n")
    assert load_texts(file) == ["one\nstill one", "two", "three"]

def test_texts_end_at_nul_and_then_blank_lines_do_not_count(tmp_path):
    assert load_texts(write(tmp_path / "a.txt", "one\n\nmore\0two\0\0 \n")) == ["one\n\nmore", "two"]

def test_limit_counts_texts_that_are_not_empty(tmp_path):
    assert load_texts(write(tmp_path / "a.txt", "\n\n\n\none\n\ntwo\n\nthree"), limit=2) == ["one", "two"]

def test_byte_order_mark_is_no_text(tmp_path):
    assert load_texts(write(tmp_path / "a.txt", "one", encoding="utf-8-sig")) == ["one"]

@pytest.mark.parametrize("content, message", [
    (b"", "holds no text"), (b" \n\n ", "holds no text"), (b"\xff\xfe\x00a", "not UTF-8")])
def test_unusable_text_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=message): load_texts(tmp_path / "a.txt")

@pytest.mark.parametrize("name", ["missing.txt", "missing.CSV", "./missing", "/no/such/place", "some/where.jsonl"])
def test_a_missing_file_is_named(name):
    with pytest.raises(InputError, match="there is no file"): load_texts(name)

def test_data_set_from_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    (tmp_path / "corpus").mkdir(); (tmp_path / "asked").mkdir()
    write(tmp_path / "corpus" / "test.txt", "one\n\n\n\ntwo\nthree\n")
    lines = '{"question": "q", "answer": ["x", "y"]}\n{"question": "r", "answer": ["z"]}\n'
    write(tmp_path / "asked" / "validation.jsonl", lines)
    monkeypatch.chdir(tmp_path); monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_texts("corpus") == ["one", "two", "three"]
    assert load_texts("corpus", limit=2) == ["one", "two"]          # rows that are empty do not use up the limit
    assert load_questions("asked") == [Question("q", ("x", "y")), Question("r", ("z",))]
    with pytest.raises(InputError, match="no column body; it has text"): load_texts("corpus", column="body")
    with pytest.raises(InputError, match="could be loaded"): load_texts("corpus", split="train")

def test_name_of_a_data_set_with_a_dot_is_not_taken_for_a_file(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    def load_dataset(path, config, split, streaming):
        asked.append((path, config, split))
        return [{"text": "found"}]
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_texts("legacy/wikipedia:20220301.en", split="train") == ["found"]
    assert asked == [("legacy/wikipedia", "20220301.en", "train")]

# --- tokens

def test_long_texts_lose_and_double_no_token(tokenizer):
    text = "Where was Ada born ? " * 30
    whole = tokenizer(text)["input_ids"]
    pieces = tokenize([text, "Paris"], tokenizer, max_length=17, bos=False)
    assert max(map(len, pieces)) == 17 and sum(pieces[:-1], []) == whole and pieces[-1] == tokenizer("Paris")["input_ids"]

def test_every_window_of_a_text_begins_with_its_bos(tokenizer):
    text, bos = "Where was Ada born ? " * 30, tokenizer.bos_token_id
    whole = tokenizer(text)["input_ids"]
    pieces = tokenize([text, "Paris"], tokenizer, max_length=17)
    assert max(map(len, pieces)) == 17 and all(piece[0] == bos and bos not in piece[1:] for piece in pieces)
    assert [bos, *(token for piece in pieces[:-1] for token in piece[1:])] == whole and pieces[-1] == tokenizer("Paris")["input_ids"]

def test_the_frame_of_an_encoder_stands_around_every_window():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    bert = PreTrainedTokenizerFast(tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    assert text_frame(bert) == ([1], [2])
    assert tokenize(["a b a b a"], bert, max_length=4) == [[1, 3, 4, 2], [1, 3, 4, 2], [1, 3, 2]]
    assert tokenize(["a b a b a"], bert, max_length=4, bos=False) == [[1, 3, 4, 3], [4, 3, 2]]
    assert tokenize(["a b"], bert, max_length=2) == [[1, 3], [4, 2]]  # no room for a frame

def test_a_text_that_begins_with_bos_gets_no_second_one(tokenizer):
    bos = tokenizer.bos_token
    assert text_ids(f"{bos} Ada", tokenizer) == text_ids("Ada", tokenizer) == tokenizer("Ada")["input_ids"]
    assert prompt_ids([f"{bos} Ada", "Ada"], tokenizer) == [tokenizer("Ada")["input_ids"]] * 2

def test_token_ids_pass_through(tokenizer):
    ids = [5, 6, 7, 8, 9]
    assert tokenize([ids, tuple(ids), np.array(ids), torch.tensor(ids)], None, max_length=3) == [[5, 6, 7], [8, 9]] * 4

def test_pieces_that_are_too_short_are_left_out(tokenizer):
    assert tokenize([[1, 2, 3, 4, 5], [1], ""], tokenizer, max_length=4, fewest=2) == [[1, 2, 3, 4]]

@pytest.mark.parametrize("texts, use, message", [
    ("one string", True, r"write \[text\]"), ([1, 2, 3], True, r"write \[ids\]"), (["text"], False, "without a tokenizer"),
    ([], True, "no text"), (["", []], True, "no text"), (None, True, "None was given where a list"), (["a", {"text": "b"}], True, "dictionary .*column of texts"),
    ([b"bytes"], True, "bytes.*column of texts"), (b"bytes", True, r"write \[text\]"), ({"text": ["a"]}, True, r'dictionary .*given\["text"\]'),
    (pd.DataFrame({"body": ["a"]}), True, r'DataFrame .*given\["body"\]'), (build_tokenizer()(["a b"]), True, r'BatchEncoding .*given\["input_ids"\]'),
    ([[1.5, 2.]], True, r"\[1.5, 2.0\] was given"), (torch.tensor([1, 2]), True, "a Tensor was given where a text is expected")])
def test_unusable_texts_are_refused(tokenizer, texts, use, message):
    with pytest.raises(InputError, match=message): tokenize(texts, tokenizer if use else None)

def test_a_name_is_no_tokenizer():
    with pytest.raises(InputError, match="'gpt2' was given where a tokenizer is expected"): tokenize(["a text"], "gpt2")

TEXTS = ["a, b", "two\nlines", "", '"quoted"', "None", "007"]

@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_texts_of_a_table_are_in_a_column(tmp_path, kind, streaming):
    texts = [text for text in TEXTS if kind != "tsv" or "\n" not in text and '"' not in text]
    table, path = pd.DataFrame({"id": range(len(texts)), "body": texts}), tmp_path / f"texts.{kind}"
    {"csv": lambda: table.to_csv(path, index=False), "tsv": lambda: table.to_csv(path, index=False, sep="\t"), "parquet": lambda: table.to_parquet(path),
     "json": lambda: table.to_json(path, orient="records"), "jsonl": lambda: table.to_json(path, orient="records", lines=True)}[kind]()
    assert [*load_texts(path, column="body", streaming=streaming)] == [text for text in texts if text]
    assert [*load_texts(path, column="body", streaming=streaming, limit=2)] == [text for text in texts if text][:2]
    with pytest.raises(InputError, match="no column text; it has id, body; name the one with the texts"): load_texts(path, streaming=streaming)

def test_plain_text_has_no_columns(tmp_path):
    with pytest.raises(InputError, match="column 'body' was given, and .* is plain text"): load_texts(write(tmp_path / "a.txt", "one"), column="body")

def test_batches_of_equal_length():
    rng = random.Random(0)
    rows = [[5] * rng.randrange(1, 6) for _ in range(200)]
    batches = [*length_batches(rows, 8, chunk=4, equal=True)]
    assert sorted(i for batch in batches for i in batch) == [*range(200)] and max(map(len, batches)) == 8
    assert all(len({len(rows[i]) for i in batch}) == 1 for batch in batches)

def test_a_corpus_is_known_again_in_any_order():
    rng, rows = random.Random(0), [[5, 6], [6, 5], [5], [5], [256]]
    def told(rows, size):
        corpus = Corpus()
        for i in range(0, len(rows), size): corpus.read(rows[i:i + size])
        return corpus.digests()
    assert {told(rng.sample(rows, 5), size)[1] for size in (1, 2, 5) for _ in range(5)} == {told(rows, 3)[1]}
    others = rows[1:], rows + [[5]], [[5, 6, 6, 5], *rows[2:]], [*rows[:-1], [1, 0]]
    assert len({told(r, 2)[1] for r in (rows, *others)}) == 5 and told(rows, 2)[0] == told([*rows[:2], [9]], 2)[0]

def test_files_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path, message in (tmp_path, "is a folder"), (tmp_path / "file/below", "was not written"), ("/proc/numbers", "was not written"):
        with pytest.raises(InputError, match=message): save_tensors(path, {"a": torch.ones(1)}, "test/1", {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"

def test_windows_are_the_joined_text_cut(tokenizer):
    texts = ["Ada was born in Paris .", "Hugo studied law .", "Zoe works as a baker ."]
    ids = tokenizer("\n".join(texts))["input_ids"]
    found = windows(texts, tokenizer, length=4, bos=False)
    assert len(found) == len(ids) // 4 and sum(found, []) == ids[:len(found) * 4]
    begun = windows(texts, tokenizer, length=4)
    assert all(row[0] == ids[0] and len(row) == 4 for row in begun) and sum((row[1:] for row in begun), []) == ids[1:1 + 3 * len(begun)]
    with pytest.raises(InputError, match="fewer than one window"): windows(texts, tokenizer, length=len(ids) + 1)
    with pytest.raises(InputError, match=r"write \[text\]"): windows(texts[0], tokenizer)

def test_right_padding_is_masked():
    batch = right_padded([[7, 8, 9], [4]])
    assert batch["input_ids"].tolist() == [[7, 8, 9], [4, 0, 0]] and batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]

@pytest.mark.parametrize("n, size, chunk", [(1, 4, 64), (7, 3, 64), (100, 8, 3), (65, 1, 4)])
def test_length_batches_are_a_partition_into_similar_lengths(n, size, chunk):
    rng = random.Random(n)
    rows = [[0] * rng.randint(1, 50) for _ in range(n)]
    found = list(length_batches(rows, size, chunk))
    assert sorted(sum(found, [])) == list(range(n)) and max(map(len, found)) <= size
    assert found == list(length_batches(rows, size, chunk))                     # seeded
    padded = sum(len(b) * max(len(rows[i]) for i in b) for b in found)
    in_order = sum(len(rows[i:i + size]) * max(map(len, rows[i:i + size])) for i in range(0, n, size))
    assert padded <= in_order

def test_length_batches_are_not_sorted_by_length():
    lengths = [len(b) and b[0] for b in length_batches([[0] * (i + 1) for i in range(64)], 4)]
    assert lengths != sorted(lengths)

# --- questions

CELLS = [("q1", "1990", ""), ("q2", "None", "exact prompt"), ("q3", "007", ""), ("q4", '["x", "y"]', ""),
         ("q5", "['x', \"it's\"]", ""), ("q6", "NA", ""), ("q7", "[sic] yes", ""), ("q8", "2,718", "")]
ACCEPTED = [("1990",), ("None",), ("007",), ("x", "y"), ("x", "it's"), ("NA",), ("[sic] yes",), ("2,718",)]

@pytest.mark.parametrize("kind", ["csv", "tsv", "CSV", "json", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_questions(tmp_path, kind):
    table, path = pd.DataFrame(CELLS, columns=["question", "answer", "prompt"]), tmp_path / f"a.{kind}"
    {"csv": lambda: table.to_csv(path, index=False), "CSV": lambda: table.to_csv(path, index=False),
     "tsv": lambda: table.to_csv(path, sep="\t", index=False), "json": lambda: table.to_json(path, orient="records"),
     "jsonl": lambda: table.to_json(path, orient="records", lines=True), "parquet": lambda: table.to_parquet(path)}[kind]()
    found = load_questions(path)
    assert [q.answers for q in found] == ACCEPTED
    assert [q.prompt for q in found] == [p for *_, p in CELLS] and [q.text for q in found] == [q for q, *_ in CELLS]

@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_lists_and_dictionaries_of_answers(tmp_path, kind):
    rows = [{"question": "q", "answers": {"value": "v", "aliases": ["a", "v"]}},
            {"question": "r", "answers": {"value": "w", "aliases": []}}]
    lists = [{"question": "q", "answers": ["a", "b", "a"]}, {"question": "r", "answers": ["c"]}, {"question": "s", "answers": []}]
    for content, expected in (rows, [("v", "a"), ("w",)]), (lists, [("a", "b"), ("c",)]):
        path = tmp_path / f"a.{kind}"
        if kind == "parquet": pd.DataFrame(content).to_parquet(path)
        else: path.write_text(json.dumps(content) if kind == "json" else "\n".join(map(json.dumps, content)))
        assert [q.answers for q in load_questions(path)] == expected

def test_missing_cells_are_no_questions_answers_or_prompts(tmp_path):
    lines = [{"question": "q", "answer": 7}, {"question": None, "answer": "x"}, {"question": "r", "answer": None},
             {"question": "s", "answer": {"value": "v", "aliases": None}, "prompt": "p"},
             {"question": "t", "answer": [" x ", "", None]}]
    found = load_questions(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert found == [Question("q", ("7",)), Question("s", ("v",), prompt="p"), Question("t", ("x",))]

def test_limit_counts_usable_questions(tmp_path):
    file = write(tmp_path / "a.csv", "question,answer\n,x\nq,\na,1\nb,2\nc,3\n")
    assert [q.text for q in load_questions(file, limit=2)] == ["a", "b"]

def test_columns_can_be_named(tmp_path):
    file = write(tmp_path / "a.csv", "Frage,correct_answer,Gold\nq,wrong column,right\n")
    assert load_questions(file, question="Frage", answers="Gold")[0].answers == ("right",)
    assert load_questions(file, question="Frage")[0].answers == ("wrong column",)
    with pytest.raises(InputError, match="no column question; it has Frage, correct_answer, Gold"): load_questions(file)

@pytest.mark.parametrize("name, content, message", [
    ("a.csv", "question,answer\n", "no question with an answer"), ("a.xlsx", "", "not a table that can be read"),
    ("a.json", "{broken", "could not be read as a json table"),
    ("a.parquet", "no parquet", "could not be read as a parquet table")])
def test_unusable_tables_are_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message): load_questions(write(tmp_path / name, content))

def test_question_from_a_pair():
    assert Question.of(("q", "a")) == Question("q", ("a",)) and Question.of(("q", ["a", "b"])).answers == ("a", "b")
    question = Question("q", ("a",), group="g")
    assert Question.of(question) is question
    for wrong in "q?", ("q",), ("q", "a", "b"):
        with pytest.raises(InputError, match="is not a question with answers"): Question.of(wrong)

# --- judgement

@pytest.mark.parametrize("text, expected", [
    ("The  Eiffel Tower!", "eiffel tower"), ("A.", "a"), ("the", "the"), ("AB+", "ab"), ("---", "---"), (" ) ", ")"), ("", ""),
    ("Washington, D.C.", "washington dc"), ("an apple a day", "apple day"), ("Athens", "athens"),
    ("Theatre", "theatre"), ("É", "é")])
def test_normalisation(text, expected): assert normalize_answer(text) == expected

@pytest.mark.parametrize("answer, accepted, right", [
    ("paris", ["Paris"], True), ("Paris.", ["Lyon", "Paris"], True), ("Paris, France", ["Paris"], False),
    ("not Mark Twain", ["Mark Twain"], False), ("", ["A+"], False), ("", ["the"], False), ("a", ["A+"], False), ("", [], False),
    ("2718", ["2,718"], True), ("---", ["---"], True), (".", ["---"], False), ("Beatles", ["The Beatles"], True)])
def test_right_and_wrong(answer, accepted, right): assert is_correct(answer, accepted) is right

@pytest.mark.parametrize("answer, abstains", [
    ("unknown", True), ("Unknown.", True), ("I don't know", True), ("I don’t know.", True), ("i do not know", True), ("", True),
    (" ", True), (".", True), ("---", True), ("Paris", False), ("unknown soldier", False), ("A", False), ("The Unknowns", False)])
def test_abstentions(answer, abstains): assert is_abstention(answer) is abstains

# --- real data

def test_nq_open_is_read_as_it_is_written():
    lines = [json.loads(line) for line in shared("data/nq_open/NQ-open.dev.jsonl").open(encoding="utf-8")]
    found = load_questions(shared("data/nq_open/NQ-open.dev.jsonl"))
    assert len(found) == len(lines) == 3610
    assert [q.text for q in found] == [line["question"] for line in lines]
    assert [q.answers for q in found] == [tuple(dict.fromkeys(a.strip() for a in line["answer"])) for line in lines]
    assert all(is_correct(a, q.answers) and normalize_answer(a) for q in found for a in q.answers)
    assert not any(is_correct("", q.answers) for q in found)

@pytest.mark.parametrize("name, rows", [
    ("nq_open", 2000), ("sciq", 2000), ("triviaqa", 2000), ("truthfulqa", 397), ("wikiqa", 1040)])
def test_no_row_of_a_real_table_is_lost(name, rows):
    "One TriviaQA answer is the word None."
    assert len(load_questions(shared(f"data/{name}/correct_and_wrong_answers.csv"))) == rows

@pytest.mark.parametrize("path, columns, rows", [
    ("triviaqa/triviaqa_with_aliases_150.json", {"answers": "aliases"}, 150),
    ("wikiqa/WikiQA-test.tsv", {"question": "Question", "answers": "Sentence"}, 6165),
    ("truthfulqa/TruthfulQA.csv", {"question": "Question", "answers": "Best Answer"}, 817),
    ("facts/cloze_facts.jsonl", {"question": "prompt"}, 4300)])
def test_other_real_tables(path, columns, rows):
    found = load_questions(shared(f"data/{path}"), **columns)
    assert len(found) == rows and all(q.answers for q in found)

def test_real_texts():
    file = shared("data/wikipedia/heldout_simplewiki.txt")
    assert len(load_texts(file)) == sum(bool(a.strip()) for a in file.read_text(encoding="utf-8").split("\0"))
    assert len(load_texts(shared("data/wikitext2/valid.txt"), limit=50)) == 50
