"""Schedules against their formulas."""

import numpy as np
import pytest

from chinchilla_jax.config import OptimizerConfig
from chinchilla_jax.optim.schedules import schedule


def rates(steps: int, **settings):
    cfg = OptimizerConfig(peak_lr=2.0, **settings)
    return np.array([float(schedule(cfg, steps)(step)) for step in range(steps)])


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_cosine_warms_up_and_ends_on_the_final_rate(warmup):
    found = rates(50, schedule="cosine", warmup_steps=warmup, final_lr_ratio=0.1)
    done = np.arange(1, 51)
    t = (done - warmup) / (50 - warmup)
    expected = np.where(done < warmup, done / max(1, warmup), 0.1 + 0.45 * (1 + np.cos(np.pi * t)))
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-5)
    assert found[-1] == np.float32(0.2) and found.max() <= 2.0
    if warmup:
        assert found[warmup - 1] == 2.0, "the peak, at the end of warm-up"


@pytest.mark.parametrize("warmup", [0, 10])
def test_wsd_holds_the_peak_and_falls_in_a_line(warmup):
    found = rates(50, schedule="wsd", warmup_steps=warmup, final_lr_ratio=0.0, decay_fraction=0.25)
    last = (50 - warmup) * 0.25
    left = np.clip((50 - np.arange(1, 51)) / last, 0, 1)
    np.testing.assert_allclose(found[warmup:], 2 * left[warmup:], atol=1e-6)
    assert found[-1] == 0


def test_constant_stays():
    found = rates(20, schedule="constant", warmup_steps=4)
    np.testing.assert_allclose(found, 2 * np.minimum(np.arange(1, 21) / 4, 1), rtol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "wsd", "constant"])
def test_schedules_stay_at_their_end_and_take_a_run_that_only_warms_up(name):
    cfg = OptimizerConfig(schedule=name, warmup_steps=5)
    rate = schedule(cfg, 20)
    assert float(rate(19)) == float(rate(1000))
    short = [float(schedule(cfg, 5)(step)) for step in range(5)]
    assert np.isfinite(short).all() and short[0] == pytest.approx(cfg.peak_lr / 5)
