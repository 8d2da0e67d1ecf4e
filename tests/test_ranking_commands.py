"`avss-nb compare`: the same numbers as the function, in a table, a picture and JSON, and clear refusals."
import json
import pandas as pd
import pytest
from typer.testing import CliRunner
from avss_nb import RankingComparison, compare_rankings, silent
from avss_nb.commands.comparison import numbers_or_shares
from avss_nb.commands.shared import app

QUICK = ["--rankings", "avss,last", "--counts", "1,3", "--draws", "3"]

def run(*args): return CliRunner().invoke(app, ["compare", "teaching", *map(str, args)])

def refused(reason, *args):
    result = run(*args)
    assert result.exit_code == 2 and reason in result.stderr and "Traceback" not in result.output, result.output

def test_json_table_and_picture_say_the_same(tmp_path, teaching, world):
    table, picture, kept = tmp_path / "t.csv", tmp_path / "p.png", tmp_path / "c.safetensors"
    result = run("--texts", "teaching", "--limit", 24, *QUICK, "--out", table, "--plot", picture, "--resume", kept, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    model, tokenizer = teaching
    texts = world.texts(24)
    wanted = compare_rankings(model, tokenizer, texts[:12], texts[12:], rankings=["avss", "last"], counts=[1, 3], draws=3, progress=silent)
    frame = wanted.to_frame()
    assert [row["retention"] for row in found["rows"]] == pytest.approx([*frame["retention"]])
    assert found["rows"][0]["layers"] == [*frame["layers"][0]] and found["rows"][-1]["layers"] is None
    assert found["original"]["perplexity"] == pytest.approx(wanted.values()[0]) and found["texts"] == 12 and not found["partial"]
    assert pd.read_csv(table)["retention"].tolist() == pytest.approx([*frame["retention"]])
    assert picture.read_bytes().startswith(b"\x89PNG") and RankingComparison.load(kept).removed == wanted.removed
    again = run("--texts", "teaching", "--limit", 24, *QUICK, "--resume", kept, "--json", "-")
    assert json.loads(again.stdout) == found

def test_questions_and_held_out_texts(tmp_path, world):
    (tmp_path / "a.txt").write_text("\n\n".join(world.texts(8)))
    (tmp_path / "b.txt").write_text("\n\n".join(world.texts(16)[8:]))
    result = run("--texts", tmp_path / "a.txt", "--held-out", tmp_path / "b.txt", "--questions", "teaching:known", "--limit", 10,
                 "--rankings", "avss", "--counts", "0.25", "--draws", 0)
    assert result.exit_code == 0, result.output
    assert "share of perplexity kept" in result.stdout and "share of accuracy kept" in result.stdout and "−3 (25%)" in result.stdout

def test_what_is_refused(tmp_path):
    refused("no ranking 'best'", "--texts", "teaching", "--limit", 8, "--rankings", "best")
    refused("--counts one", "--texts", "teaching", "--counts", "one")
    refused("between 1 and 11", "--texts", "teaching", "--limit", 8, "--counts", "12")
    refused("8 held-out texts are among", "--texts", "teaching", "--held-out", "teaching", "--limit", 8)
    refused("is a folder", "--texts", "teaching", "--out", tmp_path)
    with pytest.raises(Exception, match="write numbers of blocks"): numbers_or_shares("1;2")
