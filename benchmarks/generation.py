"""Two questions about generation, answered side by side in one run, as ratios.

    python benchmarks/generation.py                            # on the embedded teaching model, CPU
    python benchmarks/generation.py --shape llama-7b           # pruning alone: random weights, CUDA, bf16
    python benchmarks/generation.py --shape gpt2               # the same in the shape of GPT-2 small, CPU

Labelling: `Evaluator.answer` over 2,000 questions, with the probability of every answer, against a loop around `generate` over the same prompts
in batches of the same size. Pruning pays: speed and memory of the original and of the model without a quarter of its blocks. --out adds the
tables to benchmarks/RESULTS.md."""
import argparse, datetime
from pathlib import Path
import numpy as np, pandas as pd, torch, transformers
from avss_nb import Evaluator, LayerPruner, TeachingWorld, load_teaching_model
from profiling import SHAPES, add_results, build, markdown, seconds

def generate(model, words, prompts, size, new, **settings):
    "The plain loop: prompts in the order given, padded on the left."
    words.padding_side, found = "left", []
    with torch.no_grad():
        for i in range(0, len(prompts), size):
            batch = words(prompts[i:i + size], return_tensors="pt", padding=True).to(model.device)
            out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=new, do_sample=False,
                                 pad_token_id=0, **settings)
            found += words.batch_decode(out[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)
    return found

def labelling(count, repeats):
    model, tokenizer = load_teaching_model()
    world = TeachingWorld()
    questions = world.questions("known", count // 2) + world.questions("unknown", count - count // 2)
    prompts, stops = [q.prompt for q in questions], [*{s for q in questions for s in q.stop}]
    evaluator = Evaluator(model, tokenizer)
    size, new, ends = evaluator.batch_size, evaluator.max_new_tokens, [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(stops)]
    ways = {f"generate, {new} tokens": lambda: generate(model, tokenizer, prompts, size, new),
            f"generate until {' or '.join(map(repr, stops))}": lambda: generate(model, tokenizer, prompts, size, new, eos_token_id=ends),
            "Evaluator.answer": lambda: evaluator.answer(questions)}
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items(): times[name].append(seconds(way))
    base = np.array(times[next(iter(times))])
    return pd.DataFrame({name: {"× generate": f"{np.median(t / base):.2f} ({(t / base).min():.2f} to {(t / base).max():.2f})",
                                "questions a second": f"{count / np.median(t):,.0f}"} for name, t in ((name, np.array(t)) for name, t in times.items())}).T

def pays(shape, device, repeats, new=32):
    "Prefill and generation of the original against the model without a quarter of its blocks (the last ones: which ones does not matter here)."
    original, rows, length = build(shape, device), *SHAPES[shape][1:]
    blocks = original.config.num_hidden_layers
    smaller = LayerPruner(original).remove(range(blocks - blocks // 4, blocks)).apply().model
    ids = torch.randint(3, original.config.vocab_size, (rows, length // 2), device=device, generator=torch.Generator(device).manual_seed(0))
    def prefill(model):
        with torch.no_grad(): model(input_ids=ids, use_cache=False)
    def go_on(model): model.generate(input_ids=ids[:, :16], attention_mask=torch.ones_like(ids[:, :16]), min_new_tokens=new, max_new_tokens=new, do_sample=False, pad_token_id=0)
    found = {"original": [], "pruned": []}
    models = dict(zip(found, (original, smaller)))
    for run in range(repeats + 1):  # the first one warms
        for name, model in models.items():
            times = seconds(prefill, model), seconds(go_on, model)
            if run: found[name].append(times)
    times = {name: np.median(t, 0) for name, t in found.items()}
    def weight(model): return sum(p.numel() * p.element_size() for p in model.parameters())
    rows = {"blocks": [blocks, smaller.config.num_hidden_layers], "parameters": [sum(p.numel() for p in m.parameters()) for m in models.values()],
            "weights, MB": [weight(m) / 1e6 for m in models.values()],
            "cache, KB a token": [2 * m.config.num_hidden_layers * kv_width(m) * next(m.parameters()).element_size() / 1e3 for m in models.values()],
            "prefill, tokens a second": [ids.numel() / times[name][0] for name in models],
            "generation, tokens a second": [len(ids) * new / times[name][1] for name in models]}
    return pd.DataFrame({name: {"original": f"{a:,.0f}", "pruned": f"{b:,.0f}", "ratio": f"{b / a:.2f}"} for name, (a, b) in rows.items()}).T

def kv_width(model) -> int:
    "Numbers that keys take for one token in one block; values take as many."
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads * config.hidden_size // config.num_attention_heads

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", choices=SHAPES, default="teaching"); p.add_argument("--device"); p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--questions", type=int, default=2000); p.add_argument("--out", action="store_true")
    a = p.parse_args()
    device = a.device or ("cuda" if a.shape == "llama-7b" else "cpu")
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    told = f"{where}; torch {torch.__version__}, transformers {transformers.__version__}; {datetime.date.today()}; median (range) of {a.repeats} runs side by side."
    parts = []
    if a.shape == "teaching" and device == "cpu":
        parts += [f"## Labelling {a.questions:,} questions, teaching model", told, markdown(labelling(a.questions, a.repeats))]
    parts += [f"## Pruning a quarter of the blocks, {a.shape} shape", told, markdown(pays(a.shape, device, a.repeats))]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if a.out: add_results(text)

if __name__ == "__main__": main()
