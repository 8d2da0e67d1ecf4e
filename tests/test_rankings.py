"Rankings are what their papers say, searches search, and comparisons are honest."
import copy
import itertools
import json
import math
from types import SimpleNamespace
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import transformers as tf
from matplotlib.figure import Figure
from avss_nb import (
    RANKINGS, SITES, Blocks, Evaluator, InputError, LayerProfiler, LayerPruner, LayerScorer,
    LayerScores, RankingComparison, angular_distances, compare_rankings, weight_magnitude, silent,
    taylor_importance
)
from avss_nb.draw.comparison import plot_distances, plot_rankings
from avss_nb.layers.importance import block_weights, summed_angles
from avss_nb.model.blocks import fingerprint_blocks
from avss_nb.base.basics import Progress
from avss_nb.prune import comparison as module
from avss_nb.prune.comparison import choose_layers, random_choices
from conftest import shared
from tiny import CAUSAL, CONFIGS, VOCABULARY, tiny

matplotlib.use("Agg")

def texts(n, seed=0, shortest=6):
    "Random token ids of several lengths."
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, rng.integers(shortest, 20)).tolist() for _ in range(n)]

def without_block(model, layer):
    "A copy in which a block adds nothing: all its weights are zero."
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p in Blocks(model)[layer].parameters(): p.zero_()
    return model

def state_of(model):
    return {name: (p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()}, [m.training for m in model.modules()]

def assert_untouched(model, before):
    found = state_of(model)
    assert found[1] == before[1] and found[0].keys() == before[0].keys()
    for name, (value, needed, grad) in before[0].items():
        assert torch.equal(found[0][name][0], value) and found[0][name][1] == needed and found[0][name][2] is grad

# --- magnitude and Taylor -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_magnitude_is_the_norm_of_all_weights(name):
    model = tiny(name)
    for norm in 1, 2:
        wanted = [np.linalg.norm(np.concatenate([p.detach().double().numpy().ravel() for p in block.parameters()]), norm) for block in Blocks(model)]
        assert np.allclose(weight_magnitude(model, norm).values, wanted, rtol=1e-12)
    with pytest.raises(InputError, match="norm 3"): weight_magnitude(model, 3)

@pytest.mark.parametrize("name", CAUSAL)
def test_taylor_is_weight_times_gradient_of_the_mean_loss(name):
    model, given = tiny(name), texts(7)
    found = taylor_importance(model, texts=given, batch_size=3, progress=silent)
    other = copy.deepcopy(model)
    losses = []  # one text at a time, without padding, by the library's own loss
    for ids in given:
        batch = torch.tensor([ids])
        losses.append(other(input_ids=batch, labels=batch).loss * (len(ids) - 1))
    (sum(losses) / sum(len(ids) - 1 for ids in given)).backward()
    wanted = [sum(float((p.detach() * p.grad).abs().double().sum()) for p in block.parameters()) for block in Blocks(other)]
    assert np.allclose(found.values, wanted, rtol=2e-4)
    assert found.tokens == sum(map(len, given)) and not found.partial and found.fingerprint == fingerprint_blocks(Blocks(model))

def test_taylor_leaves_no_trace():
    model = tiny("llama").train()
    for p in itertools.islice(model.parameters(), 0, None, 2): p.requires_grad_(False)
    kept = next(p for p in model.parameters() if p.requires_grad)
    kept.grad = torch.ones_like(kept)
    before = state_of(model)
    with torch.no_grad(): first = taylor_importance(model, texts=texts(4), progress=silent)
    assert_untouched(model, before)
    assert torch.equal(kept.grad, torch.ones_like(kept)) and torch.is_grad_enabled()
    assert np.array_equal(first.values, taylor_importance(model, texts=texts(4), progress=silent).values)

def test_taylor_accumulates_above_the_precision_of_the_model():
    model = tiny("llama", dtype=torch.bfloat16)
    whole = taylor_importance(model, texts=texts(24), batch_size=1, progress=silent).values
    reference = taylor_importance(copy.deepcopy(model).float(), texts=texts(24), progress=silent).values
    assert np.allclose(whole, reference, rtol=0.1) and (whole.argsort() == reference.argsort()).all()

def interrupt_at(number):
    def listen(progress):
        if progress.done == number: raise KeyboardInterrupt
    return listen

@pytest.mark.parametrize("measure", [taylor_importance, angular_distances])
def test_an_interruption_gives_what_is_complete(measure):
    model, given = tiny("llama"), [*texts(6)]
    before = state_of(model)
    part = measure(model, texts=given, batch_size=2, progress=interrupt_at(2))
    assert part.partial
    assert_untouched(model, before)
    seen = []
    measure(model, texts=given, batch_size=2, progress=lambda p: seen.append(p.partial()))
    of = (lambda r: r.values) if measure is taylor_importance else (lambda r: r.mean)
    assert np.allclose(of(part), of(seen[1])) and seen[1].partial
    def nothing():
        yield from ()
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): measure(model, texts=nothing(), progress=silent)

def weights_of(model):
    "As `weight_magnitude` does it; the blocks are given, because a model that cannot run cannot be searched for them."
    return block_weights(SimpleNamespace(modules=model.model.layers))

def test_quantised_and_offloaded_weights_are_refused():
    model = tiny("llama")
    block = Blocks(model)[1]
    block.mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="layer 1 .*quantized"): weights_of(model)
    model = tiny("llama")
    Blocks(model)[2].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(48, 32, device="meta"))
    with pytest.raises(InputError, match="layer 2 are offloaded"): weights_of(model)

def test_taylor_needs_a_head_and_text():
    with pytest.raises(InputError, match="no head whose loss is known"): taylor_importance(tf.AutoModel.from_config(CONFIGS["bert"]()), texts=texts(2), progress=silent)
    with pytest.raises(InputError, match="at least one"): taylor_importance(tiny("llama"), progress=silent)

# --- angular distance -----------------------------------------------------------------------------------------------

def states_of(model, ids):
    "The states that enter each block and leave the last one, (layers + 1, tokens, hidden), from hooks of our own."
    blocks, found = Blocks(model), []
    handles = [block.register_forward_pre_hook(lambda _, args, kwargs: found.append((args or [kwargs["hidden_states"]])[0][0]), with_kwargs=True) for block in blocks]
    handles.append(blocks[len(blocks) - 1].register_forward_hook(lambda _, args, out: found.append((out[0] if isinstance(out, tuple) else out)[0])))
    with torch.no_grad(): hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    for handle in handles: handle.remove()
    for ours, theirs in zip(found[:-1], hidden): assert torch.equal(ours, theirs[0])  # but for the last, which is after the final norm
    return torch.stack(found).double().numpy()

@pytest.mark.parametrize("position", ["all", "last"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_angles_are_those_of_the_hidden_states(name, position):
    model, given = tiny(name), texts(7)
    found = angular_distances(model, texts=given, position=position, batch_size=3, groups=2, progress=silent)
    total, count = 0, 0
    for ids in given:
        x = states_of(model, ids)
        if position == "last": x = x[:, -1:]
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        angle = np.arccos(np.clip(np.einsum("ath,bth->tab", x, x), -1, 1)) / math.pi
        total, count = total + angle.sum(0), count + len(angle)
    wanted = total / count
    np.fill_diagonal(wanted, 0)
    assert np.allclose(found.mean, wanted, atol=1e-6) and found.tokens.sum() == count

def test_angles_in_pieces_equal_angles_at_once(monkeypatch):
    states = [torch.randn(50, 8) for _ in range(4)]
    whole = summed_angles(states)
    monkeypatch.setattr("avss_nb.layers.importance.STATES_AT_A_TIME", 100)
    assert np.allclose(summed_angles(states), whole) and whole[0, 0] == 0
    opposite = summed_angles([torch.ones(3, 8), -torch.ones(3, 8)])
    assert np.allclose(opposite, [[0, 3], [3, 0]])

def test_the_single_distance_ranks_as_the_cosine_does():
    "arccos is monotone: with one token the two orders are the same."
    model = tiny("llama")
    found = angular_distances(model, texts=texts(1), position="last", progress=silent).scores()
    x = states_of(model, texts(1)[0])[:, -1]
    cosine = [x[i] @ x[i + 1] / np.linalg.norm(x[i]) / np.linalg.norm(x[i + 1]) for i in range(4)]
    assert [*found.order] == [*np.argsort(-np.array(cosine))] and np.isnan(found.low).all()

def test_a_contiguous_plan_is_contiguous_and_the_best():
    model = tiny("llama")
    found = angular_distances(model, texts=texts(8), progress=silent)
    pruner = LayerPruner(model)
    for count in 1, 2, 3:
        removed = pruner.plan(found, count=count).removed
        assert removed == tuple(range(removed[0], removed[0] + count))
        assert found.mean[removed[0], removed[0] + count] == min(found.mean[i, i + count] for i in range(5 - count))
    best = pruner.plan(found, count=2).removed
    assert not set(pruner.plan(found, count=2, protect=best[:1]).removed) & {best[0]}
    with pytest.raises(InputError, match="no 2 blocks in a row"): pruner.plan(found, count=2, protect=[1, 3])
    with pytest.raises(InputError, match="threshold does not fit"): pruner.plan(found, threshold=0.5)
    with pytest.raises(InputError, match="another model"): LayerPruner(tiny("llama", seed=1)).plan(found, count=1)

def test_the_table_of_distances_names_the_best_runs():
    found = angular_distances(tiny("llama"), texts=texts(24), batch_size=2, progress=silent)
    table = found.to_frame()
    assert [*table["blocks"]] == [1, 2, 3] and ((table["low"] <= table["distance"]) & (table["distance"] <= table["high"])).all()
    assert all(found.lowest(int(row["blocks"]))[0] == row["first"] for _, row in table.iterrows()) and table["same run"].between(0, 1).all()
    with pytest.raises(InputError, match="position 'first'"): angular_distances(tiny("llama"), texts=texts(2), position="first")

# --- searches ---------------------------------------------------------------------------------------------------------

SCORERS = [LayerScorer(draws=0), LayerScorer.published(draws=0), LayerScorer("block_influence", draws=0), LayerScorer("ablation", site="output", draws=0),
           LayerScorer("avss", site="mlp", draws=0)]

@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: f"{s.measure} {s.site}")
def test_iterative_search_removes_first_what_the_score_removes_first(scorer):
    model, given = tiny("llama"), texts(6)
    profile = LayerProfiler(model, sites=SITES, ablation=True).profile(given, silent)
    pruner, before = LayerPruner(model), state_of(model)
    one = pruner.plan(search="iterative", scorer=scorer, texts=given, count=1)
    assert one.removed == pruner.plan(scorer.score(profile), count=1).removed
    assert_untouched(model, before)

def test_iterative_search_is_a_loop_of_removing_and_profiling():
    "Checked on models that have really lost the blocks."
    model, given = tiny("llama"), texts(6)
    found = LayerPruner(model).plan(search="iterative", texts=given, count=3, protect=[2])
    left, rest = model, [0, 1, 2, 3]
    for layer, value in found.trace:
        scores = LayerScorer(draws=0).score(LayerProfiler(left, sites=["relative_update"]).profile(given, silent))
        place = next(i for i in scores.order if rest[i] != 2)
        assert rest[place] == layer and scores.values[place] == pytest.approx(value, rel=1e-4)
        left = LayerPruner(left).remove([place]).apply(verify=False).model
        rest.remove(layer)
    assert 2 not in found.removed and "iterative search by AVSS" in found.how

def test_iterative_search_takes_a_function():
    model, given, heard = tiny("llama"), texts(4), []
    def scorer(some):
        assert some == given
        return taylor_importance(model, texts=some, progress=silent)
    found = LayerPruner(model).plan(search="iterative", scorer=scorer, texts=given, count=2, progress=heard.append)
    assert found.removed[0] in range(4) and [p.done for p in heard] == [1, 2] and heard[0].partial().removed == (found.trace[0][0],)
    first = taylor_importance(model, texts=given, progress=silent)
    assert found.trace[0] == (first.order[0], pytest.approx(first.values.min()))

def test_an_interrupted_measurement_ends_the_search():
    model = tiny("llama")
    def scorer(some): return taylor_importance(model, texts=some, batch_size=1, progress=interrupt_at(1))
    with pytest.raises(KeyboardInterrupt): LayerPruner(model).plan(search="iterative", scorer=scorer, texts=texts(3), count=2)

def test_bad_searches_are_refused():
    pruner = LayerPruner(tiny("llama"))
    for wrong, reason in [(dict(search="best"), "'greedy', 'iterative'"), (dict(scorer=LayerScorer()), "without search='iterative'"),
                          (dict(search="greedy", texts=texts(2), scorer=LayerScorer()), "without search='iterative'"),
                          (dict(search="iterative"), "give texts")]:
        with pytest.raises(InputError, match=reason): pruner.plan(count=1, **wrong)

@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_block_that_does_nothing_is_the_least_important_for_all(layer):
    model, given = without_block(tiny("llama"), layer), texts(8)
    profile = LayerProfiler(model, ablation=True).profile(given, silent)
    found = [weight_magnitude(model), taylor_importance(model, texts=given, progress=silent), angular_distances(model, texts=given, progress=silent).scores(),
             *(LayerScorer(name).score(profile) for name in ("avss", "block_influence", "update_norm"))]
    for scores in found: assert scores.order[0] == layer, scores.title
    assert LayerScorer("ablation").score(profile).values[layer] == 0
    assert LayerPruner(model).plan(search="iterative", texts=given, count=1).removed == (layer,)

# --- scores of your own -----------------------------------------------------------------------------------------------

def test_scores_of_your_own_make_plans_and_pictures():
    model = tiny("llama")
    scores = LayerScores.of("my score", [3, 1, 2, 0], blocks=Blocks(model))
    assert LayerPruner(model).plan(scores, count=2).removed == (1, 3) and scores.lowest(2, protect=[3]) == (1, 2)
    assert "variance" not in scores._repr_html_() and "intervals" not in scores._repr_html_()
    dots = [line.get_ydata() for line in scores.plot(Figure().add_subplot()).lines if line.get_marker() == "o"]
    assert [*dots[0]] == [3, 1, 2, 0]
    draws = np.random.default_rng(0).normal([3, 1, 2, 0], 0.1, (500, 4))
    known = LayerScores.of("my score", [3, 1, 2, 0], draws)
    assert np.allclose(known.low, np.quantile(draws, 0.025, axis=0)) and np.allclose(known.rank_high, [3, 1, 2, 0])
    json.dumps(scores.to_dict(), allow_nan=False)
    for wrong, reason in [(dict(values=[1, 2, 3], blocks=Blocks(model)), "3 values"), (dict(values=[[1, 2]]), "shape"),
                          (dict(values=[1, math.nan]), "layer 1 is not a number")]:
        with pytest.raises(InputError, match=reason): LayerScores.of("my score", **wrong)
    from avss_nb import plot_variance_sparsity
    with pytest.raises(InputError, match="no variance and sparsity"): plot_variance_sparsity(scores)

# --- the comparison ---------------------------------------------------------------------------------------------------

MINE = {"depth": [0, 1, 2, 3], "last": "last", "function": lambda count: range(count), "size": "magnitude"}

def compared(model=None, **changes):
    settings = dict(texts=texts(8), held_out=texts(12, seed=1), rankings=MINE, counts=[1, 2], draws=3, progress=silent) | changes
    return compare_rankings(model or tiny("llama"), None, **settings)

def test_choices_of_every_kind():
    model = tiny("llama")
    scores, pruner = LayerScores.of("s", [3, 1, 2, 0], blocks=Blocks(model)), LayerPruner(model)
    greedy = pruner.plan(search="greedy", texts=texts(3), count=3)
    assert choose_layers(scores, 2) == (1, 3) and choose_layers(scores, 2, [3]) == (1, 2)
    assert choose_layers(greedy, 1) == (greedy.trace[0][0],) and choose_layers(greedy, 3) == greedy.removed and len(choose_layers(greedy, 2)) == 2
    plan = pruner.remove([1, 3])
    assert choose_layers(plan, 2) == (1, 3) and choose_layers(plan, 1) is None and choose_layers(plan, 3) is None
    assert choose_layers([2, 0, 1], 2) == (0, 2) and choose_layers(lambda n: [3, 2, 1][:n], 2) == (2, 3)
    distances = angular_distances(model, texts=texts(3), progress=silent)
    assert choose_layers(distances, 2) == distances.lowest(2)

def test_random_choices_are_different_and_all_where_they_are_few():
    assert random_choices(range(5), 2, 10) == tuple(itertools.combinations(range(5), 2))
    drawn = random_choices([1, 3, 5, 7, 9, 11], 3, 12)
    assert len({*drawn}) == 12 and all({*s} <= {1, 3, 5, 7, 9, 11} and [*s] == sorted(s) for s in drawn)
    assert drawn == random_choices([1, 3, 5, 7, 9, 11], 3, 12) != random_choices([1, 3, 5, 7, 9, 11], 3, 12, seed=1)
    counts = np.bincount(np.concatenate(random_choices(range(12), 3, 200)), minlength=12)
    assert counts.min() > 30  # no layer is left out

def test_every_set_of_layers_is_measured_once(monkeypatch):
    seen, real = [], Evaluator.text_losses
    def counted(self, *args, **kwargs):
        seen.append(args)
        return real(self, *args, **kwargs)
    monkeypatch.setattr(Evaluator, "text_losses", counted)
    found = compared(draws=20)
    sets = {()} | {s for chosen in found.removed.values() for s in chosen.values()} | {*itertools.combinations(range(4), 1), *itertools.combinations(range(4), 2)}
    assert len(seen) == len(sets) == len(found.losses) and found.removed["depth"] == found.removed["function"]

def test_retention_is_the_ratio_of_perplexities_of_skipped_models():
    model, held_out = tiny("llama"), texts(12, seed=1)
    table = compared(model).to_frame().set_index(["ranking", "removed"])
    for (ranking, count), row in table.iterrows():
        if ranking == "random": continue
        def perplexity(m): return Evaluator(m).perplexity(held_out).value
        small = LayerPruner(model).remove(row["layers"]).apply(verify=False).model
        assert row["retention"] == pytest.approx(perplexity(model) / perplexity(small), rel=1e-5) and row["value"] == pytest.approx(perplexity(small), rel=1e-5)
    assert table.loc[("last", 2), "layers"] == (2, 3) and table.loc[("depth", 1), "share"] == 0.25

def independent_interval(losses, tokens, draws=4000, seed=5):
    "Texts drawn one by one, both models on the same ones."
    rng = np.random.default_rng(seed)
    def perplexity(row, at): return np.exp(row[at].sum() / tokens[at].sum())
    found = [perplexity(losses[0], at) / perplexity(losses[1], at) for at in rng.integers(0, len(tokens), (draws, len(tokens)))]
    return np.percentile(found, [2.5, 97.5])

def test_intervals_are_paired_over_texts():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 40, 60)
    original = tokens * rng.gamma(4, 1, 60)          # texts differ much in difficulty ...
    pruned = original + tokens * rng.normal(.3, .1, 60)  # ... and little in what the cut costs
    c = RankingComparison({"r": {1: (0,)}}, {}, {(): original, (0,): pruned}, tokens, {}, np.zeros(0, int), 4)
    row = c.to_frame().iloc[0]
    wanted = independent_interval((original, pruned), tokens)
    assert np.allclose([row["low"], row["high"]], wanted, atol=0.004)
    loose = c.values((), "perplexity")[1:] / np.random.default_rng(1).permutation(c.values((0,), "perplexity")[1:])
    assert np.ptp(np.percentile(loose, [2.5, 97.5])) > 5 * (row["high"] - row["low"])  # unpaired it would say nothing

def test_questions_of_a_subject_are_drawn_together():
    right, wrong = np.ones(40, bool), np.arange(40) % 2 == 0
    subjects = np.repeat(np.arange(4), 10)
    each = RankingComparison({"r": {1: (0,)}}, {}, {}, np.zeros(0, int), {(): right, (0,): wrong}, np.arange(40), 4)
    together = RankingComparison({"r": {1: (0,)}}, {}, {}, np.zeros(0, int), {(): right, (0,): wrong}, subjects, 4)
    assert each.retention((0,), "accuracy")[0] == together.retention((0,), "accuracy")[0] == 0.5
    assert each.retention((0,), "accuracy")[1:].std() > 0.05 > together.retention((0,), "accuracy")[1:].std()  # every subject is half right

def test_differences_are_paired():
    c = compared()
    gap = c.differences("depth").set_index(["ranking", "removed"])
    assert (gap.loc["function", ["difference", "low", "high"]] == 0).all(axis=None)
    wanted = c.retention(c.removed["last"][2])[0] - c.retention((0, 1))[0]
    assert gap.loc[("last", 2), "difference"] == pytest.approx(wanted)
    with pytest.raises(InputError, match="no ranking 'chance'"): c.differences("chance")

def test_the_random_band_is_median_and_range_of_the_draws():
    c = compared(draws=4)
    row = c.to_frame().set_index(["ranking", "removed"]).loc[("random", 2)]
    values = [c.retention(s)[0] for s in c.controls[2]]
    assert len(values) == 4 and (row["retention"], row["low"], row["high"]) == (np.median(values), min(values), max(values))
    mine = c.to_frame().set_index(["ranking", "removed"]).loc[("last", 2)]
    assert mine["beats random"] == np.mean([mine["retention"] > v for v in values])
    assert len(c.random_draws()) == 8
    assert "random" not in {*compared(draws=0).to_frame()["ranking"]}

def test_how_far_a_ranking_keeps_a_share():
    losses = {(): np.array([1.]), (0,): np.array([1.05]), (0, 1): np.array([1.3]), (0, 1, 2): np.array([1.02]), (3,): np.array([2.])}
    removed = {"dips": {1: (0,), 2: (0, 1), 3: (0, 1, 2)}, "fails": {1: (3,)}}
    c = RankingComparison(removed, {}, losses, np.array([1]), {}, np.zeros(0, int), 4)
    assert c.keeps(0.9).to_dict() == {"dips": 1, "fails": 0} and c.keeps(0.3).to_dict() == {"dips": 3, "fails": 1}

def test_a_broken_model_keeps_nothing():
    losses = {(): np.ones(9), (0,): np.full(9, np.nan), (1,): np.r_[np.ones(8), np.inf]}
    c = RankingComparison({"nan": {1: (0,)}, "inf": {1: (1,)}}, {1: ((0,),)}, losses, np.ones(9, int), {}, np.zeros(0, int), 4)
    table = c.to_frame()
    assert (table["retention"] == 0).all() and (table["low"] == 0).all() and np.isinf(table["value"]).all()

def test_the_usual_rankings_run_and_agree_with_what_they_are_made_of():
    model, given = tiny("llama"), texts(10)
    c = compare_rankings(model, None, given, texts(6, seed=1), draws=2, search_texts=4, progress=silent)
    assert {*c.removed} == {label for label, _ in RANKINGS.values()} and {*c.removed["Taylor"]} == {1, 2}
    profile, pruner = LayerProfiler(model, ablation=True).profile(given, silent), LayerPruner(model)
    few = LayerProfiler(model, ablation=True).profile(given[:4], silent)
    wanted = {"AVSS as published": LayerScorer.published().score(profile), "Block Influence": LayerScorer("block_influence").score(profile),
              "single-block ablation": LayerScorer("ablation").score(few), "Taylor": taylor_importance(model, texts=given, progress=silent)}
    for label, scores in wanted.items(): assert c.removed[label][2] == tuple(sorted(scores.lowest(2))), label
    assert c.removed["greedy search by loss"][2] == tuple(sorted(pruner.plan(search="greedy", texts=given[:4], count=2).removed))
    assert c.removed["last blocks"] == {1: (3,), 2: (2, 3)}

def test_protected_layers_stay_for_all():
    c = compare_rankings(tiny("llama"), None, texts(6), texts(6, seed=1), counts=[1, 2], protect=[1], draws=3, search_texts=3, progress=silent)
    every = [s for chosen in (*c.removed.values(), *[dict(enumerate(sets)) for sets in c.controls.values()]) for s in chosen.values()]
    assert every and not any(1 in s for s in every)

def test_the_model_is_as_before():
    model = tiny("llama").train()
    before = state_of(model)
    compare_rankings(model, None, texts(4), texts(4, seed=1), counts=[1], draws=1, search_texts=2, progress=silent)
    assert_untouched(model, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

def test_classifiers_and_masked_models_are_compared_by_their_own_measure():
    from avss_nb import Labelled
    from test_heads import TOKENIZER, classifier
    from test_heads import words as some_words
    model = classifier("distilbert")
    labelled = [Labelled(text, i % 3) for i, text in enumerate(some_words(9, seed) for seed in range(14))]
    c = compare_rankings(model, TOKENIZER, labelled[:8], questions=labelled[8:], counts=[1], draws=2, search_texts=4, progress=silent)
    assert c.measures == ["accuracy"] and {*c.removed} == {label for label, _ in RANKINGS.values()}
    with LayerPruner(model).remove(c.removed["Taylor"][1]).preview(): right = Evaluator(model, TOKENIZER).classify(labelled[8:]).correct
    assert np.array_equal(c.correct[c.removed["Taylor"][1]], right)
    with pytest.raises(InputError, match="1 held-out texts are among"): compare_rankings(model, TOKENIZER, labelled[:8], questions=labelled[7:])
    texts = [some_words(7, seed) for seed in range(8)]
    c = compare_rankings(tiny("bert"), TOKENIZER, texts[:5], texts[5:], counts=[1], draws=0, rankings=["greedy", "taylor", "last"], progress=silent)
    assert c.values()[0] == pytest.approx(Evaluator(tiny("bert"), TOKENIZER).perplexity(texts[5:]).value)

# --- files and interruptions --------------------------------------------------------------------------------------------

def test_saved_and_loaded_it_is_the_same(tmp_path):
    c = compared()
    c.save(tmp_path / "c.safetensors")
    again = RankingComparison.load(tmp_path / "c.safetensors")
    pd.testing.assert_frame_equal(again.to_frame(), c.to_frame())
    assert again.removed == c.removed and again.controls == c.controls and repr(again) == repr(c)
    for content, reason in [(b"x", "damaged or no comparison"), (None, "no comparison of rankings at")]:
        place = tmp_path / "other"
        if content: place.write_bytes(content)
        else: place.unlink()
        with pytest.raises(InputError, match=reason): RankingComparison.load(place)
    magnitude_file = tmp_path / "profile.safetensors"
    LayerProfiler(tiny("llama")).profile(texts(2), silent).save(magnitude_file)
    with pytest.raises(InputError, match="but no comparison of rankings"): RankingComparison.load(magnitude_file)

def test_a_second_call_measures_only_what_is_new(tmp_path, monkeypatch):
    path, model = tmp_path / "c.safetensors", tiny("llama")
    usual = ["magnitude", "taylor", "last"]
    with pytest.raises(KeyboardInterrupt): compared(model, rankings=usual, path=path, progress=interrupt_at(2))
    calls = []
    monkeypatch.setattr(module, "taylor_importance", lambda *a, **k: calls.append("taylor"))
    part = compared(model, rankings=usual, path=path, progress=interrupt_at(6))  # Taylor is known by now
    assert part.partial and not calls and 0 < len(part.losses) and part.measured(()) and "PARTIAL" in repr(part)
    assert len(part.to_frame()) < len((whole := compared(model, rankings=usual, path=path)).to_frame())
    assert not whole.partial and not calls
    monkeypatch.setattr(Evaluator, "text_losses", lambda *a, **k: calls.append("losses"))
    again = compared(model, rankings=usual, path=path)
    pd.testing.assert_frame_equal(again.to_frame(), whole.to_frame())
    assert not calls
    with pytest.raises(InputError, match="another comparison"): compared(model, held_out=texts(3, seed=9), path=path)
    with pytest.raises(InputError, match="another comparison"): compared(tiny("llama", seed=1), path=path)

def test_progress_tells_rankings_and_sets():
    heard = []
    compared(progress=heard.append)
    assert [p.info["ranking"] for p in heard[:4]] == [*MINE] and heard[0].total == 0
    assert heard[4].info["removed"] == [] and heard[-1].done == heard[-1].total and heard[5].partial().partial

@pytest.mark.parametrize("changes, reason", [
    (dict(held_out=texts(8)), "8 held-out texts are among the calibration texts"),
    (dict(held_out=None), "nothing to measure with"),
    (dict(texts=[]), "no texts for the rankings"),
    (dict(rankings=["best"]), "no ranking 'best'; choose among greedy"),
    (dict(rankings="greedy"), r"write \['greedy'\]"),
    (dict(rankings=[]), "no rankings"),
    (dict(rankings={"random": "last"}), "belongs to the control"),
    (dict(rankings={"mine": lambda count: [1] * count}), "'mine' returned .* 2 different"),
    (dict(rankings={"mine": [7, 8]}), "no layer 8|no layer 7"),
    (dict(rankings={"mine": weight_magnitude(tiny("llama", seed=1))}), "'mine' was made for another model"),
    (dict(rankings={"mine": LayerPruner(tiny("llama", seed=1)).remove([0])}), "another model"),
    (dict(counts=[4]), "between 1 and 3"), (dict(counts=[]), "no counts"), (dict(counts=[1.5]), "between 0 and 1"),
    (dict(counts=[2], protect=[0, 1, 2]), "only 1 are unprotected"),
])
def test_bad_input_is_refused(changes, reason):
    with pytest.raises(InputError, match=reason): compared(**changes)

def test_questions_that_were_read_are_refused(teaching, world):
    with pytest.raises(InputError, match="asked in the calibration texts"):
        compare_rankings(*teaching, world.solved(64), questions=world.questions("asked", 50), rankings=["last"], progress=silent)

def test_counts_may_be_shares():
    assert [*compared(counts=[0.25, 0.5]).removed["depth"]] == [1, 2]

# --- pictures -----------------------------------------------------------------------------------------------------------

def words(ax): return " ".join(t.get_text() for t in ax.findobj(matplotlib.text.Text) if t.get_visible())

def test_the_picture_shows_lines_band_and_claim():
    c = compared(draws=3)
    ax = plot_rankings(c, Figure(figsize=(8, 4)).add_subplot())
    assert "depth = function" in words(ax) and "random: median, range" in words(ax) and "90 % at 25 %" in words(ax)
    table = c.to_frame().set_index(["ranking", "removed"])["retention"]
    line = next(l for l in ax.lines if l.get_color() == ax.lines[1].get_color() and len(l.get_xdata()) == 3)
    assert any(np.allclose(l.get_ydata(), [1, *table["depth"]]) for l in ax.lines) and line is not None
    only = plot_rankings(c, Figure().add_subplot(), highlight=["last"])
    wide = [l for l in only.lines if l.get_linewidth() == 2]
    assert len(wide) == 1 and np.allclose(wide[0].get_ydata(), [1, *table["last"]])
    with pytest.raises(InputError, match="no ranking 'none'"): plot_rankings(c, Figure().add_subplot(), highlight=["none"])

def test_the_picture_of_distances_marks_the_best_runs():
    found = angular_distances(tiny("llama"), texts=texts(3), progress=silent)
    ax = plot_distances(found, Figure().add_subplot(), most=3)
    assert [*ax.lines[0].get_xdata()] == [found.lowest(count)[0] for count in (1, 2, 3)]
    with pytest.raises(InputError, match="most=4"): plot_distances(found, most=4)

# --- real models --------------------------------------------------------------------------------------------------------

def test_stories260k_all_pairs_are_the_control():
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = shared("models/stories260k")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    story = "Once upon a time there was a little girl named {}. She liked to play in the park with her {}. One day she saw a big {}."
    given = [story.format(*w) for w in itertools.product(["Lily", "Mia", "Anna", "Sue"], ["dog", "ball", "mom"], ["tree", "cat"])]
    c = compare_rankings(model, tokenizer, given[:12], given[12:], rankings=["greedy", "avss", "last"], draws=10, search_texts=8, progress=silent)
    assert c.layers == 5 and {count: len(sets) for count, sets in c.controls.items()} == {1: 5, 2: 10}
    table = c.to_frame().set_index(["ranking", "removed"])
    assert table.loc[("greedy search by loss", 1), "retention"] >= table.loc[("random", 1), "retention"]
    assert (table["retention"] < 0.9).all()  # every block of so small a model is needed

# --- progress inside a candidate

class Hears(list):
    "A listener that hears of parts, of which none is too early."
    hears_parts = True
    def __call__(self, progress): self.append(progress)

@pytest.fixture
def hears(monkeypatch):
    from avss_nb.base.basics import Reporter
    def part(self, units):
        if self.parts: self.progress(Progress(self.done, self.total, self.unit, part=units))
    monkeypatch.setattr(Reporter, "part", part)
    return Hears()

def assert_parts_rise(heard):
    "Before each unit its parts rise to no more than the whole."
    for done in {p.done for p in heard}:
        parts = [p.part for p in heard if p.done == done and p.part]
        assert parts == sorted(parts) and all(0 < part <= 1 for part in parts)

def test_a_greedy_search_is_heard_inside_a_step(hears):
    "Its candidates are measured side by side: 4 and then 3, in three batches."
    plan = LayerPruner(tiny("llama")).plan(search="greedy", count=2, texts=texts(40), progress=hears)
    assert hears[0].begins
    for done, candidates in (0, 4), (4, 3):
        parts = [p.part for p in hears if p.done == done and p.part]
        assert parts == [pytest.approx(k / 3) for k in range(1, 3 * candidates + 1)]
    assert [p.done for p in hears if not p.part and not p.begins] == [*range(1, 8)] and hears[-1].partial().removed == (plan.trace[0][0],)

def test_an_iterative_search_is_heard_inside_a_step(hears):
    LayerPruner(tiny("llama")).plan(search="iterative", count=2, texts=texts(40), progress=hears)
    assert hears[0].begins and [p.done for p in hears if not p.part and not p.begins] == [1, 2]
    assert len([p for p in hears if p.done == 1 and p.part]) >= 3
    assert_parts_rise(hears)

@pytest.mark.parametrize("asked", [False, True])
def test_a_comparison_is_heard_inside_a_set_of_layers(hears, teaching, world, asked):
    model, tokenizer = teaching
    settings = dict(held_out=world.texts(6, seed=3), questions=world.questions("known", 6) if asked else None, batch_size=2)
    compare_rankings(model, tokenizer, world.texts(4), rankings={"last": "last"}, counts=[1], draws=0, progress=hears, **settings)
    first = [p.part for p in hears if p.done == 1 and p.part]
    assert first[-1] == 1 and len(first) >= (6 if asked else 3) and (min(first) < 0.5) and hears[-1].share() == 1
    assert_parts_rise(hears)

def test_a_plain_function_hears_of_whole_sets_only():
    heard = []
    compared(progress=heard.append)
    assert not any(p.part or p.begins for p in heard) and [p.done for p in heard] == [*range(1, len(heard) + 1)]

def test_a_search_shows_a_bar_and_a_ranking_by_search_does_not(monkeypatch):
    from avss_nb.base import basics
    labels = []
    class Bar:
        def __init__(self, label): self.label = label
        def __call__(self, progress): labels.append(self.label)
    monkeypatch.setattr(basics, "Bar", Bar)
    LayerPruner(tiny("llama")).plan(search="greedy", count=1, texts=texts(3))
    assert labels == ["search"] * 4
    labels.clear()
    compared(rankings={"greedy": "greedy"}, counts=[1], draws=0, progress=None)
    assert {*labels} == {"rankings"}
