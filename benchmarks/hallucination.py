"""What does an analysis of answers cost, beside an earlier version? Each runs in a process of its own, in turn.

    git worktree add --detach /tmp/earlier f8cff10
    python benchmarks/hallucination.py --earlier /tmp/earlier                                     # 2,000 answers, 30 layers of 576
    python benchmarks/hallucination.py --earlier /tmp/earlier --answers 600 --layers 8 --hidden 128 --repeats 1

Scores made-up answers with the defaults of `EAVSSScorer` (probes, permutations, halves, intervals), makes the table of detectors, and reports 10,000 labelled answers
with intervals. The states have few directions that hold most of their variance, as those of a model have, and the later layers know more. Prints ratios of time (wall
clock, and seconds of CPU), and the largest differences of what was found."""
import argparse, json, os, platform, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = """
import json, sys, time, numpy as np, torch
from types import SimpleNamespace
order = json.load(sys.stdin)
try: from avss_nb import Moments, Question, Answers, AnswerProfile, EAVSSScorer, detector_table
except ImportError:
    from avss_nb.moments import Moments
    from avss_nb.questions import Question
    from avss_nb.answers import Answers
    from avss_nb.answer_profile import AnswerProfile
    from avss_nb.hallucination import EAVSSScorer, detectors as detector_table
torch.set_num_threads(order["threads"])
def made_answers(n, rng):
    labels, kinds = rng.random(n) < 0.45, rng.integers(0, 4, n)
    questions = [Question(f"Question {i}?", ["yes"], kind=f"kind {kind}") for i, kind in enumerate(kinds)]
    return Answers.given(questions, ["yes"] * n, ~labels, [[-0.1 - rng.random()] * (1 + i % 5) for i in range(n)])
def made_profile(n, layers, hidden):
    rng = np.random.default_rng(0)
    answers, states = made_answers(n, rng), np.empty((n, layers, hidden), np.float32)
    sizes, turn = 1 / np.sqrt(1 + np.arange(hidden)), np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    for layer in range(layers):
        x = rng.normal(size=(n, hidden)) * sizes
        x[:, layer % hidden] += 2 * sizes[layer % hidden] * layer / layers * answers.hallucinated
        x *= np.exp(rng.normal(0, 0.2, (n, 1)) + 0.02 * layer / layers * answers.hallucinated[:, None])
        states[:, layer] = x @ turn
    states, ones = torch.from_numpy(states), torch.ones(n, dtype=int)
    each = Moments.stack([Moments.each(states[:, layer], ones) for layer in range(layers)], 1)
    half = SimpleNamespace(model="made up", fingerprint="0", tokens=n // 2)
    return AnswerProfile(answers, "last_prompt", {"output": each}, states, 5 + np.arange(n) % 7, half, half)
def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, [time.perf_counter() - wall, time.process_time() - cpu]
few = made_profile(60, 2, 8)
detector_table(few, EAVSSScorer(draws=19).score(few)), few.answers.report()  # what is imported late is loaded now
profile, many = made_profile(order["answers"], order["layers"], order["hidden"]), made_answers(order["reported"], np.random.default_rng(1))
scores, scoring = timed(lambda: EAVSSScorer().score(profile))
table, tabling = timed(lambda: detector_table(profile, scores))
report, reporting = timed(lambda: many.report())
found = {name: getattr(scores, name).tolist() for name in ("probe", "probe_low", "probe_high", "p", "z", "log_low", "log_high")}
found |= {"halves": scores.halves, "detectors": table.to_numpy(float).ravel().tolist(), "report": [bound for pair in report.intervals.values() for bound in pair]}
print(json.dumps({"times": {"score": scoring, "detectors": tabling, "report": reporting}, "found": found}))
"""

def work(where: Path, order: dict) -> dict:
    "What one version needs and finds, in a process of its own."
    threads = {"PYTHONPATH": os.pathsep.join([str(where), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": str(order["threads"])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WORK], input=json.dumps(order), cwd=where, env=os.environ | threads,
                          capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--reported", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    order = {name: getattr(options, name) for name in ("answers", "layers", "hidden", "reported", "threads")}
    runs = [(work(options.earlier, order), work(ROOT, order)) for _ in range(options.repeats)]
    print(f"{options.answers:,} answers × {options.layers} layers × {options.hidden}; a report of {options.reported:,}; {options.threads} threads; {platform.machine()}")
    for name in "score", "detectors", "report":
        for at, clock in enumerate(("wall", "CPU")):
            pairs = [(old["times"][name][at], new["times"][name][at]) for old, new in runs]
            ratios = [b / a for a, b in pairs]
            print(f"{name:10}{clock:5} {', '.join(f'{a:.2f} s → {b:.2f} s' for a, b in pairs)}; ratio {min(ratios):.3f} to {max(ratios):.3f}")
    old, new = (run["found"] for run in runs[-1])
    for name in old: print(f"largest difference of {name}: {max(abs(a - b) for a, b in zip(old[name], new[name])):.1e}")

if __name__ == "__main__": main()
