"""What does profiling cost? Ratios to the bare forward pass, measured side by side in one run.

    python benchmarks/profiling.py                      # GPT-2-small shape, random weights, CPU, 8 × 256 tokens a batch
    python benchmarks/profiling.py --shape llama-7b     # on CUDA, bf16, 8 × 2048
    python benchmarks/profiling.py --shape smollm2      # on CUDA, bf16, 32 × 256
    python benchmarks/profiling.py --shape teaching     # a small model, 64 × 64
    python benchmarks/profiling.py --scaling            # also: tokens, layers, hidden size
    python benchmarks/profiling.py --memory             # also: peak memory, each way in a process of its own

The bare forward pass is that of the whole model, head included, without a cache. The profiler leaves the head out, which is why it can be faster
than bare on a small model with a large vocabulary; the row without head tells how much that is. Models and profilers are made before the clock
starts; what making a profiler costs, once a model, is told below the table. The authors' procedure takes a text at a time where a whole batch would
not fit (llama-7b), and fewer batches. --out adds the tables to benchmarks/RESULTS.md with machine, versions and date."""
import argparse, copy, datetime, os, platform, subprocess, sys, time
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pandas as pd, torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from avss_nb import SITES, LayerProfiler, Moments, load_teaching_model, silent
from avss_nb.layers.profiler import DEFAULT_SITES

SHAPES = {  # name → model, rows of a batch, tokens of a row
    "gpt2": (lambda layers=12, hidden=768: GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=hidden, n_head=hidden // 64)), 8, 256),
    "llama-7b": (lambda layers=32, hidden=4096: LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=hidden * 43 // 16,
                 num_attention_heads=hidden // 128, vocab_size=32000, max_position_embeddings=4096)), 8, 2048),
    "smollm2": (lambda layers=30, hidden=576: LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 192, vocab_size=49152, max_position_embeddings=2048)), 32, 256),
    "teaching": (lambda layers=12, hidden=128: LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=3 * hidden,
                 num_attention_heads=hidden // 32, vocab_size=467, max_position_embeddings=128)), 64, 64)}

def build(shape, device, **size):
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16 if shape in ("llama-7b", "smollm2") else torch.float32)
        model = SHAPES[shape][0](**size).eval()
    torch.set_default_dtype(torch.float32)
    return model

def rows_for(shape, model, batches):
    _, rows, length = SHAPES[shape]
    return torch.randint(3, model.config.vocab_size, (rows * batches, length), generator=torch.Generator().manual_seed(0)).tolist()

def each_batch(shape, model, rows, size=None):
    size = size or SHAPES[shape][1]
    for i in range(0, len(rows), size):
        ids = torch.tensor(rows[i:i + size], device=model.device)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

# --- the ways ---

def bare(shape, model, rows):
    with torch.no_grad():
        for batch in each_batch(shape, model, rows): model(**batch, use_cache=False)

def bare_body(shape, model, rows):
    with torch.no_grad():
        for batch in each_batch(shape, model, rows): model.base_model(**batch, use_cache=False)

def profiled(sites, replays=True):
    made = {}
    def way(shape, model, rows):
        if made.get("model") is not model:
            made.update(model=model, profiler=profiler(shape, model, sites))
            if not replays: made["profiler"]._replays = lambda: None
        made["profiler"].profile(rows, silent)
    return way

def profiler(shape, model, sites): return LayerProfiler(model, sites=sites, batch_size=SHAPES[shape][1], max_length=SHAPES[shape][2])

def hidden_states(shape, model, rows):
    "The statistics of the default sites, computed from output_hidden_states."
    with torch.no_grad():
        for batch in each_batch(shape, model, rows):
            states = model(**batch, use_cache=False, output_hidden_states=True).hidden_states
            for x, y in zip(states, states[1:]): default_sites(x.flatten(0, 1), y.flatten(0, 1))

def default_sites(x, y):
    Moments.of(y, reference=x)
    Moments.of((y.float() - x.float()) / x.float().square().mean(1, keepdim=True).sqrt())

def run_with_cache(shape, model, rows, made={}):
    "TransformerLens (4.0 or newer) on a copy of the model: what enters and leaves every block from `run_with_cache`, then the statistics of the default sites."
    from transformer_lens.model_bridge import TransformerBridge
    if made.get("of") is not model:  # the tokenizer is not used, but without one it would look for its own
        made.update(of=model, bridge=TransformerBridge.boot_transformers("model", hf_model=copy.deepcopy(model), device=model.device, dtype=model.dtype,
                                                                        tokenizer=load_teaching_model()[1]))
    with torch.no_grad():
        for batch in each_batch(shape, model, rows):
            _, cache = made["bridge"].run_with_cache(batch["input_ids"], names_filter=lambda n: n.count(".") == 2 and n.endswith(("hook_in", "hook_out")))
            for i in range(model.config.num_hidden_layers):
                default_sites(*(cache[f"blocks.{i}.hook_{at}"].flatten(0, 1) for at in ("in", "out")))

def authors(shape, model, rows):
    "The AVSS authors' public procedure, restated: hooks that copy every output to the host, and the backward pass."
    held = {}
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    def hook(i): return lambda _, args, out: held.__setitem__(i, (out[0] if isinstance(out, tuple) else out).detach().float().cpu().numpy())
    handles = [block.register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    for batch in each_batch(shape, model, rows, 1 if shape == "llama-7b" else None):
        model(**batch, use_cache=False, labels=batch["input_ids"]).loss.backward()
        model.zero_grad()
        for a in held.values(): a.mean(1).var(-1, ddof=1).mean(), (np.abs(a) < 1e-5).mean()
    for handle in handles: handle.remove()

WAYS = {"bare forward": bare, "bare forward without head": bare_body, "profile, 2 sites (default)": profiled(DEFAULT_SITES), "profile, 5 sites": profiled(SITES),
        "output_hidden_states, then the same statistics": hidden_states, "the authors' procedure": authors}
if find_spec("transformer_lens"): WAYS["TransformerLens run_with_cache, then the same statistics"] = run_with_cache

# --- measuring ---

def seconds(way, *args):
    if torch.cuda.is_available(): torch.cuda.synchronize()
    start = time.perf_counter()
    way(*args)
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter() - start

def table(shape, model, batches, repeats, ways):
    "Seconds a token of every way, side by side."
    def part(name): return batches if name != "the authors' procedure" or shape != "llama-7b" else 1 / SHAPES[shape][1]  # one text is slow enough
    rows = {name: rows_for(shape, model, max(1, batches))[:round(part(name) * SHAPES[shape][1])] for name in ways}
    for name, way in ways.items(): way(shape, model, rows[name][:SHAPES[shape][1]])  # warm
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items(): times[name].append(seconds(way, shape, model, rows[name]) / sum(map(len, rows[name])))
    ratios = {name: np.array(t) / times["bare forward"] for name, t in times.items()}
    return pd.DataFrame({name: {"× bare forward": f"{np.median(r):.3f} ({r.min():.3f} to {r.max():.3f})", "tokens a second": f"{1 / np.median(times[name]):,.0f}"}
                         for name, r in ratios.items()}).T

def peak(shape, way, batches, threads) -> float:
    """Peak memory of a way in a process of its own, MB (Linux: ru_maxrss would begin with the peak of the process that started it).

    glibc keeps what is freed, as much as several hundred MB and another amount in each run, of the bare forward pass too. Here it gives back
    every buffer of 64 KB or more at once, so that the peak is what was in use at one time; building the model does not count."""
    script = (f"import sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r}); torch.set_num_threads({threads}); import profiling as p\n"
              f"m = p.build({shape!r}, 'cpu'); data = p.rows_for({shape!r}, m, {batches})\n"
              f"open('/proc/self/clear_refs', 'w').write('5'); p.WAYS[{way!r}]({shape!r}, m, data)\n"
              "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024)")
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                                env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}).stdout.split()[-1])

def memory(shape, threads):
    _, rows, length = SHAPES[shape]
    few, many = 1, max(2, round(100_000 / (rows * length)))
    found = {name: [peak(shape, name, n, threads) for n in (few, many)] for name in ("bare forward", "bare forward without head", "profile, 2 sites (default)", "profile, 5 sites")}
    base = found["bare forward without head"]
    return pd.DataFrame({name: {f"{n * rows * length:,} tokens": f"{a:,.0f} MB ({a - b:+,.0f})" for n, a, b in zip((few, many), values, base)}
                         for name, values in found.items()}).T

def gpu_memory(shape, model):
    base, found = None, {}
    for name in ("bare forward", "profile, 2 sites (default)", "profile, 5 sites"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        WAYS[name](shape, model, rows_for(shape, model, 2))
        most = torch.cuda.max_memory_allocated()
        base = base or most
        found[name] = {"GiB": f"{most / 2**30:.2f}", "above bare": f"{most / base - 1:+.2%}"}
    return pd.DataFrame(found).T

def scaling(shape, device, repeats):
    way, rows = WAYS["profile, 2 sites (default)"], {}
    def cost(batches=2, **size):
        model = build(shape, device, **size)
        data = rows_for(shape, model, batches)
        way(shape, model, data[:SHAPES[shape][1]])
        return min(seconds(way, shape, model, data) for _ in range(repeats))
    plain = SHAPES[shape][0].__defaults__
    for name, factor, change in (("tokens", 10, {"batches": 20}), ("tokens", 100, {"batches": 200}), ("layers", 4, {"layers": plain[0] * 4}), ("hidden size", 4, {"hidden": plain[1] * 4})):
        if device == "cpu" and shape == "gpt2" and (name == "hidden size" or factor == 100): continue  # minutes
        ratio = cost(**change) / cost()
        rows[f"{factor} × {name}"] = {"time": f"× {ratio:.2f}", "exponent": f"{np.log(ratio) / np.log(factor):.2f}"}
    return pd.DataFrame(rows).T

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", choices=SHAPES, default="gpt2"); p.add_argument("--device"); p.add_argument("--batches", type=int, default=4)
    p.add_argument("--repeats", type=int, default=5); p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--scaling", action="store_true"); p.add_argument("--memory", action="store_true"); p.add_argument("--out", action="store_true")
    p.add_argument("--without-replays", action="store_true", help="also: the default profile without recordings (CUDA)")
    p.add_argument("--without", nargs="*", default=[], help="ways to leave out, by a part of their name")
    a = p.parse_args()
    device = a.device or ("cuda" if a.shape in ("llama-7b", "smollm2") else "cpu")
    torch.set_num_threads(a.threads)
    model, ways = build(a.shape, device), {name: way for name, way in WAYS.items() if not any(part in name for part in a.without)}
    if a.without_replays: ways["profile, 2 sites, without replays"] = profiled(DEFAULT_SITES, replays=False)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{a.threads} CPU threads ({platform.processor() or platform.machine()})"
    _, rows, length = SHAPES[a.shape]
    parts = [f"## {a.shape}, {rows} × {length} tokens a batch, {a.batches} batches, {model.dtype}".replace("torch.", ""),
             f"{where}; torch {torch.__version__}, transformers {transformers.__version__}; {datetime.date.today()}; median (range) of {a.repeats} runs side by side.",
             markdown(table(a.shape, model, a.batches, a.repeats, ways)),
             f"Making a `LayerProfiler`, once a model: {min(seconds(profiler, a.shape, model, SITES) for _ in range(3)):.2f} s."]
    if device == "cuda": parts.append("Most GPU memory allocated, weights included:\n\n" + markdown(gpu_memory(a.shape, model)))
    elif a.memory: parts.append("Peak memory in use (against bare forward without head), freed buffers given back at once:\n\n" + markdown(memory(a.shape, a.threads)))
    if a.scaling: parts.append("Scaling of the default profile:\n\n" + markdown(scaling(a.shape, device, 2)))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if a.out: add_results(text)

def add_results(text):
    with open(Path(__file__).parent / "RESULTS.md", "a") as file: file.write("\n" + text)

def markdown(table) -> str:
    lines = ["| | " + " | ".join(table.columns) + " |", "| --- " * (1 + len(table.columns)) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(table.index, table.to_numpy())])

if __name__ == "__main__": main()
