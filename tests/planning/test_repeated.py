"""Advice for text that is read often: figures between those that were measured, and when it says nothing."""

import json
from pathlib import Path

import pytest

from chinchilla_jax.config import Config, replace
from chinchilla_jax.planning import repeated
from chinchilla_jax.planning.repeated import Point

GAINS = {
    4.0: Point(-0.1, 0.02, -0.2, 3), 16.0: Point(0.3, 0.04, 0.4, 2), 64.0: Point(0.5, None, 1.0, 1),
}  # fmt: skip
STUDY = Path(__file__).resolve().parents[2] / "docs/ablation/repeated-pilot.json"


@pytest.mark.parametrize("readings, expected", [
    (4.0, (-0.1, 0.02, -0.2)), (8.0, (0.1, 0.03, 0.1)), (16.0, (0.3, 0.04, 0.4)),
    (32.0, (0.4, None, 0.7)), (64.0, (0.5, None, 1.0)), (1000.0, (0.5, None, 1.0)),
])  # fmt: skip
def test_gains_are_interpolated_in_the_logarithm_of_the_readings(readings, expected):
    """No error is said beside a point of one seed, whatever its other neighbours have."""
    found = repeated.gain(GAINS, readings)
    assert found[1] == (None if expected[1] is None else pytest.approx(expected[1]))
    assert found[::2] == pytest.approx(expected[::2])


@pytest.mark.parametrize("name, readings", [(name, at) for name, one in repeated.RECIPES.items() for at in one.gains])
def test_the_figures_are_those_of_the_study(name, readings):
    rows = json.loads(STUDY.read_text())["rows"]
    runs = {(row["recipe"], row["readings"], row["seed"]): row for row in rows}
    pairs = [(row, runs["plain", readings, seed]) for (recipe, at, seed), row in runs.items()
             if recipe == name and at == readings]  # fmt: skip
    recipe = repeated.RECIPES[name]
    point = recipe.gains[readings]
    for figure in ("best", "last"):
        mean = sum(plain[figure] - row[figure] for row, plain in pairs) / len(pairs)
        assert getattr(point, figure) == pytest.approx(mean, abs=6e-4)
    assert point.seeds == len(pairs) and (point.error is None) == (len(pairs) < 2)
    assert all(row["settings"] == recipe.settings for row, _ in pairs)


@pytest.mark.parametrize("readings, shifts, decay, share, words", [
    (2.0, False, 0.1, 0.0, "gains no more than its error, 0.000 nats at 0.32M parameters and 1.9M tokens of training, "
                           "measured at 2 (1 seed) readings: left off"),
    (4.0, True, 0.1, 0.0, "so --train.shift-windows true is on: 0.009 nats off the best loss and 0.009 off the last"),
    (9.0, True, 1.0, 0.0, "is on: 0.050 nats off the best loss and 0.073 off the last at 0.32M parameters and 1.9M "
                          "tokens of training, measured at 8 (1 seed) and at 16 (2 seeds) readings; the predicted"),
    (16.0, True, 1.0, 0.0, "so --train.shift-windows true --optimizer.weight-decay 1.0 is on: 0.195 ± 0.006 nats off "
                           "the best loss and 0.320 off the last"),
    (40.0, True, 1.0, 0.05, "measured at 32 (1 seed) readings, nobody measured more; the predicted loss knows nothing "
                            "of it; --train.shift-windows false leaves it out"),
])  # fmt: skip
def test_it_advises_what_was_measured_best_where_that_gains(readings, shifts, decay, share, words):
    config, found = repeated.advised(Config(), readings, {})
    told = {"train.shift_windows": shifts, "optimizer.weight_decay": decay, "corruption.share": share}
    assert config == replace(Config(), told) and {name: found[name] for name in told} == told
    assert words in found["said"] and (found["gain_nats"] > 0) == shifts


def test_a_recipe_that_is_kept_is_told_and_not_changed():
    config, found = repeated.advised(Config(), 16.0, {}, kept=True)
    assert config == Config() and (found["train.shift_windows"], found["optimizer.weight_decay"]) == (False, 0.1)
    assert (
        "would gain 0.195 ± 0.006 nats" in found["said"] and "the law's recipe is kept, so it is off" in found["said"]
    )
    assert "is on" not in found["said"]


@pytest.mark.parametrize("readings, given, changes", [
    (1.9, {}, {}), (64.0, {"train.shift_windows": False}, {}), (64.0, {"optimizer.weight_decay": 0.1}, {}),
    (64.0, {}, {"corruption.share": 0.3}), (64.0, {}, {"optimizer.weight_decay": 0.3}),
    (64.0, {}, {"corruption.kind": "mask"}),
])  # fmt: skip
def test_it_is_silent_on_fresh_text_and_where_somebody_has_chosen(readings, given, changes):
    config = replace(Config(), changes)
    assert repeated.advised(config, readings, given) == (config, None)
