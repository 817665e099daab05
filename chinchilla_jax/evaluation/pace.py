"""How long a ladder takes on this machine, from a few steps of its smallest and of its largest model."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import Config
from chinchilla_jax.planning.ladder import Ladder, Run
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.throughput import tokens_per_second

SECONDS = 1.0  # of steps that are timed of either size
FORWARD = 1 / 3  # of a training step's work
ROUNDS = 6  # in which a budget is brought to a time


@dataclass(frozen=True)
class Pace:
    """6 N tokens/s by size, interpolated in both logarithms, and the seconds that a program needs to be ready."""

    params: tuple[int, ...]
    flops_per_s: tuple[float, ...]
    ready: float
    valid_tokens: int

    def tokens_per_second(self, params: int) -> float:
        """Tokens a second of a training step."""
        return math.exp(np.interp(math.log(params), np.log(self.params), np.log(self.flops_per_s))) / (6 * params)

    def seconds(self, run: Run) -> float:
        """What a run adds: its steps, its validation, and the programs for both, a branch needing two of the first."""
        tokens = run.tokens * run.paid / run.config.train.steps + FORWARD * self.valid_tokens
        return tokens / self.tokens_per_second(run.params) + (3 if run.fork else 2) * self.ready

    def total(self, ladder: Ladder) -> float:
        """Seconds of all runs."""
        return sum(map(self.seconds, ladder.runs))


def measure(smallest: Config, largest: Config, valid_tokens: int) -> Pace:
    """The pace of this machine; takes a few seconds, most of them compiling."""
    params, flops_per_s, ready = [], [], []
    for config in (smallest, largest):
        began = time.perf_counter()
        throughput = tokens_per_second(config, SECONDS)
        params.append(counts.parameters(config.model))
        flops_per_s.append(6.0 * params[-1] * throughput)
        ready.append(max(0.0, time.perf_counter() - began - SECONDS))
    return Pace(tuple(params), tuple(flops_per_s), float(np.mean(ready)), valid_tokens)


def budget_for(seconds: float, pace: Pace, design: Callable[[float], Ladder]) -> float:
    """The budget whose ladder takes about `seconds`; raises what `design` raises where that is too little."""
    budget = seconds * min(pace.flops_per_s)
    for _ in range(ROUNDS):
        budget *= seconds / pace.total(design(budget))
    return budget
