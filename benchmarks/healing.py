"""How fast does healing train, beside a bare training loop? Tokens a second, in turn, on the same windows.

    python benchmarks/healing.py                                   # on CUDA where there is one
    python benchmarks/healing.py --model _real_models/smollm2      # the model itself, not its shape with random weights
    python benchmarks/healing.py --batch 4 --window 128 --steps 8  # small enough for two CPU cores

The bare loop is what one would write by hand: AdamW (fused), the same windows, the same learning rate, the gradient
clipped, bf16 by autocast on CUDA, and nothing else. The clock runs from the end of the second step to the end of the last
one: what is compiled or allocated once does not count, nor what is measured before and after."""
import argparse
import copy
import time
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from avss_nb import HealingRecipe, LayerHealer, LayerPruner
from search import SHAPES

def cut_model(folder, device):
    "A model without 8 of its 30 blocks, and the whole one."
    torch.manual_seed(0)
    if folder: model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else: model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPES["smollm2"]))
    model = model.to(device).eval()
    return LayerPruner(model).remove(range(12, 20)).apply(verify=False)

def between(times, tokens): return tokens * (len(times) - 2) / (times[-1] - times[1])

def clock(device):
    if device == "cuda": torch.cuda.synchronize()
    return time.perf_counter()

def healed(pruned, recipe, rows, device) -> float:
    "Tokens a second of `LayerHealer.heal`."
    times = []
    def tick(progress):
        if len(times) < progress.done: times.append(clock(device) if progress.done in (2, recipe.steps) else 0.)
    LayerHealer(pruned, recipe=recipe).heal(rows, progress=tick)
    return between(times, recipe.batch_size * recipe.window)

def bare(pruned, recipe, rows, device) -> float:
    "Tokens a second of a loop by hand."
    model, times = copy.deepcopy(pruned.model).float().train(), []
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay, fused=True)
    windows, size = torch.tensor(rows), recipe.batch_size
    for step in range(recipe.steps):
        ids = windows[torch.arange(step * size, (step + 1) * size) % len(windows)].to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(clock(device) if step + 1 in (2, recipe.steps) else 0.)
    return between(times, recipe.batch_size * recipe.window)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    for name, value in ("steps", 60), ("batch", 16), ("window", 256), ("repeats", 3):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pruned = cut_model(options.model, device)
    recipe = HealingRecipe(steps=options.steps, batch_size=options.batch, window=options.window)
    count = min(options.steps, 20) * options.batch
    draw, words = torch.Generator().manual_seed(0), pruned.model.config.vocab_size
    rows = torch.randint(3, words, (count, options.window), generator=draw).tolist()
    ratios = []
    for _ in range(options.repeats):
        ours, by_hand = (way(pruned, recipe, rows, device) for way in (healed, bare))
        ratios.append(ours / by_hand)
        print(f"healing {ours:,.0f} tokens a second, by hand {by_hand:,.0f}: {ratios[-1]:.3f} ×", flush=True)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    span = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{where}, torch {torch.__version__}: median {np.median(ratios):.3f} × ({span})")
