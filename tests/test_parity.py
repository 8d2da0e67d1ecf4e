"""The numbers of others, stated again from their description and compared on the same model and the same texts.

The AVSS authors' scripts pad every text to a fixed length and count the padding, average the values of batches without weighting the last,
shorter one, and take the cumulative sum before sorting. The R package aifeducation averages over samples and tokens first."""
import numpy as np, pytest, torch
import transformers as tf
from avss_nb import LayerProfiler, LayerScorer, silent, sparsity, variance
from tiny import CONFIGS, PATHS, VOCABULARY, tiny

EPS, LENGTH, BATCH = 1e-5, 128, 4

def texts(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]

def quiet_units(model, name):
    "The model with a fifth of its units made so small that they lie under ε now and then: the sparsity is then a number, not zero."
    with torch.no_grad():
        for layer, block in enumerate(model.get_submodule(PATHS[name])):
            block.output_layer_norm.weight[:6] = (8e-5, 2e-5, 6e-5, 4e-5)[layer]
            block.output_layer_norm.bias[:6] = 0
    return model

def authors_model():
    "The authors' setting: a DistilBERT that classifies into two classes."
    torch.manual_seed(0)
    config = CONFIGS["distilbert"]()
    config.num_labels = 2
    model = tf.DistilBertForSequenceClassification(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(8)
    return quiet_units(model, "distilbert")

@torch.no_grad()
def published(model, path, rows, length=LENGTH, size=BATCH, count_padding=True, weigh=False):
    "The authors' procedure: variance and sparsity of every layer's output. The last two settings mend one defect each."
    batches, held = [], {}
    handles = [block.register_forward_hook(lambda _, args, out, i=i: held.__setitem__(i, out[0] if isinstance(out, tuple) else out))
               for i, block in enumerate(model.get_submodule(path))]
    for start in range(0, len(rows), size):
        part = rows[start:start + size]
        ids = torch.tensor([row + [0] * (length - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in part])
        model(input_ids=ids, attention_mask=mask)
        values = []
        for layer in range(len(held)):
            a = held[layer].double()
            states = [text if count_padding else text[:n] for text, n in zip(a, mask.sum(1))]
            each = torch.stack([text.mean(0).var(unbiased=True) for text in states])  # mean over the sequence, variance over hidden
            values.append((each.mean().item(), (torch.cat(states).abs() < EPS).double().mean().item()))
        batches.append((values, len(part)))
    for handle in handles: handle.remove()
    weights = np.array([n for _, n in batches], float) if weigh else np.ones(len(batches))
    return np.average(np.array([values for values, _ in batches]), axis=0, weights=weights).T  # (2, layers)

def ours(model, rows, aggregation="pooled", site="output", **settings):
    profile = LayerProfiler(model, sites=[site], batch_size=BATCH, max_length=LENGTH, **settings).profile(rows, progress=silent)
    total = profile.site(site).total()
    return np.stack([variance(total, aggregation).numpy(), sparsity(total, EPS, aggregation).numpy()])

# --- the AVSS authors' scripts

def test_pooled_is_the_published_procedure_where_its_defects_are_silent():
    "No padding, and full batches: the same numbers."
    model, rows = authors_model(), texts([LENGTH] * 8)
    found = published(model, PATHS["distilbert"], rows)
    assert (found[1] > 0.005).all() and (found[1] < 0.2).all()
    np.testing.assert_allclose(ours(model, rows), found, rtol=1e-6)
    scores = LayerScorer(site="output", aggregation="pooled", eps=EPS, draws=0).score(
        LayerProfiler(model, sites=["output"], batch_size=BATCH).profile(rows, progress=silent))
    np.testing.assert_allclose(scores.values, found[0] / found[1], rtol=1e-6)

@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gpt_neox"])
def test_pooled_variance_of_other_architectures(name):
    model, rows = tiny(name), texts([LENGTH] * 8)
    np.testing.assert_allclose(ours(model, rows)[0], published(model, PATHS[name], rows)[0], rtol=1e-6)

def test_padding_is_counted_by_them_and_not_here():
    model, rows = authors_model(), texts([9, 30, 17, 64, 25, 11, 50, 8])
    path = PATHS["distilbert"]
    theirs, longer, mended = published(model, path, rows), published(model, path, rows, length=100), published(model, path, rows, count_padding=False, size=1)
    mine = ours(model, rows)
    assert (np.abs(theirs / mine - 1)[0] > 0.1).all()                    # two numbers, and they differ
    assert (np.abs(longer / theirs - 1)[0] > 0.01).all()                 # theirs changes with the length that texts are padded to
    np.testing.assert_allclose(mine[0], mended[0], rtol=1e-5)            # without the padding both are one
    np.testing.assert_allclose(mine[1], np.average([published(model, path, [row], count_padding=False)[1] for row in rows], axis=0,
                                                   weights=[*map(len, rows)]), rtol=1e-6)

def test_their_last_short_batch_weighs_as_much_as_a_full_one():
    model, rows = authors_model(), texts([LENGTH] * 9)                   # two full batches, and one of a single text
    path = PATHS["distilbert"]
    theirs, weighted, mine = published(model, path, rows), published(model, path, rows, weigh=True), ours(model, rows)
    assert (np.abs(theirs / mine - 1) > 1e-4).all()
    np.testing.assert_allclose(mine, weighted, rtol=1e-6)

def test_their_cumulative_sum_is_taken_before_sorting():
    "A layer's place in the model then decides whether it is removed."
    model, rows = authors_model(), texts([LENGTH] * 8)
    scores = LayerScorer(site="output", aggregation="pooled", eps=EPS, draws=0).score(
        LayerProfiler(model, sites=["output"], batch_size=BATCH).profile(rows, progress=silent))
    av, sparse = published(model, PATHS["distilbert"], rows)
    share = (av / sparse) / (av / sparse).sum()
    before, after = np.cumsum(share), np.cumsum(np.sort(share))
    np.testing.assert_allclose(scores.cumulative, after, rtol=1e-6)      # the paper's words: from the least important layer up
    assert not np.allclose(np.sort(before), after, rtol=1e-2)            # the scripts: another number
    threshold = share.min() * 1.01
    assert [*np.flatnonzero(before <= threshold)] != [scores.order[0]]   # and another layer, or none

# --- the R package aifeducation

@torch.no_grad()
@pytest.mark.parametrize("name", ["distilbert", "bert", "llama"])
def test_mean_state_is_the_definition_of_the_r_package(name):
    model, rows, states = tiny(name), texts([9, 30, 17, 64, 25]), []
    if name == "distilbert": quiet_units(model, name)
    for row in rows:
        held, block = [], model.get_submodule(PATHS[name])[-1]
        handle = block.register_forward_hook(lambda _, args, out: held.append(out[0] if isinstance(out, tuple) else out))
        hidden = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        handle.remove()
        states.append(torch.stack([*hidden[1:-1], held[0]])[:, 0].double())
    mean = torch.cat(states, 1).mean(1).numpy()                          # (layers, hidden): over samples and tokens first
    expected = np.stack([mean.var(1, ddof=0), (np.abs(mean) < EPS).mean(1)])
    np.testing.assert_allclose(ours(model, rows, "mean_state"), expected, rtol=1e-6)
    assert (expected[1] > 0).any() == (name == "distilbert")

# --- Block Influence

@torch.no_grad()
@pytest.mark.parametrize("name, norm", [("llama", "model.norm"), ("gpt2", "transformer.ln_f"), ("gpt_neox", "gpt_neox.final_layer_norm"),
                                        ("distilbert", None), ("bert", None)])
def test_block_influence_is_one_minus_the_cosine_of_hidden_states(name, norm):
    model, rows, before_norm = tiny(name), texts([9, 30, 17, 64, 25]), []
    if norm:
        torch.nn.init.uniform_(model.get_submodule(norm).weight, 0.2, 2)
        handle = model.get_submodule(norm).register_forward_pre_hook(lambda _, args: before_norm.append(args[0]))
    distances, naive = [], []
    for row in rows:
        hidden = [*model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states]
        def far(states): return np.array([(1 - torch.cosine_similarity(x.double(), y.double(), dim=-1))[0].sum().item() for x, y in zip(states, states[1:])])
        naive.append(far(hidden))
        distances.append(far(hidden[:-1] + [before_norm[-1]]) if norm else naive[-1])
    if norm: handle.remove()
    tokens = sum(map(len, rows))
    profile = LayerProfiler(model, sites=["output"], batch_size=BATCH).profile(rows, progress=silent)
    values = LayerScorer("block_influence", site="output", draws=0).score(profile).values
    np.testing.assert_allclose(values, sum(distances) / tokens, rtol=1e-4)
    if norm: assert abs(sum(naive)[-1] / tokens / values[-1] - 1) > 0.01  # hidden_states[-1] is taken after the final norm
