"Files that are whole or absent, in places of every kind, and files that are damaged."
import json, os, random, subprocess, sys
import pytest, torch
from safetensors.torch import save_file
from avss_nb import Bar, InputError, LayerProfile, LayerProfiler, Reporter, silent
from avss_nb.base.basics import check_counts, load_tensors, save_tensors, write_whole
from tiny import tiny

def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("folder/new")
    for name, file in (("link", "file"), ("dangling", "folder/new")):
        with write_whole(tmp_path / name) as path: path.write_text("new")
        assert (tmp_path / name).is_symlink() and (tmp_path / file).read_text() == "new"

def test_pipes_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in tmp_path / "pipe", "/dev/null":
        with pytest.raises(InputError, match="pipe or a device"), write_whole(path): pass
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null") and (tmp_path / "pipe").is_fifo()

FULL = """import resource, sys
from avss_nb.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the disk takes no more than that
sys.exit(app(["profile", "teaching", "--texts", "teaching", "--limit", "20", "--out", sys.argv[1]]))"""

def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path):
    save_tensors(tmp_path / "p.st", {"a": torch.ones(2)}, "avss_nb.LayerProfile/1", {})
    old = (tmp_path / "p.st").read_bytes()
    run = subprocess.run([sys.executable, "-c", FULL, tmp_path / "p.st"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == "", run.stderr
    assert run.stderr.count("\n") == 1 and "p.st was not written (" in run.stderr and "make room, or give another place" in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["p.st"] and (tmp_path / "p.st").read_bytes() == old

def test_a_file_with_a_flipped_bit_is_read_or_refused(tmp_path):
    "In its first 4,000 bytes: length, names, places and the header; never another exception than InputError."
    made = tmp_path / "p.st"
    LayerProfiler(tiny("llama"), groups=2, batch_size=1).profile([[5, 6, 7], [8, 9]], silent).save(made)
    good, rng, refused = made.read_bytes(), random.Random(0), 0
    for _ in range(600):
        at = rng.randrange(4000)
        (tmp_path / "bad").write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1:])
        try: LayerProfile.load(tmp_path / "bad")
        except InputError as error:
            refused += 1
            assert "bad" in str(error)
    assert refused > 100

@pytest.mark.parametrize("header", ["[]", "{}", '"x"', '{"format": "lesson/1", "sites"', "null"])
def test_a_header_of_something_else_is_refused(tmp_path, header):
    save_file({"a": torch.ones(2)}, tmp_path / "f", {"avss_nb": header})
    with pytest.raises(InputError, match="no lesson"): load_tensors(tmp_path / "f", "lesson/1", "lesson")
    save_tensors(tmp_path / "g", {"a": torch.ones(2)}, "lesson/1", {"note": "é"})
    assert load_tensors(tmp_path / "g", "lesson/1", "lesson")[0]["note"] == "é"

def test_a_profile_with_a_header_that_lacks_something(tmp_path):
    for header in {}, {"sites": 3}, {"sites": ["output"]}, {"sites": ["output"], "model": "m", "fingerprint": "f", "partial": False, "settings": 3}:
        save_tensors(tmp_path / "p", {"output.mean": torch.ones(2)}, "avss_nb.LayerProfile/1", header)
        with pytest.raises(InputError, match="damaged or no profile"): LayerProfile.load(tmp_path / "p")

@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_counts(value):
    check_counts(groups=3)
    with pytest.raises(InputError, match="groups="): check_counts(groups=value)

def test_a_bar_stays_open_until_the_work_is_done():
    "Also where work begins before anybody knows how much there is."
    bar = Bar("reading")
    report = Reporter(bar, 0, "batch", least=0)
    assert not bar.bar.disable and bar.bar.total is None
    report.total = 4
    report.part(0.5)
    assert "12%" in bar.bar.postfix and bar.bar.n == 0
    for done in range(1, 5): report.step(done)
    assert (bar.bar.n, bar.bar.total, bar.bar.disable) == (4, 4, True)      # tqdm disables a bar that is closed
