"Nothing is lost: what is no earlier result stays as it is, and no path ends in a traceback."
import errno
import json
import os
from pathlib import Path
import pytest
import torch
from safetensors.torch import save_file
from matplotlib.figure import Figure
from avss_nb import (
    AnswerLog, Answers, ArmRun, InputError, LayerProfile, LayerProfiler, TrainingHistory,
    load_questions, load_texts, silent
)
from avss_nb.base.basics import (
    check_place, check_replaceable, format_of, load_tensors, save_tensors
)
from avss_nb.commands import answers as answers_commands, comparison as comparison_commands
from avss_nb.commands import hallucination as hallucination_commands, layers
from avss_nb.commands.shared import PICTURE, PICTURES, RESULT, save_figure
from avss_nb.hallucination.mitigation import MITIGATION_CHECKPOINT
from avss_nb.layers.profiler import PROFILE
from avss_nb.panels.exports import load_data, save_data, save_table
from avss_nb.prune.comparison import COMPARISON_FORMAT as COMPARISON
from avss_nb.prune.healing import take_up
from test_cli import done, refused
from test_escaping import answers, comparison, history
from tiny import tiny

TEXTS = torch.randint(3, 600, (16, 8), generator=torch.Generator().manual_seed(0)).tolist()

@pytest.fixture(scope="module")
def profile(): return LayerProfiler(tiny("llama"), batch_size=4).profile(TEXTS, silent)

@pytest.fixture
def place(tmp_path, profile):
    "Files that somebody would miss, and results of all kinds."
    save_file({"model.embed": torch.ones(3)}, tmp_path / "weights.safetensors", {"format": "pt"})
    (tmp_path / "texts.txt").write_text("A text about avss_nb.LayerProfile/1 and avss_nb.Picture/1.")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "format": "mine"}))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG a photo")
    (tmp_path / "table.csv").write_text("name,value\nmine,1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("three years")
    for name in "weights.safetensors", "folder", "texts.txt": (tmp_path / f"link to {name}").symlink_to(name)
    return tmp_path

PRECIOUS = ["weights.safetensors", "texts.txt", "config.json", "photo.png", "table.csv", "folder", "link to weights.safetensors",
            "link to folder", "link to texts.txt"]

def contents(place):
    return {str(path.relative_to(place)): (path.is_symlink(), path.read_bytes() if path.is_file() else None) for path in place.rglob("*")}

def figure():
    made = Figure()
    made.subplots().plot([1, 2])
    return made

SAVES = {"profile": lambda path, profile: profile.save(path), "answers": lambda path, _: answers().save(path),
         "history": lambda path, _: history().save(path), "comparison": lambda path, _: comparison().save(path),
         "arm": lambda path, _: ArmRun(answers(), None, 1).save(path, "identity"),
         "table": lambda path, _: save_table(answers().to_frame(), path),
         "data": lambda path, _: save_data(path, texts=["a"])}

@pytest.mark.parametrize("name", PRECIOUS)
@pytest.mark.parametrize("kind", SAVES)
def test_no_save_replaces_what_is_not_an_earlier_result(place, profile, kind, name):
    before = contents(place)
    with pytest.raises(InputError, match="exists|is a folder"): SAVES[kind](place / name, profile)
    assert contents(place) == before

@pytest.mark.parametrize("name", [name for name in PRECIOUS if not name.endswith(("csv", "png"))])
def test_no_folder_of_results_replaces_anything_else(place, profile, name):
    before = contents(place)
    for mark, kind in ("pruning.json", "pruning"), ("mitigation.json", "mitigation"), ("answers.safetensors", "hallucination"):
        with pytest.raises(InputError, match=f"not an earlier result of {kind}"): check_replaceable(place / name, mark, kind)
    assert contents(place) == before

@pytest.mark.parametrize("kind", ["profile", "answers", "history", "comparison", "arm"])
def test_an_earlier_result_and_an_empty_file_are_replaced(tmp_path, profile, kind):
    for name in "result", "link", "empty":
        if name == "link": (tmp_path / "link").symlink_to("result")
        if name == "empty": (tmp_path / "empty").touch()
        for _ in range(2): SAVES[kind](tmp_path / name, profile)
        assert (tmp_path / name).stat().st_size and (tmp_path / name).is_symlink() == (name == "link")
    for other in SAVES:                                                                   # of another kind: refused
        if other == kind: continue
        before = (tmp_path / "result").read_bytes()
        with pytest.raises(InputError, match="exists"): SAVES[other](tmp_path / "result", profile)
        assert (tmp_path / "result").read_bytes() == before

@pytest.mark.parametrize("suffix", PICTURES)
def test_only_our_pictures_are_replaced(tmp_path, suffix):
    own, other = tmp_path / f"own{suffix}", tmp_path / f"other{suffix}"
    for _ in range(2): save_figure(figure(), own)
    assert format_of(own) == PICTURE
    figure().savefig(other)
    before = other.read_bytes()
    with pytest.raises(InputError, match="not an earlier result of plotting"): save_figure(figure(), other)
    assert other.read_bytes() == before

def test_the_formats_of_the_command_line_are_those_of_the_classes(tmp_path):
    assert layers.PROFILE_FILE[0] == PROFILE and COMPARISON == "avss_nb.RankingComparison/1" and MITIGATION_CHECKPOINT == "avss_nb.mitigation/1"
    save_tensors(tmp_path / "f", {"a": torch.ones(1)}, "lesson/1", {})
    save_tensors(tmp_path / "f", {"a": torch.ones(2)}, "lesson/2", {})                    # another version of the same kind
    with pytest.raises(InputError, match="not an earlier result"): save_tensors(tmp_path / "f", {"a": torch.ones(1)}, "lessons/1", {})

# --- commands

@pytest.fixture(scope="module")
def model(tmp_path_factory, profile):
    from test_heads import TOKENIZER, words
    folder = tmp_path_factory.mktemp("model")
    tiny("llama").save_pretrained(folder / "model")
    TOKENIZER.save_pretrained(folder / "model")
    (folder / "words.txt").write_text("\n\n".join(words(9, i) for i in range(12)))
    (folder / "answers.csv").write_text("confidence,correct\n0.5,1\n0.7,0\n")
    profile.save(folder / "p.st")
    return folder

def commands(folder, path):
    "Every option that names a file to write, and how the line goes on."
    model, texts, profile = folder / "model", folder / "words.txt", folder / "p.st"
    return {"profile --out": ["profile", model, "--texts", texts, "--out", path], "merge --out": ["merge", profile, "--out", path],
            "merge --json": ["merge", profile, "--out", folder / "merged", "--json", path], "rank --json": ["rank", profile, "--json", path],
            "evaluate --json": ["evaluate", model, "--texts", texts, "--json", path],
            "calibration --json": ["calibration", folder / "answers.csv", "--json", path],
            "prune --out": ["prune", model, "--profile", profile, "--count", 1, "--out", path],
            "prune --json": ["prune", model, "--profile", profile, "--count", 1, "--out", folder / "small", "--json", path],
            "hallucination --out": ["hallucination", model, "--questions", "teaching", "--out", path],
            "mitigate --out": ["mitigate", model, "--questions", "teaching", "--out", path],
            "mitigate --checkpoint": ["mitigate", model, "--questions", "teaching", "--out", folder / "m", "--checkpoint", path],
            "compare --out": ["compare", model, "--texts", texts, "--out", path],
            "compare --plot": ["compare", model, "--texts", texts, "--plot", f"{path}.png" if not os.path.exists(path) else path],
            "compare --resume": ["compare", model, "--texts", texts, "--resume", path],
            "harness --json": ["harness", model, "--tasks", "hellaswag", "--json", path]}

@pytest.mark.parametrize("option", commands(Path("."), "x"))
def test_no_command_begins_work_for_a_place_that_it_must_not_take(place, model, option, monkeypatch):
    for module in layers, answers_commands, hallucination_commands, comparison_commands:
        monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("work was begun"))
    before, started = contents(place), contents(model)
    for name in PRECIOUS: refused(*commands(model, place / name)[option], match="exists|is a folder|ends in .png")
    for wrong in place / ("n" * 300), place / "new" / ("n" * 300), place / "texts.txt" / "below":
        refused(*commands(model, wrong)[option], match="was not written|cannot be written")
    assert contents(place) == before and contents(model) == started

def test_commands_replace_their_own_results(model, tmp_path):
    for _ in range(2):
        done(*commands(model, tmp_path / "p.st")["profile --out"])
        done(*commands(model, tmp_path / "r.json")["rank --json"])
        done(*commands(model, tmp_path / "small")["prune --out"])
        done(*commands(model, tmp_path / "t.csv")["compare --out"], "--plot", tmp_path / "p.svg", "--resume", tmp_path / "c.st",
             "--rankings", "last", "--counts", 1, "--draws", 1)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found.pop("format") == RESULT and found == json.loads(done("rank", model / "p.st", "--json", "-").stdout)
    refused(*commands(model, tmp_path / "p.st")["rank --json"], match="not an earlier result of --json")
    refused(*commands(model, tmp_path / "r.json")["profile --out"], match="not an earlier result of profiling")

# --- paths that the system cannot use

BAD = {"long": "n" * 300, "long below": "new/" + "n" * 300, "deep": "/".join(["n" * 200] * 30), "nul": "a\0b", "below a file": "file/below",
       "loop": "loop", "through a loop": "loop/file"}

@pytest.fixture
def bad(tmp_path, request):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / BAD[request.param]

@pytest.mark.parametrize("bad", BAD, indirect=True)
@pytest.mark.parametrize("kind", SAVES)
def test_writing_to_a_path_that_cannot_be(bad, profile, kind):
    with pytest.raises(InputError): SAVES[kind](bad, profile)

READS = {"profile": LayerProfile.load, "tensors": lambda path: load_tensors(path, "lesson/1", "lesson"), "history": TrainingHistory.load,
         "answers": Answers.load, "data": load_data, "questions": lambda path: load_questions(str(path)), "texts": lambda path: load_texts(str(path)),
         "log": lambda path: AnswerLog(path, {}, [[0]]).take_up(), "healing": lambda path: take_up(path, "identity"),
         "place": lambda path: check_place(path, None, "", folder=False), "folder": lambda path: check_place(path, "mark", "kind")}

@pytest.mark.parametrize("bad", BAD, indirect=True)
@pytest.mark.parametrize("kind", READS)
def test_reading_a_path_that_cannot_be(bad, kind):
    with pytest.raises(InputError): READS[kind](bad)

@pytest.mark.parametrize("kind", READS)
def test_reading_a_folder_and_a_file_that_may_not_be_read(tmp_path, kind, monkeypatch):
    (tmp_path / "x.csv").write_text("a")
    if kind not in ("healing", "folder"):
        with pytest.raises(InputError): READS[kind](tmp_path)
    if kind in ("place", "folder", "healing", "log"): return
    def forbidden(path, *_, **__): raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    for name in "builtins.open", "io.open", "pathlib.Path.open", "pathlib.Path.read_bytes", "pathlib.Path.read_text", "avss_nb.base.basics.safe_open":
        monkeypatch.setattr(name, forbidden)
    with pytest.raises(InputError): READS[kind](tmp_path / "x.csv")

def test_names_of_the_longest_length_can_be_written(tmp_path, profile):
    for name in "n" * 255, "é" * 127:
        profile.save(tmp_path / name)
        assert LayerProfile.load(tmp_path / name).tokens == profile.tokens
    assert len([*tmp_path.iterdir()]) == 2

@pytest.mark.parametrize("name", ["n" * 300, "file/below"])
def test_reading_commands(model, tmp_path, name):
    (tmp_path / "file").write_text("kept")
    path = tmp_path / name
    for line in (["rank", path], ["merge", path, "--out", tmp_path / "o"], ["calibration", path], ["profile", model / "model", "--texts", path, "--out", tmp_path / "o"],
                 ["evaluate", model / "model", "--questions", path], ["evaluate", model / "model", "--labels", path],
                 ["hallucination", model / "model", "--pairs", path, "--out", tmp_path / "o"],
                 ["prune", model / "model", "--profile", path, "--count", 1, "--out", tmp_path / "o"]):
        refused(*line, match="there is no|cannot be")
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]
