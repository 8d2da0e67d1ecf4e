"""Several processes: what they measure together is what one process measures, and what is left when one of them is killed."""
import json, os, re, signal, socket, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from avss_nb import (
    SITES, Evaluator, InputError, LayerProfile, LayerProfiler, LayerScorer, ProcessLost,
    Processes, TeachingWorld, load_texts, silent, stable
)
from avss_nb.base.processes import Stopped
from avss_nb.layers.profiler import dealt_group
from avss_nb.layers.shards import (
    interleave_shards, keep_partial, merge_profiles, profile_together, shard_path, find_usable_shards
)
from test_cli import TOKENIZER, avss, done, refused, saved
from tiny import VOCABULARY, tiny

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
ROWS = [torch.randint(3, VOCABULARY, (n % 37 + 2,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(150)]

def profiler_of(model, **settings): return LayerProfiler(model, **{"batch_size": 4, "groups": 8, "sites": SITES} | settings)

def profiler(name="llama", **settings): return profiler_of(tiny(name), **settings)

def shares_of(made, of, rows=ROWS): return [made.profile(rows, silent, share=(rank, of)) for rank in range(of)]

def same(a, b, rtol=0.0):
    "Equal profiles: counts exactly; `rtol` for the rest, of which the mean may lie near zero."
    assert (a.model, a.fingerprint, a.groups, a.partial, a.settings, [*a.sites]) == (b.model, b.fingerprint, b.groups, b.partial, b.settings, [*b.sites])
    for site in a.sites:
        for name, t in vars(a.sites[site]).items():
            other = getattr(b.sites[site], name)
            if not t.is_floating_point(): assert torch.equal(t, other), (site, name)
            else: torch.testing.assert_close(t, other, rtol=rtol, atol=rtol * float(t.nan_to_num().abs().max()) if name == "mean" else 0, equal_nan=True)
        for name, t in vars(a.first[site]).items():
            torch.testing.assert_close(t, getattr(b.first[site], name), rtol=rtol, atol=0, equal_nan=True)
    assert "output" not in a.sites or torch.equal(a.largest, b.largest)
    assert (a.losses is None) == (b.losses is None)
    if a.losses is not None:
        torch.testing.assert_close(a.losses, b.losses, rtol=rtol, atol=0)
        assert torch.equal(a.predicted, b.predicted)

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A tiny model, texts and questions, and what a single process makes of them."
    place = tmp_path_factory.mktemp("sharding")
    saved(place / "model", tiny("llama"))
    world = TeachingWorld()
    (place / "texts.txt").write_text("\n\n".join(world.texts(90)))
    (place / "long.txt").write_text("\n\n".join(world.texts(250) * 40))
    (place / "questions.jsonl").write_text("".join(json.dumps({"question": q.text, "answer": list(q.answers)}) + "\n" for q in world.questions("known", 40)))
    done("profile", place / "model", "--texts", place / "texts.txt", "--batch-size", 4, "--sites", "all", "--ablation", "--out", place / "single.st")
    return place

# --- shares

@pytest.mark.parametrize("of", [2, 3, 8])
@pytest.mark.parametrize("count", [150, 33])  # batches end within a round of groups, and before the last group
def test_shares_are_the_whole(of, count):
    made = profiler(ablation=True)
    whole = made.profile(ROWS[:count], silent)
    same(interleave_shards(reversed(shares_of(made, of, ROWS[:count]))), whole)

@pytest.mark.parametrize("size", [1, 4])
def test_every_text_is_measured_once_and_in_its_group(size):
    "Independent of the moments: the numbers of tokens, counted here."
    shares = shares_of(profiler(batch_size=size, groups=5, sites=["output"]), 2)
    expected = np.zeros(5, int)
    for number, row in enumerate(ROWS): expected[dealt_group(number, 5)] += len(row)
    assert interleave_shards(shares).site("output").tokens[:, 0].tolist() == expected.tolist()
    assert sum(s.tokens for s in shares) == expected.sum() and all(s.tokens for s in shares)

def test_intervals_and_rankings_are_equal():
    made = profiler(groups=16)
    a, b = (LayerScorer().score(p) for p in (made.profile(ROWS, silent), interleave_shards(shares_of(made, 2))))
    for name in "values", "low", "high", "rank_low", "rank_high": assert (getattr(a, name) == getattr(b, name)).all()

def test_generators_can_be_shared():
    made = profiler()
    shares = [made.profile((row for row in ROWS), silent, share=(rank, 2)) for rank in range(2)]
    same(interleave_shards(shares), made.profile(ROWS, silent))

@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 9), (0, 0)])
def test_impossible_shares_are_refused(share):
    with pytest.raises(InputError, match="at least one group a process"): profiler().profile(ROWS, silent, share=share)

def test_a_share_has_a_batch_and_no_early_stop():
    for rank in range(4):  # all processes say the same
        with pytest.raises(InputError, match="the texts make 3 batches for 4 processes"): profiler().profile(ROWS[:9], silent, share=(rank, 4))
    with pytest.raises(InputError, match="leave until out"): profiler().profile(ROWS, silent, until=stable(), share=(0, 2))

@pytest.mark.parametrize("change, message", [
    (lambda s: s[:1], "shard 1 of 2 is missing"),
    (lambda s: [*s, s[1]], "shard 1 of 2 was given twice"),
    (lambda s: [s[0], replace(s[1], partial=True)], "shard 1 of 2 is partial"),
    (lambda s: [s[0], replace(s[1], fingerprint="other", model="m")], "two models do not merge: LlamaForCausalLM and m"),
    (lambda s: [s[0], profiler(sites=["mlp"]).profile(ROWS, silent, share=(1, 2))], "different sites"),
    (lambda s: [s[0], profiler(batch_size=5).profile(ROWS, silent, share=(1, 2))], "different runs"),
    (lambda s: [s[0], profiler().profile(ROWS[1:], silent, share=(1, 2))], "different runs"),
    (lambda s: [s[0], profiler().profile(ROWS, silent, share=(1, 4))], "different runs"),
    (lambda s: [s[0], profiler().profile(ROWS, silent)], "whole profile"),
    (lambda s: [], "no share was given")])
def test_what_does_not_belong_together_is_refused(change, message):
    with pytest.raises(InputError, match=message): interleave_shards(change(shares_of(profiler(), 2)))

def test_texts_that_only_begin_alike_are_refused():
    made = profiler(batch_size=1)
    rows = [[5, 6, 7]] * 70
    for other in rows[:64], rows[:64] + [[5, 6, 8]] * 6:
        with pytest.raises(InputError, match="only begin the same way"): interleave_shards([made.profile(rows, silent, share=(0, 2)), made.profile(other, silent, share=(1, 2))])

def test_texts_count_once(tmp_path):
    "However they come: a copy, a share of the whole, other batches, a merged profile, the same texts read in part."
    made = profiler()
    whole, other = made.profile(ROWS, silent), made.profile(ROWS[:40], silent)
    whole.save(tmp_path / "whole"), made.profile(ROWS, silent, share=(0, 2)).save(tmp_path / "share")
    (tmp_path / "copy").write_bytes((tmp_path / "whole").read_bytes())
    for names in ("whole", "copy"), ("whole", "share"):
        with pytest.raises(InputError, match="would count twice"): merge_profiles([tmp_path / name for name in names], partial=True)
    def stop(progress):
        if progress.done == 5: raise KeyboardInterrupt
    for again in whole, profiler(batch_size=7).profile(ROWS, silent), whole + other, made.profile(ROWS, stop):
        with pytest.raises(InputError, match="would count twice"): whole + again
    assert (whole + other + made.profile(ROWS[3:], silent)).tokens == sum(map(len, ROWS + ROWS[:40] + ROWS[3:]))

def test_only_profiles_that_were_made_alike_merge():
    whole, other = profiler().profile(ROWS, silent), profiler()
    other.model.get_input_embeddings().weight.data[5] += 1
    with other.blocks.skip([1]): skipped = profiler_of(other.model).profile(ROWS[1:], silent)
    halves = tiny("llama").to(torch.bfloat16)
    for part, message in ((other.profile(ROWS[1:], silent), "different embeddings of the tokens"), (skipped, "different (embeddings|skipped)"),
                          (profiler(max_length=20).profile(ROWS[1:], silent), "different max_length do not merge: 256 and 20"),
                          (profiler_of(halves).profile(ROWS[1:], silent), "different precision of the model do not merge: float32 and bfloat16")):
        with pytest.raises(InputError, match=message): whole + part
    blocks = profiler()
    with blocks.blocks.skip([1]): skipped = blocks.profile(ROWS[1:], silent)
    with pytest.raises(InputError, match=r"different skipped layers do not merge: \[\] and \[1\]"): whole + skipped

def test_what_is_there_can_be_taken():
    made = profiler()
    shares = shares_of(made, 2)
    found = interleave_shards(shares[1:], partial=True)
    assert found.partial and found.tokens == shares[1].tokens and found.groups == 8
    merged = interleave_shards([shares[0], replace(shares[1], partial=True)], partial=True)
    assert merged.partial
    same(replace(merged, partial=False), made.profile(ROWS, silent))

def test_a_shard_stays_when_its_process_meets_what_it_cannot_measure(tmp_path):
    "It holds what was complete; only where the texts make too few batches there is nothing to keep."
    made, two = profiler(batch_size=1), Processes(1, 2)
    with pytest.raises(InputError, match="too long"): profile_together(made, [[5, 6, 7]] * 64 + [[5] * 200] * 20, tmp_path / "p", two, silent)
    assert LayerProfile.load(shard_path(tmp_path / "p", 1, 2)).partial
    with pytest.raises(InputError, match="make 1 batches for 2 processes"): profile_together(made, [[5, 6, 7]], tmp_path / "q", Processes(0, 2), silent)
    assert not shard_path(tmp_path / "q", 0, 2).exists()

# --- shards

def test_shards_and_profiles_of_other_texts_merge(tmp_path):
    made = profiler()
    for rank, share in enumerate(shares_of(made, 2)): share.save(tmp_path / f"a{rank}")
    for rank, share in enumerate(shares_of(made, 4, ROWS[:70])): share.save(tmp_path / f"b{rank}")
    made.profile(ROWS[3:40], silent).save(tmp_path / "c")
    found = merge_profiles(tmp_path.iterdir())
    assert not found.partial and found.tokens == sum(len(row) for rows in (ROWS, ROWS[:70], ROWS[3:40]) for row in rows)
    expected = (made.profile(ROWS, silent) + made.profile(ROWS[:70], silent) + made.profile(ROWS[3:40], silent))
    for site in SITES: assert torch.equal(found.site(site).counts, expected.site(site).counts)
    (tmp_path / "b2").unlink()
    with pytest.raises(InputError, match="shard 2 of 4 is missing"): merge_profiles(tmp_path.iterdir())
    assert merge_profiles(tmp_path.iterdir(), partial=True).partial

def test_unusable_files_are_named(tmp_path):
    made = profiler()
    made.profile(ROWS, silent).save(tmp_path / "a")
    profiler("gpt2").profile(ROWS, silent).save(tmp_path / "b")
    (tmp_path / "c").write_bytes(b"no profile")
    (tmp_path / "d").symlink_to(tmp_path / "a")
    for names, message in (("ab", "two models"), ("ac", "c is damaged"), ("ae", "no profile at .*e"), ("ad", "given twice"), ("", "nothing to merge")):
        with pytest.raises(InputError, match=message): merge_profiles(tmp_path / name for name in names)

@pytest.mark.parametrize("pause, texts", [(60, 8), (1, 4)])
def test_a_shard_is_kept_while_its_process_works(tmp_path, monkeypatch, pause, texts):
    "Written after the first batch, and again when ten seconds have passed; gone in the third batch."
    seen, clock = [], [0.]
    monkeypatch.setattr("avss_nb.layers.shards.time", SimpleNamespace(monotonic=lambda: clock[0]))
    def work(progress):
        seen.append(progress.done)
        clock[0] += pause
        if len(seen) == 3: raise MemoryError  # nothing that the profiler waits for
    with pytest.raises(MemoryError): profiler().profile(ROWS, keep_partial(tmp_path / "now", work), share=(1, 2))
    left = LayerProfile.load(tmp_path / "now")
    assert left.partial and left.texts == texts and left.settings["share"] == [1, 2] and [p.name for p in tmp_path.iterdir()] == ["now"]
    with pytest.raises(InputError, match="shard 1 of 2 is partial .*; shard 0 of 2 is missing"): merge_profiles([tmp_path / "now"])

def test_merge_on_the_command_line(place, tmp_path):
    made = LayerProfiler(tiny("llama"), TOKENIZER, SITES, batch_size=4)
    texts = (place / "texts.txt").read_text().split("\n\n")
    shards = [tmp_path / "s0", tmp_path / "s1"]
    for rank, shard in enumerate(shards): made.profile(texts, silent, share=(rank, 2)).save(shard)
    result = done("merge", *shards, "--out", tmp_path / "all.st", "--json", "-")
    facts = json.loads(result.stdout)
    whole = LayerProfile.load(place / "single.st")
    assert facts["tokens"] == whole.tokens and facts["partial"] is False and facts["sites"] == [*SITES]
    assert torch.equal(LayerProfile.load(tmp_path / "all.st").site("mlp").m2, whole.site("mlp").m2)
    refused("merge", shards[0], "--out", tmp_path / "no.st", match="shard 1 of 2 is missing.*--partial", absent=tmp_path / "no.st")
    assert "PARTIAL" in done("merge", shards[0], "--out", tmp_path / "some.st", "--partial").stdout

# --- processes

def environment(**names): return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **{k: str(v) for k, v in names.items()}}

@pytest.mark.parametrize("names, expected", [
    ({}, (0, 1, 0)), ({"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1}, (3, 4, 1)), ({"OMPI_COMM_WORLD_RANK": 1, "OMPI_COMM_WORLD_SIZE": 2}, (1, 2, 1)),
    ({"PMI_RANK": 0, "PMI_SIZE": 2}, (0, 2, 0)), ({"RANK": 0, "WORLD_SIZE": 1}, (0, 1, 0)), ({"WORLD_SIZE": 8}, (0, 1, 0))])
def test_the_engine_says_who_a_process_is(names, expected):
    found = Processes.here(environment(**names))
    assert (found.rank, found.of, found.local) == expected

@pytest.mark.parametrize("names, message", [({"RANK": 2, "WORLD_SIZE": 2}, "name no process"), ({"RANK": "x", "WORLD_SIZE": 2}, "name no process"),
                                            ({"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": None}, "MASTER_ADDR")])
def test_impossible_environments_are_refused(names, message):
    given = {name: value for name, value in environment(**names).items() if value != "None"}
    with pytest.raises(InputError, match=message): Processes.here(given)

def test_every_batch_has_one_owner():
    for of in 1, 2, 5:
        dealt = [[*Processes(rank, of).mine(range(13))] for rank in range(of)]
        assert sorted(sum(dealt, [])) == [*range(13)] and max(map(len, dealt)) - min(map(len, dealt)) <= 1

def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Processes(rank, 8, rank % 4).device(asked) for rank, asked in ((5, None), (7, "cuda"), (6, "cpu"), (6, "cuda:0"))] == ["cuda:1", "cuda:3", "cpu", "cuda:0"]
    assert Processes().device() is None and Processes().device("cuda") == "cuda"

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def run_line(engine, of, *args, **options):
    "A command line under an engine, from the root of the repository."
    engines = {"torchrun": ["torch.distributed.run", "--nproc-per-node", of, "--master-port", free_port()],
               "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", of, "--num_machines", 1, "--mixed_precision", "no",
                              "--dynamo_backend", "no", "--main_process_port", free_port()]}
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return [sys.executable, "-m", *map(str, engines[engine]), "-m", "avss_nb.cli", *map(str, args)], dict(env=env, text=True, **options)

def under(engine, of, *args):
    line, options = run_line(engine, of, *args, capture_output=True, timeout=300)
    return subprocess.run(line, **options)

@pytest.mark.parametrize("engine, of", [("torchrun", 3), pytest.param("accelerate", 2, marks=pytest.mark.soak(only=True))])
def test_processes_make_the_profile_of_one(place, tmp_path, engine, of):
    if engine == "accelerate": pytest.importorskip("accelerate")
    result = under(engine, of, "profile", place / "model", "--texts", place / "texts.txt", "--batch-size", 4, "--sites", "all", "--ablation", "--out", tmp_path / "p.st")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("LayerProfile(") == 1 and "error" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.st"]
    found, single = LayerProfile.load(tmp_path / "p.st"), LayerProfile.load(place / "single.st")
    same(found, single, rtol=1e-12)
    for score in "avss", "ablation":
        a, b = (LayerScorer(score, draws=200).score(p) for p in (found, single))
        np.testing.assert_allclose([a.low, a.high], [b.low, b.high], rtol=1e-9)

def test_processes_evaluate_as_one(place, tmp_path):
    args = ["evaluate", place / "model", "--questions", place / "questions.jsonl", "--texts", place / "texts.txt", "--batch-size", 8, "--json", "-"]
    single, result = done(*args).stdout, under("torchrun", 2, *args)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(single)

def test_processes_label_as_one(tmp_path):
    args = ["hallucination", "teaching", "--questions", "teaching", "--limit", 120, "--batch-size", 16]
    done(*args, "--out", tmp_path / "one")
    result = under("torchrun", 2, *args, "--out", tmp_path / "two")
    assert result.returncode == 0 and result.stdout.count("saved to") == 1, result.stderr
    one, two = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("one", "two"))
    assert {k: v for k, v in one.items() if k != "path"} == {k: v for k, v in two.items() if k != "path"}

def test_other_commands_are_not_shared(place):
    result = under("torchrun", 2, "rank", place / "single.st")
    assert result.returncode != 0 and result.stdout == "" and "error: rank is not shared among processes" in result.stderr

# --- a process is killed

def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.05)

def worker(parent, rank):
    "The process with a rank among the children of a process, by Linux's /proc."
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent and f"RANK={rank}" in (path / "environ").read_text().split("\0"):
                return int(path.name)
        except (OSError, IndexError): continue

@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes by /proc, which only Linux has")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_under_an_engine(place, tmp_path, victim):
    out = tmp_path / "p.st"
    shards = [shard_path(out, rank, 2) for rank in range(2)]
    line, options = run_line("torchrun", 2, "profile", place / "model", "--texts", place / "long.txt", "--batch-size", 8, "--sites", "output",
                             "--out", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run = subprocess.Popen(line, **options)
    try:
        wait_for(lambda: all(path.exists() for path in shards))
        os.kill(worker(run.pid, victim), signal.SIGKILL)
        output, errors = run.communicate(timeout=120)
    finally: run.kill()
    other = 1 - victim
    assert run.returncode != 0 and "LayerProfile" not in output and not out.exists()
    said, = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert said.startswith(f"error: process {other} of 2") and "killed" in said
    assert re.search(r"On the disk: shard 0 of 2 is partial .*; shard 1 of 2 is partial", said)
    command = re.search(r"avss-nb (merge .* --partial)$", said)[1].split()
    result = avss(*command)
    assert result.exit_code == 0 and "PARTIAL" in result.stdout
    left = [LayerProfile.load(path) for path in shards]
    assert LayerProfile.load(out).tokens == sum(p.tokens for p in left) and all(p.partial and p.texts >= 8 for p in left)
    refused(*command[:-1], match="shard 0 of 2 is partial .*; shard 1 of 2 is partial")

def test_a_killed_process_without_an_engine(place, tmp_path):
    "Nobody tells the other: it finds out where the two meet. What it has measured is complete."
    out, port = tmp_path / "p.st", free_port()
    line = [sys.executable, "-m", "avss_nb.cli", "profile", str(place / "model"), "--texts", str(place / "long.txt"), "--limit", "1500", "--batch-size", "8",
            "--sites", "output", "--out", str(out)]
    def start(rank):
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return subprocess.Popen(line, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs = [start(0), start(1)]
    try:
        wait_for(shard_path(out, 1, 2).exists)
        runs[1].kill()
        output, errors = runs[0].communicate(timeout=120)
    finally:
        for run in runs: run.kill()
    runs[1].communicate()
    assert runs[0].returncode == 1 and output == "" and not out.exists()
    said = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(said) == 1 and re.match(r"error: process 0 of 2 lost its connection .*shard 0 of 2 is complete .*shard 1 of 2 is partial .*--partial$", said[0]), errors
    assert merge_profiles([shard_path(out, rank, 2) for rank in range(2)], partial=True).partial

def test_a_process_that_is_ended_while_it_waits_names_the_shards(tmp_path, monkeypatch):
    def ended(self): raise Stopped("process 0 of 2 was ended by its engine")
    monkeypatch.setattr(Processes, "wait", ended)
    with pytest.raises(ProcessLost, match="was ended .*shard 0 of 2 is complete .*--partial"):
        profile_together(profiler(), ROWS, tmp_path / "p", Processes(0, 2), silent)

def test_a_broken_run_without_shards_says_so(tmp_path):
    assert "No shard was written" in find_usable_shards([tmp_path / "a"], "out")

# --- streaming

def counted(texts, read):
    for text in texts:
        read.append(text)
        yield text

def test_texts_are_read_only_a_little_ahead():
    read, ahead = [], []
    def progress(told): ahead.append(len(read) - 2 * told.done)
    found = LayerProfiler(tiny("llama"), TOKENIZER, sites=["output"], batch_size=2).profile(counted(["Ada lives ."] * 1000, read), progress)
    assert found.texts == len(read) == 1000 and max(ahead) <= 2 * 64

def test_streamed_files_hold_the_same_texts(tmp_path):
    contents = ["one\nstill one\n\n \t\n\ntwo\r\n\r\nthree\n\n", "one\n\nmore\0two\0\0 \n", "\ufeffone\n\n\n\ntwo", "x", "\n\n a \n\nb\n "]
    for i, content in enumerate(contents):
        (file := tmp_path / f"{i}.txt").write_bytes(content.encode())
        for limit in None, 1, 2:
            found = load_texts(file, limit=limit, streaming=True)
            assert not isinstance(found, list) and [*found] == load_texts(file, limit=limit)

def test_a_file_is_streamed_without_being_held(tmp_path):
    import tracemalloc
    file = tmp_path / "big.txt"
    with file.open("w") as f:
        for i in range(20_000): f.write(f"text {i} " + "word " * 200 + "\n\n")
    load_texts(file, limit=1, streaming=True)
    tracemalloc.start()
    try:
        assert sum(1 for _ in load_texts(file, streaming=True)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 4
    finally: tracemalloc.stop()

def test_streams_say_what_is_wrong(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "bytes").write_bytes(b"one\n\n\xff\xfe")
    with pytest.raises(InputError, match="holds no text"): load_texts(tmp_path / "empty", streaming=True)
    with pytest.raises(InputError, match="not UTF-8"): [*load_texts(tmp_path / "bytes", streaming=True)]

def test_data_sets_are_streamed(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    read = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config, split, streaming: counted([{"text": f"t{i}"} for i in range(500)], read))
    stream = load_texts("corpus", streaming=True)
    assert [next(stream) for _ in range(3)] == ["t0", "t1", "t2"] and len(read) <= 4
    assert len([*load_texts("corpus", streaming=True, limit=7)]) == 7

def test_streaming_on_the_command_line(place, tmp_path):
    done("profile", place / "model", "--texts", place / "texts.txt", "--batch-size", 4, "--sites", "all", "--ablation", "--streaming", "--out", tmp_path / "p.st")
    same(LayerProfile.load(tmp_path / "p.st"), LayerProfile.load(place / "single.st"))
    refused("profile", place / "model", "--texts", place / "texts.txt", "--streaming", "--tokens", 100, "--out", tmp_path / "q", match="--limit instead of --tokens",
            absent=tmp_path / "q")

# --- device maps

def test_device_map_on_the_command_line(place, tmp_path):
    pytest.importorskip("accelerate")
    for command in (["profile", "--batch-size", 4, "--sites", "all", "--ablation", "--out", tmp_path / "p.st"], ["evaluate", "--json", tmp_path / "e.json"]):
        done(command[0], place / "model", "--texts", place / "texts.txt", "--device-map", "auto", *command[1:])
    same(LayerProfile.load(tmp_path / "p.st"), LayerProfile.load(place / "single.st"))
    done("evaluate", place / "model", "--texts", place / "texts.txt", "--json", tmp_path / "plain.json")
    assert (tmp_path / "e.json").read_text() == (tmp_path / "plain.json").read_text()

def test_a_device_map_that_overflows_to_the_disk(place, tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    largest = 4 * VOCABULARY * 32 * 2  # bytes
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *args, **kwargs: {"cpu": largest + 40_000})
    from avss_nb import load_model
    model, tokenizer = load_model(str(place / "model"), device_map="auto")
    assert "disk" in model.hf_device_map.values() and any(p.is_meta for p in model.parameters())
    texts = (place / "texts.txt").read_text().split("\n\n")
    whole = LayerProfiler(model, tokenizer, sites=SITES, batch_size=4, ablation=True).profile(texts, silent)
    same(whole, LayerProfile.load(place / "single.st"))

@pytest.mark.parametrize("args, message", [(["--device", "cpu"], "give one of them"), ([], "leave --device-map out")])
def test_impossible_device_maps_are_refused(place, tmp_path, args, message):
    name = place / "model" if args else "teaching"
    refused("profile", name, "--texts", "teaching", "--device-map", "auto", *args, "--out", tmp_path / "p", match=message, absent=tmp_path / "p")

def test_a_missing_extra_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setattr("avss_nb.data.sources.find_spec", lambda name: None)
    refused("profile", place / "model", "--texts", "teaching", "--device-map", "auto", "--out", tmp_path / "p", match=r"avss_nb\[train\]")

def test_a_device_map_is_for_one_process(place, tmp_path):
    result = under("torchrun", 2, "profile", place / "model", "--texts", "teaching", "--device-map", "auto", "--out", tmp_path / "p")
    assert result.returncode != 0 and "give one of the two" in result.stderr and not any(tmp_path.iterdir())

# --- the evaluator alone

def test_answers_to_resume_are_for_one_process(teaching, tmp_path):
    with pytest.raises(InputError, match="for one process"):
        Evaluator(*teaching, processes=Processes(0, 2)).answer([("Where ?", ["Paris"])], resume=tmp_path / "a")

@pytest.mark.parametrize("name", ["bert", "llama"])
def test_losses_of_all_processes_are_those_of_one(name, monkeypatch):
    "Three processes played by one: each part is computed alone, then all are put together."
    from test_heads import TEXTS, TOKENIZER as WORDS
    model, found = tiny(name), []
    tokens = WORDS if name == "bert" else None
    rows = TEXTS if name == "bert" else ROWS
    monkeypatch.setattr(Processes, "together", lambda self, own: found.append(own) or dict(sorted((e for part in found for e in part.items()))))
    expected = Evaluator(model, tokens, batch_size=3).text_losses(rows)
    found.clear()
    for rank in range(3): losses = Evaluator(model, tokens, batch_size=3, processes=Processes(rank, 3)).text_losses(rows)
    for a, b in zip(losses, expected): assert (a == b).all()
    assert len(found) == 3 and all(found)
