"""Throughput of a step, by a clock that the test moves."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.scaling import counts
from chinchilla_jax.training import meter

MODEL = ModelConfig(layers=2, d_model=16, heads=2, head_dim=8, d_ff=32, vocab_size=64)


class Moved:
    """A clock."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    moved = Moved()
    monkeypatch.setattr(meter, "time", moved)
    return moved


def program(kind: str, devices: int = 4):
    card = SimpleNamespace(device_kind=kind, platform="gpu", memory_stats=lambda: None)
    mesh = SimpleNamespace(devices=np.array([card] * devices, object), size=devices)
    config = Config(MODEL, optimizer=OptimizerConfig(warmup_steps=1), train=TrainConfig(steps=10, seq_len=32))
    return SimpleNamespace(config=config, mesh=mesh)


def test_a_row_is_the_time_since_the_last_one(clock):
    found = meter.Meter(program("NVIDIA Z9"), started=99.0)
    clock.now = 101.0
    assert found.row(3, 1000, 0.5) == {
        "step": 3, "step_ms": 2000, "tokens_per_s": 500, "data_wait": 0.25, "seconds_left": 14,
    }  # fmt: skip
    clock.now = 102.0
    again = found.row(4, 1000, 0.6)
    assert again["step_ms"] == 1000 and again["data_wait"] == pytest.approx(0.1), "what it waited since then"
    clock.now = 150.0
    found.pause()
    clock.now = 150.5
    assert found.row(5, 10, 2.0, "records") == {
        "step": 5, "step_ms": 500, "records_per_s": 20, "data_wait": 1.0, "seconds_left": 2.5,
    }, "the pause is left out, and nothing waits longer than a step takes"  # fmt: skip


def test_utilisation_is_of_the_peak_of_all_devices(clock):
    """H100: 989.4e12 FLOP/s; the causal convention counts half of attention's products, so it is the smaller one."""
    found = meter.Meter(program("NVIDIA H100 80GB HBM3"), started=98.0)
    row = found.row(1, 1e9, 0.0)
    for name, causal in (("mfu_causal", True), ("mfu_palm", False)):
        expected = counts.flops_per_token(MODEL, 32, causal) * 5e8 / (4 * 989.4e12)
        assert row[name] == pytest.approx(expected)
    assert row["mfu_causal"] < row["mfu_palm"]
    clock.now = 101.0
    assert not any(name.startswith("mfu") for name in found.row(2, 8, 0.0, "records")), "records are no tokens"
