"Whatever a model was read from, it is saved whole: plain weights, generation settings, processor, and the modules of an embedder."
import copy
import json
import subprocess
import sys
import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from avss_nb import (
    Answers, Blocks, ContrastiveMitigator, HealingRecipe, InputError, LayerHealer,
    LayerProfiler, LayerPruner, Question, Recipe, silent
)
from avss_nb.base.basics import text_tokenizer
from avss_nb.model.saving import companion_files, is_quantised, save_model, source_folder
from conftest import real_model
from tiny import tiny

TEXTS = ["abc def ghi " * 20] * 4

def byte_tokenizer():
    "Bytes as tokens."
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    t = Tokenizer(models.BPE(vocabulary, []))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.add_special_tokens(["<pad>", "<s>", "</s>"])
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", pad_token="<pad>")

def speaker():
    torch.manual_seed(0)
    config = tf.LlamaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                            intermediate_size=48, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return tf.AutoModelForCausalLM.from_config(config).eval()

def expanded(model):
    "As transformers leaves a model that was read from GGUF: plain floats, and a field that says otherwise."
    class Quantiser:
        quantization_config = type("Config", (), {"quant_method": "gguf"})()
    model.config.quantization_config = {"quant_method": "gguf", "modules_to_not_convert": None}
    model.hf_quantizer, model.quantization_method = Quantiser(), "gguf"
    return model

def contradicting(model):
    model.generation_config.do_sample, model.generation_config.temperature, model.generation_config.top_p = False, .9, .6
    return model

def saved_in_each_way(model, tokenizer, folder, **recipe):
    "Folders with the model cut, healed and mitigated."
    cut = LayerPruner(model, tokenizer).remove([1]).apply()
    settings = HealingRecipe(steps=2, batch_size=2, window=16, every=1, checkpoint_every=1, **recipe)
    healed = LayerHealer(cut, recipe=settings).heal(TEXTS, progress=silent, checkpoint=folder / "checkpoints")
    questions = [Question(f"q{i}", ("a",), subject=str(i)) for i in range(8)]
    answers = Answers.given(questions, ["a"] * 8, [i % 2 == 0 for i in range(8)], [[-.1]] * 8)
    trained = ContrastiveMitigator(model, tokenizer, [1], Recipe(steps=2, batch_size=4, every=1)).train(answers, progress=silent)
    return [(result.save(folder / name), result.model)
            for name, result in {"cut": cut, "healed": healed, "mitigated": trained}.items()]

@pytest.mark.parametrize("change", [expanded, contradicting])
def test_a_model_is_saved_in_each_way_whatever_it_was_read_from(change, tmp_path):
    source = tmp_path / "source"
    byte_tokenizer().save_pretrained(source)
    (source / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    model, tokenizer = change(speaker()), tf.AutoTokenizer.from_pretrained(source)
    before = copy.deepcopy(model.config.to_dict())
    for folder, result in saved_in_each_way(model, tokenizer, tmp_path):
        assert (folder / "preprocessor_config.json").read_text() == (source / "preprocessor_config.json").read_text()
        assert "quantization" not in (folder / "config.json").read_text()
        settings = json.loads((folder / "generation_config.json").read_text())
        if change is contradicting: assert (settings["temperature"], settings["top_p"]) == (.9, .6) and not settings.get("do_sample")
        again, info = tf.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()) and getattr(again, "hf_quantizer", None) is None
        ids = torch.arange(5, 45)[None]
        with torch.no_grad(): assert torch.equal(again(input_ids=ids).logits, result(input_ids=ids).logits)
        assert again.generation_config.temperature == result.generation_config.temperature
    assert model.config.to_dict() == before, "the original is untouched"
    if change is expanded: assert model.config.quantization_config and model.hf_quantizer

# --- quantised or not: what the weights are, not what the field says

def integers(model): model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
def eight_bits(model): model.lm_head.weight.data = model.lm_head.weight.data.to(torch.float8_e4m3fn)

def packed_buffers(model):
    "As GPTQ: no weight, but integers in a buffer."
    layer = nn.Module()
    layer.register_buffer("qweight", torch.zeros(4, 48, dtype=torch.int32))
    model.model.layers[0].mlp.up_proj = layer
    model.config.quantization_config = {"quant_method": "gptq"}

def own_class(model):
    "As torchao: a class of tensor that says it is float32."
    kind = type("Packed", (torch.Tensor,), {"__module__": "torchao.tensor"})
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(48, 32).as_subclass(kind))

@pytest.mark.parametrize("pack", [integers, eight_bits, packed_buffers, own_class])
def test_quantised_weights_are_refused(pack):
    model = speaker()
    pruner = LayerPruner(model)
    assert not is_quantised(model)
    pack(model)
    assert is_quantised(model)
    with pytest.raises(InputError, match="quantised"): pruner.remove([1]).apply()

@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_plain_weights_are_plain_whatever_the_field_says(name):
    model = tiny(name, dtype=torch.bfloat16)
    random = torch.random.get_rng_state()
    model.config.quantization_config = {"quant_method": "gptq"}
    assert not is_quantised(model) and torch.equal(random, torch.random.get_rng_state())

# --- what belongs to a model travels with it

def seeing(folder):
    "A model that sees, with its processor."
    text = dict(model_type="llama", vocab_size=300, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                intermediate_size=48, max_position_embeddings=128)
    sight = dict(model_type="clip_vision_model", hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                 image_size=8, patch_size=4, projection_dim=16)
    torch.manual_seed(0)
    model = tf.AutoModelForImageTextToText.from_config(tf.AutoConfig.for_model("llava", text_config=text, vision_config=sight)).eval()
    pytest.importorskip("PIL")
    images = tf.CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    processor = tf.LlavaProcessor(images, byte_tokenizer(), patch_size=4, vision_feature_select_strategy="default")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return tf.AutoModelForImageTextToText.from_pretrained(folder).eval(), processor

def test_a_processor_travels_and_reads_texts(tmp_path):
    model, processor = seeing(tmp_path / "seeing")
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "seeing")
    LayerPruner(model, tokenizer).remove([1]).apply().save(tmp_path / "beside")  # found beside the tokenizer
    LayerPruner(model, processor).remove([1]).apply().save(tmp_path / "given")
    for folder in "beside", "given": assert isinstance(tf.AutoProcessor.from_pretrained(tmp_path / folder), tf.LlavaProcessor)
    texts = ["hello world", "another text of words", "and a third one"] * 2
    a, b = (LayerProfiler(model, reader).profile(texts, silent) for reader in (tokenizer, processor))
    assert a.tokens == b.tokens and b.tokens > 20
    plans = [LayerPruner(model, reader).plan(search="greedy", count=1, texts=texts) for reader in (tokenizer, processor)]
    assert plans[0].trace == plans[1].trace
    with pytest.raises(InputError, match=r"CLIPImageProcessor\w* makes pixel_values, not token ids"):
        LayerProfiler(model, processor.image_processor).profile(texts, silent)

def embedder(folder):
    "An encoder as sentence-transformers saves it: pooling and a further module in folders of their own."
    torch.manual_seed(0)
    model = tf.BertModel(tf.BertConfig(vocab_size=260, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48)).eval()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    names = ["", "1_Pooling", "2_Dense", "../secret"]
    (folder / "modules.json").write_text(json.dumps([{"idx": i, "path": name, "type": "x"} for i, name in enumerate(names)]))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    (folder / "config_sentence_transformers.json").write_text("{}")
    for name in names[1:]:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(f'{{"name": "{name}"}}')
    (folder / "2_Dense/model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("of another model")
    return tf.AutoModel.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder)

def test_an_embedder_keeps_its_pooling(tmp_path):
    model, tokenizer = embedder(tmp_path / "embedder")
    cut = LayerPruner(model, tokenizer).remove([1]).apply()
    (tmp_path / "cut").mkdir()
    folder = cut.save(tmp_path / "cut")
    for name in "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/model.safetensors":
        assert (folder / name).read_bytes() == (tmp_path / "embedder" / name).read_bytes(), name
    assert not (folder / "README.md").exists() and not (folder / "secret").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"embedder", "cut", "secret"}, "nothing is written outside the folder"
    again = tf.AutoModel.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder)
    LayerPruner(*again).remove([0]).apply().save(tmp_path / "twice")  # and from there on
    assert (tmp_path / "twice/1_Pooling/config.json").is_file()

def test_a_source_is_a_folder_that_exists(tmp_path):
    model = speaker()
    assert source_folder(model) is None
    for name in "organisation/model", "a b/c d", "x" * 300, str(tmp_path / "gone"):
        model.name_or_path = name
        assert source_folder(model) is None, name
    (tmp_path / "modules.json").write_text("no json")
    assert companion_files(tmp_path) == [tmp_path / "modules.json"]
    save_model(model, None, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}

def test_a_tokenizer_is_its_own_text_tokenizer():
    tokenizer = byte_tokenizer()
    class Holder: pass
    mistral = Holder()
    mistral.tokenizer, mistral.convert_ids_to_tokens = object(), list  # mistral-common keeps another tokenizer inside
    assert text_tokenizer(tokenizer) is tokenizer and text_tokenizer(mistral) is mistral
    class Processor(Holder):
        def __call__(self): pass
    holder = Processor()
    holder.tokenizer = tokenizer
    assert text_tokenizer(holder) is tokenizer and text_tokenizer(print) is print

# --- real models

real = pytest.mark.real

@real
def test_smollm2_is_cut_on_the_command_line_and_talks(tmp_path):
    "Chat template and generation settings travel; what was read in GGUF leaves no trace."
    source = real_model("smollm2")
    (tmp_path / "t.txt").write_text("The cat sat on the mat.\n\nParis is the capital of France.\n\nWater boils at a hundred degrees.\n")
    def command(*words):
        run = subprocess.run([sys.executable, "-m", "avss_nb.cli", *map(str, words)], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
    command("profile", source, "--texts", tmp_path / "t.txt", "--out", tmp_path / "p.safetensors")
    command("prune", source, "--profile", tmp_path / "p.safetensors", "--fraction", "0.25", "--out", tmp_path / "cut")
    config = json.loads((tmp_path / "cut/config.json").read_text())
    assert config["num_hidden_layers"] == 22 and "quantization_config" not in config
    tokenizer, model = tf.AutoTokenizer.from_pretrained(tmp_path / "cut"), tf.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    assert tokenizer.chat_template == tf.AutoTokenizer.from_pretrained(source).chat_template
    before = tf.GenerationConfig.from_pretrained(source)
    assert (model.generation_config.eos_token_id, model.generation_config.bos_token_id) == (before.eos_token_id, before.bos_token_id)
    ids = tokenizer("The capital of France", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=8, do_sample=False).shape[1] > ids["input_ids"].shape[1]

@real
def test_a_gguf_file_that_transformers_read_leaves_no_trace(tmp_path):
    "transformers keeps calling the model quantised and does not save it; its weights are plain floats."
    pytest.importorskip("gguf")
    file = next(real_model("smollm2-gguf").glob("*.gguf"))
    model = tf.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).eval()
    assert model.config.quantization_config is not None and not is_quantised(model)
    cut = LayerPruner(model).remove([12, 13]).apply()
    assert "quantization" not in (cut.save(tmp_path / "cut") / "config.json").read_text()
    with Blocks(model).skip([12, 13]), torch.no_grad(): wanted = model(torch.arange(5, 45)[None]).logits
    with torch.no_grad(): found = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")(torch.arange(5, 45)[None]).logits
    assert torch.equal(found, wanted)

@real
def test_minilm_is_cut_by_what_its_users_read(tmp_path):
    source = real_model("minilm")
    model, tokenizer = tf.AutoModel.from_pretrained(source), tf.AutoTokenizer.from_pretrained(source)
    texts = ["The cat sat on the mat.", "Paris is the capital of France.", "Neural networks learn.", "He cooked dinner.", "A violin has four strings."]
    plan = LayerPruner(model, tokenizer).plan(search="greedy", count=1, texts=texts)
    folder = plan.apply().save(tmp_path / "cut")
    def embedded(model):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad(): states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return (states * mask).sum(1) / mask.sum(1)
    cosines = torch.cosine_similarity(embedded(model), embedded(tf.AutoModel.from_pretrained(folder)))
    found = plan.similarity(texts)
    assert found.value == pytest.approx(cosines.mean().item(), abs=1e-5) and found.low < found.value < found.high
    assert (folder / "1_Pooling/config.json").is_file() and (folder / "modules.json").is_file()
