"""The architectures that the conformance suite goes through, as data: tiny random models whose layers differ.

A new architecture is a new line: name, the class of transformers that loads it, and the fields of its configuration that
make it tiny (beside SIZES). Where something cannot be done, `refused` says which step and which words the reason holds.
"""
from dataclasses import dataclass, field
from functools import cache
import torch
import transformers as tf

VOCABULARY, LAYERS = 96, 6
SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
EXTRA = {"decoder_start_token_id", "conv_kernel_size", "num_hidden_layers", "head_dim"}  # read by some classes, undeclared
CUTS = {"middle pair": [2, 3], "first": [0], "last": [5], "every other": [1, 3, 5]}

@dataclass(frozen=True)
class Architecture:
    "A tiny model: what to build, and what is refused."
    name: str
    head: str  # the Auto class that builds it: AutoModelFor…
    fields: dict = field(default_factory=dict)  # of its configuration, beside SIZES; None: without that one of SIZES
    type: str = ""  # the model_type, where it is not the name
    stack: str | None = None  # "encoder" or "decoder"
    refused: dict = field(default_factory=dict)  # step ("blocks", "profile", "middle pair" …) → a pattern of the reason

FULL, WINDOW, LINEAR, CHUNK = "full_attention", "sliding_attention", "linear_attention", "chunked_attention"
GROUPED = dict(num_key_value_heads=2)
HEAD = GROUPED | dict(head_dim=8)
WINDOWED = dict(sliding_window=8, layer_types=[FULL, WINDOW, WINDOW, FULL, WINDOW, FULL])
WINDOWED_BERT = dict(cls_token_id=1, sep_token_id=2, local_attention=8, layer_types=WINDOWED["layer_types"])
SLIDING = dict(sliding_window=8)
MIXED = dict(layer_types=[LINEAR, FULL, LINEAR, LINEAR, FULL, FULL])
GATED_DELTA = MIXED | dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4)
LLAMA4 = HEAD | dict(num_local_experts=4, intermediate_size_mlp=48, attention_chunk_size=8, moe_layers=[1, 2, 5],
                     no_rope_layers=[1, 0, 1, 1, 0, 1], layer_types=[CHUNK, FULL, CHUNK, CHUNK, FULL, CHUNK])
MLA = dict(num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8)
SSM = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_chunk_size=16)
GEMMA3N = dict(num_kv_shared_layers=0, hidden_size_per_layer_input=8, vocab_size_per_layer_input=96, laurel_rank=4,
               activation_sparsity_pattern=[.5, 0., .5, 0., 0., .5], intermediate_size=[48, 48, 48, 48, 48, 48])
FFN = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4, encoder_layers=6,
           decoder_layers=4, d_model=32, decoder_start_token_id=2)
T5 = dict(d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=6, num_decoder_layers=4, decoder_start_token_id=0)
CLIP = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, image_size=8, patch_size=4)
QWEN_SIGHT = dict(depth=LAYERS, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, patch_size=4)
QWEN_TEXT = HEAD | dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2]))

# what is refused, by step, and words of the reason
def each(reason, *steps): return {step: reason for step in steps or CUTS}
FIRST_TIES = each("protect the blocks", "first")
NO_LIST = each("no list of blocks that run once each and in order", "blocks")
PER_LAYER_TABLE = each("one table of embeddings holds a part for every layer")
CANNOT_TELL = each("even the original generates something else with its cache")
CACHE_BY_ENCODER = each("does not run .IndexError", "every other")  # the cache has as many slots as the encoder has blocks
TWO_STACKS = {
    "t5 encoder": FIRST_TIES | CACHE_BY_ENCODER, "t5 decoder": FIRST_TIES, "umt5 encoder": CACHE_BY_ENCODER,
    "longt5 encoder": FIRST_TIES | CACHE_BY_ENCODER, "longt5 decoder": FIRST_TIES,
    **{f"{name} {stack}": FIRST_TIES | each("experts", "every other")
       for name in ("switch_transformers", "nllb-moe") for stack in ("encoder", "decoder")},
    "prophetnet encoder": CANNOT_TELL | CACHE_BY_ENCODER,
    "prophetnet decoder": CANNOT_TELL | each("positions of its own", "profile")}

def causal(name, *fields, **settings): return Architecture(name, "CausalLM", merged(fields), **settings)
def masked(name, *fields, **settings): return Architecture(name, "MaskedLM", merged(fields), **settings)
def sighted(name, text, sight, *fields, **settings):
    "A model that also sees: its text stack is what can be cut; as many blocks for the pictures must not confuse it."
    parts = dict(text_config=SIZES | text, vision_config=sight)
    return Architecture(name, "ImageTextToText", parts | merged(fields), **settings)
def merged(fields): return {key: value for part in fields for key, value in part.items()}

ALL = [
    # dense decoders
    causal("llama", GROUPED),
    causal("mistral", GROUPED, SLIDING),
    causal("ministral", HEAD, WINDOWED),
    causal("qwen2", GROUPED, dict(use_sliding_window=True, sliding_window=8, max_window_layers=3)),
    causal("qwen3", HEAD, dict(use_sliding_window=True, sliding_window=8, max_window_layers=2)),
    causal("gemma", HEAD),
    causal("gemma2", HEAD, SLIDING),
    causal("gemma3_text", HEAD, WINDOWED),
    causal("gemma3n_text", HEAD, WINDOWED, GEMMA3N, refused=PER_LAYER_TABLE | each("several streams", "profile")),
    causal("gemma3n_text shared", HEAD, WINDOWED, GEMMA3N, dict(num_kv_shared_layers=2), type="gemma3n_text",
           refused=PER_LAYER_TABLE | each("several streams", "profile")),
    causal("gemma4_text", HEAD, WINDOWED, dict(hidden_size_per_layer_input=0, vocab_size_per_layer_input=96),
           refused=each("full_attention. is not homogeneous", "last", "every other")),
    causal("gemma4_text per layer", HEAD, WINDOWED, dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=96),
           type="gemma4_text", refused=PER_LAYER_TABLE),
    causal("vaultgemma", HEAD, WINDOWED),
    causal("phi", GROUPED),
    causal("phi3", GROUPED, SLIDING),
    causal("smollm3", GROUPED, dict(no_rope_layers=[1, 0, 1, 1, 0, 1])),
    causal("olmo", GROUPED),
    causal("olmo2", GROUPED),
    causal("olmo3", GROUPED, WINDOWED),
    causal("stablelm", GROUPED),
    causal("starcoder2", GROUPED, SLIDING),
    causal("cohere", GROUPED),
    causal("cohere2", HEAD, WINDOWED),
    causal("granite", GROUPED),
    causal("granite_swa", GROUPED, WINDOWED, dict(layer_rope_theta=[1e4, 1e2, 1e3, 1e4, 1e2, 1e3])),
    causal("glm", HEAD),
    causal("glm4", HEAD),
    causal("exaone4", GROUPED, WINDOWED),
    causal("ernie4_5", HEAD),
    causal("hunyuan_v1_dense", HEAD),
    causal("nemotron", HEAD),
    causal("persimmon"),
    causal("helium", HEAD),
    causal("arcee", HEAD),
    causal("apertus", GROUPED),
    causal("seed_oss", HEAD),
    causal("bitnet", GROUPED),
    causal("nanochat", GROUPED),
    causal("diffllama", GROUPED, refused=each("changed self_attn.lambda_init", "middle pair", "first", "every other")),
    causal("doge", GROUPED),
    causal("cwm", HEAD, WINDOWED),
    causal("modernbert-decoder", WINDOWED_BERT, refused=FIRST_TIES),
    causal("gpt2"),
    causal("gpt2 scaled", dict(scale_attn_by_inverse_layer_idx=True), type="gpt2",
           refused=each("scaled by the number of the block")),
    causal("gpt_bigcode"),
    causal("gpt_neo", dict(window_size=8, attention_types=[[["global", "local", "local"], 2]])),
    causal("gpt_neox"),
    causal("gpt_neox_japanese", refused=each("needs .*dense_bias", "last", "every other")),
    causal("gptj", dict(rotary_dim=4)),
    causal("codegen", dict(rotary_dim=4)),
    causal("bloom"),
    causal("falcon"),
    causal("falcon new", dict(new_decoder_architecture=True, num_kv_heads=2, alibi=True), type="falcon"),
    causal("mpt"),
    causal("opt", dict(ffn_dim=48, word_embed_proj_dim=32)),
    causal("xglm", dict(ffn_dim=48, attention_heads=4)),
    causal("biogpt"),
    causal("trocr", dict(d_model=32, decoder_layers=6, decoder_attention_heads=4, decoder_ffn_dim=48)),
    causal("ctrl", dict(dff=48)),
    causal("openai-gpt"),
    causal("xlnet", dict(d_inner=48, d_model=32, n_layer=6, n_head=4), refused=CANNOT_TELL | each("another order", "profile")),
    causal("xlm", dict(emb_dim=32, n_layers=6, n_heads=4), refused=NO_LIST),
    causal("cpmant", dict(dim_head=8, dim_ff=48, prompt_types=4, prompt_length=4, segment_types=4),
           refused=CANNOT_TELL | each("positions of its own", "profile")),
    causal("hrm_text", dict(head_dim=8, num_layers_per_stack=2), refused=NO_LIST),
    # mixtures of experts
    causal("mixtral", GROUPED, SLIDING, dict(num_local_experts=4)),
    causal("qwen2_moe", GROUPED, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
           shared_expert_intermediate_size=16, decoder_sparse_step=2, mlp_only_layers=[3])),
    causal("qwen3_moe", HEAD, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, mlp_only_layers=[1, 4])),
    causal("olmoe", GROUPED, dict(num_experts=4, num_experts_per_tok=2)),
    causal("flex_olmo", GROUPED, dict(num_experts=4, num_experts_per_tok=2)),
    causal("granitemoe", GROUPED, dict(num_local_experts=4)),
    causal("granitemoeshared", GROUPED, dict(num_local_experts=4, shared_intermediate_size=16)),
    causal("phimoe", GROUPED, dict(num_local_experts=4)),
    causal("gpt_oss", HEAD, WINDOWED, dict(num_local_experts=4, num_experts_per_tok=2)),
    causal("llama4_text", LLAMA4),
    causal("deepseek_v2", MLA, dict(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16,
           first_k_dense_replace=2)),
    causal("deepseek_v3", MLA, dict(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16,
           first_k_dense_replace=2, n_group=2, topk_group=1)),
    causal("dots1", GROUPED, dict(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16,
           first_k_dense_replace=2, n_group=1, topk_group=1, sliding_window=8, max_window_layers=3)),
    causal("glm4_moe", HEAD, dict(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16,
           first_k_dense_replace=2)),
    causal("ernie4_5_moe", GROUPED, dict(moe_num_experts=4, moe_k=2, moe_num_shared_experts=1, moe_intermediate_size=16,
           moe_layer_start_index=2, moe_layer_end_index=4)),
    causal("hunyuan_v1_moe", HEAD, dict(num_experts=4, moe_topk=2)),
    causal("minimax", HEAD, dict(num_local_experts=4, num_experts_per_tok=2, block_size=4),
           refused=each("a loop over past_key_values", "first")),
    causal("minimax_m2", HEAD, dict(num_local_experts=4, num_experts_per_tok=2)),
    causal("afmoe", HEAD, WINDOWED, dict(num_dense_layers=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
           num_shared_experts=1)),
    causal("exaone_moe", HEAD, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)),
    causal("jetmoe", dict(num_key_value_heads=2, kv_channels=8, num_local_experts=4)),
    causal("dbrx", dict(hidden_size=None, d_model=32, attn_config=dict(kv_n_heads=2, clip_qkv=8., rope_theta=1e4),
           ffn_config=dict(ffn_hidden_size=48, moe_num_experts=4, moe_top_k=2))),
    causal("laguna", HEAD, WINDOWED, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
           shared_expert_intermediate_size=16, num_attention_heads_per_layer=[4, 8, 4, 4, 8, 4], mlp_layer_types=["dense",
           "sparse", "dense", "sparse", "sparse", "sparse"])),
    causal("mimo_v2_flash", HEAD, WINDOWED, dict(v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2,
           moe_intermediate_size=16)),
    causal("longcat_flash", MLA, dict(head_dim=8, num_layers=6, ffn_hidden_size=48, expert_ffn_hidden_size=16,
           n_routed_experts=4, zero_expert_num=2, moe_topk=2)),
    # state spaces, linear attention, and hybrids
    causal("mamba", dict(state_size=8)),
    causal("mamba2", dict(state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8)),
    causal("falcon_mamba", dict(state_size=8)),
    causal("falcon_h1", GROUPED, SSM, dict(mamba_d_ssm=64)),
    causal("bamba", GROUPED, SSM, dict(attn_layer_indices=[1, 4])),
    causal("jamba", GROUPED, dict(num_experts=4, num_experts_per_tok=2, attn_layer_period=3, attn_layer_offset=1,
           mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False), refused=each("no period and offset", "middle pair")),
    causal("zamba", dict(mamba_d_state=8, mamba_dt_rank=4, n_mamba_heads=2, use_mamba_kernels=False,
           attention_hidden_size=64, attention_head_dim=16, num_key_value_heads=4, layers_block_type=["mamba", "mamba",
           "hybrid", "mamba", "hybrid", "mamba"]), refused=each("cannot be built with these blocks only", "middle pair")),
    causal("zamba2", dict(mamba_d_state=8, n_mamba_heads=8, mamba_headdim=8, chunk_size=8, attention_hidden_size=64,
           attention_head_dim=16, num_key_value_heads=4, use_mamba_kernels=False, layers_block_type=["mamba", "hybrid",
           "mamba", "mamba", "hybrid", "mamba"]), refused=each("no place for .*adapter_list", "every other")),
    causal("nemotron_h", HEAD, dict(num_hidden_layers=None, layers_block_type=["mamba", "attention", "mlp", "moe", "mamba",
           "mlp"], mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=8, chunk_size=8, n_routed_experts=4,
           moe_intermediate_size=16, moe_shared_expert_intermediate_size=16, n_groups=1),
           refused=each("can only be called on Attention layers", "every other")),
    causal("recurrent_gemma", HEAD, dict(attention_window_size=8, lru_width=32, block_types=["recurrent", "attention",
           "recurrent", "recurrent", "attention", "recurrent"])),
    causal("lfm2", GROUPED, dict(layer_types=["conv", FULL, "conv", "conv", FULL, FULL], block_auto_adjust_ff_dim=False)),
    causal("lfm2_moe", GROUPED, dict(layer_types=["conv", FULL, "conv", "conv", FULL, FULL], num_dense_layers=2,
           num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)),
    causal("qwen3_next", HEAD, GATED_DELTA, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
           shared_expert_intermediate_size=16, mlp_only_layers=[0, 3])),
    causal("qwen3_5_text", HEAD, GATED_DELTA),
    causal("olmo_hybrid", GROUPED, GATED_DELTA, dict(linear_num_value_heads=2)),
    causal("granitemoehybrid", GROUPED, SSM, dict(num_local_experts=4, shared_intermediate_size=16, layer_types=["mamba",
           "attention", "mamba", "mamba", "attention", "mamba"])),
    causal("kimi_linear", MLA, dict(num_experts=4, num_experts_per_token=2, moe_intermediate_size=16, q_lora_rank=None,
           linear_head_dim=8, linear_num_heads=4, layer_types=[LINEAR, FULL, LINEAR, LINEAR, FULL, LINEAR])),
    causal("rwkv", dict(attention_hidden_size=32), refused=FIRST_TIES),
    # encoders
    *[masked(name) for name in ("bert", "roberta", "camembert", "xlm-roberta", "roberta-prelayernorm", "electra",
           "distilbert", "deberta", "convbert", "fnet", "ibert",
                                "layoutlm", "mpnet", "mra", "nystromformer", "rembert", "roformer", "megatron-bert", "yoso",
                                       "data2vec-text", "ernie")],
    masked("deberta-v2", dict(relative_attention=True, pos_att_type=["p2c", "c2p"], conv_kernel_size=3),
           refused=each("a convolution runs beside its first block", "first")),
    masked("esm", refused=each("contact_head")),
    masked("deberta-v2 plain", type="deberta-v2"),
    masked("modernbert", WINDOWED_BERT, refused=FIRST_TIES),
    masked("albert", dict(embedding_size=16), refused=each("one shared block", "blocks")),
    masked("longformer", dict(attention_window=[4, 8, 4, 8, 4, 8], max_position_embeddings=160),
           refused=each("positions of its own", "profile")),
    masked("big_bird", dict(attention_type="original_full"), refused=each("changed attention.seed", "middle pair", "first",
           "every other")),
    masked("squeezebert", dict(embedding_size=32, q_groups=1, k_groups=1, v_groups=1, post_attention_groups=1,
           intermediate_groups=1, output_groups=1), refused=NO_LIST),
    masked("mobilebert", dict(embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16)),
    masked("eurobert", GROUPED),
    masked("nomic_bert"), masked("gte"), masked("jina_embeddings_v3"),
    masked("flaubert", dict(emb_dim=32, n_layers=6, n_heads=4), refused=NO_LIST),
    masked("funnel", dict(num_hidden_layers=None, block_sizes=[2, 2, 2], num_decoder_layers=2, d_model=32, n_head=4,
           d_head=8, d_inner=48), refused=each("several stacks of blocks", "blocks")),
    # encoder-decoders, each stack
    *[Architecture(f"{name} {stack}", "Seq2SeqLM", fields, name, stack, TWO_STACKS.get(f"{name} {stack}", {})) for name,
           fields in {
        "t5": T5, "umt5": T5, "longt5": T5 | dict(local_radius=4), "switch_transformers": T5 | dict(num_experts=4,
               num_sparse_encoder_layers=3, num_sparse_decoder_layers=2),
        "bart": FFN, "mbart": FFN, "pegasus": FFN, "marian": FFN, "m2m_100": FFN, "blenderbot-small": FFN, "mvp": FFN,
               "plbart": FFN,
        "prophetnet": dict(num_hidden_layers=None, num_encoder_layers=6, num_decoder_layers=4, num_encoder_attention_heads=4,
               num_decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, decoder_start_token_id=2),
        "nllb-moe": FFN | dict(num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2)}.items() for stack in ("encoder",
               "decoder")],
    # text stacks of models that also see
    sighted("llava", GROUPED | dict(model_type="llama"), CLIP | dict(model_type="clip_vision_model", projection_dim=16)),
    sighted("mistral3", HEAD | SLIDING | dict(model_type="mistral"), CLIP | dict(model_type="pixtral", head_dim=8)),
    sighted("paligemma", HEAD | dict(model_type="gemma"), CLIP | dict(model_type="siglip_vision_model"),
           dict(projection_dim=32), refused=CANNOT_TELL),
    sighted("gemma3", HEAD | WINDOWED | dict(model_type="gemma3_text"), CLIP | dict(model_type="siglip_vision_model"),
           dict(mm_tokens_per_image=4)),
    sighted("qwen2_vl", GROUPED | QWEN_TEXT, dict(depth=LAYERS, embed_dim=16, hidden_size=32, num_heads=2, patch_size=4)),
    sighted("qwen2_5_vl", GROUPED | QWEN_TEXT | dict(use_sliding_window=True, sliding_window=8, max_window_layers=3),
           QWEN_SIGHT),
    sighted("qwen3_vl", QWEN_TEXT, QWEN_SIGHT | dict(deepstack_visual_indexes=[0, 1, 2]),
           refused=each("deepstack_visual_embeds.*protect blocks 0, 1, 2", "middle pair", "first", "every other")),
    sighted("idefics3", GROUPED | dict(model_type="llama"), CLIP),
    sighted("smolvlm", GROUPED | dict(model_type="llama"), CLIP),
    sighted("internvl", HEAD | dict(model_type="qwen2"), CLIP | dict(image_size=[8, 8], patch_size=[4, 4])),
    sighted("aya_vision", HEAD | WINDOWED | dict(model_type="cohere2"), CLIP | dict(model_type="siglip_vision_model")),
    sighted("llama4", LLAMA4, CLIP | dict(vision_output_dim=16, projector_input_dim=16, projector_output_dim=16)),
    sighted("mllama", GROUPED | dict(cross_attention_layers=[1, 4], rope_parameters=dict(rope_type="default",
           rope_theta=1e4)), dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_global_layers=1,
           attention_heads=2, image_size=8, patch_size=4, intermediate_layers_indices=[0], vision_output_dim=32),
           refused=NO_LIST),
    *[Architecture(f"whisper {stack}", "SpeechSeq2Seq", FFN | dict(num_mel_bins=4, max_source_positions=20,
           max_target_positions=64), "whisper", stack, each("reads input_features, not text",
           "profile")) for stack in ("encoder", "decoder")],
]

REGISTRY = {a.name: a for a in ALL}

def known(kind: str) -> set[str]:
    "The fields that a configuration has."
    config = tf.AutoConfig.for_model(kind)
    return set(config.to_dict()) | set(config.attribute_map)

@cache
def made(name: str):
    "The model; its weights are large enough that every block matters, and none is zero or one."
    a = REGISTRY[name]
    kind = a.type or name
    fields = {key: value for key, value in SIZES.items() if key in known(kind)} | a.fields
    config = tf.AutoConfig.for_model(kind, **{key: value for key, value in fields.items() if value is not None})
    torch.manual_seed(0)
    model = getattr(tf, f"AutoModelFor{a.head}").from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if not p.requires_grad: continue  # tables of positions
            if p.dim() > 1 and p.std() < .1: p.mul_(4)
            p.add_(torch.randn_like(p) * .02)
    return model
