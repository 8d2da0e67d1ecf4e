"GGUF files become ordinary models, once; a tokenizer that breaks words is reported. Against the model and tokenizer that the file was written from."
import json, os, re, shutil, time, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner
from conftest import shared
from tiny import VOCABULARY, tiny
from tiny_gguf import TEMPLATE, bpe_tokenizer, rounded, tiny_gguf, write_gguf
from avss_nb import Blocks, InputError, ModelWarning, PrunePlan, TeachingWorld, cli, load_model
from avss_nb.data import gguf
from avss_nb.data.sources import check_tokenizer, whole_words
from avss_nb.data.gguf import convert_gguf, find_gguf, gguf_cache, plain_weights

torch.set_num_threads(1)
TEXTS = "the people of the world\n\n7 of 1969  12", "<|im_start|>user\nhow are you<|im_end|> é"

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A tiny GGUF file, what it was written from, and a cache that the tests of this file share."
    place = tmp_path_factory.mktemp("gguf")
    model, tokenizer = tiny_gguf(place / "tiny.gguf")
    return place / "tiny.gguf", model, tokenizer, place / "cache"

@pytest.fixture
def own(made, tmp_path):
    "A copy of the file and of its cache, to be spoiled."
    file, *_, cache = made
    load_model(str(file), cache=cache)
    shutil.copytree(cache, tmp_path / "cache")
    return Path(shutil.copy(file, tmp_path)), tmp_path / "cache"

def logits(model, tokenizer, text=TEXTS[0]):
    with torch.no_grad(): return model(torch.tensor([tokenizer(text)["input_ids"]])).logits

def converted(cache): return sorted(path for path in (cache / "gguf").iterdir() if path.is_dir())

# ---------------------------------------------------------------- the model

@pytest.mark.parametrize("folder", [False, True])
def test_a_gguf_file_is_the_model_that_it_was_made_from(made, folder):
    file, model, tokenizer, cache = made
    found, its = load_model(str(file.parent if folder else file), cache=cache)
    assert torch.equal(logits(found, its), logits(model, tokenizer))
    for text in TEXTS: assert its(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert its.chat_template == TEMPLATE and its.special_tokens_map == tokenizer.special_tokens_map
    assert found.dtype == torch.float32 and not found.training
    assert found.config._name_or_path == str(file.parent if folder else file)

def test_it_is_as_transformers_reads_it(made):
    file, *_, cache = made
    found, its = load_model(str(file), cache=cache)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    assert torch.equal(logits(found, its), logits(theirs, its))

@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_packed_weights_are_read_exactly(tmp_path, kind):
    "Every number of the file is a float32, so the model that they are unpacked to has the same outputs, and is cut and saved as any other."
    model, tokenizer, kind = tiny("llama"), bpe_tokenizer(), GGMLQuantizationType[kind]
    write_gguf(tmp_path / "packed.gguf", model, tokenizer, kind=kind)
    original = logits(model, tokenizer)
    found, its = load_model(str(tmp_path / "packed.gguf"), cache=tmp_path)
    assert torch.equal(logits(found, its), logits(rounded(model, kind), tokenizer)) and not torch.equal(logits(found, its), original)
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert PrunePlan([1, 2], 4, "by hand", Blocks(found), its).apply().checks["logits_max_relative_error"] == 0

def test_no_trace_of_quantization(made, tmp_path):
    file, model, tokenizer, cache = made
    found, its = load_model(str(file), cache=cache)
    for mine in found, plain_weights(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)):
        assert not hasattr(mine.config, "quantization_config") and not getattr(mine, "is_quantized", False)
        assert getattr(mine, "hf_quantizer", None) is None and "quantization" not in mine.config.to_json_string()
        small = PrunePlan([1], 4, "by hand", Blocks(mine), its).apply()
        again = AutoModelForCausalLM.from_pretrained(small.save(tmp_path / "small"))
        with Blocks(mine).skip([1]): assert torch.equal(logits(again, its), logits(mine, its))

def test_dtype(made, tmp_path):
    file, model, tokenizer, cache = made
    found, its = load_model(str(file), "bfloat16", cache=cache)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(found, its), logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16), tokenizer))

def test_the_rule_of_words_and_numbers(tmp_path):
    "`smollm` cuts digits first, GPT-2 does not; a rule that nobody knows is reported, also when the cache answers."
    _, tokenizer = tiny_gguf(tmp_path / "digits.gguf", rule="smollm")
    tiny_gguf(tmp_path / "as_gpt2.gguf", rule="gpt-2")
    tiny_gguf(tmp_path / "unknown.gguf", rule="of-the-future")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        digits, gpt2 = (load_model(str(tmp_path / f"{name}.gguf"), cache=tmp_path)[1] for name in ("digits", "as_gpt2"))
    assert digits.tokenize("a\n\n7") == tokenizer.tokenize("a\n\n7") == ["a", "ĊĊ", "7"]
    assert gpt2.tokenize("a\n\n7") == ["a", "Ċ", "Ċ", "7"]
    for _ in range(2):
        with pytest.warns(ModelWarning, match="of-the-future"): load_model(str(tmp_path / "unknown.gguf"), cache=tmp_path)

# ---------------------------------------------------------------- which file

def test_which_file(made, tmp_path):
    file = made[0]
    assert find_gguf("teaching") is None and find_gguf("owner/name") is None and find_gguf(tmp_path) is None
    assert find_gguf(file) == find_gguf(file.parent) == file
    with pytest.raises(InputError, match="no model file .*absent.gguf"): find_gguf(tmp_path / "absent.gguf")
    for name in "a.gguf", "b.GGUF": shutil.copy(file, tmp_path / name)
    assert find_gguf(tmp_path / "b.GGUF").name == "b.GGUF"
    with pytest.raises(InputError, match=r"2 GGUF files \(a.gguf, b.GGUF\)"): find_gguf(tmp_path)
    shutil.copy(file, tmp_path / "big-00001-of-00002.gguf")
    for name in tmp_path / "big-00001-of-00002.gguf", tmp_path:
        with pytest.raises(InputError, match="big-00001-of-00002.gguf is one part .* --merge"): find_gguf(name)

def test_an_ordinary_model_wins(made, tmp_path):
    "A folder with a configuration and safetensors is read as ever; a configuration alone is not yet a model."
    shutil.copy(made[0], tmp_path / "x.gguf")
    (tmp_path / "config.json").write_text("{}")
    assert find_gguf(tmp_path) == tmp_path / "x.gguf"
    other = tiny("llama", seed=5)
    other.save_pretrained(tmp_path); made[2].save_pretrained(tmp_path)
    assert find_gguf(tmp_path) is None
    assert torch.equal(logits(load_model(str(tmp_path))[0], made[2]), logits(other, made[2]))

def test_what_lies_beside_the_file_is_not_read(made, tmp_path):
    file, model, tokenizer, _ = made
    shutil.copy(file, tmp_path / "x.gguf")
    bpe_tokenizer(400).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 9.0}')
    found, its = load_model(str(tmp_path), cache=tmp_path / "cache")
    assert its(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"] and not found.generation_config.do_sample

# ---------------------------------------------------------------- the cache

def test_the_second_time_it_is_not_converted(own, monkeypatch):
    file, cache = own
    monkeypatch.setattr(gguf, "convert_gguf", lambda *_: pytest.fail("converted again"))
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)  # gguf is not even needed
    load_model(str(file), cache=cache)
    moved = file.rename(file.with_name("other name.gguf"))
    load_model(str(moved), cache=cache)
    for part in converted(cache)[0].iterdir(): os.utime(part, (1, 1))  # copied to another disk
    load_model(str(file.parent), cache=cache)

def test_a_changed_file_gets_a_folder_of_its_own(own):
    file, cache = own
    model, tokenizer = tiny_gguf(file, seed=3)
    found, its = load_model(str(file), cache=cache)
    assert torch.equal(logits(found, its), logits(model, tokenizer)) and len(converted(cache)) == 2

def cut_short(path): path.write_bytes(path.read_bytes()[:-1000])
def flip_byte(path): path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

@pytest.mark.parametrize("name, spoil", [
    ("model.safetensors", cut_short), ("model.safetensors", flip_byte), ("model.safetensors", Path.unlink), ("tokenizer.json", Path.unlink),
    ("tokenizer.json", flip_byte), ("config.json", lambda path: path.write_text("{}")), ("source.json", Path.unlink),
    ("source.json", lambda path: path.write_text("[]")),
    ("source.json", lambda path: path.write_text(path.read_text().replace('"transformers": "', '"transformers": "0.')))])
def test_a_damaged_cache_is_made_again(own, made, name, spoil):
    file, cache = own
    spoil(converted(cache)[0] / name)
    found, its = load_model(str(file), cache=cache)
    assert torch.equal(logits(found, its), logits(made[1], made[2])) and len(converted(cache)) == 1
    assert its(TEXTS[0])["input_ids"] == made[2](TEXTS[0])["input_ids"]

def test_two_that_load_at_once_convert_once(made, tmp_path, monkeypatch):
    calls = []
    def slowly(*args):
        calls.append(args)
        time.sleep(0.3)
        convert_gguf(*args)
    monkeypatch.setattr(gguf, "convert_gguf", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: gguf.converted_gguf(made[0], tmp_path), range(2))
    assert len(calls) == 1 and first == second

def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in "AVSS_NB_CACHE", "XDG_CACHE_HOME": monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gguf_cache() == tmp_path / ".cache/avss_nb/gguf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert gguf_cache() == tmp_path / "xdg/avss_nb/gguf"
    monkeypatch.setenv("AVSS_NB_CACHE", str(tmp_path / "own"))
    assert gguf_cache() == tmp_path / "own/gguf" and gguf_cache(tmp_path) == tmp_path / "gguf"

def test_a_cache_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set AVSS_NB_CACHE"): load_model(str(made[0]), cache=tmp_path / "file")

# ---------------------------------------------------------------- what is refused

@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.999])
def test_a_file_that_is_cut_short(made, tmp_path, share):
    content = made[0].read_bytes()
    (tmp_path / "short.gguf").write_bytes(content[:int(share * len(content))])
    with pytest.raises(InputError, match="short.gguf could not be read as a GGUF language model"):
        load_model(str(tmp_path / "short.gguf"), cache=tmp_path / "cache")
    assert not converted(tmp_path / "cache")

def test_not_a_gguf_file(tmp_path):
    (tmp_path / "x.gguf").write_text("a letter to my aunt\n" * 50)
    with pytest.raises(InputError, match="could not be read as a GGUF language model"): convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]

def test_without_the_package(made, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'avss_nb\[gguf\]'"): load_model(str(made[0]), cache=tmp_path)
    assert not converted(tmp_path)

# ---------------------------------------------------------------- the command line

def avss(*args): return CliRunner().invoke(cli.app, [str(a) for a in args])

def done(*args):
    result = avss(*args)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result

def test_the_commands_take_gguf(made, tmp_path, monkeypatch):
    file, model, tokenizer, cache = made
    monkeypatch.setenv("AVSS_NB_CACHE", str(cache))
    (tmp_path / "texts.txt").write_text("\n\n".join(TeachingWorld().texts(12)))
    texts = ["--texts", tmp_path / "texts.txt", "--max-length", 64]
    assert file.name in done("profile", file, *texts, "--out", tmp_path / "p").stdout
    done("prune", file.parent, "--profile", tmp_path / "p", "--count", 1, "--out", tmp_path / "small")
    small, its = AutoModelForCausalLM.from_pretrained(tmp_path / "small"), AutoTokenizer.from_pretrained(tmp_path / "small")
    assert small.config.num_hidden_layers == 3 and its.chat_template == TEMPLATE and its(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert (small.generation_config.eos_token_id, small.generation_config.pad_token_id) == (2, 2)
    result = json.loads(done("evaluate", file, *texts, "--json", "-").stdout)
    model.save_pretrained(tmp_path / "original"); tokenizer.save_pretrained(tmp_path / "original")
    assert result == json.loads(done("evaluate", tmp_path / "original", *texts, "--json", "-").stdout)

@pytest.mark.parametrize("name, match", [("absent.gguf", "no model file"), ("empty.gguf", "could not be read")])
def test_the_commands_refuse(tmp_path, monkeypatch, name, match):
    monkeypatch.setenv("AVSS_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("empty.gguf").touch()
    for command in (["profile", name, "--texts", "teaching", "--out", "p"], ["evaluate", name, "--texts", "teaching"],
                    ["profile", name, "--labels", "empty.gguf", "--out", "p"]):
        result = avss(*command)
        assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1, result.output
        if "--labels" not in command: assert match in result.stderr

# ---------------------------------------------------------------- the tokenizer

def without_merges(tokenizer):
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    parts["model"]["merges"] = parts["model"]["merges"][:5]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(parts)), pad_token=tokenizer.pad_token)

def test_a_tokenizer_without_its_merges_is_reported(tmp_path):
    good = bpe_tokenizer(1000)
    known, split = whole_words(good)
    assert len(known) > 100 and not split
    broken = without_merges(good)
    assert whole_words(broken)[0] == known and len(whole_words(broken)[1]) > 0.9 * len(known)
    with pytest.warns(ModelWarning, match=r"splits \d+ of \d+ common words .* into \["): check_tokenizer(broken)
    model = tiny("llama")
    model.resize_token_embeddings(1000)
    model.save_pretrained(tmp_path / "model"); broken.save_pretrained(tmp_path / "model")
    with pytest.warns(ModelWarning, match="common words"): load_model(str(tmp_path / "model"))
    (tmp_path / "texts.txt").write_text("the people of the world\n\nwe know the water")
    result = done("evaluate", tmp_path / "model", "--texts", tmp_path / "texts.txt", "--json", "-")
    assert result.stderr.startswith("warning: the tokenizer splits") and result.stderr.count("\n") == 1 and json.loads(result.stdout)

def sound(tokenizer) -> int:
    "The number of words by which a sound tokenizer was judged."
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        check_tokenizer(tokenizer)
    known, split = whole_words(tokenizer)
    assert not split
    return len(known)

def test_no_false_alarm_for_the_teaching_model(teaching): sound(teaching[1])

@pytest.mark.parametrize("name, words", [("wiki12", 150), ("stories260k", 20)])
def test_no_false_alarm_for_shared_models(name, words): assert sound(AutoTokenizer.from_pretrained(shared(f"models/{name}"))) >= words

@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2", "minilm", "gemma3"])
def test_no_false_alarm_for_real_models(real, name): assert sound(AutoTokenizer.from_pretrained(real(name))) > 150

def test_a_tokenizer_that_says_nothing_about_its_vocabulary():
    class Strange: pass
    assert whole_words(Strange()) == ([], []) and check_tokenizer(Strange()) is None

# ---------------------------------------------------------------- rotary positions

LONG = torch.arange(5, 105)[None]

def scaled_llama(**rope):
    "A Llama whose heads are wide enough for fast and slow frequencies."
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                         max_position_embeddings=512, initializer_range=0.3, rope_parameters={"rope_theta": 10_000.0, **rope})
    return LlamaForCausalLM(config).eval()

def written(path, model, state=lambda writer: None):
    "The model as a GGUF file that also states what `state` adds to the writer."
    def finish(writer, *args, write=GGUFWriter.write_header_to_file, **kwargs):
        state(writer)
        return write(writer, *args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GGUFWriter, "write_header_to_file", finish)
        write_gguf(path, model, bpe_tokenizer())
    return path

def divisors(model):
    "As llama.cpp keeps them: unscaled frequency / scaled frequency."
    count = len(model.model.rotary_emb.inv_freq)
    return (10_000.0 ** -(torch.arange(count) / count) / model.model.rotary_emb.inv_freq).numpy()

def states_linear(writer):
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)

def states_yarn(writer):
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(128)

LLAMA3_OF_16 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
SCALED = {
    "llama3": ({**LLAMA3_OF_16, "original_max_position_embeddings": 8192}, None, "llama3"),
    "divisors of no known rule": (LLAMA3_OF_16, None, "longrope"),
    "linear": ({"rope_type": "linear", "factor": 4.0}, states_linear, "linear"),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, states_yarn, "yarn"),
}

@pytest.mark.parametrize("name", SCALED)
def test_scaled_rotary_positions_come_back(tmp_path, name):
    "transformers leaves them out without a word, and every token but the first is wrong; see findings/gguf_rope_scaling.sh."
    rope, state, kind = SCALED[name]
    model = scaled_llama(**rope)
    file = written(tmp_path / "x.gguf", model, state or (lambda writer: writer.add_tensor("rope_freqs.weight", divisors(model).astype("float32"))))
    found, _ = load_model(str(file), cache=tmp_path)
    assert found.config.rope_parameters["rope_type"] == kind
    with torch.no_grad(): right, ours = model(LONG).logits, found(LONG).logits
    assert (right - ours).abs().max() < 1e-4 * right.abs().max()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf")
    with torch.no_grad(): assert name == "llama3" or (right - theirs(LONG).logits).abs().max() > 0.05 * right.abs().max()

def test_a_file_without_scaling_has_none(tmp_path):
    ones = lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(16, "float32"))
    for state in ones, lambda writer: writer.add_rope_scaling_type(RopeScalingType.NONE):
        file = written(tmp_path / "x.gguf", scaled_llama(), state)
        assert load_model(str(file), cache=tmp_path)[0].config.rope_parameters["rope_type"] == "default"

def test_only_the_global_layers_of_gemma_are_scaled():
    config = Gemma3TextConfig()
    fields = {f"gemma3.rope.scaling.{name}": SimpleNamespace(contents=lambda value=value: value) for name, value in (("type", "linear"), ("factor", 8.0))}
    assert gguf._mend_rotary(config, SimpleNamespace(tensors=[], fields=fields)) == []
    assert config.rope_parameters["full_attention"]["rope_type"] == "linear" and config.rope_parameters["full_attention"]["factor"] == 8
    assert config.rope_parameters["sliding_attention"]["rope_type"] == "default"

def test_the_two_lists_of_longrope_are_read():
    config = LlamaConfig(max_position_embeddings=4096)
    tensors = [SimpleNamespace(name=f"rope_factors_{name}.weight", data=np.array(values)) for name, values in (("long", [1., 9.]), ("short", [1., 2.]))]
    stated = SimpleNamespace(contents=lambda: 1024)
    gguf._mend_rotary(config, SimpleNamespace(tensors=tensors, fields={"llama.rope.scaling.original_context_length": stated}))
    rope = config.rope_parameters
    assert (rope["rope_type"], rope["long_factor"], rope["short_factor"], rope["factor"]) == ("longrope", [1, 9], [1, 2], 4)

def test_a_scaling_without_a_place_is_reported(tmp_path):
    config = SimpleNamespace(max_position_embeddings=64)
    fields = {"gpt2.rope.scaling.factor": SimpleNamespace(contents=lambda: 2.0)}
    (note,) = gguf._mend_rotary(config, SimpleNamespace(tensors=[], fields=fields))
    assert "cannot express" in note

def test_weights_without_a_place_are_reported(tmp_path):
    file = written(tmp_path / "x.gguf", scaled_llama(), lambda writer: writer.add_tensor("blk.0.attn_q_norm.weight", np.ones(32, "float32")))
    with pytest.warns(ModelWarning, match="32 of the .* weights in the file have no place"): load_model(str(file), cache=tmp_path)

# ---------------------------------------------------------------- SmolLM2

@pytest.fixture(scope="module")
def smollm2(real, tmp_path_factory):
    "The GGUF file, and a cache in which it is converted already."
    file, cache = find_gguf(real("smollm2-gguf")), tmp_path_factory.mktemp("cache")
    (cache / "gguf").mkdir()
    shutil.copytree(real("smollm2"), cache / "gguf" / gguf.file_sha256(file), copy_function=os.link)
    return file, cache

@pytest.mark.real
def test_smollm2_from_gguf(smollm2):
    file, cache = smollm2
    model, tokenizer = load_model(str(file), cache=cache)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    text = "The capital of France is"
    assert torch.equal(logits(model, tokenizer, text), logits(theirs, tokenizer, text))
    assert tokenizer.decode(logits(model, tokenizer, text)[0, -1].argmax()) == " Paris"
    assert tokenizer.tokenize("in 1969:\n\n7  people") == ["in", "Ġ", "1", "9", "6", "9", ":", "ĊĊ", "7", "Ġ", "Ġpeople"]

@pytest.mark.real
def test_smollm2_is_cut(smollm2, tmp_path, monkeypatch):
    file, cache = smollm2
    monkeypatch.setenv("AVSS_NB_CACHE", str(cache))
    (tmp_path / "texts.txt").write_text("\n\n".join(TeachingWorld().texts(8)))
    done("profile", file, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "p")
    result = done("prune", file, "--profile", tmp_path / "p", "--fraction", 0.25, "--out", tmp_path / "small")
    said = re.search(r"verified: computes the same as the preview \(largest relative error (\S+)\), loads again completely", result.stdout)
    assert float(said[1]) == 0 and "before: " in result.stdout and "after: " in result.stdout
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "small"), AutoTokenizer.from_pretrained(tmp_path / "small")
    assert model.config.num_hidden_layers == 22 and model.generation_config.eos_token_id == 2
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(chat["input_ids"][0]).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    with torch.no_grad(): more = model.generate(**chat, max_new_tokens=5, do_sample=False)
    assert more.shape[1] > chat["input_ids"].shape[1]
