"""Text that is read over and over: what replacing input tokens gains by how often it is read, as measured."""

import math

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config

SHARE = 0.15  # of the input tokens, replaced by others
# Readings of the text: nats a token that it takes off the best validation loss, the standard error over seeds (None
# where there is one seed), and nats off the loss at the last step (docs/ablation/repeated-pilot.md).
GAINS: dict[float, tuple[float, float | None, float]] = {
    2.0: (-0.203, None, -0.203),
    4.0: (-0.205, None, -0.205),
    8.0: (-0.121, 0.003, -0.118),
    16.0: (0.074, 0.011, 0.200),
    32.0: (0.065, None, 2.046),
}
WHERE = "0.32M parameters and 1.9M tokens of training"
TOLD = 2.0  # readings from which on anything is said


def gain(readings: float) -> tuple[float, float | None, float]:
    """`GAINS` at any number of readings, straight in the logarithm between those that were measured."""
    at = sorted(GAINS)
    logs, where = np.log(at), math.log(max(readings, 1e-9))
    known = [(log, GAINS[one][1]) for log, one in zip(logs, at) if GAINS[one][1] is not None]
    error = float(np.interp(where, *zip(*known))) if known else None
    best, last = (float(np.interp(where, logs, [GAINS[one][i] for one in at])) for i in (0, 2))
    return best, error, last


def advised(config: Config, readings: float, given: dict) -> tuple[Config, dict | None]:
    """`config` with a share of its input tokens replaced where that pays beyond two standard errors, and what is known.

    Left alone where the command line or the config says something of it.
    """
    if readings < TOLD or "corruption.share" in given or config.corruption.share:
        return config, None
    nats, error, last = gain(readings)
    pays, told = nats > 2 * (error or 0.0), f"{abs(nats):.2f}" + ("" if error is None else f" ± {error:.2f}")
    beyond = "" if readings <= max(GAINS) else f"; nobody measured more than {max(GAINS):g} readings"
    if pays:
        said = f"so --corruption.share {SHARE:g} is on: {told} nats off the best loss and {last:.2f} off the "
        said += f"last at {WHERE}{beyond}; the predicted loss knows nothing of it; --corruption.share 0 leaves it out"
    else:
        word = "costs" if nats < 0 else "gains no more than its error,"
        said = f"at which --corruption.share {SHARE:g} {word} {told} nats at {WHERE}: left off"
    found = {
        "corruption.share": SHARE if pays else 0.0,
        "readings": readings,
        "gain_nats": nats,
        "standard_error": error,
        "gain_at_the_end_nats": last,
        "said": f"read {readings:.3g} times, {said}",
    }
    return settings.replace(config, {"corruption.share": SHARE}) if pays else config, found
