"""Advice for text that is read often: figures between those that were measured, and when it says nothing."""

import pytest

from chinchilla_jax.config import Config, replace
from chinchilla_jax.planning import repeated

GAINS = {4.0: (-0.1, 0.02, -0.2), 16.0: (0.3, None, 0.4), 64.0: (0.5, 0.1, 1.0)}


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    monkeypatch.setattr(repeated, "GAINS", GAINS)


@pytest.mark.parametrize("readings, expected", [
    (4.0, (-0.1, 0.02, -0.2)), (8.0, (0.1, 0.04, 0.1)), (64.0, (0.5, 0.1, 1.0)), (1000.0, (0.5, 0.1, 1.0)),
])  # fmt: skip
def test_gains_are_interpolated_in_the_logarithm_of_the_readings(readings, expected):
    """An error that nobody knows takes no part: at 8 it lies a quarter of the way from 4 to 64."""
    assert repeated.gain(readings) == pytest.approx(expected)


def test_it_advises_where_it_pays_beyond_two_standard_errors():
    config, found = repeated.advised(Config(), 32.0, {})
    assert config.corruption.share == repeated.SHARE == found["corruption.share"]
    assert found["said"].startswith("read 32 times, so --corruption.share") and "nobody measured" not in found["said"]
    assert "nobody measured more than 64 readings" in repeated.advised(Config(), 100.0, {})[1]["said"]
    same, found = repeated.advised(Config(), 4.0, {})
    assert same == Config() and found["corruption.share"] == 0 and "costs 0.10 ± 0.02 nats" in found["said"]


@pytest.mark.parametrize(
    "readings, given, share", [(1.9, {}, 0.0), (64.0, {"corruption.share": 0.0}, 0.0), (64.0, {}, 0.3)]
)
def test_it_is_silent_on_fresh_text_and_where_somebody_has_chosen(readings, given, share):
    config = replace(Config(), {"corruption.share": share})
    assert repeated.advised(config, readings, given) == (config, None)
