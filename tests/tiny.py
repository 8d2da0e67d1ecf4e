"Tiny random models of several architectures, for exact tests."
import torch
import transformers as tf

VOCABULARY = 600
SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=128)
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2),
    "qwen2": lambda: tf.Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=2, use_sliding_window=True, sliding_window=8, max_window_layers=2),
    "gpt2": lambda: tf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=4, n_positions=128),
    "opt": lambda: tf.OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**SIZES, intermediate_size=48),
    "bert": lambda: tf.BertConfig(**SIZES, intermediate_size=48),
    "distilbert": lambda: tf.DistilBertConfig(vocab_size=VOCABULARY, dim=32, hidden_dim=48, n_layers=4, n_heads=4, max_position_embeddings=128),
}
CAUSAL = ("llama", "qwen2", "gpt2", "opt", "gpt_neox")
PATHS = {"llama": "model.layers", "qwen2": "model.layers", "gpt2": "transformer.h", "opt": "model.decoder.layers",
         "gpt_neox": "gpt_neox.layers", "bert": "bert.encoder.layer", "distilbert": "distilbert.transformer.layer"}

def tiny(name: str, seed: int = 0, dtype=torch.float32):
    "A random model; weights are large enough that every block matters."
    torch.manual_seed(seed)
    make = tf.AutoModelForCausalLM if name in CAUSAL else tf.AutoModelForMaskedLM
    model = make.from_config(CONFIGS[name]()).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(4)
    return model.to(dtype)

def padded_batch(lengths=(9, 4, 7), seed: int = 0, side: str = "right"):
    "Random token ids with padding on one side; returns a batch for the model."
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids, mask = torch.zeros(len(lengths), longest, dtype=torch.long), torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, n in enumerate(lengths):
        at = slice(0, n) if side == "right" else slice(longest - n, longest)
        ids[row, at] = torch.randint(3, VOCABULARY, (n,), generator=generator)
        mask[row, at] = 1
    return {"input_ids": ids, "attention_mask": mask}
