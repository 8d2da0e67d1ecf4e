"Arms of training: taken up again without training twice, and every number of the table against a direct computation."
import math
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from sklearn.metrics import brier_score_loss
import avss_nb.hallucination.comparison as arms_module
from avss_nb import (
    Answers, Arm, ArmRun, ArmTable, Evaluator, InputError, PlattScaling, Prompt, Question,
    Recipe, TemperatureScaling, best_threshold, calibration_error, compare_arms,
    load_teaching_model, score_rivals, silent, standard_arms
)
from avss_nb.hallucination.comparison import check_disjoint
from test_hallucination import EAVSSScorer, made, mixed

torch.set_num_threads(1)
RECIPE = Recipe(steps=2, batch_size=4, text_batch=2, text_length=16, every=1, learning_rate=2e-3)
ARMS = [Arm("claim", (9, 10)), Arm("control, no contrast", (2,), {"contrast": 0.})]

@pytest.fixture(scope="module")
def parts(teaching, world):
    "Questions of three parts that share nobody, and the answers to the training part."
    seen, found = set(), []
    pool = {group: iter(world.questions(group, 200)) for group in ("known", "unknown")}
    for n in 4, 5, 6:
        part = []
        for group in pool:
            while sum(q.group == group for q in part) < n:
                q = next(pool[group])
                if q.subject not in seen: part.append(q)
        seen |= {q.subject for q in part}
        found.append(part)
    train, development, test = found
    return Evaluator(*teaching).answer(train), development, test

@pytest.fixture
def trainings(monkeypatch):
    "Which arms were trained: layers, contrast, seed."
    seen, train = [], arms_module.ContrastiveMitigator.train
    def counted(self, *args):
        seen.append((self.layers, self.recipe.contrast, self.recipe.seed))
        return train(self, *args)
    monkeypatch.setattr(arms_module.ContrastiveMitigator, "train", counted)
    return seen

def compared(teaching, parts, world, folder=None, arms=ARMS, progress=silent, **changes):
    train, development, test = parts
    given = dict(train=train, development=development, test=test, texts=world.texts(3), held_out=world.texts(3, seed=9), recipe=RECIPE,
                 seeds=(0, 1), folder=folder, progress=progress) | changes
    return compare_arms(*teaching, arms, given.pop("train"), given.pop("development"), given.pop("test"), **given)

@pytest.fixture(scope="module")
def table(teaching, parts, world): return compared(teaching, parts, world)

EVERY = [(arm.layers, arm.changes.get("contrast", 0.3), seed) for arm in ARMS for seed in (0, 1)]

def same(a, b):
    assert [*a.runs] == [*b.runs] and a.claim == b.claim and a.layers == b.layers
    for name in a.runs:
        for one, other in zip(a.runs[name], b.runs[name], strict=True):
            assert one.answers.texts == other.answers.texts and one.perplexity == other.perplexity and one.step == other.step
            for field in "confidences", "correct", "abstained": assert np.array_equal(getattr(one.answers, field), getattr(other.answers, field))
    pd.testing.assert_frame_equal(a.to_frame(), b.to_frame())

# --- stopping and going on

@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7, 8])
def test_stopped_and_taken_up_again(teaching, parts, world, table, trainings, tmp_path, stop):
    "8 steps in all: 2 arms, 2 seeds, 2 steps. What is finished is not trained again."
    def listen(p):
        assert p.total == 8
        if p.done == stop: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): compared(teaching, parts, world, tmp_path, progress=listen)
    began, steps = [*trainings], []
    trainings.clear()
    same(compared(teaching, parts, world, tmp_path, progress=lambda p: steps.append(p.done)), table)
    finished = len([*began]) - 1
    assert began == EVERY[:len(began)] and trainings == EVERY[finished:]
    assert steps == sorted(steps) and steps[-1] == 8
    trainings.clear()
    same(compared(teaching, parts, world, tmp_path), table)
    assert not trainings and sorted(p.name for p in tmp_path.iterdir()) == [
        "claim-0.safetensors", "claim-1.safetensors", "control-no-contrast-0.safetensors", "control-no-contrast-1.safetensors"]

def test_every_arm_is_trained_once_with_every_seed(teaching, parts, world, trainings):
    before = {name: p.clone() for name, p in teaching[0].named_parameters()}
    found = compared(teaching, parts, world)
    assert trainings == EVERY and {name: len(runs) for name, runs in found.runs.items() if name in ("claim", "control, no contrast")} == {
        "claim": 2, "control, no contrast": 2}
    assert all(torch.equal(p, before[name]) for name, p in teaching[0].named_parameters())

def test_runs_are_those_of_the_mitigator(teaching, parts, world, table):
    train, development, test = parts
    found = arms_module.ContrastiveMitigator(*teaching, (2,), replace(RECIPE, contrast=0., seed=1)).train(train, world.texts(3), development, silent)
    evaluator, run = Evaluator(found.model, teaching[1]), table.runs["control, no contrast"][1]
    assert evaluator.answer(test).texts == run.answers.texts and run.step == found.step
    assert evaluator.perplexity(world.texts(3, seed=9)).value == run.perplexity
    assert table.runs["original"][0].perplexity == Evaluator(*teaching).perplexity(world.texts(3, seed=9)).value

def changed(model):
    with torch.no_grad(): model.model.layers[7].mlp.up_proj.weight.mul_(1.05)
    return model

@pytest.mark.parametrize("name, change", [
    ("recipe", lambda parts, world: dict(recipe=replace(RECIPE, temperature=0.2))),
    ("layers", lambda parts, world: dict(arms=[replace(ARMS[0], layers=(9,)), ARMS[1]])),
    ("test", lambda parts, world: dict(test=parts[2][1:])),
    ("development", lambda parts, world: dict(development=parts[1][1:])),
    ("training questions", lambda parts, world: dict(train=parts[0][1:])),
    ("verdicts", lambda parts, world: dict(train=replace(parts[0], correct=parts[0].correct ^ (np.arange(8) == 2)))),
    ("texts", lambda parts, world: dict(texts=world.texts(2))), ("no texts", lambda parts, world: dict(texts=None)),
    ("held out", lambda parts, world: dict(held_out=world.texts(2, seed=9))), ("no held out", lambda parts, world: dict(held_out=None)),
    ("max_new_tokens", lambda parts, world: dict(max_new_tokens=2)), ("abstentions", lambda parts, world: dict(abstentions=["Paris"])),
    ("prompt", lambda parts, world: dict(train=replace(parts[0], prompt=Prompt(template="{question}")))), ("stop", lambda parts, world: dict(stop=";"))])
def test_the_folder_of_another_comparison_is_refused(teaching, parts, world, finished, trainings, name, change):
    with pytest.raises(InputError, match="belongs to another comparison"): compared(teaching, parts, world, finished, **change(parts, world))
    assert not trainings

@pytest.fixture(scope="module")
def finished(teaching, parts, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    compared(teaching, parts, world, folder)
    return folder

def test_another_model_is_refused(parts, world, finished):
    model, tokenizer = load_teaching_model()
    with pytest.raises(InputError, match="belongs to another comparison"): compared((changed(model), tokenizer), parts, world, finished)
    half = load_teaching_model(dtype=torch.bfloat16)
    with pytest.raises(InputError, match="belongs to another comparison"): compared(half, parts, world, finished)

def test_more_seeds_and_arms_join_a_folder(teaching, parts, world, finished, trainings):
    compared(teaching, parts, world, finished, arms=[*ARMS, Arm("all layers", tuple(range(12)))], seeds=(0, 1))
    assert {layers for layers, *_ in trainings} == {tuple(range(12))} and len(trainings) == 2

def test_a_damaged_run(teaching, parts, world, finished, tmp_path):
    content = (finished / "claim-0.safetensors").read_bytes()
    (tmp_path / "claim-0.safetensors").write_bytes(content[:len(content) // 2])
    with pytest.raises(InputError, match="is damaged"): compared(teaching, parts, world, tmp_path)

@pytest.mark.parametrize("changes, message", [
    (dict(arms=[]), "no arms or no seeds"), (dict(seeds=()), "no arms or no seeds"), (dict(development=[]), "there are no questions"), (dict(test=[]), "there are no questions"),
    (dict(arms=[ARMS[0], replace(ARMS[1], name="claim")]), "same name"), (dict(arms=[ARMS[0], replace(ARMS[1], name="Claim!")]), "same name"),
    (dict(arms=[ARMS[0], replace(ARMS[1], name="original")]), "original")])
def test_what_cannot_be_compared_is_refused_before_any_training(teaching, parts, world, trainings, tmp_path, changes, message):
    with pytest.raises(InputError, match=message): compared(teaching, parts, world, tmp_path, **changes)
    assert not trainings

def test_parts_that_share_a_subject(teaching, parts, world, trainings):
    train, development, test = parts
    other = replace(test[0], text="Another question", prompt="Another prompt")
    for change in dict(development=[*development, other]), dict(test=[*test, development[0]]), dict(test=[*test, train.questions[0]]):
        with pytest.raises(InputError, match="share 1 subjects"): compared(teaching, parts, world, **change)
    assert not trainings
    check_disjoint({"a": [Question("x", ("y",))], "b": [Question("z", ("y",))]})
    with pytest.raises(InputError, match="'x'"): check_disjoint({"a": [Question("x", ("y",))], "b": [Question("x", ("z",))]})

# --- rivals

def invented(seed=0, n=60, silent_share=0.2, subjects=20, offset=0.):
    "Answers whose confidence says something about their being right; some abstain, confidently."
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.55
    logit = rng.normal(1.2 * correct + offset, 1.5)
    abstained = (rng.random(n) < silent_share) & ~correct
    confidences = 1 / (1 + np.exp(-np.where(abstained, 6 + rng.random(n), logit)))
    questions = [Question(f"{seed} {i}", ("x",), group="known" if i % 3 else "unknown", answerable=bool(i % 3), subject=f"{seed} s{i % subjects}")
                 for i in range(n)]
    return Answers(tuple(questions), ("x",) * n, confidences, correct, abstained, tuple((math.log(c),) for c in confidences))

@pytest.mark.parametrize("seed", range(4))
def test_rivals_are_fitted_on_development_only(seed):
    development, test = invented(seed), invented(seed + 50)
    found, given, asked = score_rivals(development, test), ~development.abstained, ~test.abstained
    for name, method in ("temperature", TemperatureScaling), ("Platt", PlattScaling):
        scaled = found[f"original, {name} scaling"]
        expected = method.fit(development.confidences[given], development.correct[given])(test.confidences[asked])
        assert np.array_equal(scaled.confidences[asked], expected) and np.array_equal(scaled.correct, test.correct)
        assert np.array_equal(scaled.confidences[~asked], test.confidences[~asked])
    assert found["original"] is test
    again = score_rivals(development, replace(test, correct=~test.correct, abstained=np.zeros(60, bool)))   # test verdicts change no fit
    assert [*again] == [*found]
    assert [*found][-1].startswith("original, silent below")

def test_rivals_withhold_an_answer_on_the_threshold():
    "Two confidences without a float between them: the threshold is the lower one, and what has it stays unsaid, as everywhere."
    low, high = .5, np.nextafter(.5, 1)
    questions = [Question(f"q{i}", ("yes",), subject=str(i)) for i in range(4)]
    def answers(confidences, correct):
        found = Answers.given(questions, ["yes"] * 4, correct, [[0.]] * 4)
        return replace(found, confidences=np.array(confidences), token_logprobs=tuple((float(np.log(c)),) for c in confidences))
    development, test = answers([low, low, high, high], [0, 0, 1, 1]), answers([low, high, low, .9], [1, 1, 0, 0])
    silent = [*score_rivals(development, test).items()][-2]
    assert silent[0] == "original, silent below confidence 0.5" and silent[1].abstained.tolist() == [True, False, True, False]
    assert (silent[1].correct == test.abstain_below(low).correct).all()

@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("silent_share", [0., 0.4])
def test_the_threshold_is_the_most_reliable_one_on_development(seed, silent_share):
    "Among all thresholds, of right minus wrong answers; abstentions count for neither."
    development = invented(seed, silent_share=silent_share)
    middling = np.random.default_rng(seed).uniform(0.3, 0.9, 60)
    development = replace(development, confidences=np.where(development.abstained, middling, development.confidences))
    def reliability(answers): return answers.correct.sum() - answers.hallucinated.sum()
    best = max(reliability(development.abstain_below(t)) for t in [0, *np.nextafter(development.confidences, 2)])
    kept = [*score_rivals(development, development).values()][-1]
    assert reliability(kept) == best

def test_platt_is_left_out_where_it_has_no_fit():
    development = invented(0, silent_share=0)
    development = replace(development, confidences=np.where(development.correct, 0.9, 0.2))
    assert "original, Platt scaling" not in score_rivals(development, invented(1))

# --- the table

def made_table(seeds=2, **settings):
    base = invented(0)
    def run(seed):
        rng = np.random.default_rng(seed)
        other = invented(seed)
        return ArmRun(replace(base, correct=other.correct, abstained=other.abstained, confidences=other.confidences), 20. + seed, 1)
    runs = {"original": [run(1)], "claim": [run(s) for s in range(2, 2 + seeds)], "other": [run(s) for s in range(9, 9 + seeds)]}
    return ArmTable(runs, "claim", {"claim": ((1, 2),), "other": ((3,),)}, **{"draws": 300} | settings)

def direct(answers):
    "Measures of one run, one by one."
    known = np.array([q.answerable for q in answers.questions])
    return {name: of(answers.confidences, answers.correct, ~answers.abstained, known) for name, of in DIRECT.items()}

def pairs(right, wrong): return ((right[:, None] > wrong).mean() + (right[:, None] >= wrong).mean()) / 2 if len(right) and len(wrong) else np.nan

DIRECT = {"reliability": lambda c, y, asked, known: y.mean() - (asked & ~y).mean(),
          "right": lambda c, y, asked, known: (y | (~asked & ~known)).mean(), "accuracy": lambda c, y, asked, known: y.mean(),
          "hallucination_rate": lambda c, y, asked, known: (asked & ~y).mean(), "answered": lambda c, y, asked, known: asked.mean(),
          "ece": lambda c, y, asked, known: calibration_error(c[asked], y[asked]),
          "brier": lambda c, y, asked, known: brier_score_loss(y[asked], c[asked]),
          "auroc": lambda c, y, asked, known: pairs(c[asked & y], c[asked & ~y]), "known: right": lambda c, y, asked, known: y[known].mean(),
          "unknown: hallucinated": lambda c, y, asked, known: (asked & ~y)[~known].mean()}

@pytest.mark.parametrize("kind", ["made", "trained"])
def test_measures_equal_direct_computations(kind, table):
    found = made_table() if kind == "made" else table
    frame = found.to_frame()
    for name, runs in found.runs.items():
        each = []
        for run in runs:
            with np.errstate(all="ignore"):
                try: each.append(direct(run.answers))
                except ValueError: each.append(None)                    # nothing answered: no calibration
        for measure in direct(invented(0)):
            value = frame.loc[name, (measure, "value")]
            if None not in each: assert value == pytest.approx(np.mean([e[measure] for e in each]), rel=1e-6, nan_ok=True), (name, measure)
        assert frame.loc[name, ("perplexity", "value")] == pytest.approx(np.mean([run.perplexity for run in runs]))

def resample(found, draws):
    "A bootstrap written out: subjects are drawn, and with each all of its questions."
    rng, names = np.random.default_rng(123), [q.subject for q in found.questions]
    subjects = sorted({*names})
    places = {s: [i for i, name in enumerate(names) if name == s] for s in subjects}
    for _ in range(draws): yield np.concatenate([places[s] for s in rng.choice(subjects, len(subjects))])

@pytest.mark.parametrize("measure", ["reliability", "right", "auroc", "ece", "unknown: hallucinated"])
def test_intervals_equal_a_direct_bootstrap(measure):
    found = made_table(seeds=1, draws=4000)
    known = np.array([q.answerable for q in found.questions])
    arrays = {name: (a.confidences, a.correct, ~a.abstained, known) for name, (run,) in found.runs.items() for a in [run.answers]}
    drawn = [{name: DIRECT[measure](*(x[where] for x in each)) for name, each in arrays.items()} for where in resample(found, 1200)]
    frame, gaps = found.to_frame([measure]), found.differences(measure)
    for name in found.runs:
        low, high = np.percentile([d[name] for d in drawn], [2.5, 97.5])
        spread = high - low
        assert frame.loc[name, (measure, "low")] == pytest.approx(low, abs=0.12 * spread)
        assert frame.loc[name, (measure, "high")] == pytest.approx(high, abs=0.12 * spread)
    for name in gaps.index:
        gap = np.array([d[name] - d["claim"] for d in drawn])
        low, high = np.percentile(gap, [2.5, 97.5])
        assert [gaps.loc[name, "low"], gaps.loc[name, "high"]] == pytest.approx([low, high], abs=0.12 * (high - low))
        exact = direct(found.runs[name][0].answers)[measure] - direct(found.runs["claim"][0].answers)[measure]
        assert gaps.loc[name, "difference"] == pytest.approx(exact)
        assert gaps.loc[name, "p"] == pytest.approx(min(1, 2 * min((gap <= 0).mean(), (gap >= 0).mean())), abs=0.08)

def test_questions_of_a_subject_move_together():
    "Sixty questions about three subjects are worth three, not sixty."
    def width(subjects):
        base = invented(0, subjects=subjects, silent_share=0)
        groups = np.array([q.subject for q in base.questions])
        correct = np.isin(groups, sorted({*groups})[::2])               # a subject is known or not, as a whole
        found = ArmTable({"original": [ArmRun(replace(base, correct=correct), None, 0)]}, "original", {}, draws=2000).to_frame(["accuracy"])
        return found.loc["original", ("accuracy", "high")] - found.loc["original", ("accuracy", "low")]
    assert width(60) == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(60), rel=0.15)
    assert width(10) == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(10), rel=0.2)

@pytest.mark.parametrize("seeds", [1, 3])
def test_an_arm_does_not_differ_from_itself(seeds):
    found = made_table(seeds)
    found.runs["twin"] = found.runs["claim"]
    for measure in "reliability", "auroc", "ece":
        assert found.differences(measure).loc["twin"].tolist() == [0, 0, 0, 1]

def test_differences_turn_their_sign():
    found = made_table()
    one, other = found.differences().loc["other"], found.differences(to="other").loc["claim"]
    assert one.tolist() == pytest.approx([-other["difference"], -other["high"], -other["low"], other["p"]])

def test_seeds_widen_the_interval():
    "Two seeds that differ: the mean is uncertain even where the questions are not."
    base = invented(0, silent_share=0)
    runs = [ArmRun(replace(base, correct=np.full(60, value)), None, 0) for value in (True, False)]
    frame = ArmTable({"original": runs[:1], "claim": runs}, "claim", {}, draws=500).to_frame(["accuracy"])
    assert frame.loc["claim", "accuracy"].tolist() == [0.5, 0, 1] and frame.loc["original", "accuracy"].tolist() == [1, 1, 1]

def test_a_measure_that_is_not_defined_is_no_finding():
    "Where all answers are right there is no AUROC, and so no p-value."
    found = made_table(1)
    base = found.runs["original"][0].answers
    found.runs["perfect"] = [ArmRun(replace(base, correct=np.ones(60, bool), abstained=np.zeros(60, bool)), None, 0)]
    row = found.differences("auroc").loc["perfect"]
    assert row[["difference", "low", "high", "p"]].isna().all()
    assert found.summary().loc["perfect", "auroc"] == "–" and found.summary().loc["perfect", "perplexity"] == "–"

def test_a_group_that_a_draw_does_not_hold_has_no_value_there():
    "One unknown person: every draw that holds it says the same, the others say nothing."
    base = invented(0, silent_share=0)
    questions = tuple(replace(q, group="known" if i else "unknown", answerable=bool(i), subject=f"s{i}") for i, q in enumerate(base.questions))
    found = ArmTable({"original": [ArmRun(replace(base, questions=questions, correct=np.arange(60) > 5), None, 0)]}, "original", {})
    assert found.to_frame().loc["original", "unknown: hallucinated"].tolist() == [1, 1, 1]

def test_unknown_names():
    with pytest.raises(InputError, match="no arm 'nobody'; there are original, claim, other"): made_table().differences(to="nobody")
    for ask in made_table().differences, lambda name: made_table().to_frame([name]):
        with pytest.raises(InputError, match="no measure 'beauty'"): ask("beauty")

def test_representations(table):
    summary = table.summary()
    assert summary.loc["claim", "layers"] == "9, 10" and summary.loc["original", "layers"] == "–" and not summary.isna().any(axis=None)
    assert "12 questions" in repr(table) and "mean over 2 seeds" in table._repr_html_()
    assert {*table.differences().index} == {*table.runs} - {"claim"}

# --- standard arms

def scored(layers=12, seed=0, probe=True):
    return EAVSSScorer(draws=19, probe=probe, balance=()).score(made(*mixed(seed, layers=layers)))

def test_standard_arms():
    scores = scored()
    arms = standard_arms(scores, top=3, draws=2, seed=1)
    by = {arm.name: arm for arm in arms}
    assert set(arms[0].layers) == set(scores.layers(3)) and arms[0].name.startswith("EAVSS layers")
    assert len({(arm.name, arm.seeds) for arm in arms}) == len(arms) and [arm.seeds for arm in arms if arm.name == "random layers"] == [(0,), (1,)]
    assert by["EAVSS layers, no contrast"] == Arm("EAVSS layers, no contrast", arms[0].layers, {"contrast": 0.})
    assert by["lowest EAVSS layers"].layers == tuple(sorted(scores.order[:3])) and by["all layers"].layers == tuple(range(12))
    assert by["probe layers"].layers == tuple(sorted(np.argsort(-scores.probe, kind="stable")[:3].tolist()))
    assert all(len({*arm.layers}) == 3 and arm.layers == tuple(sorted(arm.layers)) for arm in arms if arm.name != "all layers")
    assert standard_arms(scores, 3, 2, 1) == arms and standard_arms(scores, 3, 2, 2) != arms

def test_standard_arms_without_a_probe():
    assert not any("probe" in arm.name for arm in standard_arms(scored(probe=False)))

@pytest.mark.parametrize("top", [0, 4, 5])
def test_too_many_layers_for_an_arm(top):
    with pytest.raises(InputError, match=f"top={top}"): standard_arms(scored(4), top=top)

def test_random_layers_are_never_the_chosen_ones():
    "With few layers a random draw would often be the claim itself, and control nothing."
    scores = scored(5)
    for seed in range(20):
        arms = standard_arms(scores, top=3, draws=3, seed=seed)
        drawn = [arm.layers for arm in arms if arm.name.startswith("random")]
        assert arms[0].layers not in drawn and len({*drawn}) == 3
