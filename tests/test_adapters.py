"Adapters reach experts too, come back from disk, belong to one model, and train under no_grad as well."
import json
import warnings
import numpy as np
import pytest
import torch
import transformers as tf
from architectures import made
from avss_nb import (
    Answers, Blocks, ContrastiveMitigator, HealingRecipe, InputError, LayerHealer, LayerPruner,
    Question, Recipe, silent
)
from avss_nb.hallucination.mitigation import student_of
from avss_nb.model.adapters import find_adaptable, adapted_weights, load_adapter
from tiny import VOCABULARY, tiny

peft = pytest.importorskip("peft")
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))

def logits(model, ids=IDS):
    with torch.no_grad(): return model(input_ids=ids).logits

def adapted(name, layer=4):
    "A student with adapters that change something, its blocks, and what was warned about."
    blocks = Blocks(made(name))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        student = student_of(blocks, (layer,), lora_rank=4)
    for n, p in student.named_parameters():
        if "lora_B" in n: torch.nn.init.normal_(p, std=.05)
    return student, blocks, [str(w.message) for w in heard if "adapters reach" in str(w.message)]

def reached(student, blocks, layer=4):
    "Share of the block's parameters that change when adapters are merged into them."
    block = student.merge_and_unload().get_submodule(blocks.path)[layer]
    before = dict(blocks[layer].named_parameters())
    changed = {n for n, p in block.named_parameters() if not torch.equal(p, before[n])}
    return sum(before[n].numel() for n in changed) / sum(p.numel() for p in before.values())

@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe", "deepseek_v3", "glm4_moe",
                                  "llama4_text", "granitemoe", "jetmoe", "phimoe", "minimax_m2", "kimi_linear", "qwen3_next"])
def test_adapters_reach_experts_and_come_back(name, tmp_path):
    student, blocks, warned = adapted(name)
    changed = logits(student)
    assert (changed - logits(blocks.model)).abs().max() > 1e-3
    student.save_pretrained(tmp_path)
    fresh = student_of(blocks, (4,)).requires_grad_(False)  # a copy of the base
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(fresh, tmp_path).eval()), changed)
    student(input_ids=IDS).logits.logsumexp(-1).sum().backward()
    assert all(p.grad.abs().sum() for p in student.parameters() if p.requires_grad), "every adapter learns"
    assert reached(student, blocks) > .9 and not warned

def test_merging_keeps_what_was_learned_where_blocks_share_weights():
    "PEFT adds up the adapters of all modules that use one weight (findings/merge_of_shared_blocks.sh)."
    blocks = Blocks(made("zamba2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student = student_of(blocks, tuple(range(len(blocks))), lora_rank=4)
    for n, p in student.named_parameters():
        if "lora_B" in n: torch.nn.init.normal_(p, std=.05)
    changed = logits(student)
    assert (changed - logits(blocks.model)).abs().max() > 1e-3
    torch.testing.assert_close(logits(student.merge_and_unload()), changed)

@pytest.mark.parametrize("name, share", [("dbrx", .15), ("laguna", .87)])
def test_what_adapters_cannot_reach_is_said(name, share, tmp_path):
    "PEFT cannot adapt parameters that another module reads (DBRX), and loses some names on the way through a file (Laguna)."
    student, blocks, warned = adapted(name)
    changed = logits(student)
    student.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(student_of(blocks, (4,)), tmp_path).eval()), changed)
    found = reached(student, blocks)
    assert found == pytest.approx(share, abs=.02) and warned == [
        f"the adapters reach {found:.0%} of the parameters of the chosen blocks; to train all of them, leave lora_rank out"]

def test_an_architecture_that_peft_refuses_is_named():
    with pytest.raises(InputError, match="PEFT cannot put adapters on MambaForCausalLM.*train without lora_rank"):
        student_of(Blocks(made("mamba")), (1,), lora_rank=4)

def answers(n=16):
    questions = [Question(f"q{i} w{i:03}", ("a",), prompt=f"w{i + 9:03} w{i + 40:03}", subject=str(i)) for i in range(n)]
    return Answers.given(questions, ["w100"] * n, [i % 2 == 0 for i in range(n)], [[-.1]] * n)

def tokenizer():
    from test_heads import masked_tokenizer
    return masked_tokenizer()

def mitigated(model, layers=(2,), **recipe):
    settings = Recipe(**dict(steps=3, batch_size=4, every=3, abstention="w009", learning_rate=1e-2) | recipe)
    return ContrastiveMitigator(model, tokenizer(), layers, settings, abstentions=["w009"]).train(answers(), progress=silent)

def test_trained_experts_are_written_into_the_original():
    torch.manual_seed(0)
    config = tf.MixtralConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                              intermediate_size=48, num_local_experts=4)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    result = mitigated(model, (1,), lora_rank=2)
    wanted = logits(result.model)
    torch.testing.assert_close(logits(result.apply()), wanted)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"} < changed
    assert all(name.startswith("model.layers.1.") for name in changed)

# --- whose adapter is it?

ROWS = torch.randint(3, VOCABULARY, (30, 40), generator=torch.Generator().manual_seed(1)).tolist()

def healed(cut, **recipe):
    settings = HealingRecipe(**dict(steps=3, batch_size=4, window=16, lora_rank=2, merge=False, learning_rate=1e-2) | recipe)
    return LayerHealer(cut, recipe=settings).heal(ROWS, progress=silent)

@pytest.fixture
def base(tmp_path):
    "A model read from a folder, as users have it."
    tiny("llama").save_pretrained(tmp_path / "base")
    return tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")

def test_an_adapter_belongs_to_the_cut_model(base, tmp_path):
    cut = LayerPruner(base).remove([1, 2]).apply()
    found = healed(cut)
    folder = found.save(tmp_path / "adapter")
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == f"{tmp_path / 'base'} without blocks 1-2" and base.name_or_path == str(tmp_path / "base")
    uncut = lambda: tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base")  # noqa: E731
    with pytest.raises(KeyError, match="layers.2"): peft.PeftModel.from_pretrained(uncut(), folder)
    with pytest.raises(OSError): tf.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(InputError, match="belongs to .* without blocks 1-2 .2 blocks.*with 4 blocks was given"): load_adapter(uncut(), folder)
    other = LayerPruner(uncut()).remove([0, 3]).apply().model  # as many blocks, but not these
    with pytest.raises(InputError, match="without blocks 1-2"): load_adapter(other, folder)
    again = load_adapter(LayerPruner(uncut()).remove([1, 2]).apply().model, folder)
    assert torch.equal(logits(again), logits(found.model))
    with pytest.raises(InputError, match="holds no adapter"): load_adapter(uncut(), tmp_path / "base")

def test_a_saved_base_is_found_by_its_folder(base, tmp_path):
    "Cut, saved, healed: transformers and PEFT load the pair from the adapter's folder alone."
    cut = LayerPruner(base).remove([1]).apply()
    cut.save(tmp_path / "cut")
    found = healed(cut)
    folder = found.save(tmp_path / "adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "cut")
    for model in (peft.AutoPeftModelForCausalLM.from_pretrained(folder), tf.AutoModelForCausalLM.from_pretrained(folder)):
        assert torch.equal(logits(model.eval()), logits(found.model))
    read = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")  # in another session
    again = mitigated(read, (1,), lora_rank=2).save(tmp_path / "mitigated")
    with pytest.raises(KeyError, match="layers.3"):
        peft.PeftModel.from_pretrained(tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), again)
    load_adapter(read, again)

def test_a_trained_model_no_longer_carries_the_name_of_its_origin(base, tmp_path):
    cut = LayerPruner(base).remove([1]).apply()
    merged = healed(cut, merge=True)
    assert merged.model.name_or_path == f"{tmp_path / 'base'} without block 1, healed"
    merged.save(tmp_path / "healed")
    assert merged.model.config._name_or_path == str(tmp_path / "healed") and cut.model.name_or_path.endswith("without block 1")
    adapter = mitigated(merged.model, (1,), lora_rank=2).save(tmp_path / "adapter")
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "healed")
    assert mitigated(base, (1, 2)).model.name_or_path == f"{tmp_path / 'base'}, layers 1-2 trained"
    uncut = mitigated(base, (1,), lora_rank=2).save(tmp_path / "uncut")  # of the original: any reader takes it
    peft.PeftModel.from_pretrained(tf.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), uncut)

# --- where somebody switched gradients off

@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("rank", [None, 2])
def test_training_where_gradients_are_switched_off(switch, rank):
    def both():
        healing = healed(LayerPruner(tiny("llama")).remove([1]).apply(verify=False), lora_rank=rank, distill=.5)
        return healing, mitigated(tiny("llama"), lora_rank=rank)
    wanted = both()
    with switch():
        found = both()
        assert not torch.is_grad_enabled()
    for a, b in zip(wanted, found):
        assert torch.equal(logits(a.model), logits(b.model)) and b.step == 3
        losses = [[row["loss"] for row in result.history] for result in (a, b)]
        assert losses[0] == losses[1] and np.isfinite(losses[1]).all()
