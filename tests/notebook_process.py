"Runs a notebook or a command in a process of its own that need not import the large libraries again: forked from one that has."
import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parent.parent
LARGE = ["datasets", "ipywidgets", "matplotlib.pyplot", "nbdev.test", "pandas", "scipy.stats", "seaborn", "sklearn.linear_model",
         "torch", "transformers", "transformers.models.llama.modeling_llama", "transformers.trainer"]

def processes():
    "The processes of `multiprocessing`, forked from one that has imported `LARGE` where the system can fork."
    if "forkserver" not in multiprocessing.get_all_start_methods(): return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LARGE, __name__])
    return context

def execute(path: Path, output: Path) -> None:
    "Execute a notebook as `nbdev_test` does, with its slow cells where SOAK is set; end with 1 if a cell fails."
    os.chdir(ROOT)
    from nbdev.config import get_config
    from nbdev.test import test_nb
    with open(output, "w") as file, redirect_stdout(file), redirect_stderr(file):
        flags = ["notest"] if os.environ.get("SOAK") else get_config().tst_flags.split()
        passed, _ = test_nb(path, skip_flags=flags, basepath=ROOT)
    sys.exit(not passed)

def failure_of(target, *args) -> str:
    "What a process has printed to its last argument, a file, and its exit code; empty if that is 0."
    process = processes().Process(target=target, args=args)
    process.start()
    process.join()
    return f"exit code {process.exitcode}\n{args[-1].read_text()[-3000:]}" if process.exitcode else ""

def run_notebook(path: Path, output: Path) -> str:
    "What a notebook that failed has printed; empty if every cell ran."
    return failure_of(execute, path, output)

def command(args: list[str], folder: Path, site: Path, output: Path) -> None:
    "Run `avss-nb` in a folder, with the package that lies in `site`; end with its exit status."
    os.chdir(folder)
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    sys.path = [str(site), *(part for part in sys.path if Path(part or ".").resolve() != ROOT)]
    with open(output, "w") as file, redirect_stdout(file), redirect_stderr(file):
        import avss_nb.cli
        assert Path(avss_nb.cli.__file__).is_relative_to(site), avss_nb.cli.__file__
        sys.argv = ["avss-nb", *args]
        avss_nb.cli.main()

def run_command(args: list[str], folder: Path, site: Path, output: Path) -> str:
    "What a command that failed has printed; empty if it succeeded."
    return failure_of(command, args, folder, site, output)
