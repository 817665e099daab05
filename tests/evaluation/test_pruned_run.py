"""The calibration set of pruning: the first windows of training, in whole batches."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, TrainConfig
from chinchilla_jax.data.batches import of_text
from chinchilla_jax.data.split import Part, Split
from chinchilla_jax.evaluation import pruned_run

PARTS = (Part("a", 0, 560, 560), Part("b", 560, 640, 80))
SPLIT = Split(np.arange(641, dtype=np.uint16), np.arange(0, 641, 7).astype(np.uint64), 641, PARTS)


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
@pytest.mark.parametrize("tokens, batches", [(1, 1), (64, 1), (65, 2), (320, 5)])
def test_what_it_is_calibrated_on_is_what_training_saw_first(tokens, batches, weights):
    """Rounded up to whole batches of 4 windows of 16 tokens; the same rows as those of the run's first steps."""
    train = TrainConfig(steps=10, batch_size=4, seq_len=16, seed=3)
    store = SimpleNamespace(train=SPLIT, weights=weights)
    found = pruned_run.calibration(train, store, 4, tokens)
    assert len(found) == batches
    steps = of_text(store, train)
    for number, batch in enumerate(found):
        for name, value in vars(steps.at(number)).items():
            np.testing.assert_array_equal(getattr(batch, name), value)


@pytest.mark.parametrize("process", [0, 1])
def test_of_many_processes_one_says_where_the_weights_came_from(process, monkeypatch, tmp_path):
    """Two that put the same file into place would race."""
    said = []
    monkeypatch.setattr("jax.process_index", lambda: process)
    monkeypatch.setattr(pruned_run.resume, "own_config", lambda run_dir: Config())
    monkeypatch.setattr(pruned_run.params_only, "write", lambda *args, **named: None)
    monkeypatch.setattr(pruned_run.origin, "inherit", lambda *args: said.append(args))
    program = SimpleNamespace(config=Config())
    loaded = SimpleNamespace(program=program, step=1, facts={"run": "r"})
    pruned_run.write(tmp_path, tmp_path, loaded, {}, SimpleNamespace(fingerprint=""), "store")
    assert len(said) == (process == 0)
