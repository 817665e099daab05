"""Approach 3's numerics: ln L(N, D) with its derivatives, and a damped Newton method over many fits at once, float64.

    ln L = ln(exp(e) + S^k),  S = exp(a) / N^alpha + exp(b) / D^beta,  k = exp(kappa)

Six log-parameters (a, b, e, alpha, beta, kappa); a form says which move together. ln N and ln D are centred inside,
which takes the condition number of the normal equations down by three orders (4.0e6 -> 3.8e3 on the 240 points of
Chinchilla's figure). The step solves (G + damping M) s = -g with Gauss-Newton's G and the M of iteratively reweighted
least squares, so that neither units nor the scale of the objective matter. Batch axis R: replicates or starts; rows n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chinchilla_jax.config import closest, require

NAMES = ("a", "b", "e", "alpha", "beta", "kappa")
FORMS = {  # the columns say which of the six log-parameters a free one moves
    "chinchilla": np.eye(6)[:, :5],
    "tied": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], float),
    "skaling": np.eye(6),
    "kaplan": np.eye(6)[:, [0, 1, 3, 5]],  # no floor and beta = 1: Kaplan et al. 2020, equation 1.5, with k = alpha_D
}
CHUNK = 1 << 17  # numbers of one batch of residuals that stay in a core's cache
TOLERANCE = 1e-6  # of the relative gradient norm, at which a fit counts as converged
FINISHED = 1e-9  # where the iteration stops by itself
LIMITS = np.array([[-60, 200], [-60, 200], [-12, 6], [0.005, 4], [0.005, 4], [-4, 3]], float)  # of the centred six
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


class Points(NamedTuple):
    """Centred logs of N and D (n,), log loss, and the centres."""

    x: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x0: float
    z0: float


class Found(NamedTuple):
    """Log-parameters (R, 6), objective (R,), relative gradient norm (R,), and the steps each took."""

    theta: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    steps: np.ndarray


def points(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> Points:
    """Centred logs, float64."""
    x, z, y = (np.log(np.asarray(values, np.float64)) for values in (N, D, loss))
    return Points(x - x.mean(), z - z.mean(), y, float(x.mean()), float(z.mean()))


def centred(theta: np.ndarray, at: Points, sign: int = 1) -> np.ndarray:
    """(..., 6) with a and b those of the centred logs; `sign` -1 is the way back."""
    theta = np.array(theta, np.float64)
    theta[..., 0] -= sign * theta[..., 3] * at.x0
    theta[..., 1] -= sign * theta[..., 4] * at.z0
    return theta


def differentiated(theta: np.ndarray, at: Points, slopes: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    """ln L (R, n) of centred (R, 6), and its derivatives by the six (R, n, 6)."""
    a, b, e, alpha, beta, kappa = (column[:, None] for column in theta.T)
    k = np.exp(kappa)
    U, V = np.exp(a - alpha * at.x), np.exp(b - beta * at.z)
    S = U + V
    T = S if not kappa.any() else S**k
    E = np.exp(e)
    L = T + E
    if not slopes:
        return np.log(L), None
    J = np.empty((*L.shape, 6))
    share = k * T / L / S
    J[..., 0], J[..., 1], J[..., 2] = share * U, share * V, E / L
    J[..., 3], J[..., 4] = -J[..., 0] * at.x, -J[..., 1] * at.z
    J[..., 5] = k * T / L * np.log(S)
    return np.log(L), J


def residuals(theta: np.ndarray, at: Points, goal: Objective) -> np.ndarray:
    """Predicted minus observed (R, n), in log loss or in loss as the objective has it."""
    f = differentiated(theta, at, False)[0]
    return f - at.y if goal.log else np.exp(f) - np.exp(at.y)


def _system(theta: np.ndarray, at: Points, weights: np.ndarray, goal: Objective, form: np.ndarray):
    """Objective (R,), gradient (R, p), Gauss-Newton's matrix and that of reweighted least squares (R, p, p)."""
    f, J6 = differentiated(theta, at)
    J = J6 @ form
    if not goal.log:
        J *= np.exp(f)[..., None]
    r = f - at.y if goal.log else np.exp(f) - np.exp(at.y)
    p = Penalty(*(weights * part for part in goal(r)))
    Jt = J.transpose(0, 2, 1)
    newton, outer = ((Jt * w[:, None, :]) @ J for w in (p.curvature, p.weight))
    return p.value.sum(1), (Jt @ p.slope[..., None])[..., 0], newton, outer


def _value(theta: np.ndarray, at: Points, weights: np.ndarray, goal: Objective) -> np.ndarray:
    return (weights * goal(residuals(theta, at, goal)).value).sum(1)


def _relative(g: np.ndarray, outer: np.ndarray, value: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """sqrt(g' M^-1 g / objective): no units, 0 at an optimum; `floor` is the objective at residuals of 1e-8."""
    step = np.linalg.solve(outer, g[..., None])[..., 0]
    return np.sqrt(np.maximum((g * step).sum(1), 0) / (value + floor))


def _ridged(matrix: np.ndarray) -> np.ndarray:
    """A matrix that can be solved with where a parameter has no say left."""
    p = matrix.shape[-1]
    scale = np.trace(matrix, axis1=1, axis2=2)[:, None, None] / p
    return matrix + (1e-12 * scale + 1e-300) * np.eye(p)


def _floor(weights: np.ndarray, goal: Objective) -> np.ndarray:
    return weights.sum(1) * goal(np.array(1e-8)).value


def minimise(
    start: np.ndarray, at: Points, goal: Objective, form: np.ndarray, weights: np.ndarray | None = None, most: int = 400
) -> Found:
    """The objective's minima from centred starts (R, 6), each with row weights (R, n) or all of them 1.

    `form` (6, p) is one of `FORMS`, or has fewer columns where parameters are held.

    `Found` tells how far each came; nothing is raised where one did not converge.
    """
    R, n = len(start), len(at.y)
    weights = np.ones((1, n)) if weights is None else weights
    size = max(1, CHUNK // n)
    parts = []
    for i in range(0, R, size):
        own = weights if len(weights) == 1 else weights[i : i + size]
        parts.append(_minimise(start[i : i + size], at, goal, form, own, most))
    return Found(*(np.concatenate(columns) for columns in zip(*parts)))


def _minimise(start, at, goal, form, weights, most) -> Found:
    R = len(start)
    weights = np.broadcast_to(weights, (R, len(at.y)))
    floor = _floor(weights, goal)
    theta = np.clip(start, *LIMITS.T)
    damping, taken = np.ones(R), np.zeros(R, int)
    value, g, newton, outer = _system(theta, at, weights, goal, form)
    outer = _ridged(outer)
    gradient = _relative(g, outer, value, floor)
    going = np.flatnonzero(gradient > FINISHED)
    for _ in range(most):
        if not len(going):
            break
        now = going
        damped = _ridged(newton[now] + damping[now, None, None] * outer[now])
        step = -np.linalg.solve(damped, g[now][..., None])[..., 0]
        trial = np.clip(theta[now] + step @ form.T, *LIMITS.T)
        with np.errstate(over="ignore", invalid="ignore"):  # a trial that goes too far is not taken
            parts = _system(trial, at, weights[now], goal, form)
        better = np.isfinite(parts[0]) & (parts[0] < value[now])
        damping[now] = np.where(better, np.maximum(damping[now] / 6, 1e-9), damping[now] * 4)
        won = now[better]
        theta[won] = trial[better]
        value[won], g[won], newton[won], outer[won] = (part[better] for part in parts)
        outer[won] = _ridged(outer[won])
        taken[won] += 1
        gradient[won] = _relative(g[won], outer[won], value[won], floor[won])
        going = now[(gradient[now] > FINISHED) & (damping[now] < 1e12)]
    return Found(theta, value, gradient, taken)
