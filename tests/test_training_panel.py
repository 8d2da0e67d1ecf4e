"The training panel: live while a Trainer trains, stoppable, and its picture is kept."
import base64
import io
import re
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from avss_nb import AVSSCallback, InputError, TrainingPanel
from avss_nb.panels.picture import sole_run
from test_panels import eager, front_end
from test_training import PROBE, Stop, equal, rows, run, trainer, with_dropout

def watched(every=3): return eager(TrainingPanel(AVSSCallback(PROBE, every=every)))

def test_it_grows_while_the_trainer_trains(tmp_path):
    panel, said, frames = watched(), [], []
    panel.status.observe(lambda change: said.append(re.sub("<[^>]*>", "", change["new"])), "value")
    panel.picture.widget.observe(lambda change: frames.append(change["new"]), "value")
    seen = []
    panel.observe(lambda change: seen.append(len(change["new"])), "history")
    made = trainer(with_dropout(), tmp_path)
    history = panel.run(made)
    assert any(re.fullmatch(r"training step \d+ of 12: loss [\d.]+, about \d+ s left; press ■ to stop", s) for s in said)
    assert len(set(frames)) >= 4 and seen == sorted(seen) and {1, 2, 3, 5} <= {*seen}
    assert history.steps.tolist() == [0, 3, 6, 9, 12] and panel.history is history and panel.bar.layout.display == "none"
    assert panel.text.startswith("Measured 5 times up to step 12; loss ") and "layer" in panel.text
    assert np.allclose(panel._changes.mesh.get_array(), history.change().T) and len(panel._lines.training.get_xdata()) == 12

def test_watching_changes_nothing(tmp_path):
    plain, panel = run(with_dropout(), tmp_path), watched()
    made = trainer(with_dropout(), tmp_path)
    panel.run(made)
    assert rows(made) == rows(plain)

def test_stopped_keeps_what_there_is_and_goes_on_from_a_checkpoint(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3}
    panel = watched()
    history = panel.run(trainer(with_dropout(), tmp_path, Stop(8), **settings))
    assert history.steps.tolist() == [0, 3, 6] and panel.text.startswith("Measured 3 times up to step 6")
    with sole_run(): pass                                    # and the model is free again
    again, whole = watched(), watched()
    again.run(trainer(with_dropout(), tmp_path, **settings), resume_from_checkpoint=True)
    whole.run(trainer(with_dropout(), tmp_path / "other", **settings))
    assert equal(again.history, whole.history)

def test_a_training_run_by_hand_is_shown_when_its_cell_ends(tmp_path):
    shell = InteractiveShell.instance()
    try:
        panel = watched()
        shell.user_ns.update(made=trainer(with_dropout(), tmp_path, panel.callback, Stop(7)), panel=panel)
        assert isinstance(shell.run_cell("made.train()").error_in_exec, KeyboardInterrupt)
        assert panel.history.steps.tolist() == [0, 3, 6] and panel.text.startswith("Measured 3 times")
        assert panel._cell_ended not in shell.events.callbacks["post_run_cell"]
    finally: InteractiveShell.clear_instance()

def test_early_stopping_shows_the_last_measurement(tmp_path):
    panel = watched()
    assert panel.run(trainer(with_dropout(), tmp_path, Stop(7, "early"))).steps.tolist() == [0, 3, 6, 7]
    assert "up to step 7" in panel.text and panel.bar.layout.display == "none"

def test_a_history_is_looked_at_afterwards(tmp_path):
    callback = AVSSCallback(PROBE, every=6)
    run(with_dropout(), tmp_path, callback)
    panel = TrainingPanel(history=callback.history)
    shown = panel.picture.png
    front_end(panel.what, index=1)
    assert panel.what.value == "variance" and panel.picture.png != shown and "variance" in panel.picture.alt
    assert np.allclose(panel._changes.mesh.get_array(), callback.history.change("variance").T)
    data, _ = panel._repr_mimebundle_()
    whole = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert whole.size == (2 * 860, 2 * (330 + 190)) and "layer 3" in data["text/plain"]
    with pytest.raises(InputError, match="no callback"): panel.run(None)
