"Verdicts: numbers against exact fractions, the official SQuAD script, languages, and rules of one's own."
import json, random, re, string
from dataclasses import asdict
from fractions import Fraction
import pytest
from avss_nb import (
    InputError, Language, Question, Rule, is_abstention, is_correct, normalize_answer
)
from avss_nb.data.verdicts import LANGUAGES, RULES, near_miss, rule_name

EXACT = ("squad", "triviaqa")

pytestmark = pytest.mark.usefixtures("rules_as_shipped")

@pytest.mark.parametrize("a, b, equal", [
    ("3.0", "3", True), ("3.0", "30", False), ("3.14", "314", False), ("-5", "5", False), ("−5", "-5", True), ("–5", "5", False),
    ("1.5 million", "15 million", False), ("1.5 million", "1,500,000", True), ("1.5 Million people", "1500000 people", True),
    ("1912", "1912", True), ("10:30", "1030", False), ("10:30", "10:30", True), ("50%", "50", True), ("50 percent", "50%", True),
    ("$5", "5", True), ("£5", "5", True), ("£5", "$5", False), ("5 €", "€5", True), ("$5", "5%", False), ("-$5", "-5", True), ("$-5", "-5", True),
    ("+1", "1", True), ("1/2", "12", False), ("1/2", "1/2", True), ("3-4", "34", False), ("3-4", "3–4", True), ("2,718", "2718", True),
    ("2,71", "271", False), ("1,234.50", "1234.5", True), (".5", "0.5", True), (".5", "5", False), ("007", "7", False), ("0", "-0", True),
    ("5'10", "510", False), ("1.2.3", "123", False), ("192.168.0.1", "19216801", False), ("C++", "C", False), ("C#", "C", False), ("C++", "c++", True),
    ("A+", "A", False), ("A", "the", False), ("F-16", "F16", None), ("3 miles", "3.0 miles", True), ("3 miles", "3 km", False), ("3 miles", "30 miles", False),
    ("Python 3.10", "Python 3.1", False), ("Python 3.1", "Python 31", False), ("Apollo 11", "Apollo 11", True), ("20th century", "20th century", True),
    ("３０", "30", True), ("½", "1/2", False), ("1990s", "1990", False)])
@pytest.mark.parametrize("rules", [*EXACT, "number"])
def test_marks_that_mean_something(a, b, equal, rules):
    if equal is None: equal = rules == "squad"  # what is no number is left to the rule
    assert is_correct(a, [b], rules) is equal and is_correct(b, [a], rules) is equal
    assert is_correct(a, [a], rules) and is_correct(f"{b}.", [b], rules)

def written(value, rng, language):
    "A number as people write it: exact, with an independent formatter."
    point, group = (".", ",") if LANGUAGES[language].decimal == "." else (",", ".")
    words = {"en": {6: "million", 3: "thousand"}, "de": {6: "Millionen", 3: "Tausend"}, "fr": {6: "millions"}, "es": {9: "mil millones", 6: "millones"}}
    power = rng.choice([0, 0, *(p for p in words[language] if value.denominator == 1 and abs(value) >= 10 ** (p - 2))])
    whole, rest = divmod(abs(value) / 10 ** power, 1)
    digits = f"{whole:,}".replace(",", rng.choice([group, group, "\u202f", "’"])) if rng.random() < 0.5 else str(whole)
    fraction = f"{rest.numerator * 10 ** 9 // rest.denominator:09d}" if rest else "0" * rng.randrange(3)
    text = digits + f"{point}{fraction}" * bool(fraction)
    sign, money = "-−"[rng.randrange(2)] if value < 0 else rng.choice(["", "+"]), rng.choice(["", "$"])
    return f"{sign}{money}{text}" + (f" {words[language][power]}" if power else "")

@pytest.mark.parametrize("language", ["en", "de", "fr", "es"])
def test_numbers_are_equal_where_their_values_are(language):
    rng, equal = random.Random(language), 0
    for _ in range(1500):
        size = 10 ** rng.randrange(1, 10)
        a = Fraction(rng.randrange(-size, size), rng.choice([1, 1, 10, 100]))
        b = a if rng.random() < 0.5 else rng.choice([a * 10, a / 10, -a, a + 1, a * 100])
        if any((x * 10 ** 6).denominator > 1 for x in (a, b)): continue
        said, accepted = written(a, rng, language), written(b, rng, language)
        equal += a == b
        for rules in (*EXACT, "number", "starts", "contains"):
            assert is_correct(said, [accepted], rules, language) == (a == b), (said, accepted, rules)
            sentence = f"{said} apples"
            assert is_correct(sentence, [accepted], "contains", language) == is_correct(sentence, [accepted], "number", language) == (a == b), sentence
    assert 300 < equal < 1400

def squad(text):
    "SQuAD 1.1's own normalisation."
    plain = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())

def test_words_are_compared_as_the_official_script_does():
    rng = random.Random(0)
    parts = ["the", "The", "a", "Paris", "paris", "d.c", "J.", "K", "o'clock", " ", "  ", "-", ",", "!", "\"", "(", ")", "é", "theatre", "&"]
    equal = 0
    for _ in range(20000):
        a, b = ("".join(rng.choice(parts) for _ in range(rng.randrange(1, 6))) for _ in range(2))
        if not squad(a) or not squad(b): continue
        assert normalize_answer(a) == squad(a) and is_correct(a, [b]) == (squad(a) == squad(b))
        equal += squad(a) == squad(b)
    assert equal > 200

@pytest.mark.parametrize("answer, accepted, rules, right", [
    ("Paris, France", "Paris", "starts", True), ("It is Paris.", "Paris", "starts", False), ("It is Paris.", "Paris", "contains", True),
    ("Parisian", "Paris", "contains", False), ("a comparison", "Paris", "contains", False), ("“Paris”", "Paris", "squad", True),
    ("Let’s say Paris…", "Paris", "contains", True), ("", "Paris", "contains", False), ("", "", "contains", True), ("Paris", "", "contains", False),
    ("It is -5 degrees", "5", "contains", False), ("about 3.14", "14", "contains", False), ("at 10:30", "10", "contains", False),
    ("from 1914-1918", "1918", "contains", True), ("2.5 million", "2.5", "contains", False), ("C++", "C", "contains", False), ("in C#.", "C#", "contains", True),
    ("There are 3.", "3", "number", True), ("3 or 4", "3", "number", False), ("three", "3", "number", False), ("Gemini 11", "Apollo 11", "number", False),
    ("日本の首都は東京です。", "東京", "contains", True), ("東京です", "東京", "starts", True), ("東京", "京都", "contains", False),
    ("3月です", "3月", "starts", True), ("파리입니다", "파리", "starts", True), ("กรุงเทพมหานคร", "กรุงเทพ", "starts", True), ("「東京」", "東京", "squad", True)])
def test_first_words_contained_words_and_scripts_without_spaces(answer, accepted, rules, right):
    assert is_correct(answer, [accepted], rules) is right

@pytest.mark.parametrize("language, answer, accepted", [
    ("de", "die Donau", "Donau"), ("de", "Der Rhein.", "rhein"), ("fr", "L'eau", "eau"), ("fr", "l’Arc de Triomphe", "Arc de Triomphe"),
    ("fr", "la Seine", "Seine"), ("es", "El Quijote", "Quijote"), ("it", "l'acqua", "acqua"), ("it", "Il Po", "Po"), ("pt", "o Tejo", "Tejo"),
    ("nl", "het IJsselmeer", "IJsselmeer"), ("sv", "en älg", "älg"), ("pt-BR", "o Tejo", "Tejo"), ("de", "3,5", "3.5"), ("de", "1.000", "1000"),
    ("fr", "1 500 000", "1,5 million"), ("de", "2 Billionen", "2000000000000"), ("zh", "3万", "30000")])
def test_languages(language, answer, accepted):
    for rules in EXACT: assert is_correct(answer, [accepted], rules, language) and is_correct(accepted, [answer], rules, language)
    if language in ("fr", "it") and "'" in answer: assert not is_correct(answer, [accepted])

@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_knows_silence(language):
    for phrase in (*LANGUAGES[language].abstentions, "I don’t know", "unknown"):
        for text in phrase, f"{phrase[0].upper()}{phrase[1:]}.", phrase.replace("'", "’"):
            assert all(is_abstention(text, rules, language) for rules in RULES), text
        assert all(is_abstention(f"{phrase} 12345", rules, language) == (rules in ("starts", "contains")) for rules in RULES)
    assert not any(is_abstention(text, rules, language) for text in ("Paris", "-5", "0", "½", "100%", "π", "日本", "unknowns") for rules in RULES)
    assert all(is_abstention(text, language=language) for text in ("", " \n", "...", "—", "?"))
    assert is_abstention("no comment!", language=language, more=["No comment"]) and not is_abstention("no comment", language=language)

def test_a_language_and_a_rule_are_rows(monkeypatch):
    with pytest.raises(InputError, match=r"language 'hu' was given; known are en, de.*LANGUAGES\['hu'\] = Language"): is_correct("a", ["a"], language="hu")
    monkeypatch.setitem(LANGUAGES, "hu", Language("a az egy", abstentions=("nem tudom",), decimal=","))
    assert is_correct("A Duna", ["Duna"], language="hu") and is_abstention("Nem tudom.", language="hu") and is_correct("1.000,5", ["1000,50"], language="hu")
    with pytest.raises(InputError, match="rules='ends' was given; known are squad, triviaqa, starts, contains, number; give one of them"): is_correct("a", ["a"], "ends")
    monkeypatch.setitem(RULES, "ends", Rule("ends with an accepted answer", lambda said, a: f" {said}".endswith(f" {a}")))
    assert is_correct("It is the Paris.", ["paris"], "ends") and not is_correct("Paris, France", ["Paris"], "ends")
    assert Question("q", ("3.0",), rules="ends").accepts("exactly 3") and not Question("q", ("3",), rules="ends").accepts("1.3")

def test_a_function_is_a_rule_that_survives_as_a_name():
    seen = []
    def mine(answer, accepted):
        seen.append((answer, accepted))
        return answer in accepted
    question = Question("q", ("Paris", "Rome"), rules=mine)
    assert question.rules == "mine" and question.accepts("Rome") and not question.accepts("rome") and seen[0] == ("Rome", ("Paris", "Rome"))
    again = Question(**json.loads(json.dumps(asdict(question))) | {"answers": question.answers})
    assert again.rules == "mine" and again.accepts("Paris") and rule_name(mine) == "mine"
    def another():
        def mine(answer, accepted): return True
        return mine
    other = Question("q", ("Paris",), rules=another())
    assert other.rules == "mine 2" and other.accepts("x") and not question.accepts("x")  # no rule replaces another
    assert Question("q", (), rules=lambda a, b: True).rules == "lambda" and is_correct("x", [], lambda a, b: True)
    assert not is_abstention("Paris", mine) and is_abstention("unknown", mine)
    assert Question("q", ("a",), rules="of another session").rules == "of another session"  # from a file: verdicts are there

@pytest.mark.parametrize("answer, accepted, why", [
    ("Paris, France", ["Rome", "Paris"], "contains an accepted answer"), ("Shakespeare", ["William Shakespeare"], "is part of an accepted answer"),
    ("Shakespear", ["Shakespeare"], "is spelled almost like an accepted answer"), ("1913", ["1912"], ""), ("May 1913", ["May 1912"], ""),
    ("Rome", ["Paris"], ""), ("unknown", ["Unknown Soldier"], ""), ("", ["Paris"], ""), ("300", ["3"], ""), ("der Rhin", ["Rhein"], "is spelled almost like an accepted answer")])
def test_near_misses(answer, accepted, why): assert near_miss(answer, accepted, "de" if "der" in answer else "en") == why
