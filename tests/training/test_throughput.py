"""Tokens a second: the median of the steps but the first, whatever these are."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, TrainConfig
from chinchilla_jax.training import throughput

CONFIG = Config(model=ModelConfig(vocab_size=50), train=TrainConfig(batch_size=8, seq_len=16))


@pytest.mark.parametrize("times, steps, median", [
    ([9.0, 0.5, 0.7, 0.6], 4, 0.6),  # the first one may be slow; four at least, however long they take
    ([0.1] * 99, 20, 0.1),
    ([0.1, 0.1, 1.5, 0.1, 0.1, 0.1, 9.9], 6, 0.1),
])  # fmt: skip
def test_the_median_of_the_steps_of_so_many_seconds(monkeypatch, times, steps, median):
    ran, clock = [], SimpleNamespace(now=0.0)

    class Program:
        beside = ("frozen",)

        def __init__(self, config):
            assert config is CONFIG

        def step(self, rows):
            def run(state, batch, *beside):
                assert beside == self.beside and state == len(ran)
                ran.append(batch)
                clock.now += times[len(ran) - 1]
                return state + 1, {"loss": np.zeros(())}

            return run

        def initial(self):
            return 0

        def place(self, make, rows):
            return make(slice(0, rows))

    monkeypatch.setattr(throughput, "Program", Program)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert throughput.tokens_per_second(CONFIG, 1.95) == pytest.approx(8 * 16 / median)
    assert len(ran) == steps
    batch = ran[0]
    assert batch.tokens.shape == (8, 16) and batch.tokens.min() >= 0 and batch.tokens.max() < 50
    assert batch.positions[3].tolist() == list(range(16)) and batch.weights.all() and (batch.segments == 1).all()
