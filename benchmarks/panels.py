"""What does watching cost? The share of a profiling run that goes into drawing, and one refresh of many layers.

    python benchmarks/panels.py                # 32 layers, a run of 30 s or more; 12, 32 and 80 layers for one refresh
    python benchmarks/panels.py --seconds 120  # a longer run

Times are processor time of one thread, so that a busy machine does not count; shares are ratios within one run."""
import argparse, time
import numpy as np, pandas as pd, torch
from transformers import LlamaConfig, LlamaForCausalLM
from avss_nb import LayerProfiler, LayerRankingPanel, Throttle

def build(layers, hidden):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=2 * hidden, vocab_size=500,
                                        num_attention_heads=hidden // 32)).eval()

def rows(n, length): return torch.randint(3, 500, (n, length), generator=torch.Generator().manual_seed(0)).tolist()

class Watched(LayerRankingPanel):
    "A panel that notes when the first batch was heard and when its picture stood."
    first = None
    def __call__(self, progress):
        heard = time.monotonic()
        super().__call__(progress)
        self.first = self.first or time.monotonic() - heard

def refresh_share(layers, hidden, seconds) -> pd.DataFrame:
    "A run that lasts this long under a panel with the usual clock."
    profiler, panel = LayerProfiler(build(layers, hidden), batch_size=4, max_length=128), Watched()
    began = time.monotonic()
    def long_enough():
        while time.monotonic() - began < seconds: yield from rows(4, 128)
    profiler.profile(rows(4, 128), lambda progress: None)  # warm
    profiler.profile(long_enough(), progress=panel)
    t = panel.throttle
    run = t.last - t.started if not t.frames else time.monotonic() - t.started
    return pd.DataFrame([{"layers": layers, "hidden": hidden, "run, s": run, "frames": t.frames, "drawing, s": t.spent, "share": t.spent / run,
                          "first batch to first picture, ms": 1000 * panel.first}])

def one_refresh(layers, hidden, repeats=15) -> dict:
    "Taking the partial result, scoring it and drawing it."
    seen = []
    profile = LayerProfiler(build(layers, hidden), batch_size=1, max_length=64).profile(rows(16, 64), seen.append)
    panel, partial, parts = LayerRankingPanel(), seen[-1].partial, []
    for _ in range(repeats):
        marks = [time.process_time()]
        for step in (lambda: panel._take(partial(), live=True),): step(); marks.append(time.process_time())
        panel._draw(live=True); marks.append(time.process_time())
        parts.append(np.diff(marks))
    whole, drawing = 1000 * np.median(parts, 0)
    began = time.process_time()
    panel.load(profile)
    return {"layers": layers, "hidden": hidden, "refresh, ms": whole, "of which drawing, ms": drawing, "last picture, sharp, all draws, ms": 1000 * (time.process_time() - began)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="length of the run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pd.set_option("display.width", 200)
    print(pd.DataFrame([one_refresh(*size) for size in ((12, 768), (32, 768), (80, 768))]).round(1).to_string(index=False))
    print(f"usual clock: at most {Throttle().share:.0%} of the time, and {Throttle().first} frames in any case")
    print(refresh_share(32, 256, args.seconds).round(4).to_string(index=False))
