"""Text that is read over and over: what keeps a model from learning it by heart, by how often it is read."""

import math
from typing import Any, NamedTuple

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config


class Point(NamedTuple):
    """A number of readings that was measured: nats a token off the loss of plain training, means over seeds."""

    best: float  # off the best validation loss
    error: float | None  # the standard error of that over seeds; None with one seed
    last: float  # off the loss at the last step
    seeds: int


class Recipe(NamedTuple):
    """Settings, and what they gain by the number of readings of the text."""

    settings: dict[str, Any]
    gains: dict[float, Point]


# Of docs/ablation/repeated-pilot.md, by their names there.
SHIFT: dict[str, Any] = {"train.shift_windows": True}
DECAY: dict[str, Any] = SHIFT | {"optimizer.weight_decay": 1.0}
RECIPES = {
    "shift": Recipe(SHIFT, {
        2: Point(0.0, None, 0.0, 1), 4: Point(0.009, None, 0.009, 1), 8: Point(0.036, None, 0.039, 1),
        16: Point(0.113, 0.003, 0.231, 2), 32: Point(0.080, None, 1.536, 1),
    }),
    "shift+decay-1": Recipe(DECAY, {
        8: Point(0.020, None, 0.023, 1), 16: Point(0.195, 0.006, 0.320, 2), 32: Point(0.160, None, 2.053, 1),
    }),
    "shift+tokens-5+decay-1": Recipe(DECAY | {"corruption.share": 0.05}, {
        16: Point(0.177, 0.003, 0.302, 2), 32: Point(0.197, None, 2.274, 1),
    }),
}  # fmt: skip
NAMES = tuple(dict.fromkeys(name for recipe in RECIPES.values() for name in recipe.settings))
WHERE = "0.32M parameters and 1.9M tokens of training"
TOLD = 2.0  # readings from which on anything is said, the fewest that were measured


def beside(gains: dict[float, Point], readings: float) -> list[float]:
    """The numbers of readings that were measured on either side, or the last one."""
    at = sorted(gains)
    high = min(int(np.searchsorted(at, readings)), len(at) - 1)
    low = high if readings >= at[high] else max(high - 1, 0)
    return at[low : high + 1]


def gain(gains: dict[float, Point], readings: float) -> tuple[float, float | None, float]:
    """`gains` at a number of readings, straight in the logarithm between those that were measured.

    The error is None beside a point that has none.
    """
    at, where = beside(gains, readings), math.log(readings)
    logs = [math.log(one) for one in at]
    errors = [gains[one].error for one in at]
    error = None if None in errors else float(np.interp(where, logs, errors))
    best, last = (float(np.interp(where, logs, [getattr(gains[one], name) for one in at])) for name in ("best", "last"))
    return best, error, last


def measured(gains: dict[float, Point], readings: float) -> str:
    """At what size, at how many readings and with how many seeds the figures were measured."""
    at = beside(gains, readings)
    seeds = " and ".join(f"at {one:g} ({gains[one].seeds} seed{'s' * (gains[one].seeds > 1)})" for one in at)
    beyond = ", nobody measured more" if readings > at[-1] else ""
    return f"{WHERE}, measured {seeds} readings{beyond}"


def chosen(config: Config, given: dict) -> bool:
    """Whether the command line or the config says something of what is advised, or of how tokens are replaced."""
    plain = Config()
    said = any(settings.get(config, name) != settings.get(plain, name) for name in NAMES)
    return said or config.corruption != plain.corruption or any(name in given for name in NAMES)


def advised(config: Config, readings: float, given: dict, kept: bool = False) -> tuple[Config, dict | None]:
    """`config` with what gains most of RECIPES where that is beyond two standard errors, and what is known of it.

    Left alone on fresh text and where the user has `chosen`; `kept`: the config is a law's own recipe and stays.
    """
    if readings < TOLD or chosen(config, given):
        return config, None
    tried = [recipe for recipe in RECIPES.values() if min(recipe.gains) <= readings]
    recipe = max(tried, key=lambda recipe: gain(recipe.gains, readings)[0])
    nats, error, last = gain(recipe.gains, readings)
    gains = nats > 2 * (error or 0.0)
    on = gains and not kept
    flags = " ".join(f"{settings.flag(name)} {settings.typed(value)}" for name, value in recipe.settings.items())
    amount = f"{abs(nats):.3f}" + ("" if error is None else f" ± {error:.3f}")
    known = f"{amount} nats off the best loss and {last:.3f} off the last at {measured(recipe.gains, readings)}"
    if on:
        first = next(iter(recipe.settings))
        said = f"so {flags} is on: {known}; the predicted loss knows nothing of it; "
        said += f"{settings.flag(first)} {settings.typed(settings.get(config, first))} leaves it out"
    elif gains:
        said = f"at which {flags} would gain {known}; the law's recipe is kept, so it is off"
    else:
        word = "costs" if nats < 0 else "gains no more than its error,"
        said = f"at which {flags} {word} {amount} nats at {measured(recipe.gains, readings)}: left off"
    made = settings.replace(config, recipe.settings) if on else config
    found = {
        **{name: settings.get(made, name) for name in NAMES},
        "readings": readings,
        "gain_nats": nats,
        "standard_error": error,
        "gain_at_the_end_nats": last,
        "said": f"read {readings:.3g} times, {said}",
    }
    return made, found
