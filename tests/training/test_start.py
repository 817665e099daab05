"""Where a run starts, and what a change of settings does to the place in its text."""

import ast
import dataclasses

import pytest

from chinchilla_jax.config import Config, TrainConfig, to_dict
from chinchilla_jax.training import start

TRAIN = TrainConfig(batch_size=4, steps=400)


def said(**changes) -> str:
    """What is said of a change at step 20."""
    old, new = (to_dict(Config(train=train)) for train in (TRAIN, dataclasses.replace(TRAIN, **changes)))
    return start.moved_in_text(old, new, 20)


@pytest.mark.parametrize(
    "batch, what", [(8, "80 windows of text are skipped"), (2, "40 windows of text are read again"), (4, "")]
)
def test_a_changed_batch_moves_the_place_and_the_advice_does_not(batch, what):
    found = said(batch_size=batch)
    assert found.startswith(what) and ("--train.batch-ramp" in found) == bool(what)
    if what:
        words = found.split("give --train.batch-size ")[1].split()
        advised = {"batch_size": int(words[0]), "batch_ramp": ast.literal_eval(words[2].strip("'"))}
        if len(words) > 3:
            assert words[3] == "--train.microbatches"
            advised["microbatches"] = int(words[4])
        assert advised["batch_size"] == 4 and advised["batch_ramp"] == ((20, batch),) and said(**advised) == ""


def test_what_does_not_move_the_place_is_not_spoken_of():
    assert said(steps=900, batch_ramp=((20, 8), (30, 16)), log_every=3) == ""


@pytest.mark.parametrize("change", [{"seed": 1}, {"seq_len": 128}])
def test_another_order_of_windows(change):
    assert "another order" in said(**change)


def test_a_run_goes_on_with_a_warning(copy, tiny_store):
    from tests import runs

    code, said = runs.pretrain(copy, tiny_store, "--allow-changes", **{"train.batch-size": 16, "train.steps": 21})
    assert code == 0 and "warning: 160 windows of text are skipped" in said
