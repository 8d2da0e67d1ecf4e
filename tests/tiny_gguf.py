"A tiny language model as a GGUF file, written by the package `gguf`, and the same model and tokenizer as transformers have them."
import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from avss_nb.data.sources import COMMON_WORDS
from tiny import VOCABULARY, tiny

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}

def bpe_tokenizer(size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    "A byte-level tokenizer that cuts every digit by itself, as that of SmolLM2; most of its vocabulary are common words."
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    raw.decoder = decoders.ByteLevel()
    texts = [" ".join(COMMON_WORDS), "a\n\nb  c\n\n  \n"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=SPECIAL[1], eos_token=SPECIAL[2], unk_token=SPECIAL[0], pad_token=SPECIAL[2])
    made.chat_template = TEMPLATE
    return made

def write_gguf(path, model, tokenizer, rule: str = "smollm", kind=gguf.GGMLQuantizationType.F32) -> None:
    "A Llama of transformers as llama.cpp keeps it; matrices of this kind where their rows have blocks of 32."
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    vocabulary += [f"[PAD{n}]" for n in range(len(vocabulary), config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in vocabulary])
    writer.add_token_merges(merges(tokenizer))
    writer.add_bos_token_id(1); writer.add_eos_token_id(2); writer.add_unk_token_id(0); writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        values, stored = pairs_last(name, tensor, config).numpy(), kind if packed(tensor) else gguf.GGMLQuantizationType.F32
        writer.add_tensor(new_name(name), gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()

def packed(tensor) -> bool: return tensor.dim() == 2 and tensor.shape[1] % 32 == 0

def merges(tokenizer) -> list[str]:
    import json
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]

def new_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    if module in NAMES: return f"{NAMES[module]}.{kind}"
    number, part = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{number}.{PARTS[part]}.{kind}"

def pairs_last(name: str, tensor: torch.Tensor, config) -> torch.Tensor:
    "llama.cpp turns neighbouring rows of the queries and keys, transformers turns rows that are half a head apart."
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None: return tensor.contiguous()
    return tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape).contiguous()

def tiny_gguf(path, seed: int = 0, rule: str = "smollm"):
    "Write the file; returns the model and the tokenizer that it was made from."
    model, tokenizer = tiny("llama", seed), bpe_tokenizer()
    write_gguf(path, model, tokenizer, rule)
    return model, tokenizer

def rounded(model, kind):
    "The same model with the values that its matrices have after they were packed as this kind."
    with torch.no_grad():
        for tensor in filter(packed, model.parameters()):
            tensor.copy_(torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), kind), kind)))
    return model
