"Answers held against the truth, kept in files, and chosen: against values worked out by hand."
import json, math, random, subprocess, sys, warnings
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from avss_nb import Answers, InputError, Prompt, Question, Report, length_baseline
from avss_nb.answering.choices import choice_shares, choose_most_likely, mc2

ASKED = [Question("a", ("Paris",), group="known", kind="city"), Question("b", ("Rome",), group="known", kind="city"),
         Question("c", ("1990",), group="rare", kind="year"),
         Question("d", ("baker",), group="unknown", kind="job", answerable=False),
         Question("e", (), group="unknown", kind="job", answerable=False),
         Question("f", ("unknown", "nobody"), group="rare", kind="who")]
GIVEN = ["paris.", "not Rome", "I don't know", "poet", "unknown", "Unknown"]
LOGPROBS = [[-.1], [-.2, -.4], [-.9], [-1.2], [0.], [-.05, -.05, -.05]]

@pytest.fixture()
def judged(): return Answers.judge(ASKED, GIVEN, LOGPROBS)

def test_right_wrong_and_abstained(judged):
    assert judged.correct.tolist() == [True, False, False, False, False, True]
    assert judged.abstained.tolist() == [False, False, True, False, True, False]        # "Unknown" is accepted in the last
    assert judged.hallucinated.tolist() == [False, True, False, True, False, False]
    assert judged.confidences == pytest.approx([math.exp(x) for x in (-.1, -.3, -.9, -1.2, 0, -.05)])
    assert (judged.correct.astype(int) + judged.abstained + judged.hallucinated == 1).all()

def test_report_on_answers_by_hand(judged):
    report = judged.report()
    c, y = np.exp([-.1, -.3, -1.2, -.05]), np.array([1, 0, 0, 1])
    assert (report.n, report.accuracy, report.hallucination_rate, report.abstention_rate) == (6, 2 / 6, 2 / 6, 2 / 6)
    assert report.mean_confidence == pytest.approx(c.mean()) and report.brier == pytest.approx(((c - y)**2).mean())
    assert report.auroc == 1 and report.perplexity is None
    assert report.ece == pytest.approx((abs(c[0] - 1) + c[1] + c[2] + abs(c[3] - 1)) / 4)    # .905, .741, .301, .951: four bins
    assert report.risk_coverage == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert set(report.intervals) >= {"accuracy", "hallucination_rate", "abstention_rate", "ece", "brier", "auroc"}
    assert all(0 <= low <= high <= 1 for low, high in report.intervals.values())
    many = judged + judged + judged + judged  # six answers are so few that every seed gives the widest interval
    assert judged.report() == report and many.report(seed=1) != many.report() and judged.report(draws=0).intervals == {}

def test_report_is_ready_for_json(judged):
    found = json.loads(json.dumps(judged.report().to_dict(), allow_nan=False))
    assert found["n"] == 6 and found["accuracy"] == pytest.approx(1 / 3) and len(found["intervals"]["accuracy"]) == 2
    silent = Answers.judge(ASKED[:2], ["unknown", ""], [[-1.], [-2.]]).report().to_dict()
    assert silent["abstention_rate"] == 1 and silent["ece"] is silent["auroc"] is silent["mean_confidence"] is None
    one = Report(perplexity=3., intervals={"perplexity": (math.nan, math.nan)}).to_dict()
    assert json.loads(json.dumps(one, allow_nan=False))["intervals"]["perplexity"] == [None, None]

def test_auroc_is_undefined_for_one_class():
    assert Answers.judge(ASKED[:1] * 3, ["Paris"] * 3, [[-.1], [-.2], [-.3]]).report().auroc is None

def test_selection_and_groups(judged):
    assert judged[judged.hallucinated].texts == ("not Rome", "poet")
    assert judged[2].texts == ("I don't know",) and judged[-2:].texts == ("unknown", "Unknown") and len(judged[1:4]) == 3
    assert judged[[5, 0]].texts == ("Unknown", "paris.") and judged[[5, 0]].token_logprobs == ((-.05,) * 3, (-.1,))
    table = judged.by_group()
    assert list(table.index) == ["known", "rare", "unknown", "all"] and table["n"].tolist() == [2, 2, 2, 6]
    assert table["accuracy"].tolist() == pytest.approx([.5, .5, 0, 1 / 3])
    assert table["hallucination_rate"].tolist() == pytest.approx([.5, 0, .5, 1 / 3])
    assert table.loc["all", "ece"] == pytest.approx(judged.report().ece) and table["auroc"].dtype == float
    assert list(judged.by_group("answerable").index) == [True, False, "all"]
    assert judged.by_group("kind", draws=50).loc["all", "accuracy high"] >= 1 / 3

def test_table_of_answers(judged):
    table = judged.to_frame()
    assert list(table) == ["question", "answer", "accepted", "group", "kind", "answerable",
                           "confidence", "correct", "abstained", "hallucinated"]
    assert table["hallucinated"].sum() == 2 and table["answer"].tolist() == GIVEN

def test_withholding_unsure_answers(judged):
    kept = judged.abstain_below(0.8)
    assert kept.abstained.tolist() == [False, True, True, True, True, False]
    assert kept.correct.tolist() == [True, False, False, False, False, True]
    assert kept.report().hallucination_rate == 0 and judged.hallucinated.sum() == 2            # the original is as it was

def test_an_answer_on_the_threshold_is_withheld(judged):
    for on in judged.confidences:
        kept = judged.abstain_below(on)
        assert (kept.abstained == judged.abstained | (judged.confidences <= on)).all() and not (kept.correct & kept.abstained).any()
    other = np.linspace(.1, .6, 6)
    assert (judged.abstain_below(.3, other).abstained == judged.abstained | (other <= .3)).all()
    with pytest.raises(InputError, match="from 0 to 1"): judged.abstain_below(80)

def test_what_a_model_says_is_not_markup():
    shown = Answers.judge([Question("<b>q</b>", ("a",))], ["<script>alert(1)</script>"], [[-1.]])._repr_html_()
    assert "<script>" not in shown and "<b>" not in shown

def test_report_shows_what_is_defined(judged):
    assert "accuracy" in judged.report()._repr_html_() and "perplexity" not in judged.report()._repr_html_()
    assert "questions" not in Report(perplexity=3.)._repr_html_()

def test_unequal_lists_are_refused():
    with pytest.raises(ValueError): Answers.judge(ASKED, GIVEN[:-1], LOGPROBS)
    with pytest.raises(InputError, match="at least one"): Answers.judge([], [], []).report()

# --- right answers

def test_right_is_correct_or_rightly_abstained(judged):
    assert judged.right.tolist() == [True, False, False, False, True, True]            # "c" could be known, "e" could not
    report = judged.report()
    assert report.right == 3 / 6 and report.accuracy == 2 / 6 and report.to_dict()["right"] == 0.5
    assert "right (or rightly abstained)" in report.to_frame().index and len(report.to_dict()["intervals"]["right"]) == 2
    table = judged.by_group("answerable", draws=50)
    assert table["right"].to_dict() == {True: 2 / 4, False: 1 / 2, "all": 3 / 6} and table.loc["all", "right low"] <= 0.5
    assert judged.abstain_below(0.99).right.tolist() == [False, False, False, True, True, False]

def test_right_is_accuracy_where_all_can_be_known():
    "On the same draws of the bootstrap, so that the two intervals can be compared."
    questions, rng = [Question(str(i), ("yes",)) for i in range(200)], np.random.default_rng(0)
    texts = rng.choice(["yes", "no", "unknown"], 200)
    report = Answers.judge(questions, texts, rng.uniform(-2, 0, (200, 1))).report()
    assert report.right == report.accuracy and report.intervals["right"] == pytest.approx(report.intervals["accuracy"])
    width = 2 * 1.96 * math.sqrt(report.right * (1 - report.right) / 200)
    assert np.diff(report.intervals["right"])[0] == pytest.approx(width, rel=0.15)

# --- given labels

def test_given_labels_are_taken_as_they_are():
    answers = Answers.given(ASKED, GIVEN, [False, True, True, False, False, True], LOGPROBS)
    assert answers.correct.tolist() == [False, True, True, False, False, True] and not answers.abstained.any()
    assert answers.texts == tuple(GIVEN) and answers.confidences[1] == pytest.approx(math.exp(-.3))

def test_further_abstentions():
    def judge(*more):
        return Answers.judge(ASKED[:2], ["I have no comment.", "no comment, Rome"], [[-1.], [-1.]], more).abstained.tolist()
    assert judge() == [False, False] and judge("I have no comment") == [True, False]
    assert not Answers.judge([Question("q", ("No comment",))], ["no comment"], [[-1.]], ["no comment"]).abstained[0]

@pytest.mark.parametrize("make, message", [
    (lambda: Answers.given(ASKED, GIVEN[:-1], [True] * 6, LOGPROBS), "6 questions, 5 texts, 6 verdicts, 6 token_logprobs were given"),
    (lambda: Answers.given(ASKED, GIVEN, [True], LOGPROBS), "1 verdicts"),
    (lambda: Answers.judge(ASKED, GIVEN, LOGPROBS[1:]), "5 token_logprobs"),
    (lambda: Answers.judge(ASKED[1:], GIVEN, LOGPROBS), "5 questions, 6 texts"),
    (lambda: Answers.judge(ASKED[:1], ["a"], [[]]), "no token log-probability"),
    (lambda: Answers.judge(ASKED[:1], ["a"], [[-0.1, 800.]]), "log-probability of 800 was given.*at most 0")])
def test_what_does_not_fit_together(make, message):
    with pytest.raises(InputError, match=message): make()

# --- files

def same(a, b):
    "Equal to the last bit."
    def exact(x): return (x.dtype, x.tobytes()) if isinstance(x, np.ndarray) else x
    return all(exact(x) == exact(y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))

def many(n=300, seed=0):
    "Answers with awkward numbers, characters and every field of a question."
    rng = random.Random(seed)
    def text(): return "".join(rng.choice("aé日\n\r\u2028\"\\\0\ud800 😀\x85,") for _ in range(rng.randrange(12)))
    questions = [Question(text(), (text(), text())[:rng.randrange(3)], text(), (text(),), text(), text(), rng.random() < .5,
                          text(), (text(), "x")) for _ in range(n)]
    rows = [[-rng.expovariate(1) * 10 ** rng.randrange(-300, 3) for _ in range(rng.randrange(1, 5))] for _ in range(n)]
    return Answers.judge(questions, [text() for _ in range(n)], rows)

def test_files_are_exact(tmp_path, judged):
    for i, answers in enumerate([many(), judged, judged[:0], judged.abstain_below(.8), judged[::-1]]):
        answers.save(tmp_path / "new" / f"{i}.jsonl")
        loaded = Answers.load(tmp_path / "new" / f"{i}.jsonl")
        assert same(loaded, answers) and loaded.confidences.dtype == np.float64 and loaded.correct.dtype == bool
        assert len(answers) == 0 or loaded.report(draws=9) == answers.report(draws=9)
    assert [p.name for p in sorted((tmp_path / "new").iterdir())] == [f"{i}.jsonl" for i in range(5)]

def test_infinite_logprobs_survive(tmp_path):
    answers = Answers.given(ASKED[:1], ["a"], [False], [[-math.inf, -1.]])
    answers.save(tmp_path / "a.jsonl")
    assert same(Answers.load(tmp_path / "a.jsonl"), answers) and answers.confidences[0] == 0

def test_values_of_numpy_in_questions(tmp_path):
    "As a table's columns hand them over."
    asked = [Question("q", ("a",), answerable=np.bool_(False), group=np.str_("g"), kind=np.int64(3))]
    Answers.judge(asked, ["unknown"], [[np.float32(-.1)]]).save(tmp_path / "a.jsonl")
    found = Answers.load(tmp_path / "a.jsonl")
    assert found.questions[0] == Question("q", ("a",), answerable=False, group="g", kind=3) and found.right[0]

def test_each_line_is_json(tmp_path):
    answers = many(20)
    answers.save(tmp_path / "a.jsonl")
    header, *lines = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert header["n"] == 20 and [line["at"] for line in lines] == [*range(20)]
    assert [line["text"] for line in lines] == [*answers.texts] and lines[3]["confidence"] == answers.confidences[3]

def test_every_cut_is_noticed(tmp_path, judged):
    "No beginning of a file passes for the whole."
    path = tmp_path / "a.jsonl"
    judged[:3].save(path)
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError): Answers.load(path)
    ends = [i for i, c in enumerate(content) if c == 10]
    path.write_bytes(content[:ends[2] + 5])
    assert same(Answers.load(path, partial=True), judged[:2])

def edit(number, **changes):
    def change(lines):
        row = json.loads(lines[number])
        lines[number] = json.dumps({key: value for key, value in (row | changes).items() if value != "gone"})
        return lines
    return change

@pytest.mark.parametrize("change, message", [
    (lambda lines: lines[1:], "is not a file of answers"), (lambda lines: ["[1, 2]", *lines[1:]], "is not a file of answers"),
    (edit(0, format="other 1"), "is not a file of answers"), (edit(0, n="6"), "is not a file of answers"),
    (edit(0, n=7), "6 of 7 answers; finish it"), (edit(0, n=5), "holds an answer twice, or one too many"),
    (edit(2, at=0), "holds an answer twice"), (edit(2, at=-1), "holds an answer twice, or"),
    (edit(3, text=None), "line 4 of .* is damaged"), (edit(3, correct=1), "line 4 of"),
    (edit(3, token_logprobs="gone"), "line 4 of"),
    (edit(3, question={"text": "q"}), "line 4 of"), (edit(3, question=["q"]), "line 4 of"), (edit(3, confidence="high"), "line 4 of"),
    (edit(3, question={"text": "q", "answers": [], "colour": "red"}), "line 4 of"),
    (lambda lines: [*lines[:5], "null", *lines[5:]], "line 6 of"),
    (lambda lines: [*lines[:5], lines[5][:9], *lines[6:]], "line 6 of"),
    (lambda lines: [*lines[:5], "", *lines[5:]], "line 6 of")])
def test_damaged_and_foreign_files(change, message, tmp_path, judged):
    path = tmp_path / "a.jsonl"
    judged.save(path)
    path.write_text("\n".join([*change(path.read_text().split("\n")[:-1]), ""]))
    with pytest.raises(InputError, match=message): Answers.load(path)

def test_what_is_no_text_at_all(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    for path in tmp_path / "model.safetensors", tmp_path, tmp_path / "absent":
        with pytest.raises(InputError, match="give (a file of answers|one made by)"): Answers.load(path)

def test_a_failing_save_leaves_what_was_there(tmp_path, judged):
    judged.save(tmp_path / "a.jsonl")
    unfit = Answers.judge([Question("q", (), group=object())], ["a"], [[-1.]])
    with pytest.raises(AttributeError): unfit.save(tmp_path / "a.jsonl")
    assert same(Answers.load(tmp_path / "a.jsonl"), judged) and len([*tmp_path.iterdir()]) == 1

def test_addition(judged):
    assert same(judged[:2] + judged[2:], judged) and len(judged + judged) == 12

# --- choosing

def ask(right, wrong, **more): return Question("q", tuple(right), choices=(*wrong, *right), **more)

CHOICES = [ask(["yes"], ["no", "perhaps"]), ask(["+5", "5.0"], ["-5"]), ask([], ["a", "b"], answerable=False)]
SCORES = [[[-1., -2.], [-2.5], [-.1, -.2, -.3]], [[-1.], [-2.], [-3.]], [[-.5], [-.5]]]

def test_choice_by_mean_and_sum():
    mean, total = choose_most_likely(CHOICES, SCORES), choose_most_likely(CHOICES, SCORES, by="sum")
    assert mean.texts == total.texts == ("yes", "-5", "a") and mean.correct.tolist() == [True, False, False]
    weights = np.exp([-1.5, -2.5, -.2]), np.exp([-3, -2.5, -.6])
    assert mean.confidences[0] == pytest.approx(weights[0][2] / weights[0].sum()) and mean.confidences[2] == 0.5
    assert total.confidences[0] == pytest.approx(weights[1][2] / weights[1].sum())
    assert mean.token_logprobs == ((-.1, -.2, -.3), (-1.,), (-.5,)) and not mean.abstained.any()

def test_length_decides_between_mean_and_sum():
    question = [ask(["a long answer"], ["short"])]
    scores = [[[-1.2], [-.5, -.5, -.5]]]
    assert choose_most_likely(question, scores).texts == ("a long answer",) and choose_most_likely(question, scores, by="sum").texts == ("short",)

def test_very_improbable_choices_are_still_told_apart():
    found = choose_most_likely([ask(["right"], ["wrong"])], [[[-5000.], [-4000.]]], by="sum")
    assert found.correct[0] and found.confidences[0] == 1 and mc2([ask(["right"], ["wrong"])], [[[-5000.], [-4000.]]])[0] == 1

def test_mc2_by_hand():
    p = np.exp([-1, -2, -3])
    assert mc2(CHOICES, SCORES) == pytest.approx([np.exp(-.6) / np.exp([-3, -2.5, -.6]).sum(), (p[1] + p[2]) / p.sum(), 0])
    assert mc2(CHOICES, SCORES, by="mean")[0] == pytest.approx(np.exp(-.2) / np.exp([-1.5, -2.5, -.2]).sum())
    assert [share.sum() for share in choice_shares(SCORES)] == pytest.approx([1, 1, 1])

def test_length_baseline():
    longest, shortest = length_baseline(CHOICES), length_baseline(CHOICES, longest=False)
    assert longest.texts == ("perhaps", "5.0", "a") and shortest.texts == ("no", "-5", "a")
    assert longest.correct.tolist() == [False, True, False] and longest.confidences == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    assert longest.report().n == 3

def test_chosen_answers_are_kept_with_their_confidence(tmp_path):
    answers = choose_most_likely(CHOICES, SCORES)
    answers.save(tmp_path / "a.jsonl")
    assert same(Answers.load(tmp_path / "a.jsonl"), answers) and same(answers[[2, 0]] + answers[1], answers[[2, 0, 1]])

def test_questions_without_a_choice():
    for work in lambda q: choose_most_likely(q, SCORES[:1]), length_baseline, lambda q: mc2(q, SCORES[:1]):
        with pytest.raises(InputError, match="has no choices"): work([ask([], [])])
        with pytest.raises(InputError, match="no choice of 'q' is among"): work([replace(CHOICES[0], answers=("Yes",))])
    with pytest.raises(ValueError): choose_most_likely(CHOICES, SCORES[:2])

# --- what rules and people say

SPOKEN = ["Paris.", "The capital is Paris.", "Paris, France", "not Paris", "Pari", "Rome", "unknown", "3.0", "30", ""]
TRUTHS = [("Paris",)] * 7 + [("3",)] * 3

def spoken(**more):
    questions = [Question("q", truth) for truth in TRUTHS]
    return Answers.judge(questions, SPOKEN, [[-i / 10] for i in range(10)], warn=False, **more)

def test_wrong_answers_that_contain_an_accepted_one():
    answers = spoken()
    assert answers.correct.tolist() == [True, *[False] * 6, True, False, False] and answers.abstained.nonzero()[0].tolist() == [6, 9]
    assert answers.contained.nonzero()[0].tolist() == [1, 2, 3] and answers[[0, 5]].warnings() == []
    assert answers.warnings() == ["3 of 6 wrong answers contain an accepted one (judged by squad); look at answers.disputed(), or try answers.judged('contains')"]
    assert "6 wrong (3 contain an accepted answer)" in repr(answers) and "(1 contains an accepted answer)" in repr(answers[:2])
    assert "3 of 6 wrong answers contain an accepted one" in answers._repr_html_() and "3 of 6 wrong" in answers.report(draws=0)._repr_html_()

def test_judging_warns_once_and_only_of_doubt():
    for warn, wrong, told in (True, "It is Paris", 1), (False, "It is Paris", 0), (True, "Rome", 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Answers.judge([Question("q", ("Paris",))], [wrong], [[-1.]], warn=warn)
        assert len(caught) == told and all("1 of 1 wrong answers contains an accepted one" in str(w.message) and w.filename == __file__ for w in caught)

def test_other_rules():
    answers = spoken()
    table = answers.rules()
    assert table["right"].to_dict() == {"in force": .2, "squad": .2, "triviaqa": .2, "starts": .3, "contains": .5, "number": .2}
    assert table["differs"].to_dict() == {"in force": 0, "squad": 0, "triviaqa": 0, "starts": .1, "contains": .3, "number": 0}
    kind = answers.judged("contains")
    assert kind.correct.nonzero()[0].tolist() == [0, 1, 2, 3, 7] and not kind.contained.any() and {q.rules for q in kind.questions} == {"contains"}
    assert same(kind.judged("squad"), answers) and answers.rule == "squad" and kind.rules().loc["squad", "differs"] == pytest.approx(.3)
    for name in table.index[1:]:
        again = Answers.judge([replace(q, rules=name) for q in answers.questions], answers.texts, answers.token_logprobs, warn=False)
        assert (again.correct == answers.judged(name).correct).all() and (again.abstained == answers.judged(name).abstained).all(), name
    assert answers.judged(lambda answer, accepted: answer == "Rome").correct.nonzero()[0].tolist() == [5]

def test_a_report_names_the_rule_and_the_gap(judged):
    report = spoken().report(draws=0)
    assert report.rules == "squad" and report.rule_gap == pytest.approx(.3) and report.by_rule["starts"] == .3
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["rules"] == "squad" and found["rule_gap"] == pytest.approx(.3) and found["by_rule"]["contains"] == .5 and len(found["warnings"]) == 1
    assert "judged by squad" in report.notes()[0] and "contains 50.0%" in report.notes()[1] and "gap 30.0%" in report.notes()[1]
    assert all(note.split("(")[0] in report._repr_html_() for note in report.notes())
    mixed = judged[:2] + Answers.judge([Question("p", ("a",), rules="starts")], ["a b"], [[-1.]])
    assert mixed.rule == "squad, starts" and mixed.report(draws=0).by_rule.keys() == {"squad", "triviaqa", "starts", "contains", "number"}
    labelled = Answers.given(ASKED, GIVEN, [True] * 6, LOGPROBS).report(draws=0)
    assert labelled.rules == "a person" and labelled.by_rule == {} and labelled.rule_gap is None and Report(perplexity=3.).notes() == []

def test_withheld_answers_and_further_abstentions_stay():
    answers = spoken(abstentions=["Rome"])
    assert answers.abstained.nonzero()[0].tolist() == [5, 6, 9]
    kept = answers.abstain_below(math.exp(-.15))  # all but the first two
    assert kept.judged("contains").correct.nonzero()[0].tolist() == [0, 1] and kept.judged("contains").abstained.sum() == 8
    assert not answers.judged("contains").contained.any() and answers.judged("contains").abstained.nonzero()[0].tolist() == [5, 6, 9]

def test_warnings_of_sets_in_which_there_is_little_to_compare():
    def said(*texts, n=30, **more): return Answers.judge([Question("q", ("a",))] * n, (texts * n)[:n], [[-1.]] * n, **more).warnings()
    assert said("a", "b") == [] and said("b", n=10) == []
    assert "almost none of the 30 answers that could be known are right (0.0%)" in said("b")[0] and "almost all of the 30" in said("a")[0]
    assert said("a", "b", "") == ["10 of 30 answers are empty"] and said("a", "b", "…") == ["10 of 30 answers are empty"]
    cut = said("a", "b", cut_off=[True, True] + [False] * 28)
    assert cut == ["2 of 30 answers were cut off at the limit of tokens; raise max_new_tokens"] and said("a", "b", cut_off=[True] + [False] * 29) == []
    unknown = [Question("q", (), answerable=False)] * 30
    assert Answers.judge(unknown, ["b"] * 30, [[-1.]] * 30).warnings() == []
    with pytest.raises(InputError, match="2 of cut_off and 30 texts"): said("a", cut_off=[True, False])

def test_what_a_person_should_look_at():
    table = spoken().disputed()
    assert table.index.tolist() == [1, 2, 3, 4] and table["why"].tolist() == ["contains an accepted answer"] * 3 + ["is spelled almost like an accepted answer"]
    assert table["verdict"].tolist() == ["wrong"] * 4
    kind = spoken().judged("contains").disputed()
    assert kind.index.tolist() == [1, 3, 4] and kind["why"].tolist()[:2] == ["is right by contains alone"] * 2 and kind["verdict"].tolist() == ["right", "right", "wrong"]
    assert len(Answers.given(ASKED, GIVEN, [False] * 6, LOGPROBS).disputed()) == 0 and len(spoken()[[0]].disputed()) == 0

def test_a_person_has_the_last_word(tmp_path):
    answers = spoken()
    seen = answers.relabel({1: True, 2: True, 3: False, 4: "abstained", 0: np.bool_(False)})
    assert seen.correct.nonzero()[0].tolist() == [1, 2, 7] and seen.abstained.nonzero()[0].tolist() == [4, 6, 9] and not seen.contained.any()
    assert seen.labelled.nonzero()[0].tolist() == [0, 1, 2, 3, 4] and seen.rule == "squad, a person" and len(seen.disputed()) == 0
    assert answers.correct.nonzero()[0].tolist() == [0, 7] and not answers.labelled.any()
    other = seen.judged("contains")
    assert (other.correct[:5] == seen.correct[:5]).all() and (other.abstained == seen.abstained).all()
    seen.save(tmp_path / "a.jsonl")
    assert same(Answers.load(tmp_path / "a.jsonl"), seen)
    for labels, message in ({10: True}, "label for answer 10 was given; there are answers 0 to 9"), ({-1: True}, "answer -1"), ({0: "maybe"}, "label 'maybe'"):
        with pytest.raises(InputError, match=message): answers.relabel(labels)

@pytest.mark.parametrize("disputed", [True, False])
def test_relabelling_in_a_table(tmp_path, disputed):
    answers = spoken() if disputed else many(60)
    path = tmp_path / "new" / "look.csv"
    answers.to_csv(path, disputed=disputed)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert len(table) == (4 if disputed else 60) and (table["label"] == "").all()
    assert (answers.relabel(path).labelled.sum(), answers.relabel(str(path)).correct.tolist()) == (0, answers.correct.tolist())
    table["label"] = ["right", " Wrong ", "ABSTAINED", ""] * (len(table) // 4)
    table["answer"], table["confidence"] = "1-Feb", "0,5"  # what spreadsheets make of cells
    table.sample(frac=1, random_state=0).to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8-sig")  # as a spreadsheet sorts and saves it
    seen, at = answers.relabel(path), table["at"].astype(int).tolist()
    assert [bool(seen.correct[i]) for i in at[::4]] == [True] * len(at[::4]) and seen.abstained[at[2::4]].all() and not seen.correct[at[1::4]].any()
    assert seen.labelled.sum() == len(at) * 3 // 4 and (seen.correct[at[3::4]] == answers.correct[at[3::4]]).all()

@pytest.mark.parametrize("change, message", [
    (lambda t: t.assign(label="perhaps"), "line 2: 'perhaps' stands in column label; write right, wrong, abstained, or leave it empty"),
    (lambda t: t.assign(label="right", key="k0"), "line 2: these answers have no answer 1 like this; write a new table"),
    (lambda t: t.assign(label="right", at="99"), "line 2: these answers have no answer 99"), (lambda t: t.assign(label="right", at="x"), "no answer x like"),
    (lambda t: t.drop(columns="label"), "has no column label; give a table that Answers.to_csv wrote"),
    (lambda t: pd.concat([t.assign(label="right"), t.assign(label="wrong")]), "line 6: answer 1 has two labels")])
def test_tables_of_other_answers_are_refused(tmp_path, change, message):
    answers = spoken()
    answers.to_csv(tmp_path / "a.csv")
    change(pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=message): answers.relabel(tmp_path / "a.csv")
    with pytest.raises(InputError, match="there is no file"): answers.relabel(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="exists and may hold labels"): answers.to_csv(tmp_path / "a.csv")

# --- fields

def test_every_field_travels(tmp_path):
    answers = replace(spoken(cut_off=[i % 3 == 0 for i in range(10)]).relabel({2: True}), prompt=Prompt("chat", system="Be brief.", examples=(("a", "b"),)))
    answers.save(tmp_path / "a.jsonl")
    for found in Answers.load(tmp_path / "a.jsonl"), answers[:4] + answers[4:], answers[::-1][::-1], replace(answers):
        assert same(found, answers) and found.prompt == answers.prompt
    assert answers[[3, 2]].cut_off.tolist() == [True, False] and answers[[3, 2]].labelled.tolist() == [False, True]
    for changed in answers.judged("starts"), answers.abstain_below(.5), answers.relabel({}):
        assert changed.cut_off.tolist() == answers.cut_off.tolist() and changed.labelled.sum() == 1 and changed.prompt == answers.prompt
    with pytest.raises(InputError, match="different prompts were added"): answers + replace(answers, prompt=Prompt())
    assert (answers + spoken()).prompt is None  # not known of all

def test_files_of_earlier_versions_are_read(tmp_path, judged):
    "Without what has been added since: language, cut_off, labelled."
    path = tmp_path / "a.jsonl"
    judged.save(path)
    header, *rows = map(json.loads, path.read_text().splitlines())
    for row in rows: del row["cut_off"], row["labelled"], row["question"]["language"]
    path.write_text("\n".join(map(json.dumps, [header, *rows])) + "\n")
    assert same(Answers.load(path), judged)

def test_answers_judged_by_a_function_keep_their_verdicts(tmp_path, monkeypatch):
    from avss_nb.data import verdicts
    monkeypatch.setattr(verdicts, "RULES", verdicts.RULES.copy())
    def shout(answer, accepted): return answer.isupper()
    answers = Answers.judge([Question("q", ("Paris",), rules=shout)] * 2, ["PARIS", "It is Paris"], [[-1.], [-2.]], warn=False)
    answers.save(tmp_path / "a.jsonl")
    program = f"""if True:
        import warnings; warnings.simplefilter("error")
        from avss_nb import Answers
        answers = Answers.load({str(tmp_path / "a.jsonl")!r})
        assert answers.correct.tolist() == [True, False] and answers.rule == "shout" and answers.contained.tolist() == [False, True]
        assert answers.report(draws=0).rules == "shout" and "shout" not in answers.rules().index and len(answers.disputed()) == 1
        try: answers.questions[0].accepts("PARIS")
        except ValueError as error: assert "rules='shout' was given" in str(error)
        else: raise SystemExit(1)"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
