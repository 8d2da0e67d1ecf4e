"What goes by the number of a block and is no list: features added between blocks, rules beside lists, blocks that only a file announces."
import copy
import json
import pytest
import torch
import transformers as tf
from safetensors import safe_open
from torch import nn
from transformers.models.llama import modeling_llama
from architectures import LAYERS, REGISTRY, SIZES, known, made
from avss_nb import Blocks, InputError, LayerPruner
from avss_nb.model.rules import arguments_by_number, injected_features

# --- features added between blocks

def seeing():
    "Qwen3-VL with three features, and a batch with a picture of four tokens."
    model = copy.deepcopy(made("qwen3_vl"))
    for name, token in dict(image_token_id=90, video_token_id=89, vision_start_token_id=91, vision_end_token_id=92).items():
        setattr(model.config, name, token)
    v = model.config.vision_config
    ids = torch.tensor([[5, 6, 91] + [90] * (16 // v.spatial_merge_size**2) + [92, 7, 8, 9, 10]])
    pixels = torch.randn(16, v.in_channels * v.temporal_patch_size * v.patch_size**2)
    return model, dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels,
                       image_grid_thw=torch.tensor([[1, 4, 4]]), mm_token_type_ids=(ids == 90).int())

class Identity(nn.Module):
    def forward(self, hidden_states, *args, **kwargs): return hidden_states

@pytest.mark.parametrize("removed", [(0,), (2,), (1, 4), (3,), (5,), (3, 4, 5)], ids=str)
def test_a_model_that_sees_computes_the_same_with_a_picture_or_is_refused(removed):
    model, batch = seeing()
    by_hand = copy.deepcopy(model)
    for i in removed: by_hand.model.language_model.layers[i] = Identity()
    plan = LayerPruner(model).remove(removed)
    if min(removed) < 3:
        with pytest.raises(InputError, match="deepstack_visual_embeds.*after blocks 0 to 2.*protect blocks 0, 1, 2"): plan.apply()
        return
    small = plan.apply().model
    with torch.no_grad():
        wanted, found = by_hand(**batch).logits, small(**batch).logits
        assert not torch.allclose(wanted, model(**batch).logits, atol=1e-3)
    torch.testing.assert_close(found, wanted)

def test_a_feature_that_nobody_has_heard_of_is_found(monkeypatch):
    class Adding(modeling_llama.LlamaModel):
        def forward(self, input_ids=None, attention_mask=None, tones=None, **kwargs):
            states = self.embed_tokens(input_ids)
            mask = kwargs.pop("mask", None)
            positions = torch.arange(states.shape[1])[None]
            rotary = self.rotary_emb(states, positions)
            for number, layer in enumerate(self.layers):
                states = layer(states, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
                if tones is not None and number < len(tones): states = states + tones[number]
            return tf.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(states))
    torch.manual_seed(0)
    model = Adding(tf.LlamaConfig(**SIZES, num_key_value_heads=2)).eval()
    blocks = Blocks(model)
    assert injected_features(blocks) == {"tones": LAYERS}
    with pytest.raises(InputError, match="adds tones to the states.*cannot be removed"): LayerPruner(model).remove([5]).apply()

KNOWN = {"deepstack_visual_embeds", "deepstack_features", "per_layer_inputs"}

def test_all_stacks_of_transformers_that_add_features_are_seen():
    "Each class whose loop over blocks reads a feature of the picture is found by its code."
    for kind, name in [("qwen3_vl", "Qwen3VLTextModel"), ("qwen3_vl_moe", "Qwen3VLMoeTextModel"), ("granite4_vision", "Granite4VisionTextModel"),
                       ("qwen3_omni_moe", "Qwen3OmniMoeThinkerTextModel"), ("granite_docling", "GraniteDoclingTextModel"),
                       ("cohere_compass", "CohereCompassTextModel")]:
        try: module = __import__(f"transformers.models.{kind}.modeling_{kind}", fromlist=[name])
        except ImportError: continue  # of another version of transformers
        stack = getattr(module, name)
        assert arguments_by_number(stack.__new__(stack), "layers") & KNOWN, name

def test_no_other_architecture_is_suspected():
    "A model that only reads text has nothing to inject, so no cut is refused that used to be exact."
    for name in ("llama", "gemma2", "deberta-v2", "mamba", "t5 encoder", "granite_swa", "gemma4_text", "bamba", "bert", "gpt2", "xlnet"):
        assert not injected_features(Blocks(made(name), REGISTRY[name].stack)), name

# --- rules beside lists

RULED = {"gemma3_text": dict(sliding_window=8, sliding_window_pattern=3, head_dim=8),
         "exaone4": dict(sliding_window=8, sliding_window_pattern=3), "smollm3": dict(no_rope_layer_interval=3),
         "afmoe": dict(global_attn_every_n_layers=3, sliding_window=8, head_dim=8, num_dense_layers=2, num_experts=4,
                       num_experts_per_tok=2, moe_intermediate_size=16, num_shared_experts=1),
         "llama4_text": dict(no_rope_layer_interval=3, head_dim=8, num_local_experts=4, intermediate_size_mlp=48,
                             attention_chunk_size=8, interleave_moe_layer_step=2)}
RULES = ("sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval", "global_attn_every_n_layers",
         "interleave_moe_layer_step")
LISTS = ("layer_types", "no_rope_layers", "moe_layers")

def ruled(kind):
    sizes = {key: value for key, value in (SIZES | dict(num_key_value_heads=2)).items() if key in known(kind)}
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(tf.AutoConfig.for_model(kind, **sizes, **RULED[kind])).eval()

@pytest.mark.parametrize("removed", [[2], [5], [1, 2], [0, 3], [0, 1, 3]], ids=str)
@pytest.mark.parametrize("kind", RULED)
def test_a_rule_agrees_with_the_list_or_is_left_out(kind, removed, tmp_path):
    LayerPruner(ruled(kind)).remove(removed).apply().save(tmp_path / "cut")
    file = tmp_path / "cut/config.json"
    data, told = json.loads(file.read_text()), json.loads((tmp_path / "cut/pruning.json").read_text())["layer_kinds"]
    rules, lists = {name for name in RULES if name in data}, {name: data.pop(name) for name in LISTS if name in data}
    file.write_text(json.dumps(data))  # as somebody who reads no lists
    again = tf.AutoConfig.from_pretrained(tmp_path / "cut")
    agrees = {name: list(getattr(again, name)) == value for name, value in lists.items()}
    assert not rules or all(agrees.values()), f"{rules} contradict {lists}"
    assert {name: "regular" if agrees[name] else "irregular" for name in agrees} == {name: told[name] for name in agrees}

# --- blocks that only the file announces

@pytest.mark.parametrize("name, field", [("glm4_moe", "num_nextn_predict_layers"), ("deepseek_v3", "num_nextn_predict_layers"),
                                         ("qwen3_5_text", "mtp_num_hidden_layers")])
def test_blocks_without_weights_are_not_announced(name, field, tmp_path):
    a = REGISTRY[name]
    sizes = {key: value for key, value in SIZES.items() if key in known(name)}
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(tf.AutoConfig.for_model(name, **sizes, **a.fields, **{field: 2})).eval()
    LayerPruner(model).remove([5]).apply().save(tmp_path / "cut")
    data, told = (json.loads((tmp_path / "cut" / file).read_text()) for file in ("config.json", "pruning.json"))
    with safe_open(tmp_path / "cut/model.safetensors", "pt") as file: assert not any("mtp" in key or ".5." in key for key in file.keys())
    assert data[field] == 0 and told["multi_token_prediction"]["announced"] == {field: 2}
    assert getattr(model.config, field) == 2, "the original is untouched"
