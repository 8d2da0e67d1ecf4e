"""How long does a stopped run take to let go? From the interrupt (■) to the idle kernel, for each panel on the teaching model.

    python benchmarks/stopping.py                     # 5 stops of each run
    python benchmarks/stopping.py --only mitigation   # one of them

Seconds by the clock in a kernel of its own, as a notebook has it: measure on a quiet machine."""
import argparse, time
import pandas as pd
from jupyter_client.manager import start_new_kernel

SETUP = """
import numpy as np, torch
from IPython.display import display
from avss_nb import (
    ContrastiveMitigator, Evaluator, HallucinationAnalyzer, HallucinationPanel, LayerProfiler,
    LayerRankingPanel, LayerScorer, MitigationPanel, PruningPanel, Recipe, TeachingWorld,
    load_teaching_model, silent
)
model, tokenizer = load_teaching_model()
world, profiler, evaluator = TeachingWorld(), LayerProfiler(model, tokenizer), Evaluator(model, tokenizer)
texts, questions = world.texts(300), world.questions("known", 60) + world.questions("unknown", 60)
test, development = (world.questions("known", 30, seed=i) + world.questions("unknown", 30, seed=i) for i in (3, 4))
answers, tested = evaluator.answer(questions), evaluator.answer(test)
scores = LayerScorer().score(profiler.profile(texts, progress=silent))
many = answers[np.tile(np.arange(len(answers)), 40)]
"""
RUNS = {  # name: (makes and shows the panel, the run that is stopped, words on the status line that tell that it is under way)
    "ranking": ("LayerRankingPanel(12)", "panel.run(profiler, texts * 100)", "to stop"),
    "hallucination, asking": ("HallucinationPanel(HallucinationAnalyzer(model, tokenizer), questions * 100)", "panel.run()", "to stop"),
    "hallucination, profiling": ("HallucinationPanel(HallucinationAnalyzer(model, tokenizer))", "panel.run(answers=many)", "faithful and"),
    "pruning": ("PruningPanel(model, tokenizer, scores, lambda: evaluator.evaluate(test, texts * 100))", "panel.preview()", "Measuring"),
    "mitigation": ("MitigationPanel(ContrastiveMitigator(model, tokenizer, [9, 10, 11], Recipe(steps=100_000)), tested)",
                   "panel.run(answers, texts, development)", "reliability"),
    "mitigation, first test": ("MitigationPanel(ContrastiveMitigator(model, tokenizer, [9, 10, 11]), test * 100)",
                               "panel.run(answers, texts, development)", "of the test"),
}

def until(client, request, done) -> None:
    "Read what the kernel publishes about a request until a message is the one."
    while True:
        message = client.get_iopub_msg(timeout=600)
        if done(message) and (message["parent_header"].get("msg_id") == request or message["msg_type"] == "comm_msg"): return

def idle(message) -> bool: return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

def run(client, code) -> None: until(client, client.execute(code), idle)

def told(client) -> str:
    "The status line of the panel."
    reply = client.execute_interactive("", user_expressions={"text": "panel.text"}, output_hook=lambda message: None)
    return reply["content"]["user_expressions"]["text"]["data"]["text/plain"].strip("'\"")

def stop(manager, client, name, seconds) -> tuple[float, str]:
    "Start a run, stop it after a while; seconds to the idle kernel, and what the panel says then."
    panel, code, words = RUNS[name]
    run(client, f"panel = {panel}; display(panel)")
    request = client.execute(code)
    until(client, request, lambda m: m["msg_type"] == "comm_msg" and words in str(m["content"]["data"].get("state", {}).get("value", "")))
    time.sleep(seconds)
    began = time.perf_counter()
    manager.interrupt_kernel()
    until(client, request, idle)
    return time.perf_counter() - began, told(client)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=RUNS, default=None, help="one run instead of all")
    args = parser.parse_args()
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        run(client, SETUP)
        for name in [args.only] if args.only else RUNS:
            found = [stop(manager, client, name, 1.5 + 0.37 * i) for i in range(args.repeats)]
            seconds = pd.Series([s for s, _ in found])
            print(f"{name:26} median {seconds.median():.2f} s, worst {seconds.max():.2f} s   {found[-1][1]}", flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
