"""What do a search and an ablation cost, beside an earlier version? Each runs in a process of its own, in turn.

    git worktree add --detach /tmp/earlier f8cff10
    python benchmarks/search.py MODEL --earlier /tmp/earlier --count 8               # a folder; on CUDA where there is one
    python benchmarks/search.py MODEL --earlier /tmp/earlier --count 3 --texts 24 --repeats 1

Reads prose from the notebooks of this repository, 256 tokens a text. The two versions must choose the same blocks, and their losses are compared.
The peak is that of CUDA memory above the weights, beside the peak of one bare forward pass of a batch."""
import argparse, json, os, platform, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = """
import json, sys, time, torch
order = json.load(sys.stdin)
try: from avss_nb.pruner import LayerPruner; from avss_nb.profiler import LayerProfiler; from avss_nb.basics import silent
except ImportError: from avss_nb import LayerPruner, LayerProfiler, silent
from transformers import AutoConfig, AutoModelForCausalLM
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(order["threads"])
if order["shape"]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**order["shape"]))
else: model = AutoModelForCausalLM.from_pretrained(order["model"])
model = model.to(device, getattr(torch, order["dtype"])).eval()
def wait(): torch.cuda.synchronize() if device == "cuda" else None
def timed(call):
    wait()
    if device == "cuda": torch.cuda.reset_peak_memory_stats()
    before, began = torch.cuda.memory_allocated() if device == "cuda" else 0, time.perf_counter()
    found = call()
    wait()
    seconds = time.perf_counter() - began
    return found, seconds, (torch.cuda.max_memory_allocated() - before) / 2**20 if device == "cuda" else 0
def bare():
    ids = torch.tensor(order["rows"][:16], device=device)
    with torch.no_grad(): model(ids, use_cache=False)
bare()
LayerProfiler(model, ablation=True, batch_size=16).profile(order["rows"][:2], silent)  # compiles what is compiled once
pruner = LayerPruner(model)
plan, searched, peak = timed(lambda: pruner.plan(count=order["count"], search="greedy", texts=order["rows"], progress=silent))
profile, ablated, _ = timed(lambda: LayerProfiler(model, ablation=True, batch_size=16).profile(order["rows"], silent))
_, _, least = timed(bare)
losses = profile.losses.sum(0) / profile.predicted.sum()
print(json.dumps({"search": searched, "ablation": ablated, "peak": peak, "bare peak": least, "steps": plan.trace, "losses": losses.tolist()}))
"""

SHAPES = {"smollm2": dict(model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                          num_key_value_heads=3, tie_word_embeddings=True, initializer_range=0.1)}  # random weights, for a machine without the model

def rows(folder: str, texts: int) -> list[list[int]]:
    "Texts of 256 tokens from the notebooks of this repository; random ones for a mere shape."
    if folder in SHAPES:
        import torch
        return torch.randint(3, SHAPES[folder]["vocab_size"], (texts, 256), generator=torch.Generator().manual_seed(0)).tolist()
    from transformers import AutoTokenizer
    cells = [c for path in sorted((ROOT / "nbs").rglob("*.ipynb")) for c in json.loads(path.read_text())["cells"]]
    prose = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    ids = AutoTokenizer.from_pretrained(folder)(prose)["input_ids"]
    return [ids[i * 256:][:256] for i in range(texts)]

def work(where: Path, order: dict) -> dict:
    "What one version needs, in a process of its own."
    done = subprocess.run([sys.executable, "-c", WORK], input=json.dumps(order), cwd=where, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(where), os.environ.get("PYTHONPATH", "")])},
                          capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or smollm2: its shape with random weights")
    parser.add_argument("--earlier", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    order = {"model": str(Path(options.model).resolve()), "shape": SHAPES.get(options.model), "count": options.count, "dtype": options.dtype, "threads": options.threads,
             "rows": rows(options.model, options.texts)}
    runs = [(work(options.earlier, order), work(ROOT, order)) for _ in range(options.repeats)]
    print(f"{Path(options.model).name}, {options.dtype}, {options.texts} texts × 256 tokens, {options.count} blocks; {platform.machine()}")
    for name in "search", "ablation":
        ratios = [new[name] / old[name] for old, new in runs]
        print(f"{name:9} {', '.join(f'{old[name]:.1f} s → {new[name]:.1f} s' for old, new in runs)}; ratio {min(ratios):.3f} to {max(ratios):.3f}")
    old, new = runs[-1]
    print("the same blocks:", [s[0] for s in old["steps"]] == [s[0] for s in new["steps"]], [s[0] for s in new["steps"]])
    apart = [abs(a - b) for a, b in zip([s[1] for s in old["steps"]] + old["losses"], [s[1] for s in new["steps"]] + new["losses"])]
    print(f"largest difference of a loss: {max(apart):.1e}")
    if new["peak"]: print(f"peak above the weights: {new['peak']:.0f} MB (before: {old['peak']:.0f} MB; one bare batch of 16: {new['bare peak']:.0f} MB)")

if __name__ == "__main__": main()
