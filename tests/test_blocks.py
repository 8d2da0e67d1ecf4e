"Blocks are found, watched and skipped exactly, in every architecture of the first round."
import numpy as np
import pytest
import torch
from torch import nn
from avss_nb import Blocks, Evaluator, InputError, LayerProfiler, LayerPruner
from avss_nb.model.blocks import fingerprint_blocks, find_sublayer
from tiny import CONFIGS, PATHS, padded_batch, tiny

def hooks(model): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

@pytest.mark.parametrize("name", CONFIGS)
def test_finds_the_stack(name):
    model = tiny(name)
    blocks = Blocks(model)
    assert blocks.path == PATHS[name] and len(blocks) == 4 and hooks(model) == 0
    assert find_sublayer(blocks[0], "attention") is not find_sublayer(blocks[0], "mlp")

@pytest.mark.parametrize("name", CONFIGS)
def test_watch_sees_the_residual_stream_and_its_parts(name):
    model, batch, seen, parts = tiny(name), padded_batch(), {}, {}
    with torch.no_grad(), Blocks(model).watch(lambda i, x, y: seen.__setitem__(i, (x, y)),
            {site: (lambda i, a, site=site: parts.__setitem__((site, i), a)) for site in ("attention", "mlp")}):
        states = model(**batch, output_hidden_states=True).hidden_states
    for i in range(4):
        x, y = seen[i]
        assert torch.equal(x, states[i])
        if i < 3: assert torch.equal(y, states[i + 1])  # the last one of a causal model is taken after the final norm
        if name in ("llama", "qwen2", "gpt2", "opt"):  # sequential pre-norm: the update is the sum of its parts
            torch.testing.assert_close(y - x, parts["attention", i] + parts["mlp", i].reshape(x.shape), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layers", [[0], [3], [1, 2]])
def test_skip_equals_removal(name, layers):
    model, batch = tiny(name), padded_batch()
    blocks = Blocks(model)
    parent, leaf = blocks.path.rsplit(".", 1)
    with torch.no_grad():
        intact = model(**batch).logits
        with blocks.skip(layers): skipped = model(**batch).logits
        assert torch.equal(model(**batch).logits, intact) and not torch.equal(skipped, intact)
        setattr(model.get_submodule(parent), leaf, nn.ModuleList(b for i, b in enumerate(blocks.modules) if i not in layers))
        if name == "qwen2":  # its loop reads the mask by position: the removal by hand must also move the attention types
            model.config.layer_types = [t for i, t in enumerate(model.config.layer_types) if i not in layers]
        removed = model(**batch, **({"use_cache": False} if name not in ("bert", "distilbert") else {})).logits
    assert torch.equal(skipped, removed)

@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gpt_neox", "qwen2"])
def test_skipped_generation_uses_the_cache_correctly(name):
    model, ids = tiny(name), padded_batch((6,))["input_ids"]
    settings = dict(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None)
    with Blocks(model).skip([0, 2]):
        assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))

def test_hooks_go_after_an_error():
    model = tiny("llama")
    blocks = Blocks(model)
    def explode(*_): raise RuntimeError("boom")
    for context in (blocks.watch(explode), blocks.skip([1])):
        with pytest.raises(RuntimeError), context:
            model(**padded_batch())
            raise RuntimeError("boom")
    assert hooks(model) == 0

def test_no_stack_is_refused():
    with pytest.raises(InputError, match="Linear|Sequential"): Blocks(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="layers 0 to 3"):
        with Blocks(tiny("llama")).skip([4]): pass

def test_what_is_no_model_and_no_layer_is_refused():
    for make in Blocks, LayerPruner, LayerProfiler, Evaluator:
        for given in "gpt2", None:
            with pytest.raises(InputError, match=f"{given}.* where a model is expected"): make(given)
    pruner = LayerPruner(tiny("llama"))
    for layers in "10", "3", [1.5], 3, [None]:
        with pytest.raises(InputError, match="whole numbers"): pruner.remove(layers)
    assert pruner.remove(np.array([2, 1])).removed == pruner.remove(torch.tensor([1, 2])).removed == (1, 2)

def test_fingerprint_knows_models_apart_but_not_precisions():
    llama = fingerprint_blocks(Blocks(tiny("llama")))
    assert llama == fingerprint_blocks(Blocks(tiny("llama", dtype=torch.bfloat16)))
    assert llama != fingerprint_blocks(Blocks(tiny("llama", seed=1)))
    from avss_nb.model.blocks import _spread
    blocks = Blocks(tiny("llama"))
    _spread.cache_clear()
    with torch.device("meta"): assert llama == fingerprint_blocks(blocks)  # whatever the default device

def test_a_stack_is_named_by_a_part_of_its_path():
    "In an encoder–decoder made of two BERTs the word encoder stands in both paths: it means the one in which it comes first."
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel
    half = dict(vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_size=32)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**half, num_hidden_layers=3), BertConfig(**half, num_hidden_layers=2))
    model = EncoderDecoderModel(config).eval()
    assert Blocks(model, "encoder").path == "encoder.encoder.layer" and Blocks(model, "decoder").path == "decoder.bert.encoder.layer"
    with pytest.raises(InputError, match="choose one with stack= .--stack."): Blocks(model)
    with pytest.raises(InputError, match="stack 'middle' was given, but EncoderDecoderModel has lists of modules at encoder.encoder.layer, decoder"): Blocks(model, "middle")

def test_skipped_blocks_are_told():
    blocks = Blocks(tiny("llama"))
    with blocks.skip([1]), Blocks(blocks.model).skip([3]): assert Blocks(blocks.model).skipped() == [1, 3]
    assert blocks.skipped() == []
