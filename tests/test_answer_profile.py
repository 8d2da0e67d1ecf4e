"Moments of every answer against NumPy on activations that raw hooks capture from one unpadded answer at a time."
from dataclasses import replace
import numpy as np, pytest, torch
from safetensors.torch import save_file
from avss_nb import (
    EDGES, SITES, AnswerProfile, AnswerProfiler, Answers, EAVSSScorer, HallucinationAnalyzer, InputError, Moments,
    Question, silent, sparsity, variance
)
from avss_nb.hallucination.profile import ANSWER_POSITIONS, both_kinds, position_mask
from avss_nb.maths.moments import rms
from test_evaluator import word_tokenizer, words
from tiny import CAUSAL, PATHS, tiny

SUB = {"llama": ("self_attn", "mlp"), "qwen2": ("self_attn", "mlp"), "gpt2": ("attn", "mlp"), "opt": ("self_attn", "fc2"),
       "gpt_neox": ("attention", "mlp")}
PROMPTS, ANSWERS = [7, 1, 23, 12, 9, 2, 23, 5, 18, 3, 30], [1, 4, 2, 7, 1, 1, 3, 9, 2, 5, 1]  # tokens, in no order of length
TOKENIZER = word_tokenizer()

def answers(n=len(PROMPTS)):
    "Answers of mixed lengths, right and wrong by turns (in no pattern), one of them an abstention."
    texts = [words(length, 100 + i) for i, length in enumerate(ANSWERS[:n])]
    questions = [Question(f"question {i}", ("w007",), prompt=words(length, i), subject=f"s{i}") for i, length in enumerate(PROMPTS[:n])]
    found = Answers.given(questions, texts, np.array([1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0], bool)[:n], [[-0.5] * length for length in ANSWERS[:n]])
    return replace(found, abstained=np.arange(n) == 4)

@torch.no_grad()
def raw(model, name, prompt, text):
    "Activations of every layer and site for one answer, (tokens, hidden) each, and the prompt's tokens."
    start, ids, seen, handles = len(TOKENIZER(prompt)["input_ids"]), TOKENIZER(f"{prompt} {text}")["input_ids"], [], []
    def first(out): return (out[0] if isinstance(out, tuple) else out).detach().double().reshape(len(ids), -1).numpy()
    def block(i): return lambda _, args, kwargs, out: seen[i].update(x=first(args[0] if args else kwargs["hidden_states"]), output=first(out))
    def part(i, site): return lambda _, args, out: seen[i].__setitem__(site, first(out))
    for i, module in enumerate(model.get_submodule(PATHS[name])):
        seen.append({})
        handles += [module.get_submodule(path).register_forward_hook(part(i, site)) for site, path in zip(("attention", "mlp"), SUB[name])]
        handles.append(module.register_forward_hook(block(i), with_kwargs=True))
    hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    for handle in handles: handle.remove()
    for i, found in enumerate(seen):
        if i + 1 < len(seen): assert np.array_equal(found["output"], hidden[i + 1][0].double().numpy())  # transformers' own words
        found["update"] = found["output"] - found["x"]
        found["relative_update"] = found["update"] / np.sqrt((found["x"] ** 2).mean(1, keepdims=True))
    return seen, start, len(ids)

WHERE = {"last_prompt": lambda start, end: slice(start - 1, start), "first_answer": lambda start, end: slice(start, start + 1),
         "answer": lambda start, end: slice(start, end), "all": lambda start, end: slice(0, end)}

def profiled(model, position="last_prompt", given=None, **settings):
    return AnswerProfiler(model, TOKENIZER, position, **{"sites": SITES, "batch_size": 4} | settings).profile(given or answers(), silent)

def test_states_that_nobody_asks_for_are_not_kept(tmp_path):
    model = tiny("llama")
    whole, without = profiled(model), profiled(model, states=False)
    assert without.states.shape == (*whole.states.shape[:2], 0) and without.layers == whole.layers
    without.save(tmp_path / "profile")
    again, scorer = AnswerProfile.load(tmp_path / "profile"), EAVSSScorer(draws=19, probe=False)
    assert again.states.shape == without.states.shape
    assert scorer.score(again).to_dict() == scorer.score(whole).to_dict()
    with pytest.raises(InputError, match=r"holds no states.*states=True"): EAVSSScorer(draws=19).score(without)
    for probe in True, False:
        analyzer = HallucinationAnalyzer(model, TOKENIZER, scorer=EAVSSScorer(draws=19, probe=probe))
        assert (analyzer.profile(answers(), silent).states.shape[2] > 0) == probe

@pytest.mark.parametrize("position", ANSWER_POSITIONS)
@pytest.mark.parametrize("name", CAUSAL)
def test_each_answer_equals_numpy(name, position):
    model, given = tiny(name, dtype=torch.float64), answers()
    profile, edges = profiled(model, position), np.concatenate([[0], EDGES.numpy(), [np.inf]])
    kept = given[~given.abstained]
    assert profile.answers.texts == kept.texts and profile.position == position and not profile.partial
    for n, (question, text) in enumerate(zip(kept.questions, kept.texts)):
        seen, start, end = raw(model, name, question.prompt, text)
        assert profile.prompt_tokens[n] == start and profile.answer_tokens[n] == end - start
        for layer, found in enumerate(seen):
            for site in SITES:
                a, m = found[site][WHERE[position](start, end)], profile.site(site)[n, layer]
                assert int(m.tokens) == a.size and int(m.sequences) == 1
                assert np.allclose([float(m.mean), float(m.m2) / a.size, float(m.maximum)], [a.mean(), a.var(), np.abs(a).max()], rtol=1e-9)
                assert np.array_equal(m.counts.numpy(), np.histogram(np.abs(a), edges)[0])
            state = found["output"][WHERE[position](start, end)].mean(0)
            assert np.allclose(profile.states[n, layer].numpy(), state, rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize("position", ANSWER_POSITIONS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("groups", [2, 16])
def test_layer_profiles_are_the_merged_answers(name, position, groups):
    profile = profiled(tiny(name), position, batch_size=2, groups=groups)
    for layers, chosen in (profile.faithful, ~profile.labels), (profile.hallucinated, profile.labels):
        assert layers.texts == chosen.sum() and layers.groups <= groups and layers.settings["position"] == position
        for site in SITES:
            merged, whole = profile.site(site)[torch.from_numpy(chosen)].total(), layers.site(site).total()
            assert torch.equal(merged.counts, whole.counts) and torch.equal(merged.maximum, whole.maximum)
            assert torch.equal(merged.tokens, whole.tokens * whole.mean.shape[-1]) and torch.equal(merged.sequences, whole.sequences)
            assert torch.allclose(variance(merged), variance(whole), rtol=1e-10, atol=0)
            assert torch.allclose(rms(merged), rms(whole), rtol=1e-10, atol=0)
            assert torch.equal(sparsity(merged, 0.1), sparsity(whole, 0.1))

def same(a, b, rtol=0.):
    assert a.answers.questions == b.answers.questions and a.answers.texts == b.answers.texts and a.position == b.position
    assert np.array_equal(a.prompt_tokens, b.prompt_tokens) and np.array_equal(a.labels, b.labels) and a.partial == b.partial
    assert [*a.sites] == [*b.sites] and torch.allclose(a.states, b.states, rtol=max(rtol, 0), atol=rtol)
    pairs = [(a.sites, b.sites), (a.faithful.sites, b.faithful.sites), (a.hallucinated.sites, b.hallucinated.sites)]
    for ours, theirs in pairs if not rtol else pairs[:1]:
        for site in ours:
            for field, t in vars(ours[site]).items():
                assert torch.allclose(t.double(), getattr(theirs[site], field).double(), rtol=rtol, atol=rtol, equal_nan=True), (site, field)

@pytest.mark.parametrize("position", ["last_prompt", "all"])
@pytest.mark.parametrize("name", CAUSAL)
def test_batch_size_does_not_matter(name, position):
    model = tiny(name, dtype=torch.float64)
    alone = profiled(model, position, batch_size=1)
    for size in 3, 64: same(profiled(model, position, batch_size=size), alone, rtol=1e-9)

def test_the_order_of_the_answers_is_kept():
    model, given = tiny("llama", dtype=torch.float64), answers()
    order = np.random.default_rng(0).permutation(len(given))
    shuffled, profile = profiled(model, given=given[order]), profiled(model)
    place = {q: i for i, q in enumerate(profile.answers.questions)}
    back = [place[q] for q in shuffled.answers.questions]
    assert shuffled.answers.questions == given[order[order != 4]].questions
    assert torch.allclose(profile.site("output").mean[back], shuffled.site("output").mean, rtol=1e-9)
    assert np.array_equal(profile.prompt_tokens[back], shuffled.prompt_tokens)

@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    "Sums are float64 whatever the model's dtype: one answer alone and in a batch differ by the model's rounding only."
    profile, exact = profiled(tiny("llama", dtype=dtype)), profiled(tiny("llama"))
    assert profile.site("output").m2.dtype == torch.float64 and profile.states.dtype == torch.float32
    assert torch.allclose(variance(profile.site("output")), variance(exact.site("output")), rtol=0.2)

def test_save_and_load(tmp_path):
    profile = profiled(tiny("llama"), "answer", sites=["output", "mlp"])
    profile.save(tmp_path / "p")
    again = AnswerProfile.load(tmp_path / "p")
    same(profile, again)
    assert repr(again) == repr(profile) and again.model == profile.model and again.fingerprint == profile.fingerprint
    assert np.array_equal(again.answer_tokens, profile.answer_tokens)
    profile.save(tmp_path / "p")                                       # an earlier profile is replaced
    same(profile, AnswerProfile.load(tmp_path / "p"))
    assert [p.name for p in tmp_path.iterdir()] == ["p"]

def test_saving_never_replaces_something_else(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    profile = profiled(tiny("llama"), sites=["output"])
    with pytest.raises(InputError, match="is not an earlier result"): profile.save(mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="is not an earlier result"): profile.save(mine / "thesis.txt")

def test_damaged_and_foreign_folders(tmp_path):
    with pytest.raises(InputError, match="no answer profile at"): AnswerProfile.load(tmp_path)
    profiled(tiny("llama"), sites=["output"]).save(tmp_path / "p")
    file = tmp_path / "p" / "answers.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="damaged"): AnswerProfile.load(tmp_path / "p")
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="but no answer profile"): AnswerProfile.load(tmp_path / "p")
    file.write_bytes(whole)
    for missing in "answers.jsonl", "faithful.safetensors":
        moved = (tmp_path / "p" / missing).rename(tmp_path / "elsewhere")
        with pytest.raises(InputError): AnswerProfile.load(tmp_path / "p")
        moved.rename(tmp_path / "p" / missing)

# --- interruption

def stop_after(n):
    def listen(progress):
        if progress.done == n: raise KeyboardInterrupt
    return listen

@pytest.mark.parametrize("stop", [2, 3, 4])
def test_an_interrupted_profile_is_that_of_its_answers(stop, tmp_path):
    model, given = tiny("llama", dtype=torch.float64), answers()
    profiler = AnswerProfiler(model, TOKENIZER, "all", SITES, batch_size=3)
    seen = []
    try: partial = profiler.profile(given, lambda p: (seen.append(p), stop_after(stop)(p)))
    except KeyboardInterrupt:                                          # nothing to compare yet: both kinds were not seen
        assert seen[-1].partial is None
        return
    complete = profiled(model, "all")
    assert len(partial) == sum(p.info["answers"] for p in seen)
    assert partial.partial and partial.faithful.partial and partial.hallucinated.partial and "PARTIAL" in repr(partial)
    at = [complete.answers.questions.index(q) for q in partial.answers.questions]
    assert at == sorted(at)
    assert torch.allclose(complete.site("update").m2[at], partial.site("update").m2, rtol=1e-9)
    assert partial.faithful.texts + partial.hallucinated.texts == len(partial) and partial.faithful.texts == (~partial.labels).sum()
    shown = seen[-1].partial()                                         # what a listener is offered is the same
    same(shown, partial)
    partial.save(tmp_path / "p")
    same(AnswerProfile.load(tmp_path / "p"), partial)

def test_interrupted_before_both_kinds_were_seen():
    given = answers()
    given = given[np.argsort(~given.correct & ~given.abstained, kind="stable")]
    with pytest.raises(KeyboardInterrupt): AnswerProfiler(tiny("llama"), TOKENIZER, batch_size=1).profile(given, stop_after(1))

def test_the_model_is_left_as_it_was():
    model = tiny("gpt2").train()
    profiled(model, sites=SITES)
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(KeyboardInterrupt): AnswerProfiler(model, TOKENIZER, batch_size=1).profile(answers(), stop_after(1))
    assert model.training and not any(m._forward_hooks for m in model.modules())

# --- moments of each text

def test_each_merges_into_of():
    torch.manual_seed(1)
    lengths = torch.tensor([3, 1, 8, 2])
    for dtype in torch.float32, torch.float64, torch.bfloat16:
        a = (torch.randn(14, 6) * torch.logspace(-5, 2, 14)[:, None] + 3).to(dtype)
        each, whole = Moments.each(a, lengths), Moments.of(a, lengths)
        for part, m in zip(a.split(lengths.tolist()), range(4)):
            values = part.double().numpy()
            assert int(each.tokens[m]) == values.size
            assert np.allclose([float(each.mean[m]), float(each.m2[m])], [values.mean(), ((values - values.mean()) ** 2).sum()], rtol=1e-12)
            assert float(each.maximum[m]) == np.abs(values).max()
            assert float(each.token_rms[m]) == pytest.approx(np.abs(values).sum(), rel=1e-12)
        total = each.total()
        assert torch.equal(total.counts, whole.counts) and float(variance(total)) == pytest.approx(float(variance(whole)), rel=1e-12)
        for chosen in (1, slice(1, 3)):
            assert torch.equal(each[chosen].counts, Moments.each(a, lengths).counts[chosen])

def test_each_keeps_small_variances_beside_large_means():
    a = torch.full((10, 4), 1e6, dtype=torch.float64) + torch.arange(40, dtype=torch.float64).view(10, 4) * 1e-3
    m = Moments.each(a, torch.tensor([4, 6]))
    expected = [part.numpy().var() for part in a.split([4, 6])]
    assert variance(m).tolist() == pytest.approx(expected, rel=1e-6)
    assert float(variance(m.total())) == pytest.approx(a.numpy().var(), rel=1e-6)

def test_cat_is_the_inverse_of_choosing():
    m = Moments.each(torch.randn(9, 3), torch.tensor([2, 4, 3]))
    again = Moments.cat([m[:1], m[1:]])
    for name, t in vars(m).items(): assert torch.equal(t.nan_to_num(), getattr(again, name).nan_to_num())

def test_a_text_without_tokens_is_refused():
    with pytest.raises(InputError, match="without tokens"): Moments.each(torch.randn(3, 2), torch.tensor([3, 0]))

# --- bad input

@pytest.mark.parametrize("settings, message", [
    (dict(position="somewhere"), "position 'somewhere' is not one of"), (dict(sites=["output", "soul"]), r"sites \['soul'\]"),
    (dict(sites=[]), "sites"), (dict(batch_size=0), "at least 1"), (dict(groups=0), "at least 1")])
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message): AnswerProfiler(tiny("llama"), TOKENIZER, **settings)

def test_sites_from_a_generator():
    assert [*profiled(tiny("llama"), sites=(s for s in ("update", "output"))).sites] == ["output", "update"]

@pytest.mark.parametrize("correct, message", [
    ([1] * 6, "6 faithful and 0 hallucinated"), ([0] * 6, "0 faithful and 6 hallucinated"), ([1, 0, 0, 0, 0, 0], "1 faithful and 5"),
    ([1, 1, 1, 1, 1, 0], "5 faithful and 1 hallucinated")])
def test_too_few_of_a_kind(correct, message):
    given = replace(answers(6), correct=np.array(correct, bool), abstained=np.zeros(6, bool))
    with pytest.raises(InputError, match=message): profiled(tiny("llama"), given=given)

def test_abstentions_are_no_kind():
    given = answers(6)
    with pytest.raises(InputError, match="0 hallucinated"): both_kinds(replace(given, abstained=~given.correct))
    assert both_kinds(given) is given

def test_activations_that_are_no_numbers():
    model = tiny("llama")
    with torch.no_grad(): model.model.layers[2].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(InputError, match="layer 2"): profiled(model)

def test_position_mask_by_hand():
    starts, ends = torch.tensor([2, 1]), torch.tensor([4, 2])
    assert {p: position_mask(starts, ends, 5, p).int().tolist() for p in ANSWER_POSITIONS} == {
        "last_prompt": [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], "first_answer": [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]],
        "answer": [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]], "all": [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]}

def test_questions_without_a_prompt_use_the_template():
    given = answers(8)
    plain = replace(given, questions=tuple(replace(q, text=q.prompt, prompt="") for q in given.questions))
    same_rows = profiled(tiny("llama"), "all", given=plain, template="{question}"), profiled(tiny("llama"), "all", given=given)
    assert torch.equal(same_rows[0].states, same_rows[1].states)

def test_answers_that_are_too_long_for_the_model():
    given = answers(6)
    long = replace(given, texts=(words(150, 0), *given.texts[1:]))
    with pytest.raises(InputError, match="too long for a model of 128 positions"): profiled(tiny("gpt2"), "answer", given=long)
    profiled(tiny("gpt2"), given=long)                                 # before the answer nothing depends on it, and it is not read
