"The question sets: read from the original files, asked of the hub as published, and told apart; examples and given answers."
import csv, json, re, string, warnings
from collections import Counter, defaultdict
from inspect import signature
import numpy as np, pandas as pd, pytest
from avss_nb import (
    InputError, Prompt, Question, is_correct, load_answer_pairs, load_questions,
    normalize_answer, split_questions, with_shots
)
from avss_nb.data import readers as data
from avss_nb.data.questions import question_type
from avss_nb.data.readers import QUESTION_SETS
from conftest import shared

def quietly(f, *args, **options):
    "The result, and the text of the warnings."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return f(*args, **options), " ".join(str(w.message) for w in caught)

def lines(path): return path.read_text(encoding="utf-8-sig").split("\n")

# --- the five on disk, against parsers written here

def test_nq_open():
    path = shared("data/nq_open/NQ-open.dev.jsonl")
    rows = [json.loads(line) for line in lines(path) if line]
    found, told = quietly(load_questions, path)
    assert len(found) == len(rows) == 3610 and not told
    assert [q.text for q in found] == [row["question"] for row in rows]
    assert [set(q.answers) for q in found] == [{a.strip() for a in row["answer"]} for row in rows]
    assert {q.group for q in found} == {"nq_open"} and {q.kind for q in found} == {*"who when where how what which other".split()}
    assert sum(q.kind == "who" for q in found) > 1000 and not any(q.choices or q.subject for q in found)

@pytest.mark.parametrize("split", ["validation", "test"])
def test_sciq(split):
    path = shared(f"data/sciq/{split}.txt")
    found, told = quietly(load_questions, path)
    text = [line for line in lines(path) if line]
    assert len(found) == 1000 and not told and {q.group for q in found} == {"sciq"}
    assert [q.text for q in found] == text[::2] and [q.answers for q in found] == [(a,) for a in text[1::2]]
    with pytest.raises(InputError, match="needs the columns distractor1"): load_questions(path, task="choice")

def test_triviaqa():
    path = shared("data/triviaqa/triviaqa_with_aliases_150.json")
    rows = json.loads(path.read_text())
    found, told = quietly(load_questions, path)
    assert len(found) == 150 and not told and {q.group for q in found} == {"triviaqa"}
    for q, row in zip(found, rows):
        assert q.text == row["question"] and q.answers[0] == row["gold_answer"] and set(q.answers) == {a.strip() for a in row["aliases"]}
        assert all(q.accepts(alias) for alias in row["aliases"])

@pytest.mark.parametrize("part, pairs, questions, answerable", [("dev", 2733, 296, 126), ("test", 6165, 633, 243)])
def test_wikiqa(part, pairs, questions, answerable):
    path = shared(f"data/wikiqa/WikiQA-{part}.tsv")
    by_id = defaultdict(list)
    for line in lines(path)[1:]:
        if line: by_id[line.split("\t")[0]].append(line.split("\t"))
    assert sum(map(len, by_id.values())) == pairs and len(by_id) == questions
    every = list(data._from_set("wikiqa", data.read_table(path), None, path))
    assert len(every) == questions and sum(len(q.choices) for q in every) == pairs  # no pair is lost
    assert all(q.subject for q in every) and Counter(q.subject for q in every) == Counter(rows[0][3] for rows in map(unquoted, by_id.values()))
    found, told = quietly(load_questions, path)
    assert f"{questions - answerable} of {questions} questions" in told
    right = {rows[0][1]: [row[5] for row in rows if row[6].strip() == "1"] for rows in map(unquoted, by_id.values())}
    assert {q.text: list(q.answers) for q in found} == {text: sentences for text, sentences in right.items() if sentences}
    assert len(found) == answerable and all({*q.answers} <= {*q.choices} for q in found)

def unquoted(rows):
    "As the csv module reads each line by itself; an unclosed quotation mark leaves the line as it is."
    def cell(text): return text[1:-1].replace('""', '"').strip() if re.fullmatch(r'"([^"]|"")*"', text) else text.strip()
    return [[cell(text) for text in row] for row in rows]

def test_truthfulqa():
    path = shared("data/truthfulqa/TruthfulQA.csv")
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    def parts(cell): return [a.strip() for a in cell.split(";") if a.strip()]
    free, one, all_right = (quietly(load_questions, path, task=task)[0] for task in ("answer", "mc1", "mc2"))
    assert len(free) == len(one) == len(all_right) == len(rows) == 817
    assert load_questions(path) == free and len({q.kind for q in free}) == 38
    for row, f, m1, m2 in zip(rows, free, one, all_right):
        assert f.text == row["Question"] and f.kind == f.subject == row["Category"] and not f.choices
        assert f.answers[0] == row["Best Answer"].strip() and set(f.answers) == {f.answers[0], *parts(row["Correct Answers"])} == set(m2.answers)
        assert m1.answers == f.answers[:1] and set(m1.choices) == {f.answers[0], *parts(row["Incorrect Answers"])}
        assert set(m2.choices) == {*m2.answers, *parts(row["Incorrect Answers"])}
    first = np.mean([q.choices[0] in q.answers for q in one])
    assert first < 0.5  # published, the right choice always comes first
    sides = split_questions(free, {"a": 0.5, "b": 0.5})
    assert not {q.kind for q in sides["a"]} & {q.kind for q in sides["b"]}  # by category, not by row

def test_cloze_facts():
    path = shared("data/facts/cloze_facts.jsonl")
    rows = [json.loads(line) for line in lines(path) if line]
    found, told = quietly(load_questions, path)
    assert len(found) == 4300 and not told
    assert [(q.text, q.prompt, q.subject, q.kind, q.answers) for q in found] == [
        (r["prompt"], r["prompt"], r["subject"], r["relation"], tuple(dict.fromkeys(r["answers"]))) for r in rows]

# --- the five on the hub: rows shaped as on the cards

NQ = [{"question": "where did they film it", "answer": ["Wiltshire", "England"]}] * 2
SCIQ = [{"question": "What makes cheese?", "distractor3": "viruses", "distractor1": "protozoa", "distractor2": "gymnosperms",
         "correct_answer": "bacteria", "support": "Bacteria make cheese."}]
SINCLAIR = {"aliases": ["(Harry) Sinclair Lewis", "Lewis, (Harry) Sinclair", "Grace Hegger"], "matched_wiki_entity_name": "",
            "normalized_aliases": ["grace hegger", "lewis harry sinclair", "harry sinclair lewis"],
            "normalized_matched_wiki_entity_name": "", "normalized_value": "sinclair lewis", "type": "WikipediaEntity", "value": "Sinclair Lewis"}
TRIVIA = [{"question": "Which Sinclair won in 1930?", "question_id": "tc_1", "question_source": "http://x", "entity_pages": {"title": [page]},
           "search_results": {"title": []}, "answer": SINCLAIR} for page in ("A", "B")]
GENERATION = [{"type": "Adversarial", "category": "Myths", "question": "Is glass a liquid?", "best_answer": "No, a solid",
               "correct_answers": ["No", "No, a solid"], "incorrect_answers": ["Yes"], "source": "http://x"}]
CHOICES = [{"question": "Is glass a liquid?", "mc1_targets": {"choices": ["No, a solid", "Yes"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["No, a solid", "No", "Yes", "Maybe"], "labels": [1, 1, 0, 0]}}]
WIKI = [{"question_id": "Q1", "question": "how are caves formed?", "document_title": "Cave", "answer": text, "label": label}
        for text, label in (("A cave is a hole .", 0), ("Water forms caves .", 1), ("So does ice .", 1))] + [
        {"question_id": "Q2", "question": "who owns caves?", "document_title": "Cave", "answer": "A cave is a hole .", "label": 0}]
HUB = {("google-research-datasets/nq_open", None): NQ, ("allenai/sciq", None): SCIQ, ("mandarjoshi/trivia_qa", "rc.nocontext"): TRIVIA,
       ("truthfulqa/truthful_qa", "generation"): GENERATION, ("truthfulqa/truthful_qa", "multiple_choice"): CHOICES,
       ("microsoft/wiki_qa", None): WIKI}

@pytest.fixture
def hub(monkeypatch):
    "A stand-in for `datasets.load_dataset` that knows the published names only; yields the calls."
    datasets = pytest.importorskip("datasets")
    real, calls = signature(datasets.load_dataset), []
    def load_dataset(*args, **options):
        asked = real.bind(*args, **options).arguments
        calls.append((asked["path"], asked.get("name"), asked["split"], asked["streaming"]))
        assert set(asked) <= {"path", "name", "split", "streaming"}
        return iter(HUB[asked["path"], asked.get("name")])
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls

@pytest.mark.parametrize("name, path, config, expected", [
    ("nq_open", "google-research-datasets/nq_open", None, [Question("where did they film it", ("Wiltshire", "England"), group="nq_open", kind="where")] * 2),
    ("sciq", "allenai/sciq", None, [Question("What makes cheese?", ("bacteria",), group="sciq", kind="what")]),
    ("triviaqa", "mandarjoshi/trivia_qa", "rc.nocontext", [Question("Which Sinclair won in 1930?", (
        "Sinclair Lewis", "(Harry) Sinclair Lewis", "Lewis, (Harry) Sinclair", "Grace Hegger", "grace hegger", "lewis harry sinclair",
        "harry sinclair lewis"), group="triviaqa", kind="which", rules="triviaqa")]),
    ("truthfulqa", "truthfulqa/truthful_qa", "generation", [
        Question("Is glass a liquid?", ("No, a solid", "No"), group="truthfulqa", kind="Myths", subject="Myths")]),
    ("wikiqa", "microsoft/wiki_qa", None, [Question("how are caves formed?", ("Water forms caves .", "So does ice ."), group="wikiqa", kind="how",
        subject="Cave", choices=("A cave is a hole .", "Water forms caves .", "So does ice ."))])])
def test_published_names(hub, name, path, config, expected):
    assert quietly(load_questions, name)[0] == expected
    assert quietly(load_questions, name, split="test", limit=1)[0] == expected[:1]
    assert hub == [(path, config, "validation", True), (path, config, "test", True)]
    by_path = f"{path}:{config}" if config else path
    assert quietly(load_questions, by_path)[0] == expected  # by its own name, known by its columns

def test_choices_of_sciq_and_truthfulqa(hub):
    question, = load_questions("sciq", task="choice")
    assert question.answers == ("bacteria",) and question.choices == ("bacteria", "gymnosperms", "protozoa", "viruses")
    one, = load_questions("truthfulqa", task="mc1")
    two, = load_questions("truthfulqa", task="mc2")
    assert one == Question("Is glass a liquid?", ("No, a solid",), group="truthfulqa", kind="Myths", subject="Myths", choices=("No, a solid", "Yes"))
    assert two.answers == ("No, a solid", "No") and set(two.choices) == {"No, a solid", "No", "Yes", "Maybe"}
    assert {call[:2] for call in hub[1:]} == {("truthfulqa/truthful_qa", "generation"), ("truthfulqa/truthful_qa", "multiple_choice")}
    with pytest.raises(InputError, match="task='mc1' or task='mc2'"): load_questions("truthfulqa/truthful_qa:multiple_choice")

def test_choices_in_a_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CHOICES))
    pd.DataFrame(CHOICES).to_parquet(tmp_path / "a.parquet")
    for kind in "json", "parquet":
        question, = load_questions(tmp_path / f"a.{kind}", task="mc2")
        assert question.answers == ("No, a solid", "No") and sorted(question.choices) == ["Maybe", "No", "No, a solid", "Yes"]

def test_hidden_answers_of_the_test_split_are_no_answers(hub, monkeypatch):
    monkeypatch.setitem(HUB, ("mandarjoshi/trivia_qa", "rc.nocontext"), [TRIVIA[0] | {"answer": {"value": "<unk>", "aliases": [], "normalized_aliases": []}}])
    with pytest.raises(InputError, match="no question with an answer"): load_questions("triviaqa", split="test")

@pytest.mark.parametrize("name, rows", [("sciq", SCIQ), ("triviaqa", TRIVIA), ("truthfulqa", GENERATION), ("wikiqa", WIKI), ("nq_open", NQ)])
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_the_same_rows_in_a_file_are_recognized(hub, tmp_path, name, rows, kind):
    path = tmp_path / f"{name}.{kind}"
    if kind == "json": path.write_text(json.dumps(rows))
    else: pd.DataFrame(rows).to_parquet(path)
    assert quietly(load_questions, path)[0] == quietly(load_questions, name)[0]

def test_what_could_be_anybodys_is_nobodys(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(NQ[0]))
    assert load_questions(path)[0].group == "" and load_questions(path, dataset="nq_open")[0].group == "nq_open"
    (tmp_path / "own.txt").write_text("Who?\nI\n\nWho else?\nyou\n")
    assert [q.answers for q in load_questions(tmp_path / "own.txt")] == [("I",), ("you",)]
    assert {q.group for q in load_questions(tmp_path / "own.txt", dataset="sciq")} == {"sciq"}

# --- normalisation and types

def official(text):
    "TriviaQA's evaluation script, written down independently: a space for each mark, then no articles, then single spaces."
    text = text.replace("_", " ").lower().translate({ord(c): " " for c in string.punctuation + "‘’´`"})
    return " ".join(word for word in text.split() if word not in ("a", "an", "the"))

def test_official_normalisation():
    for raw, normal in zip(SINCLAIR["aliases"], ("harry sinclair lewis", "lewis harry sinclair", "grace hegger")):
        assert normalize_answer(raw, "triviaqa") == normal in SINCLAIR["normalized_aliases"]
    assert normalize_answer("Washington, D.C.", "triviaqa") == "washington d c" and normalize_answer("Washington, D.C.") == "washington dc"
    aliases = [a for row in json.loads(shared("data/triviaqa/triviaqa_with_aliases_150.json").read_text()) for a in row["aliases"]]
    assert len(aliases) > 1500 and all(normalize_answer(a, "triviaqa") == official(a) for a in aliases if official(a))

def test_a_question_judges_by_its_own_rules():
    for rules, right in ("triviaqa", True), ("squad", False):
        question = Question("?", ("J. K. Rowling", "Washington, D.C."), rules=rules)
        assert question.accepts("J.K. Rowling") is right and question.accepts("the washington, d.c.") and not question.accepts("Washington")

@pytest.mark.parametrize("text, kind", [
    ("who is it", "who"), ("Whom?", "who"), ("In which year, and when?", "which"), ("What's up", "what"), ("Somewhere?", "other"), ("", "other"),
    ("somehow whatever", "other"), ("HOW many", "how"), ("he ran, but where?", "where"), ("Why?", "other")])
def test_question_types(text, kind): assert question_type(text) == kind

# --- few-shot prompts

def solved(prompt):
    "Questions and answers of a prompt, and the question that is asked."
    *shots, last = re.findall(r"^Q: (.*)\nA:(.*)$", prompt, re.M)
    assert last[1] == ""
    return [(q, a.strip()) for q, a in shots], last[0]

def test_the_template_is_the_evaluators():
    question, = with_shots([("q", "a")], shots=0)
    assert question.prompt == Prompt().text(Question("q", ("a",))) and question.stop == Prompt().stop

@pytest.mark.parametrize("seed", range(5))
def test_drawn_examples_never_leak(seed):
    questions = [Question(f"{'Question' if i % 2 else 'question'} {i // 2}?", (f"answer {i // 2}", "other")) for i in range(40)]
    found = with_shots(questions, shots=3, seed=seed)
    shots = {tuple(solved(q.prompt)[0]) for q in found}
    assert len(shots) == 1 and len(found) == 40 - 3 * 2  # each text is there twice, but for capitals
    used = {text.lower() for text, _ in shots.pop()}
    for q in found:
        assert q.text.lower() not in used and solved(q.prompt)[1] == q.text
        assert all(f"answer {text.split()[1][:-1]}" == answer for text, answer in solved(q.prompt)[0])
    assert found == with_shots(questions, shots=3, seed=seed)
    assert len({tuple(solved(with_shots(questions, seed=s)[0].prompt)[0]) for s in range(5)}) == 5

def test_given_examples_leave_every_question_in():
    questions = [(f"q{i}?", f"a{i}") for i in range(6)]
    found = with_shots(questions, shots=5, examples=questions)
    assert [q.text for q in found] == [text for text, _ in questions]
    for q in found: assert len(solved(q.prompt)[0]) == 5 and q.text not in dict(solved(q.prompt)[0])

def test_examples_are_answered_on_one_line_and_own_prompts_are_kept():
    asked = Question("x", ("y",), prompt="The capital of Peru is", stop=(".",), group="g")
    found, = with_shots([asked], 1, [Question("France", ("Paris,\n the city",), prompt="The capital of France is ")])
    assert found.prompt == "The capital of France is Paris, the city\nThe capital of Peru is" and found.stop == (".",) and found.group == "g"

@pytest.mark.parametrize("questions, options", [
    ([("q", "a")] * 9, {}), ([("q", "a"), ("r", "b")], {"shots": 2}), ([("q", "a")], {"shots": 1, "examples": [("Q ", "a")]}),
    ([("q", "a")], {"shots": 1, "examples": [Question("r", ())]}), ([("q", "a")], {"shots": 1, "examples": [Question("r", ("b",), answerable=False)]}),
    ([("q", "a")], {"shots": -1})])
def test_too_few_examples(questions, options):
    with pytest.raises(InputError, match="give"): with_shots(questions, **options)

def test_real_questions_with_examples():
    questions = load_questions(shared("data/nq_open/NQ-open.dev.jsonl"))
    found = with_shots(questions)
    assert len(found) == 3605 and all(q.prompt.count("Q: ") == 6 and q.prompt.endswith("\nA:") for q in found)

# --- a user's table

def test_optional_columns(tmp_path):
    rows = [{"question": "q", "answers": ["a"], "prompt": " p ", "group": "g", "kind": "k", "subject": "s", "answerable": True, "choices": ["b", "a"]},
            {"question": "r", "answers": [], "prompt": None, "group": None, "kind": 3, "subject": float("nan"), "answerable": False, "choices": None}]
    expected = [Question("q", ("a",), " p ", (), "g", "k", True, "s", ("b", "a")), Question("r", (), kind="3", answerable=False)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame(rows).astype({"kind": str}).to_parquet(tmp_path / "a.parquet")
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    for kind in "json", "jsonl", "parquet", "csv", "tsv": assert load_questions(tmp_path / f"a.{kind}") == expected, kind

def test_json_lines_whatever_the_ending_is(tmp_path):
    rows = [{"question": "q\u2028r", "answer": ["x", "y"]}, {"question": "s", "answer": "z"}]
    forms = ["\n".join(json.dumps(row, ensure_ascii=False) for row in rows), json.dumps(rows), json.dumps({k: [r[k] for r in rows] for k in rows[0]})]
    for ending in "json", "jsonl":
        for form in forms if ending == "json" else forms[:1]:
            (tmp_path / f"a.{ending}").write_text(form)
            assert load_questions(tmp_path / f"a.{ending}") == [Question("q\u2028r", ("x", "y")), Question("s", ("z",))]
        (tmp_path / f"a.{ending}").write_text(json.dumps(rows[0]))
        assert load_questions(tmp_path / f"a.{ending}") == [Question("q\u2028r", ("x", "y"))]  # one row, not one for each answer

@pytest.mark.parametrize("cell", [None, float("nan"), [], "", "  ", [None], [[], [float("nan")]], {}, {"value": None, "aliases": None}, "[]", "[null]"])
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_cells_without_an_answer(tmp_path, cell, kind):
    path = tmp_path / f"a.{kind}"
    rows = [{"question": "q", "answer": cell}]
    if kind == "json": path.write_text(json.dumps(rows))
    else:
        try: pd.DataFrame(rows).to_parquet(path)
        except Exception: pytest.skip("parquet cannot hold it")
    with pytest.raises(InputError, match=r"no question with an answer \(1 without\)"): load_questions(path)

@pytest.mark.parametrize("cell, answers", [
    (7, ("7",)), (7.0, ("7",)), (7.5, ("7.5",)), (True, ("True",)), ([["x"], ["y", None]], ("x", "y")), ([1, "x"], ("1", "x")), ("[1, 'x']", ("1", "x")),
    ("[[", ("[[",)), ("[{[]: 1}]", ("[{[]: 1}]",)), ("[" * 5000 + "]" * 5000, None), ("nan", ("nan",))])
def test_cells_that_are_no_text(tmp_path, cell, answers):
    (tmp_path / "a.json").write_text(json.dumps([{"question": "q", "answer": cell}, {"question": "r", "answer": "s"}]))
    found, told = quietly(load_questions, tmp_path / "a.json")
    assert found[-1] == Question("r", ("s",))
    if answers: assert found[0].answers == answers and not told

def test_questions_that_are_no_text(tmp_path):
    rows = [{"question": value, "answer": "x"} for value in (None, float("nan"), ["q"], {"q": 1}, "", 12, "q")]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found, told = quietly(load_questions, tmp_path / "a.json")
    assert [q.text for q in found] == ["12", "q"] and "5 of 7 questions" in told

def test_numbers_in_a_column_with_gaps(tmp_path):
    pd.DataFrame({"question": ["q", "r"], "answer": [1990, None]}).to_parquet(tmp_path / "a.parquet")
    assert quietly(load_questions, tmp_path / "a.parquet")[0] == [Question("q", ("1990",))]

def test_dropped_rows_are_counted_once(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nq,x\nr,\ns,\n,y\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_questions(tmp_path / "a.csv")
    assert [str(w.message) for w in caught] == [f"{tmp_path / 'a.csv'}: 3 of 4 questions have no text or no answer and are left out"]
    assert caught[0].filename == __file__  # it points at the caller

# --- wrong input

def test_unknown_names(monkeypatch):
    datasets = pytest.importorskip("datasets")
    def load_dataset(*_, **__): raise ConnectionError("nobody there\nat all")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"triviaqq is neither .*nobody there.*nq_open, sciq, triviaqa, truthfulqa, wikiqa"): load_questions("triviaqq")
    with pytest.raises(InputError, match="google-research-datasets/nq_open .*could be loaded"): load_questions("nq_open")
    with pytest.raises(InputError, match="'squad' is not one of nq_open, sciq, triviaqa, truthfulqa, wikiqa"): load_questions("nq_open", dataset="squad")
    with pytest.raises(InputError, match="no task 'mc1'; it has answer, choice"): load_questions_of([], "sciq", "mc1")
    with pytest.raises(InputError, match="not both"): load_questions("nq_open", dataset="nq_open", answers="answer")

def load_questions_of(rows, name, task): return list(data._from_set(name, rows, task, "here"))

@pytest.mark.parametrize("name", QUESTION_SETS)
def test_another_table_is_not_forced_into_a_protocol(tmp_path, name):
    (tmp_path / "a.csv").write_text("Frage,Antwort\nq,x\n")
    with pytest.raises(InputError, match=f"does not look like {name}: .*it has Frage Antwort"): load_questions(tmp_path / "a.csv", dataset=name)

@pytest.mark.parametrize("content, message", [
    ("question\nq\n", "no column answers; it has question"), ("prompt,x\nq,y\n", "no column answers"), ("subject,answers\ns,a\n", "no column question"),
    ("question,answers,answerable\nq,a,perhaps\n", "column answerable holds 'perhaps'"),
    ("question,answers,choices\nq,a,\"['b', 'c']\"\n", "none of the choices of 'q'")])
def test_broken_tables(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message): load_questions(tmp_path / "a.csv")

def test_other_refusals(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nq,x\n")
    with pytest.raises(InputError, match="task='choice' applies only to"): load_questions(tmp_path / "a.csv", task="choice")
    (tmp_path / "a.txt").write_text("Who?\nI\n\nWho else?\n\n")
    with pytest.raises(InputError, match="'Who else\\?' begins a block of 1 lines"): load_questions(tmp_path / "a.txt")
    for broken in "[1, 2]", "3", "\"text\"", "null", '{"question": "q"', '[["q", "a"]]':
        (tmp_path / "a.json").write_text(broken)
        with pytest.raises(InputError): load_questions(tmp_path / "a.json")

@pytest.mark.parametrize("targets", [None, float("nan"), "text", {}, {"choices": None, "labels": None}, {"choices": ["a"], "labels": []}])
def test_damaged_choices(tmp_path, targets):
    (tmp_path / "a.json").write_text(json.dumps([{"question": "q", "mc1_targets": targets, "mc2_targets": targets}]))
    with pytest.raises(InputError, match="no question with an answer"): load_questions(tmp_path / "a.json", task="mc1")

# --- given answers

PAIRS = [("nq_open/correct_and_wrong_answers.csv", 2000), ("sciq/correct_and_wrong_answers.csv", 2000), ("triviaqa/correct_and_wrong_answers.csv", 2000),
         ("truthfulqa/correct_and_wrong_answers.csv", 397), ("wikiqa/correct_and_wrong_answers.csv", 1040), ("halueval/qa_one-turn_data.json", 500)]

@pytest.mark.parametrize("path, rows", PAIRS)
def test_given_answers(path, rows):
    path = shared(f"data/{path}")
    if path.suffix == ".csv": given = [(r["question"], r["correct_answer"], eval(r["wrong_answer"], {})) for r in csv.DictReader(path.open(newline="", encoding="utf-8"))]
    else: given = [(r["question"], r["right_answer"], [r["hallucinated_answer"]]) for r in map(json.loads, filter(None, lines(path)))]
    (questions, answers, right), told = quietly(load_answer_pairs, path, "g")
    assert len(given) == rows == right.sum() and len(questions) == len(answers) == len(right) and right.dtype == bool
    expected, doubtful = [], 0
    for text, true, false in given:
        distinct = [a for a in dict.fromkeys(a.strip() for a in false) if a]
        wrong = [a for a in distinct if not is_correct(a, [true])]
        doubtful += len(distinct) - len(wrong)
        expected += [(text, true.strip(), True), *((text, a, False) for a in wrong)]
    assert list(zip((q.text for q in questions), answers, right.tolist())) == expected
    assert (f"{doubtful:,} wrong answers" in told) == (doubtful > 0)
    assert all(q.accepts(a) == label for q, a, label in zip(questions, answers, right))
    assert all(q.subject == q.text and q.kind == question_type(q.text) and q.group == "g" for q in questions)
    assert set(right.tolist()) == {True, False} and right.mean() < 0.6

def test_given_answers_stay_together_in_a_split(tmp_path):
    rows = [{"question": f"who is {i}?", "right_answer": "a", "hallucinated_answer": f"b{i}"} for i in range(20)]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, rows)))
    questions, answers, right = load_answer_pairs(tmp_path / "a.json")
    assert right.tolist() == [True, False] * 20 and {q.kind for q in questions} == {"who"}
    parts = split_questions(questions, {"x": 0.5, "y": 0.5})
    assert len(parts["x"]) == len(parts["y"]) == 20 and not {q.text for q in parts["x"]} & {q.text for q in parts["y"]}
    assert len(load_answer_pairs(tmp_path / "a.json", limit=3)[0]) == 6

def test_given_answers_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.json"
    rows = [{"question": "q", "answer": "x", "wrong_answers": ["X.", "y", None, "", "y"]}, {"question": None, "answer": "x", "wrong_answers": ["z"]},
            {"question": "r", "answer": None, "wrong_answers": ["z"]}, {"question": "s", "answer": 3, "wrong_answers": None}]
    path.write_text(json.dumps(rows))
    (questions, answers, right), told = quietly(load_answer_pairs, path)
    assert answers == ["x", "y", "3"] and right.tolist() == [True, False, True]
    assert "2 rows without a question or a right answer, and 1 wrong answers" in told
    path.write_text(json.dumps(rows[1:3]))
    with pytest.raises(InputError, match="no question with an answer"): load_answer_pairs(path)
    path.write_text(json.dumps([{"question": "q", "answer": "x"}]))
    with pytest.raises(InputError, match="no column wrong_answer; it has question, answer"): load_answer_pairs(path)
    with pytest.raises(InputError, match="there is no file"): load_answer_pairs(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="there is no file"): load_answer_pairs("nq_open")

# --- how answers are judged

def test_rules_and_language_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nWie viele?,\"1.000\"\n", encoding="utf-8")
    usual, = load_questions(tmp_path / "a.csv")
    german, = load_questions(tmp_path / "a.csv", rules="contains", language="de")
    assert (usual.rules, usual.language) == ("squad", "en") and usual.accepts("1") and not usual.accepts("tausend 1000")
    assert (german.rules, german.language) == ("contains", "de") and german.accepts("Es sind 1000 Stück") and not german.accepts("1")
    mine, = load_questions(tmp_path / "a.csv", rules=lambda answer, accepted: answer == "ja")
    assert mine.accepts("ja") and not mine.accepts("1.000")
    for wrong, message in (dict(rules="sqad"), "rules='sqad' was given; known are squad"), (dict(language="xx"), "LANGUAGES\\['xx'\\] = Language"):
        with pytest.raises(InputError, match=message): load_questions(tmp_path / "a.csv", **wrong)
