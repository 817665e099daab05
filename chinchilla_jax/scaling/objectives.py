"""What a fit makes small: a table of penalties of the residual r = predicted - observed, in log loss or in loss.

Each row gives rho(r), its derivative, its curvature (what a Newton step may use, never negative) and the weight
rho'(r) / r of the weighted least squares that touch it from above.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chinchilla_jax.config import closest, require

LAD = 1e-5  # delta at which Huber's penalty is the absolute value for residuals of any scaling study
OVERESTIMATE = 10.0  # how much dearer a prediction that is too high is, as in OLMo's ladder


class Penalty(NamedTuple):
    """rho, rho', rho'' and rho' / r of an array of residuals, each of its shape."""

    value: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Objective:
    """A sum over rows of `penalty(r, delta)`; `log` says whether r is a difference of log losses or of losses."""

    name: str
    delta: float = 1e-3
    log: bool = True
    penalty: Callable[[np.ndarray, float], Penalty] = None

    def __call__(self, r: np.ndarray) -> Penalty:
        """The penalty of residuals; see `Penalty`."""
        return self.penalty(r, self.delta)

    @property
    def label(self) -> str:
        """Name and, where it has one, delta."""
        return f"{self.name} {self.delta:g}" if self.penalty is not _square else self.name


def _huber(r: np.ndarray, delta: float) -> Penalty:
    size = np.abs(r)
    near = size <= delta
    slope = np.clip(r, -delta, delta)
    weight = np.where(near, 1.0, delta / np.maximum(size, delta))
    return Penalty(slope * (r - slope / 2), slope, near.astype(np.float64), weight)


def _square(r: np.ndarray, _: float) -> Penalty:
    one = np.ones_like(r)
    return Penalty(r * r / 2, r, one, one)


def _asymmetric(r: np.ndarray, delta: float) -> Penalty:
    dear = np.where(r > 0, OVERESTIMATE, 1.0)
    return Penalty(*(dear * part for part in _huber(r, delta)))


TABLE: dict[str, Callable[..., Objective]] = {
    "huber-log": lambda delta: Objective("huber-log", delta, True, _huber),  # Hoffmann et al. 2022, delta 1e-3
    "lad-log": lambda _: Objective("lad-log", LAD, True, _huber),  # what Epoch's free scale comes to
    "mse-log": lambda _: Objective("mse-log", 1.0, True, _square),
    "mse-level": lambda _: Objective("mse-level", 1.0, False, _square),  # variable projection as published
    "asymmetric": lambda delta: Objective("asymmetric", delta, True, _asymmetric),
}


def objective(name: str = "huber-log", delta: float = 1e-3) -> Objective:
    """The objective of a name; `UserError` for one that is not in the table."""
    require(name in TABLE, f"--objective {name}: one of {', '.join(TABLE)}{closest(name, TABLE)}")
    require(delta > 0 and np.isfinite(delta), f"--delta {delta:g}: a positive difference of log losses, such as 1e-3")
    return TABLE[name](delta)
