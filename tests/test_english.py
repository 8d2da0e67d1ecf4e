"The patterns of translated English that a search can find are gone from code, messages, lessons and documents."
import json
import re
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
PATTERNS = {  # a regular expression → what to write instead
    r"\bso that\b": "so; or name the purpose: to …",
    r"(?<!there )(?<!there can )(?<!there may )\b(?:is|are|was|were|be) no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b|larger\b|smaller\b|different\b|way\b|need\b|doubt\b|match\b|one\b)": "is not a …; has no …",
    r"(?<!there )\b(?:is|are|was|were) none\b(?! of)": "name the noun: there is no …",
    r"\bheld against\b": "compared with",
    r"\balike\b": "the same; equally",
    r"\btold\b(?! apart)": "shown, given, distinguished",
    r"\bin haste\b": "quickly; quick",
    r"^\s*[rf]?\"+What [^\"\n]*\btells?\b": "an imperative: Return …, Measure …",
    r"\bmend (?:it|them)\b": "correct it",
    r"\bwhere \w+ different ones are expected\b": "say how many are needed",
    r"\bactivations a decade\b": "% of activations per decade",
    r"\b[Hh]igher bar\b": "higher score",
}
WRITTEN = [*ROOT.glob("*.md"), *ROOT.glob("nbs/**/*.md"), *ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("tools/**/*.py")]

def text_of(path: Path) -> str:
    "What people wrote: of a notebook the sources of its cells, not the outputs."
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb": return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])

def joined(text: str) -> str:
    "Sentences that run over lines, or over pieces of a string, as one line."
    text = re.sub(r"\"\n\s*[rf]{0,2}\"", "", text)  # pieces of a string
    return re.sub(r"(?<=[\w,;)])\n\s*(?:# )?(?=[a-z])", " ", text)

@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_translated_english(pattern):
    found = [f"{path.relative_to(ROOT)}: …{text[max(0, m.start() - 40):m.end() + 30]!r}"
             for path in WRITTEN if ".ipynb_checkpoints" not in path.parts
             for text in [joined(text_of(path))] for m in re.finditer(pattern, text, re.MULTILINE)]
    assert not found, f"write {PATTERNS[pattern]!r} in\n" + "\n".join(found)

@pytest.mark.parametrize("bad", ["so that nothing is left", "7 is no layer", "padding is none", "    \"What five sums tell\"", "the models it is told about", "a \"\n    f\"is no file"])
def test_the_patterns_find_what_they_are_for(bad):
    assert any(re.search(pattern, joined(bad), re.MULTILINE) for pattern in PATTERNS)

@pytest.mark.parametrize("good", ["is no longer there", "there is no layer 7", "so nothing is left", "it is no more than 3", "none is left"])
def test_the_patterns_leave_good_english_alone(good):
    assert not any(re.search(pattern, joined(good), re.MULTILINE) for pattern in PATTERNS)
