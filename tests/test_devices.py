"A device without float64 (Apple's GPUs): everything that is measured beside a model is measured there too, and equals the CPU's."
import copy
import numpy as np, pytest, torch
import no_float64
from avss_nb import (
    SITES, Evaluator, LayerProfiler, LayerScorer, angular_distances, weight_magnitude, silent
)
from avss_nb.maths.moments import has_float64, to_float64
from avss_nb.model.heads import batch_losses, target_batch
from tiny import tiny

ROWS = [[5, 6, 7, 8, 9], [6, 7, 8], [9, 10, 11, 12], [3, 4]] * 3

@pytest.fixture(scope="module")
def pair():
    "A model, and the same on the device."
    model = tiny("llama")
    model.set_attn_implementation("eager")
    return model, no_float64.moved(copy.deepcopy(model))

def test_the_device_refuses_float64(pair):
    with no_float64.device() as device:
        with pytest.raises(TypeError, match="doesn't support float64"): torch.ones(2, dtype=torch.float64, device=device)
        with pytest.raises(TypeError, match="doesn't support float64"): next(pair[1].parameters()).double()
        assert next(pair[1].parameters()).cpu().double().dtype == torch.float64

@pytest.mark.parametrize("measure", [
    lambda m: LayerScorer(draws=0).score(LayerProfiler(m, sites=SITES, batch_size=5).profile(ROWS, silent)).values,
    lambda m: LayerScorer("ablation").score(LayerProfiler(m, ablation=True, batch_size=5).profile(ROWS, silent)).values,
    lambda m: LayerProfiler(m, batch_size=5).profile(ROWS, silent).massive(0)[["unit", "position", "size"]].to_numpy(),
    lambda m: angular_distances(m, None, ROWS, progress=silent).mean,
    lambda m: weight_magnitude(m).values,
    lambda m: batch_losses(m, target_batch(m, None, ROWS))[0].detach().numpy(),
    lambda m: [Evaluator(m, None).perplexity(ROWS, progress=silent).value],
], ids=["profile", "ablation", "massive", "angles", "magnitude", "losses", "perplexity"])
def test_what_is_measured_equals_the_cpu(pair, measure):
    expected = measure(pair[0])
    with no_float64.device(): found = measure(pair[1])
    np.testing.assert_allclose(found, expected, rtol=1e-3)

def test_what_lies_on_the_device_widens_on_the_cpu():
    "The sums of `taylor_importance` among it: its backward pass cannot be played here."
    with no_float64.device() as device:
        t = torch.ones(3, device=device)
        assert not has_float64(t.device) and to_float64(t).dtype == torch.float64 and to_float64(t).device.type == "cpu"
    assert has_float64(torch.device("cpu"))
