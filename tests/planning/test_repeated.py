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


@pytest.fixture
def points(monkeypatch):
    monkeypatch.setattr(repeated, "GAINS", GAINS)


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize("readings, expected", [
    (2.0, (-0.1, 0.02, -0.2)), (4.0, (-0.1, 0.02, -0.2)), (8.0, (0.1, 0.03, 0.1)), (16.0, (0.3, 0.04, 0.4)),
    (32.0, (0.4, None, 0.7)), (64.0, (0.5, None, 1.0)), (1000.0, (0.5, None, 1.0)),
])  # fmt: skip
def test_gains_are_interpolated_in_the_logarithm_of_the_readings(readings, expected):
    """No error is said beside a point of one seed, whatever its other neighbours have."""
    found = repeated.gain(readings)
    assert found[1] == (None if expected[1] is None else pytest.approx(expected[1]))
    assert found[::2] == pytest.approx(expected[::2])


@pytest.mark.parametrize("readings", [8.0, 16.0])
def test_the_figures_are_those_of_the_study(readings):
    rows = json.loads(STUDY.read_text())["rows"]
    runs = {(row["recipe"], row["readings"], row["seed"]): row for row in rows}
    pairs = [(row, runs["plain", readings, seed]) for (recipe, at, seed), row in runs.items()
             if recipe == "tokens-5+decay-1" and at == readings]  # fmt: skip
    point = repeated.GAINS[readings]
    for name in ("best", "last"):
        mean = sum(plain[name] - row[name] for row, plain in pairs) / len(pairs)
        assert getattr(point, name) == pytest.approx(mean, abs=6e-4)
    assert point.seeds == len(pairs) and (point.error is None) == (len(pairs) < 2)
    assert all(row["settings"].items() >= repeated.ADVICE.items() for row, _ in pairs)


@pytest.mark.parametrize("readings, on, words", [
    (3.0, False, "costs 0.048 nats at 0.32M parameters and 1.9M tokens of training, measured at 8 (1 seed) and at 16 "
                 "(2 seeds) readings, nobody measured fewer: left off"),
    (9.0, False, "costs 0.019 nats"),
    (12.0, True, "is on: 0.050 nats off the best loss and 0.125 off the last"),
    (16.0, True, "is on: 0.120 ± 0.002 nats off the best loss and 0.246 off the last"),
    (40.0, True, "nobody measured more; the predicted loss knows nothing of it; --corruption.share 0 or "
                 "--optimizer.weight-decay 0.1 leaves it out"),
])  # fmt: skip
def test_it_advises_what_was_measured_best_where_that_gains(readings, on, words):
    config, found = repeated.advised(Config(), readings, {})
    assert config == (replace(Config(), repeated.ADVICE) if on else Config())
    assert (found["corruption.share"], found["optimizer.weight_decay"]) == ((0.05, 1.0) if on else (0.0, 0.1))
    assert words in found["said"] and (found["gain_nats"] > 0) == on


def test_a_recipe_that_is_kept_is_told_and_not_changed():
    config, found = repeated.advised(Config(), 16.0, {}, kept=True)
    assert config == Config() and (found["corruption.share"], found["optimizer.weight_decay"]) == (0.0, 0.1)
    assert (
        "would gain 0.120 ± 0.002 nats" in found["said"] and "the law's recipe is kept, so it is off" in found["said"]
    )
    assert "is on" not in found["said"]


@pytest.mark.parametrize("readings, given, changes", [
    (1.9, {}, {}), (64.0, {"corruption.share": 0.0}, {}), (64.0, {"optimizer.weight_decay": 0.1}, {}),
    (64.0, {}, {"corruption.share": 0.3}), (64.0, {}, {"optimizer.weight_decay": 0.3}),
    (64.0, {}, {"corruption.kind": "mask"}),
])  # fmt: skip
def test_it_is_silent_on_fresh_text_and_where_somebody_has_chosen(readings, given, changes):
    config = replace(Config(), changes)
    assert repeated.advised(config, readings, given) == (config, None)
