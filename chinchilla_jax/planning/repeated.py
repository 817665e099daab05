"""Text that is read over and over: what replaced input tokens with weight decay gain by how often it is read."""

import math
from typing import NamedTuple

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, CorruptionConfig


class Point(NamedTuple):
    """A number of readings that was measured: nats a token off the loss of plain training, means over seeds."""

    best: float  # off the best validation loss
    error: float | None  # the standard error of that over seeds; None with one seed
    last: float  # off the loss at the last step
    seeds: int


ADVICE = {"corruption.share": 0.05, "optimizer.weight_decay": 1.0}
FLAGS = "--corruption.share 0.05 with --optimizer.weight-decay 1"
# By readings of the text: tokens-5+decay-1 of docs/ablation/repeated-pilot.md.
GAINS = {8.0: Point(-0.048, None, -0.045, 1), 16.0: Point(0.120, 0.002, 0.246, 2)}
WHERE = "0.32M parameters and 1.9M tokens of training"
TOLD = 2.0  # readings from which on anything is said


def gain(readings: float) -> tuple[float, float | None, float]:
    """`GAINS` at any number of readings, straight in the logarithm between those that were measured.

    The error is None beside a point that has none.
    """
    at, where = sorted(GAINS), math.log(max(readings, 1e-9))
    logs = [math.log(one) for one in at]
    high = min(int(np.searchsorted(logs, where)), len(at) - 1)
    low = high if where >= logs[high] else max(high - 1, 0)
    errors = [GAINS[at[i]].error for i in (low, high)]
    error = None if None in errors else float(np.interp(where, [logs[low], logs[high]], errors))
    best, last = (float(np.interp(where, logs, [getattr(GAINS[one], name) for one in at])) for name in ("best", "last"))
    return best, error, last


def measured(readings: float) -> str:
    """At what size, at how many readings and with how many seeds the figures were measured."""
    seeds = " and ".join(f"at {one:g} ({GAINS[one].seeds} seed{'s' * (GAINS[one].seeds > 1)})" for one in sorted(GAINS))
    low, high = min(GAINS), max(GAINS)
    beyond = "" if low <= readings <= high else f", nobody measured {'more' if readings > high else 'fewer'}"
    return f"{WHERE}, measured {seeds} readings{beyond}"


def chosen(config: Config, given: dict) -> bool:
    """Whether the command line or the config says something of what is advised, or of how tokens are replaced."""
    decay = config.optimizer.weight_decay != Config().optimizer.weight_decay
    return decay or config.corruption != CorruptionConfig() or any(name in given for name in ADVICE)


def advised(config: Config, readings: float, given: dict, kept: bool = False) -> tuple[Config, dict | None]:
    """`config` with ADVICE where that gains beyond two standard errors, and what is known of it.

    Left alone on fresh text and where the user has `chosen`; `kept`: the config is a law's own recipe and stays.
    """
    if readings < TOLD or chosen(config, given):
        return config, None
    nats, error, last = gain(readings)
    gains = nats > 2 * (error or 0.0)
    on = gains and not kept
    amount = f"{abs(nats):.3f}" + ("" if error is None else f" ± {error:.3f}")
    known = f"{amount} nats off the best loss and {last:.3f} off the last at {measured(readings)}"
    if on:
        said = f"so {FLAGS} is on: {known}; the predicted loss knows nothing of it; --corruption.share 0 or "
        said += f"--optimizer.weight-decay {config.optimizer.weight_decay:g} leaves it out"
    elif gains:
        said = f"at which {FLAGS} would gain {known}; the law's recipe is kept, so it is off"
    else:
        word = "costs" if nats < 0 else "gains no more than its error,"
        said = f"at which {FLAGS} {word} {amount} nats at {measured(readings)}: left off"
    made = settings.replace(config, ADVICE) if on else config
    found = {
        **{name: settings.get(made, name) for name in ADVICE},
        "readings": readings,
        "gain_nats": nats,
        "standard_error": error,
        "gain_at_the_end_nats": last,
        "said": f"read {readings:.3g} times, {said}",
    }
    return made, found
