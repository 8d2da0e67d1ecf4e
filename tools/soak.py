"The long forms of the tests that have one (marked `soak`): studies with every cell, hundreds of reruns. Writes benchmarks/SOAK.md. `python tools/soak.py`"
import datetime
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks/SOAK.md"

def run() -> tuple[int, str]:
    "Run the tests; their exit status and what they printed."
    command = [sys.executable, "-m", "pytest", "-q", "-m", "soak", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder",
               "--durations=0", "--durations-min=1", "-rfEs", *sys.argv[1:]]
    done = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"SOAK": "1", "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in done.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return done.wait(), "".join(lines)

def page(printed: str) -> str:
    "The result as a page."
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    slow = re.findall(r"^([\d.]+)s call +tests/\S+::(\S+)", printed, re.M)
    rest = re.findall(r"^(?:FAILED|ERROR|SKIPPED) .*", printed, re.M)
    rows = "".join(f"| {name} | {float(seconds):,.0f} |\n" for seconds, name in slow)
    return (f"# The long tests\n\nMade by `make soak`, which runs the longer form of the tests marked `soak`.\n\n"
            f"{datetime.date.today()}, commit {commit}, Python {platform.python_version()}, torch {version('torch')}, transformers "
            f"{version('transformers')}, {os.cpu_count()} cores: **{printed.strip().splitlines()[-1].strip('= ')}**\n\n"
            f"| test | seconds |\n| --- | ---: |\n{rows}" + "".join(f"\n- {line}" for line in rest) + ("\n" if rest else ""))

if __name__ == "__main__":
    status, printed = run()
    PAGE.write_text(page(printed), encoding="utf-8")
    sys.exit(status)
