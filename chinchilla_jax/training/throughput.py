"""How fast this machine trains: a few seconds of the real step, on text that does not matter."""

import time

import jax
import numpy as np

from chinchilla_jax.config import Config
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.training.program import Program
from chinchilla_jax.types import Batch


def tokens_per_second(config: Config, seconds: float = 2.0) -> float:
    """Tokens a second of the config's own compiled step, the median of the steps of `seconds`; at least three."""
    program = Program(config)
    rows, length = config.train.batch_size, config.train.seq_len
    step, state = program.step(rows), program.initial()
    draw = np.random.default_rng(0)

    def make(span: slice) -> Batch:
        shape = (span.stop - span.start, length)
        tokens = draw.integers(0, config.model.vocab_size, shape, np.int32)
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
        return Batch(tokens, tokens, np.ones(shape, np.float32), np.ones(shape, np.int32), positions)

    batch, times = program.place(make, rows), []
    while from_first(len(times) < 4 or sum(times) < seconds):
        began = time.perf_counter()
        state, metrics = step(state, batch, *program.beside)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    return from_first(rows * length / float(np.median(times[1:])))
