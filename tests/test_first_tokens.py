"The first token of each text apart, massive activations, and sparsities that are rounding."
import json
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from matplotlib.figure import Figure
from avss_nb import (
    SITES, Blocks, InputError, LayerProfile, LayerProfiler, LayerScorer, Moments, plot_ranking,
    silent, variance
)
from avss_nb.draw.layers import plot_first_token
from avss_nb.maths.massive import first_share, first_token_note, first_token_rms, layer_list
from avss_nb.maths.moments import median_size
from test_cli import done
from tiny import VOCABULARY, tiny

torch.set_num_threads(1)
ROWS = [torch.randint(3, VOCABULARY, (n % 11 + 2,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(40)]

def planted(size=3000., layer=1, unit=5, position=0, name="llama", **settings):
    "A tiny model in which a block writes a massive activation."
    model = tiny(name, **settings)
    def plant(module, args, out):
        state = out[0] if isinstance(out, tuple) else out
        if state.shape[1] > position: state[:, position, unit] += size
        return out
    Blocks(model).modules[layer].register_forward_hook(plant)
    return model

def by_hand(model, rows=ROWS):
    "float64 states entering and leaving every block, text by text: (x, y) of (layers, tokens, hidden)."
    found, blocks = [], Blocks(model)
    for row in rows:
        seen = []
        with torch.no_grad(), blocks.watch(lambda layer, x, y: seen.append((x[0].double(), y[0].double()))): model(input_ids=torch.tensor([row]))
        found.append([torch.stack(part) for part in zip(*seen)])
    return found

def at_site(site, x, y):
    return {"output": y, "update": y - x, "relative_update": (y - x) / x.square().mean(-1, keepdim=True).sqrt()}[site]

@pytest.fixture(scope="module")
def massive():
    model = planted()
    return model, LayerProfiler(model, sites=SITES, batch_size=7).profile(ROWS, silent)

@pytest.mark.parametrize("site", SITES[:3])
def test_first_tokens_and_the_rest_are_those_of_the_states(massive, site):
    model, profile = massive
    states = [at_site(site, *pair) for pair in by_hand(model)]
    first, rest = torch.cat([a[:, :1] for a in states], 1), torch.cat([a[:, 1:] for a in states], 1)
    for m, a in (profile.first[site].total(), first), ((profile.site(site) - profile.first[site]).total(), rest):
        assert m.tokens.tolist() == [a.shape[1]] * 4
        for aggregation, expected in (("elements", a.flatten(1).var(1, correction=0)), ("neurons", a.var(1, correction=0).mean(1))):
            np.testing.assert_allclose(variance(m, aggregation), expected, rtol=1e-4)
        np.testing.assert_allclose(m.token_rms, a.square().mean(-1).sqrt().sum(1), rtol=1e-4)
        assert (m.counts >= 0).all() and m.counts.sum(-1).tolist() == [a[0].numel()] * 4

def test_scores_without_first_tokens_need_no_new_pass(massive):
    model, profile = massive
    shorter = by_hand(model)
    for site in ("output", "relative_update"):
        rest = torch.cat([at_site(site, *pair)[:, 1:] for pair in shorter], 1).flatten(1)
        expected = rest.var(1, correction=0) / ((rest.abs() < 0.03).double().mean(1).clamp_min(1 / (2 * rest.shape[1])))
        scores = LayerScorer(site=site, eps=0.03, first_token="out").score(profile)
        np.testing.assert_allclose(scores.values, expected, rtol=1e-4)
        assert "without first tokens" in scores.title and scores.tokens == profile.tokens - len(ROWS) and scores.first_token == "out"
        assert (scores.low <= scores.values).all() and np.isfinite(scores.high).all()
    cosine = torch.cat([1 - torch.nn.functional.cosine_similarity(x[:, 1:], y[:, 1:], dim=-1) for x, y in shorter], 1).mean(1)
    np.testing.assert_allclose(LayerScorer("block_influence", first_token="out").score(profile).values, cosine, rtol=1e-4)
    assert LayerScorer(first_token="in").score(profile).values.tolist() == LayerScorer().score(profile).values.tolist()

@pytest.mark.parametrize("position", [0, 1])
def test_the_largest_activation_is_found(position):
    model = planted(position=position)
    profile = LayerProfiler(model, batch_size=7).profile(ROWS, silent)
    table = profile.massive(0)
    y = torch.cat([y for _, y in by_hand(model)], 1)
    where = [(text, token) for text, row in enumerate(ROWS) for token in range(len(row))]
    for layer, row in table.iterrows():
        top = y[layer].abs().flatten().argmax()
        assert (row["unit"], row["position"]) == (int(top) % 32, where[int(top) // 32][1])
        assert row["size"] == pytest.approx(float(y[layer].abs().max()), rel=1e-5)
        median = float(y[layer].abs().median())
        assert row["median"] == pytest.approx(median, rel=0.15) and row["times median"] == pytest.approx(row["size"] / row["median"])
        tokens = y[layer][[i for i, (_, t) in enumerate(where) if t == 0]] if row["position"] == 0 else y[layer][int(top) // 32][None]
        centre = y[layer].mean()
        share = float((tokens - centre).square().sum() / (y[layer] - centre).square().sum())
        assert row["share of variance"] == pytest.approx(share, rel=0.02, abs=1e-4)
    listed = profile.massive()
    assert listed["layer"].tolist() == [1, 2, 3] and set(listed["unit"]) == {5} and set(listed["position"]) == {position}
    with pytest.raises(InputError, match="site output"): LayerProfiler(model, sites=["update"]).profile(ROWS, silent).massive()

def test_whoever_ranks_learns_of_it(massive, tmp_path):
    _, profile = massive
    scores = LayerScorer(site="output").score(profile)
    np.testing.assert_allclose(scores.first_share, first_share(profile.site("output").total(), profile.first["output"].total()))
    assert scores.first_share[1] > 0.99 and scores.first_share[0] < 0.5
    sentence = "The first token of each text carries 100% of the variance in layers 1 to 3"
    assert sentence in repr(scores) and sentence in scores._repr_html_() and sentence in scores.to_dict()["notes"][-1]
    assert "first token" in scores.to_frame() and json.dumps(scores.to_dict(), allow_nan=False)
    assert not any("first token" in note for note in LayerScorer(site="output", first_token="out").score(profile).notes)
    profile.save(tmp_path / "p")
    assert sentence in done("rank", tmp_path / "p", "--site", "output").stdout
    assert sentence not in done("rank", tmp_path / "p", "--site", "mlp").stdout
    assert first_token_note(np.array([.2, np.nan])) == "" and "in layer 1;" in first_token_note(np.array([.2, .9]))
    assert layer_list([4, 1, 2, 3, 7, 8]) == "layers 1 to 4, 7, 8" and layer_list([3]) == "layer 3"

def test_pictures(massive):
    _, profile = massive
    table = first_token_rms(profile)
    assert table["first token"][2] > 10 * table["other tokens"][2]
    y = torch.cat([y[:, :1] for _, y in by_hand(massive[0])], 1)
    np.testing.assert_allclose(table["first token"], y.square().mean((1, 2)).sqrt(), rtol=1e-4)
    ax = profile.plot(Figure().subplots(), what="first token")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["first token"])
    assert "unit 5: layers 1 to 3" in ax.get_title("right") + ax.get_title("left")  # beside the title, or under it where there is no room
    with pytest.raises(InputError, match="'statistics' or 'first token'"): profile.plot(what="last token")

def test_a_file_keeps_it_and_an_older_one_says_that_it_does_not(massive, tmp_path):
    _, profile = massive
    profile.save(tmp_path / "new")
    again = LayerProfile.load(tmp_path / "new")
    assert again.massive(0).equals(profile.massive(0))
    assert (LayerScorer(first_token="out").score(again).values == LayerScorer(first_token="out").score(profile).values).all()
    replace(profile, first=None, largest=None).save(tmp_path / "old")
    old = LayerProfile.load(tmp_path / "old")
    assert (LayerScorer().score(old).values == LayerScorer().score(profile).values).all() and np.isnan(LayerScorer().score(old).first_share).all()
    for ask in (lambda: LayerScorer(first_token="out").score(old), old.massive, lambda: plot_first_token(old)):
        with pytest.raises(InputError, match="does not keep the first token.*profile the texts again"): ask()

def test_merged_profiles_keep_it():
    model = planted()
    halves = [LayerProfiler(model, batch_size=3).profile(part, silent) for part in (ROWS[:15], ROWS[15:])]
    merged, whole = halves[0] + halves[1], LayerProfiler(model, batch_size=3).profile(ROWS, silent)
    assert merged.massive(0)[["unit", "position"]].equals(whole.massive(0)[["unit", "position"]])
    np.testing.assert_allclose(LayerScorer(first_token="out").score(merged).values, LayerScorer(first_token="out").score(whole).values, rtol=1e-4)
    assert (halves[0] + replace(halves[1], first=None, largest=None)).first is None

def test_what_cannot_be_asked_is_refused(massive):
    with pytest.raises(InputError, match="first_token 'off' is not one of in, out"): LayerScorer(first_token="off")
    with pytest.raises(InputError, match="first_token='in', or choose another score"): LayerScorer("ablation", first_token="out")
    with pytest.raises(InputError, match="pooled averages whole texts"): LayerScorer(aggregation="pooled", first_token="out")
    single = LayerProfiler(tiny("llama")).profile([[5], [6], [7]], silent)
    with pytest.raises(InputError, match="single token"): LayerScorer(first_token="out").score(single)

# --- zeros of rounding

def test_zeros_of_rounding_are_marked():
    "float32: hardly a zero; bfloat16: nearly all activations under a small ε are exact zeros, and scores by it are marked."
    rows = [torch.randint(3, VOCABULARY, (60,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(24)]
    single, half = (LayerProfiler(tiny("llama", dtype=dtype), sites=["output", "update", "relative_update"]).profile(rows, silent) for dtype in (torch.float32, torch.bfloat16))
    for eps, marked in (1e-4, True), (0.5, False):
        scores = LayerScorer(eps=eps).score(half)
        assert scores.rounded.all() == scores.rounded.any() == marked and not LayerScorer(eps=eps).score(single).rounded.any()
        assert any("exact zeros" in note for note in scores.notes) == marked == ("exact zeros" in repr(scores))
        assert scores.to_frame()["rounded"].tolist() == [marked] * 4 and ("rounded" in scores._repr_html_()) == marked
        words = plot_ranking(scores, Figure().subplots()).get_title("right")
        assert ("mostly rounding" in words) == marked
    assert not LayerScorer("update_norm", eps=1e-4).score(half).rounded.any()

def test_a_median_from_a_histogram():
    for scale in (1e-6, 0.3, 40.):
        a = scale * torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
        assert float(median_size(Moments.of(a))) == pytest.approx(float(a.abs().median()), rel=0.05)
    assert median_size(Moments.of(torch.zeros(3, 2))) == 0

# --- a real model

@pytest.mark.real
def test_smollm2():
    folder = Path(__file__).parents[1] / "_real_models" / "smollm2"
    if not folder.exists(): pytest.skip("SmolLM2 is not here; run `make real-models`")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    profile = LayerProfiler(model, tokenizer, batch_size=8, max_length=64).profile(
        [f"The river {name} rises in the hills and flows through several towns before it reaches the sea." for name in "Aa Bo Cam Dee Esk Fal Gade Ham".split()], silent)
    table = profile.massive()
    assert table["layer"].min() == 11 and set(table["unit"]) == {507} and set(table["position"]) == {0}
    assert first_token_rms(profile)["first token"][11] > 50 * first_token_rms(profile)["first token"][10]
    scores = LayerScorer().score(profile)
    assert scores.first_share[11] > 0.9 and LayerScorer(first_token="out").score(profile).values[11] < scores.values[11] / 100
