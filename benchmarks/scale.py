"""Wall time of one process with one thread against several with one thread each, on one machine: `python benchmarks/scale.py`.

Random weights in the shape of GPT-2 small, token ids at random; each run is `LayerProfiler.profile` between two meetings of all
processes, so that starting and loading do not count. Runs alternate, and the fastest of each kind counts."""
import argparse, json, os, socket, subprocess, sys, tempfile, time
from pathlib import Path

def work(args) -> None:
    "What each process does; the first one writes the seconds."
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from avss_nb import LayerProfiler, silent
    from avss_nb.base.processes import join_processes
    from avss_nb.layers.shards import profile_together
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=args.layers, n_embd=args.hidden, n_head=12)).eval()
    rows = torch.randint(0, model.config.vocab_size, (args.batches * args.batch_size, args.length)).tolist()
    profiler = LayerProfiler(model, sites=args.sites.split(","), batch_size=args.batch_size, max_length=args.length)
    with join_processes() as processes:
        profiler.profile(rows[:args.batch_size], silent)  # warm
        processes.wait()
        start = time.perf_counter()
        profile_together(profiler, rows, args.out, processes, silent)
        if not processes.rank: Path(f"{args.out}.json").write_text(json.dumps(time.perf_counter() - start))
        processes.wait()

def measure(processes: int, options: list[str]) -> float:
    "Seconds of one run."
    with tempfile.TemporaryDirectory() as folder, socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port, out = s.getsockname()[1], f"{folder}/profile.safetensors"
        s.close()
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        runs = [subprocess.Popen([sys.executable, __file__, "--out", out, *options], env=env | {"RANK": str(r), "WORLD_SIZE": str(processes)})
                for r in range(processes)]
        if any([run.wait() for run in runs]): sys.exit("a process failed")
        return json.loads(Path(f"{out}.json").read_text())

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"layers": 12, "hidden": 768, "batches": 16, "batch-size": 8, "length": 256, "processes": 2, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sites", default="output,update,relative_update,attention,mlp")
    parser.add_argument("--bar", type=float, default=0.65, help="largest ratio that passes")
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out: return work(args)
    found = {n: [] for n in (1, args.processes)}
    for _ in range(args.repeats):
        for n in found: found[n].append(measure(n, sys.argv[1:]))
    best = {n: min(seconds) for n, seconds in found.items()}
    tokens = args.batches * args.batch_size * args.length
    print(f"GPT-2 shape, {args.layers} layers of {args.hidden}, {tokens:,} tokens, one thread a process, {os.cpu_count()} CPUs; fastest of {args.repeats}")
    print("| processes | seconds | tokens per second |\n| --- | --- | --- |")
    for n, seconds in best.items(): print(f"| {n} | {seconds:.2f} | {tokens / seconds:,.0f} |")
    ratio = best[args.processes] / best[1]
    print(f"\nratio {ratio:.3f}; bar {args.bar}: {'met' if ratio <= args.bar else 'NOT met'}; all runs in seconds: {found}")

if __name__ == "__main__": main()
