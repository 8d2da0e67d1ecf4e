"""The command line: what it prints, what it writes, and how it refuses; against the classes and independent computations."""
import ast, json, re, shlex, subprocess, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file, save_file
from transformers import AlbertConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from typer.testing import CliRunner
from conftest import shared
from tiny import tiny
from avss_nb import (
    SCORES, SITES, Blocks, Evaluator, LayerProfile, LayerProfiler, LayerScorer, TeachingWorld,
    cli
)
from avss_nb.commands import answers, layers
from avss_nb.data.teaching import build_tokenizer
from avss_nb.maths.moments import AGGREGATIONS

torch.set_num_threads(1)
TOKENIZER = build_tokenizer()
BIN = Path(sys.executable).parent

def avss(*args):
    "Run a command line in this process."
    return CliRunner().invoke(cli.app, [str(a) for a in args])

def done(*args):
    "Run a command line that must succeed."
    result = avss(*args)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result

def refused(*args, match="", absent=()):
    "Run a command line that must be refused: one line, exit code 2, nothing on stdout and no file."
    result = avss(*args)
    assert result.exit_code == 2 and result.stdout == "", result.output + repr(result.exception)
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    assert re.search(match, result.stderr), result.stderr
    for path in [absent] if isinstance(absent, Path) else absent: assert not path.exists()
    return result.stderr

def saved(folder, model):
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A tiny model, texts, questions and the model's profile."
    place = tmp_path_factory.mktemp("cli")
    saved(place / "model", tiny("llama"))
    (place / "texts.txt").write_text("\n\n".join(TeachingWorld().texts(30)))
    done("profile", place / "model", "--texts", place / "texts.txt", "--out", place / "profile.st", "--sites", "all", "--ablation", "--batch-size", 4)
    return place

# ---------------------------------------------------------------- the program

def test_it_starts_as_a_script_and_as_a_module(place):
    script = subprocess.run([BIN / "avss-nb", "--help"], capture_output=True, text=True, check=True)
    assert all(command in script.stdout for command in ("profile", "rank", "prune", "evaluate", "demo"))
    line = [sys.executable, "-m", "avss_nb.cli", "rank", place / "profile.st", "--json", "-"]
    module = subprocess.run(line, capture_output=True, text=True, check=True)
    assert json.loads(module.stdout)["tokens"] == LayerProfile.load(place / "profile.st").tokens and module.stderr == ""

def test_version():
    from avss_nb import __version__
    assert done("--version").stdout == f"avss-nb {__version__}\n"

def test_help_names_every_choice():
    text = " ".join(done("rank", "--help").stdout.split())
    for choices in SCORES, SITES, AGGREGATIONS: assert all(choice in text for choice in choices)
    assert all(site in done("profile", "--help").stdout for site in SITES)

def test_errors_of_the_program_keep_their_traceback(place, monkeypatch):
    def broken(path): raise RuntimeError("a bug")
    monkeypatch.setattr(LayerProfile, "load", broken)
    result = avss("rank", place / "profile.st")
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)

# ---------------------------------------------------------------- profile

def test_profile_equals_the_class(place):
    result = LayerProfile.load(place / "profile.st")
    texts = (place / "texts.txt").read_text().split("\n\n")
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    expected = LayerProfiler(model, TOKENIZER, SITES, ablation=True, batch_size=4).profile(texts, progress=lambda p: None)
    assert result.tokens == expected.tokens == sum(len(TOKENIZER(text)["input_ids"]) for text in texts) and not result.partial
    for site in SITES: assert torch.equal(result.site(site).m2, expected.site(site).m2)
    assert torch.equal(result.losses, expected.losses)

def test_profile_options(place, tmp_path):
    out = tmp_path / "new" / "p.st"
    done("profile", place / "model", "--texts", place / "texts.txt", "--out", out, "--sites", "update, mlp", "--limit", 3, "--dtype", "bfloat16")
    result = LayerProfile.load(out)
    assert [*result.sites] == ["update", "mlp"] and result.texts == 3 and result.losses is None
    assert result.settings["dtype"] == "bfloat16" and result.fingerprint == LayerProfile.load(place / "profile.st").fingerprint
    assert [path.name for path in out.parent.iterdir()] == ["p.st"]

@pytest.mark.parametrize("tokens, length, expected", [(100, 32, 96), (20, 32, 20), (64, 32, 64)])
def test_profile_takes_at_most_so_many_tokens(place, tmp_path, tokens, length, expected):
    done("profile", place / "model", "--texts", place / "texts.txt", "--out", tmp_path / "p", "--tokens", tokens, "--max-length", length)
    assert LayerProfile.load(tmp_path / "p").tokens == expected

def test_the_teaching_world_as_text(place, tmp_path):
    for source in "teaching", "teaching:solved":
        done("profile", place / "model", "--texts", source, "--limit", 5, "--out", tmp_path / "p")
        assert LayerProfile.load(tmp_path / "p").texts == 5

def test_an_interrupted_profile_is_saved_and_marked(place, tmp_path, monkeypatch):
    def stop(progress):
        if progress.done == 2: raise KeyboardInterrupt
    monkeypatch.setattr(layers, "default_progress", lambda label: stop)
    result = avss("profile", place / "model", "--texts", place / "texts.txt", "--batch-size", 4, "--out", tmp_path / "p")
    assert result.exit_code == 130 and "PARTIAL" in result.stdout and "interrupted" in result.stderr
    profile = LayerProfile.load(tmp_path / "p")
    assert profile.partial and profile.texts == 8
    assert json.loads(done("rank", tmp_path / "p", "--json", "-").stdout)["partial"] is True
    assert "partial" in done("rank", tmp_path / "p").stdout

@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neox", "qwen2", "bert", "distilbert"])
def test_other_architectures(place, tmp_path, kind):
    saved(tmp_path / "model", tiny(kind))
    done("profile", tmp_path / "model", "--texts", place / "texts.txt", "--limit", 4, "--out", tmp_path / "p")
    assert len(json.loads(done("rank", tmp_path / "p", "--json", "-").stdout)["order"]) == 4
    result = json.loads(done("prune", tmp_path / "model", "--profile", tmp_path / "p", "--count", 1, "--out", tmp_path / "small", "--json", "-").stdout)
    auto = AutoModelForMaskedLM if "bert" in kind else AutoModelForCausalLM
    assert len(Blocks(auto.from_pretrained(tmp_path / "small"))) == 3 == len(result["kept"])

# ---------------------------------------------------------------- rank

LAYER = {"layer", "variance", "sparsity", "score", "low", "high", "floored"}

@pytest.mark.parametrize("options, scorer", [
    ([], LayerScorer()), (["--published"], LayerScorer.published()), (["--published", "--eps", "1e-3"], LayerScorer.published(eps=1e-3)),
    (["--score", "ablation"], LayerScorer("ablation")), (["--score", "random"], LayerScorer("random")),
    (["--score", "normalized_avss", "--site", "mlp", "--aggregation", "neurons", "--eps", "0.05", "--relative"],
     LayerScorer("normalized_avss", "mlp", "neurons", 0.05, True))])
def test_rank_equals_the_class(place, options, scorer):
    result = json.loads(done("rank", place / "profile.st", *options, "--json", "-").stdout)
    assert result == scorer.score(LayerProfile.load(place / "profile.st")).to_dict()
    assert {"model", "score", "site", "aggregation", "eps", "tokens", "layers", "order"} <= set(result)
    assert all(set(layer) == LAYER for layer in result["layers"]) and [layer["layer"] for layer in result["layers"]] == [0, 1, 2, 3]
    values = [layer["score"] for layer in result["layers"]]
    assert result["order"] == sorted(range(4), key=values.__getitem__)

def test_rank_prints_a_table_from_the_least_important_up(place, tmp_path):
    result = done("rank", place / "profile.st", "--json", tmp_path / "new" / "rank.json")
    order = json.loads((tmp_path / "new" / "rank.json").read_text())["order"]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [int(row[1]) for row in rows if row[0].isdigit()] == order

def test_rank_marks_lower_bounds(place):
    assert "lower bound" in done("rank", place / "profile.st", "--eps", "1e-8").stdout
    assert "lower bound" not in done("rank", place / "profile.st", "--eps", "0.5").stdout

# ---------------------------------------------------------------- prune

LOGITS = """import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad(): torch.save(model(input_ids=torch.arange(3, 43).view(2, 20)).logits, sys.argv[2])
"""

def test_prune_saves_a_model_that_reloads_elsewhere(place, tmp_path):
    out = tmp_path / "small"
    result = json.loads(done("prune", place / "model", "--profile", place / "profile.st", "--fraction", 0.5, "--out", out, "--json", "-").stdout)
    assert set(result) == {"removed", "kept", "parameters_before", "parameters_after", "checks", "path", "layer_kinds",
                           "verified", "quality", "samples"}
    assert result["verified"].startswith("computes the same as the preview") and result["quality"].endswith(f"avss-nb evaluate {out} --texts FILE")
    assert set(result["checks"]) == {"logits_max_relative_error", "cached_equals_uncached", "reload_keys_clean"}
    order = LayerScorer().score(LayerProfile.load(place / "profile.st")).order
    assert result["removed"] == sorted(order[:2]) and result["kept"] == sorted(order[2:]) and result["path"] == str(out)
    subprocess.run([sys.executable, "-c", LOGITS, out, tmp_path / "logits"], check=True)
    model = AutoModelForCausalLM.from_pretrained(place / "model").eval()
    with torch.no_grad(), Blocks(model).skip(result["removed"]): expected = model(input_ids=torch.arange(3, 43).view(2, 20), use_cache=False).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits"), expected, rtol=1e-5, atol=1e-5)
    small = AutoModelForCausalLM.from_pretrained(out)
    assert result["parameters_before"] == sum(p.numel() for p in model.parameters())
    assert result["parameters_after"] == sum(p.numel() for p in small.parameters())
    assert not list(out.glob("*.bin"))

@pytest.mark.parametrize("options, removed", [
    (["--count", 1, "--score", "random"], lambda p: LayerScorer("random").score(p).order[:1]),
    (["--count", 1, "--published"], lambda p: LayerScorer.published().score(p).order[:1]),
    (["--count", 2, "--protect", "0,1"], lambda p: (2, 3)),
    (["--threshold", 0.6, "--score", "ablation"], None)])
def test_prune_chooses_by_the_options(place, tmp_path, options, removed):
    result = done("prune", place / "model", "--profile", place / "profile.st", *options, "--out", tmp_path / "o", "--json", tmp_path / "j")
    found, profile = json.loads((tmp_path / "j").read_text())["removed"], LayerProfile.load(place / "profile.st")
    if removed is None:
        scores = LayerScorer("ablation").score(profile)
        assert found == sorted(layer for layer, c in zip(scores.order, scores.cumulative) if c <= 0.6)
    else: assert found == sorted(removed(profile))
    assert "parameters" in result.stdout

def test_prune_says_what_was_verified_and_what_was_not(place, tmp_path):
    line = ["prune", place / "model", "--profile", place / "profile.st", "--count", 1, "--out", tmp_path / "o"]
    said = done(*line).stdout
    assert "\nverified: computes the same as the preview (largest relative error " in said and "checks:" not in said
    command = re.search(r"\nquality: not measured; to measure it: avss-nb (.*)\n", said)[1]
    assert "perplexity" in done(*shlex.split(command.replace("FILE", str(place / "texts.txt")))).stdout
    shown = said.partition("greedy continuations, before and after the cut:\n")[2].splitlines()
    samples = [dict(re.fullmatch("  (prompt|before|after): (.*)", line).groups() for line in shown[i : i + 3]) for i in (0, 3, 6)]
    kept = json.loads((tmp_path / "o" / "pruning.json").read_text())["samples"]
    assert [{name: ast.literal_eval(text) for name, text in sample.items()} for sample in samples] == kept
    assert all(ch.isprintable() for line in said.splitlines() for ch in line)
    assert "continuations" not in done(*line, "--samples", 0).stdout
    assert json.loads((tmp_path / "o" / "pruning.json").read_text())["samples"] == []
    assert avss(*line, "--samples", -1).exit_code == 2

def test_prune_by_search(place, tmp_path):
    done("prune", place / "model", "--search", "greedy", "--texts", place / "texts.txt", "--limit", 8, "--count", 1, "--out", tmp_path / "o", "--json", tmp_path / "j")
    model, texts = AutoModelForCausalLM.from_pretrained(place / "model").eval(), (place / "texts.txt").read_text().split("\n\n")[:8]
    profile = LayerProfiler(model, TOKENIZER, ["output"], ablation=True).profile(texts, progress=lambda p: None)
    assert json.loads((tmp_path / "j").read_text())["removed"] == [int(profile.losses.sum(0)[1:].argmin())]

def test_prune_never_overwrites_what_is_not_its_own(place, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    line = ["prune", place / "model", "--profile", place / "profile.st", "--count", 1, "--out"]
    refused(*line, tmp_path / "thesis", match="not an earlier result")
    refused(*line, place / "model", match="model itself|not an earlier result")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work" and (place / "model" / "config.json").exists()
    done(*line, tmp_path / "small")
    done(*line, tmp_path / "small")  # an earlier result is replaced
    refused("prune", tmp_path / "small", *line[2:], tmp_path / "small", match="model itself")

# ---------------------------------------------------------------- evaluate

def test_evaluate_equals_the_class(place, tmp_path):
    world = TeachingWorld()
    result = json.loads(done("evaluate", place / "model", "--questions", "teaching:unknown", "--texts", "teaching", "--limit", 12, "--json", "-").stdout)
    assert {"n", "accuracy", "hallucination_rate", "abstention_rate", "mean_confidence", "ece", "brier", "auroc", "perplexity", "intervals"} <= set(result)
    model = AutoModelForCausalLM.from_pretrained(place / "model").eval()
    expected = Evaluator(model, TOKENIZER).evaluate(world.questions("unknown", 12), world.texts(12))
    asked = result.pop("asked")
    assert result == expected.to_dict() and result["n"] == asked["questions"] == 12 and "own prompts" in asked["why"]
    total = count = 0
    for text in world.texts(12):
        ids = torch.tensor([TOKENIZER(text)["input_ids"]])
        with torch.no_grad(): total += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert result["perplexity"] == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-4)

def test_evaluate_a_table_or_only_texts(place, tmp_path):
    (tmp_path / "q.csv").write_text('question,answer\n"Where was Ada Barben born?",Paris\n"What is the job of Ada Barben?",poet\n')
    assert "accuracy" in done("evaluate", place / "model", "--questions", tmp_path / "q.csv").stdout
    result = json.loads(done("evaluate", place / "model", "--texts", place / "texts.txt", "--tokens", 64, "--max-length", 16, "--json", "-").stdout)
    assert result["n"] == 0 and result["accuracy"] is None and result["perplexity"] > 1

# ---------------------------------------------------------------- wrong input

@pytest.mark.parametrize("content", ["", "   \n \n\n  \t\n", "\0\0 \0"])
def test_texts_without_text(place, tmp_path, content):
    (tmp_path / "t.txt").write_text(content)
    refused("profile", place / "model", "--texts", tmp_path / "t.txt", "--out", tmp_path / "p", match="no text", absent=tmp_path / "p")

def test_missing_files(place, tmp_path):
    out = tmp_path / "out"
    texts, profile = ["--texts", place / "texts.txt"], ["--profile", place / "profile.st"]
    refused("profile", tmp_path / "absent", *texts, "--out", out, match="no model folder", absent=out)
    refused("profile", place / "texts.txt", *texts, "--out", out, match="no model folder", absent=out)
    refused("profile", place / "model", "--texts", tmp_path / "absent.txt", "--out", out, match="no file", absent=out)
    refused("rank", tmp_path / "absent", match="no profile")
    refused("prune", tmp_path / "absent", *profile, "--count", 1, "--out", out, match="no model folder", absent=out)
    refused("prune", place / "model", "--profile", tmp_path / "absent", "--count", 1, "--out", out, match="no profile", absent=out)
    refused("evaluate", tmp_path / "absent", *texts, match="no model folder")
    refused("evaluate", place / "model", "--questions", tmp_path / "absent.csv", match="no file")
    refused("evaluate", place / "model", match="nothing to evaluate")

def test_a_name_that_is_nowhere(tmp_path):
    line = [BIN / "avss-nb", "profile", "nobody-at-all/no-such-model", "--texts", "teaching", "--out", tmp_path / "p"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == "" and re.fullmatch(r"error: nobody-at-all/no-such-model could not [^\n]+\n", run.stderr)
    assert not [*tmp_path.iterdir()]

def test_damaged_models(place, tmp_path):
    texts, out = ["--texts", place / "texts.txt"], tmp_path / "out"
    (tmp_path / "empty").mkdir()
    refused("profile", tmp_path / "empty", *texts, "--out", out, match="could not be loaded", absent=out)
    for name in "config.json", "model.safetensors":
        broken = saved(tmp_path / f"broken {name}", tiny("llama"))
        (broken / name).write_bytes((broken / name).read_bytes()[:200])
        refused("profile", broken, *texts, "--out", out, match="could not be loaded", absent=out)
    broken = saved(tmp_path / "unknown", tiny("llama"))
    (broken / "config.json").write_text(json.dumps({"model_type": "never heard of"}))
    refused("profile", broken, *texts, "--out", out, match="could not be loaded", absent=out)

def test_pickled_weights_are_never_opened(place, tmp_path):
    folder = saved(tmp_path / "pickle", tiny("llama"))
    (folder / "model.safetensors").unlink()
    torch.save(tiny("llama").state_dict(), folder / "pytorch_model.bin")
    refused("profile", folder, "--texts", place / "texts.txt", "--out", tmp_path / "p", match="could not be loaded", absent=tmp_path / "p")

def test_code_beside_the_weights_is_never_run(place, tmp_path):
    folder = saved(tmp_path / "code", tiny("llama"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "made_up", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused("profile", folder, "--texts", place / "texts.txt", "--out", tmp_path / "p", match="could not be loaded", absent=[tmp_path / "p", tmp_path / "ran"])

def test_missing_weights_are_not_made_up(place, tmp_path):
    folder = saved(tmp_path / "incomplete", tiny("llama"))
    weights = load_file(folder / "model.safetensors")
    gone = next(key for key in weights if "layers.2" in key)
    save_file({k: v for k, v in weights.items() if k != gone}, folder / "model.safetensors", {"format": "pt"})
    refused("profile", folder, "--texts", place / "texts.txt", "--out", tmp_path / "p", match=re.escape(gone), absent=tmp_path / "p")

def test_a_model_without_a_list_of_blocks(place, tmp_path):
    config = AlbertConfig(vocab_size=600, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    folder = saved(tmp_path / "albert", AutoModelForMaskedLM.from_config(config))
    refused("profile", folder, "--texts", place / "texts.txt", "--out", tmp_path / "p", match="no list of blocks", absent=tmp_path / "p")

def test_nan_weights(place, tmp_path):
    model = tiny("llama")
    with torch.no_grad(): model.model.layers[2].mlp.down_proj.weight[0, 0] = torch.nan
    folder = saved(tmp_path / "nan", model)
    message = refused("profile", folder, "--texts", place / "texts.txt", "--out", tmp_path / "p", absent=tmp_path / "p")
    assert "layer 2" in message and "batch 0" in message

@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, "nan"])
def test_fractions_that_remove_nothing_or_all(place, tmp_path, fraction):
    refused("prune", place / "model", "--profile", place / "profile.st", "--fraction", fraction, "--out", tmp_path / "o",
            "--json", tmp_path / "j", match="fraction", absent=[tmp_path / "o", tmp_path / "j"])

def test_other_wrong_options_of_prune(place, tmp_path):
    out = tmp_path / "o"
    line = ["prune", place / "model", "--profile", place / "profile.st", "--out", out]
    refused(*line, match="exactly one", absent=out)
    refused(*line, "--count", 1, "--fraction", 0.25, match="exactly one", absent=out)
    for wrong in 0, 4, -1: refused(*line, "--count", wrong, match="count", absent=out)
    refused(*line, "--threshold", 2, match="threshold", absent=out)
    refused(*line, "--count", 1, "--protect", "0,x", match="protect", absent=out)
    refused(*line, "--count", 1, "--protect", 9, match="no layer 9", absent=out)
    refused(*line, "--count", 3, "--protect", "0,1", match="protect", absent=out)
    refused(*line, "--count", 1, "--search", "greedy", match="--texts", absent=out)
    refused(*line, "--count", 1, "--search", "magic", "--texts", place / "texts.txt", match="magic", absent=out)
    refused("prune", place / "model", "--count", 1, "--out", out, match="--profile", absent=out)

def test_a_profile_of_another_model(place, tmp_path):
    folder = saved(tmp_path / "other", tiny("llama", seed=1))
    refused("prune", folder, "--profile", place / "profile.st", "--count", 1, "--out", tmp_path / "o", match="another model", absent=tmp_path / "o")

def test_damaged_profiles(place, tmp_path):
    content = (place / "profile.st").read_bytes()
    for length in 0, 50, len(content) // 2, len(content) - 1:
        (tmp_path / "cut").write_bytes(content[:length])
        refused("rank", tmp_path / "cut", "--json", tmp_path / "j", match="damaged", absent=tmp_path / "j")
        refused("prune", place / "model", "--profile", tmp_path / "cut", "--count", 1, "--out", tmp_path / "o", match="damaged", absent=tmp_path / "o")
    refused("rank", place / "model" / "model.safetensors", match="no profile")

def test_wrong_options_of_rank_and_profile(place, tmp_path):
    for wrong in ["--score", "magic"], ["--site", "door"], ["--aggregation", "median"], ["--eps", "0"], ["--eps", "-1"]:
        refused("rank", place / "profile.st", *wrong)
    line = ["profile", place / "model", "--texts", place / "texts.txt", "--out", tmp_path / "p"]
    refused(*line, "--sites", "output,door", match="door", absent=tmp_path / "p")
    refused(*line, "--dtype", "int8", match="int8", absent=tmp_path / "p")
    refused(*line, "--device", "abacus", match="abacus", absent=tmp_path / "p")
    refused("profile", "teaching", "--texts", "teaching", "--sites", "door", "--out", tmp_path / "p", match="door", absent=tmp_path / "p")
    refused(*line[:3], "teaching:lies", *line[4:], match="teaching:lies", absent=tmp_path / "p")
    refused("evaluate", place / "model", "--questions", "teaching:lies", match="lies")
    result = avss(*line, "--limit", 0)  # a usage error, as the parser words it
    assert result.exit_code == 2 and "--limit" in result.stderr and not (tmp_path / "p").exists()

def test_places_that_cannot_be_written_are_refused_at_once(place, tmp_path, monkeypatch):
    for module in layers, answers: monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("work was begun"))
    line = ["profile", place / "model", "--texts", place / "texts.txt", "--out"]
    refused(*line, tmp_path, match="is a folder")
    refused(*line, place / "texts.txt" / "p", match="cannot be written")
    refused("evaluate", place / "model", "--texts", place / "texts.txt", "--json", tmp_path, match="is a folder")

def test_a_masked_model_needs_a_mask_token(place, tmp_path):
    folder = saved(tmp_path / "bert", tiny("bert"))
    refused("evaluate", folder, "--texts", place / "texts.txt", match="mask token")
    refused("profile", folder, "--texts", place / "texts.txt", "--ablation", "--out", tmp_path / "p", match="mask token", absent=tmp_path / "p")

# ---------------------------------------------------------------- real models

@pytest.mark.parametrize("name, texts, layers", [("stories260k", "data/wikitext2/test.txt", 5), ("wiki12", "data/wikipedia/heldout_simplewiki.txt", 12)])
def test_real_models(tmp_path, name, texts, layers):
    model, texts = shared(f"models/{name}"), shared(texts)
    done("profile", model, "--texts", texts, "--limit", 40, "--tokens", 2000, "--out", tmp_path / "p")
    assert LayerProfile.load(tmp_path / "p").tokens == 1792  # seven windows of 256
    ranked = json.loads(done("rank", tmp_path / "p", "--json", "-").stdout)
    assert sorted(ranked["order"]) == [*range(layers)] and all(layer["score"] > 0 for layer in ranked["layers"])
    line = ["prune", model, "--profile", tmp_path / "p", "--fraction", 0.25, "--out", tmp_path / "small", "--json", "-"]
    result = json.loads(done(*line).stdout)
    assert result["removed"] == sorted(ranked["order"][:len(result["removed"])])
    subprocess.run([sys.executable, "-c", LOGITS, tmp_path / "small", tmp_path / "logits"], check=True)
    original = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad(), Blocks(original).skip(result["removed"]): expected = original(input_ids=torch.arange(3, 43).view(2, 20), use_cache=False).logits
    error = (torch.load(tmp_path / "logits") - expected).abs().max() / expected.abs().max()
    assert error < 1e-3
    before, after = (json.loads(done("evaluate", m, "--texts", texts, "--limit", 40, "--tokens", 1000, "--json", "-").stdout)["perplexity"]
                     for m in (model, tmp_path / "small"))
    assert 1 < before < after

# ---------------------------------------------------------------- demo

def test_demo(tmp_path):
    run = subprocess.run([BIN / "avss-nb", "demo", "--out", tmp_path / "demo"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == ["profile.safetensors", "ranking.png", "smaller"]
    assert (tmp_path / "demo" / "ranking.png").read_bytes().startswith(b"\x89PNG")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "demo" / "smaller").config.num_hidden_layers == 9
    order = LayerScorer().score(LayerProfile.load(tmp_path / "demo" / "profile.safetensors")).order
    rows = [line.split() for line in run.stdout.splitlines()]
    assert tuple(int(row[1]) for row in rows if row and row[0].isdigit()) == order
    accuracy = {line.split("  ")[0].strip() or line.strip().split("  ")[0]: float(line.split()[-3]) for line in run.stdout.splitlines()
                if re.search(r"nothing removed|AVSS as published|AVSS \(|greedy search by loss +\d|random, mean", line)}
    assert len(accuracy) == 5 and all(0 <= value <= 1 for value in accuracy.values())

# ---------------------------------------------------------------- texts of other kinds, models that are broken

def test_texts_in_a_column_of_a_table(place, tmp_path):
    texts = (place / "texts.txt").read_text().split("\n\n")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": i, "body": text}) + "\n" for i, text in enumerate(texts)))
    out = tmp_path / "p.st"
    refused("profile", place / "model", "--texts", tmp_path / "t.jsonl", "--out", out, match="no column text; it has id, body", absent=out)
    done("profile", place / "model", "--texts", tmp_path / "t.jsonl", "--column", "body", "--out", out, "--sites", "all", "--batch-size", 4)
    ours, plain = LayerProfile.load(out), LayerProfile.load(place / "profile.st")
    for site in SITES: assert torch.equal(ours.site(site).counts, plain.site(site).counts)
    refused("profile", place / "model", "--texts", place / "texts.txt", "--column", "body", "--out", tmp_path / "q", match="is plain text", absent=tmp_path / "q")
    refused("profile", place / "model", "--texts", "", "--out", tmp_path / "q", absent=tmp_path / "q")

def test_a_stack_is_chosen(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(TOKENIZER), d_model=16, d_kv=8, d_ff=32, num_layers=3, num_decoder_layers=2, num_heads=2))
    saved(tmp_path / "t5", model)
    line = "profile", tmp_path / "t5", "--texts", "teaching", "--limit", 4, "--out", tmp_path / "p"
    refused(*line, match="choose one with stack= .--stack.", absent=tmp_path / "p")
    done(*line, "--stack", "encoder")
    assert LayerProfile.load(tmp_path / "p").layers == 3

def test_texts_too_long_for_the_model(place, tmp_path):
    refused("profile", place / "model", "--texts", "teaching", "--tokens", 2000, "--max-length", 500, "--out", tmp_path / "p",
            match="500 tokens are too long for a model of 128 positions", absent=tmp_path / "p")

def test_a_model_of_no_numbers(tmp_path):
    model = tiny("llama")
    model.model.norm.weight.data[:] = float("nan")
    saved(tmp_path / "nan", model)
    for option in "--texts", "--questions":
        refused("evaluate", tmp_path / "nan", option, "teaching", "--limit", 8, match="probabilities are NaN; load it in bfloat16 or float32")

def test_the_help_of_each_command_ends_with_an_example_that_it_understands():
    from avss_nb.cli import app
    from avss_nb.commands.shared import EXAMPLES
    from typer.main import get_command
    group = get_command(app)
    context = group.make_context("avss-nb", [], resilient_parsing=True)
    assert {*group.list_commands(context)} == {*EXAMPLES}
    for name, example in EXAMPLES.items():
        command = group.get_command(context, name)
        assert f"Example: avss-nb {name} " in " ".join(done(name, "--help").stdout.split())
        words = example.split()
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, name
        given = command.make_context(name, words, parent=context, resilient_parsing=True).params.values()
        assert all(any(word in str(value) for value in given) for word in words if not word.startswith("--")), name

def test_groups_of_a_profile_are_counted(place, tmp_path):
    out = tmp_path / "few.st"
    done("profile", place / "model", "--texts", place / "texts.txt", "--out", out, "--groups", 3)
    assert LayerProfile.load(out).groups == 3 and LayerProfile.load(place / "profile.st").groups > 3
    assert "--groups" in done("profile", "--help").stdout
    wrong = avss("profile", place / "model", "--texts", place / "texts.txt", "--out", out, "--groups", 0)
    assert wrong.exit_code == 2 and "--groups" in wrong.stderr
