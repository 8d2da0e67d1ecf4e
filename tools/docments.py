"""What the code says of each parameter: the comment beside it, or the usual meaning of its name.

Notebooks describe a parameter by a comment (a docment). `with_sections` writes these comments into the
docstrings of an exported module as numpydoc sections, which `help()`, `LayerProfiler?`, Shift-Tab and
editors show. A parameter of a function without a comment has the meaning that its name has everywhere:
see `USUAL`.
"""
import ast
import io
import textwrap
import tokenize
from typing import NamedTuple

USUAL = {  # one name, one meaning
    "_": "handed on by transformers, not used",
    "abstained": "bool (answers,)",
    "aggregation": "how elements become one number: one of `avss_nb.maths.moments.AGGREGATIONS`",
    "answer": "the text of an answer",
    "answers": "made by `Evaluator.answer` or read from a file",
    "args": "handed on as they are; of a callback the `TrainingArguments`",
    "ax": "matplotlib axes to draw on; None: a new figure",
    "axs": "matplotlib axes, one for each picture",
    "batch_size": "rows in a batch",
    "blocks": "the stack of blocks of the model",
    "change": "of a trait, as `observe` reports it; not read",
    "confidence": "level of the intervals, between 0 and 1",
    "control": "the `TrainerControl` of transformers",
    "correct": "bool (answers,): right, by whatever rule",
    "device": "where the tensors lie",
    "draws": "resamples of the bootstrap",
    "dtype": "the precision of the weights",
    "environment": "variables of the environment; None: of this process",
    "folder": "a folder; made if it is not there",
    "kwargs": "handed on as they are",
    "lab": "the `LayerLab` to which the panel belongs",
    "layer": "number of the layer, from 0",
    "layers": "numbers of the layers, from 0",
    "limit": "read no more than so many; None: all",
    "m": "sums over tokens: variance, sparsity and more follow from them",
    "max_length": "tokens",
    "measure": "the name of a measure, as in a report",
    "model": "a transformers model with a stack of blocks",
    "moments": "sums over tokens",
    "other": "another result of the same kind",
    "path": "of the file",
    "profile": "statistics of every layer, made by a profiler",
    "progress": "called with a `Progress` after each step; `silent` shows nothing",
    "prompt": "how questions are put: see `avss_nb.data.prompts.Prompt`",
    "question": "text with its accepted answers",
    "questions": "texts with their accepted answers",
    "recipe": "settings of the training; None: the defaults",
    "removed": "numbers of the layers that are skipped",
    "rows": "lists of token ids",
    "scores": "a value for each layer, made by a scorer",
    "seed": "of all random draws",
    "settings": "handed on as they are",
    "site": "where activations are measured: one of `avss_nb.SITES`",
    "sites": "where activations are measured: some of `avss_nb.SITES`",
    "state": "the `TrainerState` of transformers",
    "steps": "of the optimiser",
    "text": "a string",
    "texts": "strings, or lists of token ids",
    "title": "above the picture",
    "tokenizer": "the tokenizer of the model",
    "trainer": "the `Trainer` of transformers",
}

class Described(NamedTuple):
    "A parameter, field or result of the code, as written there."
    name: str  # with its stars; empty for a result
    type: str
    default: str
    what: str

def comments(source: str) -> dict[int, str]:
    "The comment on each line: beside it, or alone in the lines above it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    lines, above = source.splitlines(), []
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#") and number in found: above.append(found.pop(number))
        else:
            if above: found.setdefault(number, " ".join(above))
            above = []
    return found

def written(node) -> str: return ast.unparse(node) if node is not None else ""

def parameters(function: ast.FunctionDef, notes: dict[int, str]) -> list[Described]:
    "The parameters of a function but for `self` and `cls`."
    a = function.args
    places = [*a.posonlyargs, *a.args]
    defaults = dict(zip([p.arg for p in places[::-1]], a.defaults[::-1]))
    defaults |= {p.arg: d for p, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    shown = [(p, "") for p in places] + [(a.vararg, "*")] * bool(a.vararg)
    shown += [(p, "") for p in a.kwonlyargs] + [(a.kwarg, "**")] * bool(a.kwarg)
    lines = [p.lineno for p, _ in shown]
    def note(p):
        alone = lines.count(p.lineno) == 1 and p.lineno != function.lineno
        return notes.get(p.lineno, "") if alone else ""
    def described(p, stars):
        kind, default = written(p.annotation), written(defaults.get(p.arg))
        return Described(stars + p.arg, kind, default, note(p) or USUAL.get(p.arg, ""))
    return [described(p, stars) for p, stars in shown if p.arg not in ("self", "cls")]

def result(function: ast.FunctionDef, notes: dict[int, str]) -> Described | None:
    "What a function returns; None where it returns nothing or does not say."
    if function.returns is None or written(function.returns) == "None": return None
    at = function.returns.end_lineno
    a = function.args
    lines = {p.lineno for p in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if p}
    return Described("", written(function.returns), "", "" if at in lines else notes.get(at, ""))

def fields(made: ast.ClassDef, notes: dict[int, str]) -> list[Described]:
    "The fields of a dataclass or named tuple."
    def described(f):
        parts = map(written, (f.target, f.annotation, f.value))
        return Described(*parts, notes.get(f.lineno, ""))
    found = [described(f) for f in made.body if isinstance(f, ast.AnnAssign)]
    return [field for field in found if field.type != "KW_ONLY"]

def decorators(node) -> list[str]: return [written(d) for d in node.decorator_list]

def step_of(node) -> str:
    "The class to which `@patch` adds this function; empty for any other node."
    if not isinstance(node, ast.FunctionDef): return ""
    if not any(d.startswith("patch") for d in decorators(node)): return ""
    return written(node.args.args[0].annotation)

def is_property(node) -> bool:
    return any(d.startswith(("property", "cached_property", "patch(as_prop=True")) for d in decorators(node))

# Docstrings

def summary(docstring: str | None) -> str:
    "A docstring without the sections that `with_sections` wrote."
    text = docstring or ""
    for name in ("Parameters", "Returns"): text = text.split(f"\n\n{name}\n{'-' * len(name)}\n")[0]
    text = "" if text.startswith(("Parameters\n---", "Returns\n---")) else text
    return text.strip()

def is_empty(default: str) -> bool:
    "Whether a default says nothing to a reader, as `field(…)` does."
    return not default or default.startswith("field(") or "_field(" in default

def entry(row: Described, indent: str) -> list[str]:
    head = row.name + " : " * bool(row.name and row.type) + row.type
    if not is_empty(row.default): head += f", default {row.default}"
    inner = indent + "    "
    return [indent + head, *textwrap.wrap(row.what, 88, initial_indent=inner, subsequent_indent=inner)]

def section(name: str, rows: list[Described], indent: str) -> list[str]:
    if not rows: return []
    lines = [indent + name, indent + "-" * len(name)]
    for row in rows: lines += entry(row, indent)
    return ["", *lines]

def sections(node, notes, indent: str) -> list[str]:
    "The sections of a function, or of a class (what its `__init__` takes, or else its fields)."
    if isinstance(node, ast.FunctionDef):
        found = [result(node, notes)]
        returned = [r for r in found if r and r.what]
        taken = section("Parameters", parameters(node, notes), indent)
        return taken + section("Returns", returned, indent)
    made = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    return section("Parameters", parameters(made, notes) if made else fields(node, notes), indent)

def documented(tree: ast.Module) -> list:
    "Public classes, their methods, and public functions."
    found = []
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"): continue
        if isinstance(node, ast.ClassDef):
            found += [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
        found.append(node)
    return [node for node in found if not is_property(node)]

class Edit(NamedTuple):
    "Characters of the source to replace."
    start: int
    end: int
    text: str

class Source:
    "A text in which places of the syntax tree are found."

    def __init__(self, text: str):
        self.text, self.lines, self.starts = text, text.splitlines(keepends=True), [0]
        for line in self.lines: self.starts.append(self.starts[-1] + len(line))

    def at(self, number: int, column: int) -> int:
        "The index of a character; `ast` counts columns in bytes of UTF-8."
        return self.starts[number - 1] + len(self.lines[number - 1].encode()[:column].decode())

    def span(self, node) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def before(self, node) -> str:
        "What stands on the line before a node."
        return self.lines[node.lineno - 1][:self.span(node)[0] - self.starts[node.lineno - 1]]

def is_docstring(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)

def docstring_edit(source: Source, node, notes) -> Edit | None:
    "How the docstring of a function or class changes; None where there is no docstring, or nothing to add."
    first, indent = node.body[0], " " * (node.col_offset + 4)
    lines = [line.replace("\\", "\\\\") for line in sections(node, notes, indent)]
    if not lines or not is_docstring(first): return None
    start, end = source.span(first)
    text = source.text[start:end]
    quotes = 3 if text.startswith(('"""', "'''")) else 1
    said = text[quotes:-quotes] + " " * text[:-quotes].endswith('"')
    opening = "" if not source.before(first).strip() else "\n" + indent  # the body begins on the line of `def`
    return Edit(start, end, f'{opening}"""{said}\n' + "\n".join(lines) + f'\n{indent}"""')

def with_sections(text: str) -> str:
    "The source of a module, its docstrings with a section for parameters and one for the result."
    source, tree, notes = Source(text), ast.parse(text), comments(text)
    edits = [docstring_edit(source, node, notes) for node in documented(tree)]
    for edit in sorted(filter(None, edits), reverse=True):
        text = text[:edit.start] + edit.text + text[edit.end:]
    return text
