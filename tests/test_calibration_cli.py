"`avss-nb calibration`: files of every kind against NumPy written from the definitions, and how it refuses."
import json, math, re, subprocess
import numpy as np, pandas as pd, pytest
from test_calibration import from_definitions
from test_cli import BIN, avss, done, refused
from avss_nb import Answers, Question
from avss_nb.maths.calibration import confidence_measures

KEYS = ["accuracy", "mean_confidence", "ece", "ece_equal_mass", "brier", "auroc", "aurc"]
WRITERS = {"csv": lambda t, p: t.to_csv(p, index=False), "tsv": lambda t, p: t.to_csv(p, index=False, sep="\t"),
           "json": lambda t, p: t.to_json(p, orient="records", double_precision=15),
           "jsonl": lambda t, p: t.to_json(p, orient="records", lines=True, double_precision=15),
           "parquet": lambda t, p: t.to_parquet(p, index=False)}

def program(*args):
    "Run the program itself."
    return subprocess.run([BIN / "avss-nb", "calibration", *map(str, args)], capture_output=True, text=True)

def as_json(*args): return json.loads(done("calibration", *args, "--json", "-").stdout)

def some_table(n=200, seed=0, edges=True):
    "Answers; a few lie on the edges of bins, at 0 and at 1."
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 2, n)
    if edges: confidence[:30] = rng.choice([0, .2, .4, .6, .8, 1], 30)
    return pd.DataFrame({"question": "Who?", "confidence": confidence.round(6), "correct": rng.random(n) < confidence - .1})

def expected(table, bins=15):
    values = from_definitions(table["confidence"], table["correct"], bins)
    return {"accuracy": table["correct"].mean(), "aurc": values.pop("risk_coverage")} | values

def written(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name

# ---------------------------------------------------------------- what it finds

@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_of_every_kind(tmp_path, kind):
    table = some_table()
    WRITERS[kind](table, tmp_path / f"a.{kind}")
    run = program(tmp_path / f"a.{kind}", "--json", "-")
    assert run.returncode == 0 and run.stderr == "", run.stderr
    result = json.loads(run.stdout)
    assert list(result) == ["n", *KEYS, "intervals"] and list(result["intervals"]) == KEYS and result["n"] == 200
    for key, value in expected(table).items(): assert result[key] == pytest.approx(value, abs=1e-9), key
    for key, (low, high) in result["intervals"].items(): assert 0 <= low <= result[key] <= high <= 1, key
    theory = 1.96 * np.sqrt(result["accuracy"] * (1 - result["accuracy"]) / 200)
    assert np.diff(result["intervals"]["accuracy"]) == pytest.approx(2 * theory, rel=.12)

@pytest.mark.parametrize("bins", [1, 5, 10, 15, 30])
def test_bins(tmp_path, bins):
    table = some_table(seed=1)
    table.to_csv(tmp_path / "a.csv", index=False)
    result = as_json(tmp_path / "a.csv", "--bins", bins)
    for key, value in expected(table, bins).items(): assert result[key] == pytest.approx(value, abs=1e-9), key
    _, intervals = confidence_measures(table["confidence"], table["correct"], bins=bins)
    assert result["intervals"]["ece"] == list(intervals["ece"])
    assert f"({bins} bins of equal mass)" in done("calibration", tmp_path / "a.csv", "--bins", bins).stdout

def test_a_table_for_people_and_a_file_for_programs(tmp_path):
    some_table().to_csv(tmp_path / "a.csv", index=False)
    run = program(tmp_path / "a.csv", "--json", tmp_path / "new" / "r.json")
    result = json.loads((tmp_path / "new" / "r.json").read_text())
    assert run.returncode == 0 and "200 answers, 0 abstained; 95 % intervals" in run.stdout
    for key, words in {"accuracy": "accuracy", "ece": "equal width", "brier": "Brier", "auroc": "AUROC", "aurc": "risk–coverage"}.items():
        shown = next(line.split()[-3:] for line in run.stdout.splitlines() if words in line)
        assert [float(x) for x in shown] == pytest.approx([result[key], *result["intervals"][key]], rel=1e-3)

@pytest.mark.parametrize("right, wrong", [("True", "False"), ("true", "false"), (" TRUE ", "False"), ("1", "0"), ("1.0", "0.0")])
def test_truth_in_words_and_digits(tmp_path, right, wrong):
    path = written(tmp_path, f"confidence,correct\n0.9,{right}\n0.4,{wrong}\n0.8,{wrong}\n")
    result = as_json(path)
    assert result["accuracy"] == pytest.approx(1 / 3) and result["brier"] == pytest.approx((.01 + .16 + .64) / 3) and result["auroc"] == 1

def test_types_of_columns(tmp_path):
    expected = as_json(written(tmp_path, "confidence,correct\n0.5,1\n0.25,0\n1,1\n"))
    frame = pd.DataFrame({"confidence": np.array([.5, .25, 1], np.float32), "correct": pd.array([True, False, True], "boolean")})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.assign(correct=[1, 0, 1], confidence=["0.5", ".25", "1e0"]).to_parquet(tmp_path / "b.parquet")
    written(tmp_path, '[{"confidence": 0.5, "correct": 1}, {"confidence": "0.25", "correct": "false"}, {"confidence": 1, "correct": true}]', "c.json")
    for name in "a.parquet", "b.parquet", "c.json": assert as_json(tmp_path / name) == expected
    assert as_json(written(tmp_path, " correct , confidence,note\n1,0.5,\n0,0.25,x\n1,1,\n")) == expected

def test_json_numbers_are_read_exactly(tmp_path):
    "pandas reads most of them one bit off unless told otherwise: enough to put an edge of a bin on its other side."
    numbers = np.random.default_rng(0).random(300).tolist() + [k / 15 for k in range(16)] + [k / 10 for k in range(11)]
    rows = [{"confidence": c, "correct": i % 2} for i, c in enumerate(numbers)]
    written(tmp_path, json.dumps(rows), "a.json")
    result = as_json(tmp_path / "a.json")
    assert result["ece"] == confidence_measures(numbers, [i % 2 for i in range(len(numbers))], draws=0)[0]["ece"]

def test_abstentions_count_for_accuracy_only(tmp_path):
    table = some_table()
    silent = np.random.default_rng(5).random(200) < .3
    table["correct"] &= ~silent
    table.assign(abstained=silent).to_csv(tmp_path / "a.csv", index=False)
    result, over_given = as_json(tmp_path / "a.csv"), expected(table[~silent].reset_index(drop=True))
    assert result["n"] == 200 and result["accuracy"] == pytest.approx(table["correct"].mean())
    for key in KEYS[1:]: assert result[key] == pytest.approx(over_given[key], abs=1e-9), key
    assert f"{silent.sum()} abstained" in done("calibration", tmp_path / "a.csv").stdout

def test_it_reads_what_the_evaluator_writes(tmp_path):
    answers = Answers.judge([Question(f"Who is {i}?", ("Ada",)) for i in range(6)], ["Ada", "Ada", "Bob", "unknown", "Bob", "Ada"],
                            [[math.log(p)] for p in (.9, .8, .7, .3, .4, .5)])
    report = answers.report().to_dict()
    for name, write in {"a.csv": answers.to_frame().to_csv, "a.parquet": answers.to_frame().to_parquet}.items():
        write(tmp_path / name)
        result = as_json(tmp_path / name)
        for key in KEYS: assert result[key] == report["risk_coverage" if key == "aurc" else key], key
        assert result["intervals"]["brier"] == report["intervals"]["brier"]

@pytest.mark.parametrize("rows, undefined, without_interval", [
    ("0.9,1", ["auroc"], KEYS), ("1,0", ["auroc"], KEYS), ("0.9,1\n0.2,1\n0.4,1", ["auroc"], ["auroc"]),
    ("0.9,0\n0.2,0", ["auroc"], ["auroc"]), ("0.9,1\n0.2,0", [], [])])
def test_what_is_undefined_is_null(tmp_path, rows, undefined, without_interval):
    path = written(tmp_path, f"confidence,correct\n{rows}\n")
    result = as_json(path)
    assert [key for key in KEYS if result[key] is None] == undefined
    assert [key for key in KEYS if result["intervals"][key] == [None, None]] == without_interval
    shown = done("calibration", path).stdout
    assert "nan" not in shown.lower() and ("AUROC is undefined" in shown) == ("auroc" in undefined)
    assert ("no intervals" in shown) == (without_interval == KEYS)

def test_only_abstentions(tmp_path):
    result = as_json(written(tmp_path, "confidence,correct,abstained\n0.2,0,1\n0.9,0,1\n"))
    assert result["accuracy"] == 0 and all(result[key] is None for key in KEYS[1:])

# ---------------------------------------------------------------- what it refuses

@pytest.mark.parametrize("text, match", [
    ("", "could not be read as a csv"), ("confidence,correct\n", "holds no answers"), ("sure,right\n0.5,1\n", "confidence, correct; it has sure, right"),
    ("confidence,right\n0.5,1\n", "no column correct; it has confidence, right"), ("0.5,1\n0.7,0\n", "it has 0.5, 1"),
    ("confidence,correct\n0.5,1\n-0.7,0\n", "row 2 of the answers: confidence is '-0.7'"), ("confidence,correct\n1.01,1\n", "row 1 .*'1.01'"),
    ("confidence,correct\n97,1\n", "'97'"), ("confidence,correct\n0.5,1\n,1\n", "row 2 .* confidence is ''"),
    ("confidence,correct\nnan,1\n", "confidence is 'nan'"), ("confidence,correct\nhigh,1\n", "'high'"), ("confidence,correct\n95%,1\n", "'95%'"),
    ("confidence,correct\ninf,1\n", "'inf'"), ("confidence,correct\n\"0,5\",1\n", "'0,5'"), ("confidence,correct\nTrue,1\n", "'True'"),
    ("confidence,correct\n0.5,1\n0.5,0\n0.5,yes\n", "row 3 .* correct is 'yes'; give true or false"), ("confidence,correct\n0.5,2\n", "correct is '2'"),
    ("confidence,correct\n0.5,\n", "correct is ''"), ("confidence,correct\n0.5,0.5\n", "correct is '0.5'"),
    ("confidence,correct,abstained\n0.5,1,maybe\n", "abstained is 'maybe'")])
def test_wrong_tables(tmp_path, text, match):
    path = written(tmp_path, text)
    message = refused("calibration", path, "--json", tmp_path / "r.json", match=match, absent=tmp_path / "r.json")
    assert str(path) in message

@pytest.mark.parametrize("name, text, match", [
    ("a.json", "[]", "holds no answers"), ("a.json", "{", "could not be read as a json"), ("a.json", '[{"confidence": null, "correct": true}]', "row 1"),
    ("a.json", '[{"confidence": true, "correct": true}]', "confidence is 'True'"), ("a.json", '[{"confidence": [0.5], "correct": true}]', "row 1"),
    ("a.json", '[{"confidence": 0.5, "correct": null}]', "correct is"), ("a.json", "[1, 2]", "no column confidence, correct"),
    ("a.jsonl", '{"confidence": 0.5, "correct": true}\n{"confidence": 0.5}\n', "row 2"), ("a.jsonl", "not json\n", "could not be read as a jsonl"),
    ("a.tsv", "confidence,correct\n0.5,1\n", "no column"), ("a.parquet", "PAR1 and no more", "could not be read as a parquet"),
    ("a.xlsx", "x", "not a table that can be read; give one of .csv, .tsv, .json"), ("a", "confidence,correct\n0.5,1\n", "not a table that can be read")])
def test_wrong_files(tmp_path, name, text, match): refused("calibration", written(tmp_path, text, name), match=match)

def test_places(tmp_path):
    run = program(tmp_path / "absent.csv")
    assert run.returncode == 2 and run.stdout == "" and re.fullmatch(r"error: there is no file [^\n]+ confidence and correct\n", run.stderr)
    refused("calibration", tmp_path, match="no file")
    (tmp_path / "a.csv").write_bytes(b"confidence,correct\n0.5,\xff\xfe\n")
    refused("calibration", tmp_path / "a.csv", match="could not be read as a csv")
    refused("calibration", written(tmp_path, "confidence,correct\n0.5,1\n"), "--json", tmp_path, match="is a folder")

def test_bins_that_are_none(tmp_path):
    path = written(tmp_path, "confidence,correct\n0.5,1\n")
    for wrong in 0, -1, "many":
        result = avss("calibration", path, "--bins", wrong)
        assert result.exit_code == 2 and "--bins" in result.stderr and result.stdout == ""
