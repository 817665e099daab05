"""Text that is read over and over: what replacing input tokens gains by how often it is read, measured."""

import math

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config

SHARE = 0.15  # of the input tokens, replaced by others
OFTEN = 4.0  # readings beyond which it is recommended
# Readings of the text: nats a token that it takes off the best validation loss, and the standard error over seeds
# (docs/ablation/repeated-pilot.md: 0.22M parameters, 1.9M tokens of Shakespeare, two seeds; no error where one seed).
GAINS: dict[float, tuple[float, float | None]] = {}
WHERE = "0.22M parameters, 1.9M tokens"


def gain(readings: float) -> tuple[float, float | None]:
    """Nats and their standard error, straight in the logarithm of the readings between those that were measured."""
    at = sorted(GAINS)
    nats, errors = zip(*(GAINS[one] for one in at))
    logs, where = np.log(at), math.log(max(readings, 1e-9))
    known = [(log, error) for log, error in zip(logs, errors) if error is not None]
    error = float(np.interp(where, *zip(*known))) if known else None
    return float(np.interp(where, logs, nats)), error


def advised(config: Config, readings: float, given: dict) -> tuple[Config, dict | None]:
    """`config` with a share of its input tokens replaced where the text is read often, and what that is to gain.

    Left alone where the command line or the config says something of it.
    """
    if readings <= OFTEN or "corruption.share" in given or config.corruption.share:
        return config, None
    nats, error = gain(readings)
    beyond = "" if readings <= max(GAINS) else f"; nobody measured more than {max(GAINS):g} readings"
    said = (
        f"read {readings:.3g} times, so --corruption.share {SHARE:g} is on: {nats:.2f}"
        f"{'' if error is None else f' ± {error:.2f}'} nats lower at {WHERE}{beyond}, not counted in the predicted loss; "
        "--corruption.share 0 leaves it out"
    )
    found = {"corruption.share": SHARE, "readings": readings, "gain_nats": nats, "standard_error": error, "said": said}
    return settings.replace(config, {"corruption.share": SHARE}), found
