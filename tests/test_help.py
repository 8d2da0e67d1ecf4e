"`help()` of every name at the door explains each parameter: docstrings are built from the comments of the notebooks."
import ast
import inspect
import re
import sys
from pathlib import Path
import pytest
import avss_nb

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import docments  # noqa: E402

NAMES = sorted(name for names in avss_nb.NAMES.values() for name in names.split())

def callables():
    "Each public function and class at the door, and each method that the class itself defines."
    for name in NAMES:
        thing = getattr(avss_nb, name)
        if not callable(thing) or thing.__module__.startswith("avss_nb.commands"): continue  # typer explains options
        yield name, thing
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            method = getattr(member, "__func__", member)
            if inspect.isfunction(method) and not key.startswith("_"): yield f"{name}.{key}", method

def makers(thing) -> list:
    "The classes of this package that say what a class takes; a function alone."
    if not inspect.isclass(thing): return [thing]
    if issubclass(thing, (type, BaseException)): return []
    own = [c for c in thing.__mro__ if c.__module__.startswith("avss_nb.")]
    return [c for c in own if "__init__" in vars(c) or vars(c).get("__annotations__")]

def taken(thing) -> list[str]:
    "The parameters that a user may give."
    try: parameters = [*inspect.signature(thing).parameters.values()]
    except ValueError: return []
    return [p.name for p in parameters if p.name not in ("self", "cls")]

def sections(thing) -> dict[str, str]:
    "The parameters in a docstring, with what is said of each."
    text = inspect.getdoc(thing) or ""
    if "Parameters\n----------\n" not in text: return {}
    body = re.split(r"\n\n[A-Z]\w+\n-+\n", text.split("Parameters\n----------\n")[1])[0]
    entries = re.findall(r"^\*{0,2}(\w+)(?: : .*|, default .*)?\n((?:    .*\n?)*)", body + "\n", re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in entries}

@pytest.mark.parametrize("name, thing", callables(), ids=lambda v: v if isinstance(v, str) else "")
def test_help_explains_every_parameter(name, thing):
    assert inspect.getdoc(thing), f"{name} has no docstring"
    told = {key: said for maker in makers(thing) for key, said in sections(maker).items()}
    missing = [p for p in taken(thing) if not told.get(p)] if makers(thing) else []
    assert not missing, f"say in a comment beside each of {missing} of {name} what it is, with its unit or shape"

def test_sections_are_what_editors_read():
    "A module in small, with each shape of a docstring: none, one line, several lines, a quote at its end, a backslash in a default."
    source = '''
def bare(x: int): return x

def one(
    x: int = 3,  # tokens
    *more,  # of the same
) -> str:  # in words
    "Say it."
    return x

@dataclass
class Two:
    """A result.

    It has "quotes"."""
    x: float  # nats
    y: str = "\\n"  # between × and ÷

    def step(self, seed: int = 0): "Do one."; return 1
'''
    made = {}
    exec("from dataclasses import dataclass\n" + docments.with_sections(source), made)
    assert made["bare"].__doc__ is None
    assert inspect.getdoc(made["one"]) == ("Say it.\n\nParameters\n----------\nx : int, default 3\n    tokens\n*more\n    of the same\n\n"
                                           "Returns\n-------\nstr\n    in words")
    assert sections(made["Two"]) == {"x": "nats", "y": "between × and ÷"}
    assert docments.summary(inspect.getdoc(made["Two"])) == 'A result.\n\nIt has "quotes".'
    assert sections(made["Two"].step) == {"seed": docments.USUAL["seed"]} and made["Two"]("a").step() == 1

def test_usual_meanings_are_used():
    "No entry of the glossary stands for nothing."
    used = {p.arg for path in (ROOT / "avss_nb").rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef) for p in (*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg) if p}
    assert {*docments.USUAL} <= used
