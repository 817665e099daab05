"""How sure a fit is: a bootstrap over independent runs, and the profile likelihood of an exponent.

Resampling follows Besiroglu et al. 2024 (arXiv:2404.10102): numpy's legacy generator of one seed draws as many runs as
there are, with replacement. The unit is the run (`cluster`): ten checkpoints of one run come and go together. Every
replicate is fitted to convergence; `epoch` takes their optimiser instead (BFGS at scipy's defaults, from Hoffmann's
values), whose early stops change the last printed digits.
"""

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.scaling import parametric
from chinchilla_jax.scaling.fit import Fit
from chinchilla_jax.scaling.parametric import FORMS, NAMES, TOLERANCE

TEX = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)  # Hoffmann et al.'s own, from their TeX source


LEAST = 0.25  # factor by which replicates are drawn in, however few the runs


@dataclass(frozen=True)
class Replicates:
    """Log-parameters (R, 6) of the refitted replicates, and the share of them that converged."""

    theta: np.ndarray
    converged: float
    seed: int
    protocol: str


def draws(runs, replicates: int, seed: int, share: float = 1.0) -> list[np.ndarray]:
    """Row numbers of every replicate; `share` < 1 subsamples runs without replacement, as Hoffmann et al.'s 0.8."""
    names = np.unique(runs.cluster)
    rows = [np.flatnonzero(runs.cluster == name) for name in names]
    random = np.random.RandomState(seed)
    picked = []
    for _ in range(replicates):
        if share < 1:
            chosen = random.choice(len(names), round(share * len(names)), replace=False)
        else:
            chosen = random.choice(len(names), len(names))
        picked.append(np.concatenate([rows[i] for i in chosen]))
    return picked


def bootstrap(
    fit: Fit, replicates: int = 4000, seed: int = 42, protocol: str = "converged", share: float = 1.0, workers: int = 1
) -> Replicates:
    """`replicates` refits of resampled runs; `protocol` is converged or epoch, with `workers` processes."""
    require(replicates >= 20, f"--replicates {replicates}: an interval needs 20 at least")
    require(protocol in ("converged", "epoch"), f"--protocol {protocol}: converged or epoch")
    picked = draws(fit.runs, replicates, seed, share)
    if protocol == "epoch":
        require(
            fit.form == "chinchilla" and fit.goal.name == "huber-log", "--protocol epoch fits chinchilla by huber-log"
        )
        return Replicates(_epoch(fit, picked, workers), float("nan"), seed, protocol)
    weights = np.array([np.bincount(rows, minlength=len(fit.runs.N)) for rows in picked], np.float64)
    start = np.repeat(parametric.centred(fit.theta, fit.at)[None], replicates, 0)
    found = parametric.minimise(start, fit.at, fit.goal, FORMS[fit.form], weights)
    theta = parametric.centred(found.theta, fit.at, -1)
    return Replicates(theta, float((found.gradient < TOLERANCE).mean()), seed, protocol)


def calibrated(fit: Fit, found: Replicates) -> np.ndarray:
    """Replicates (R, 6) drawn in towards the fit by 1 - p / n, for p free parameters and n rows.

    Resampled runs of a small table lack more of its design than new ones would: left as they are, nominal 90 %
    intervals of 20 to 40 runs cover 94 to 98 % (tools/calibrate_fit.py).
    """
    p, n = FORMS[fit.form].shape[1], len(fit.runs.N)
    return fit.theta + max(1 - p / n, LEAST) * (found.theta - fit.theta)


def _epoch(fit: Fit, picked: list[np.ndarray], workers: int) -> np.ndarray:
    logs = tuple(np.log(values) for values in (fit.runs.N, fit.runs.D, fit.runs.loss))
    one = functools.partial(_bfgs, logs, fit.goal.delta)
    if workers <= 1:
        return np.array([one(rows) for rows in picked])
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return np.array(list(pool.map(one, picked, chunksize=250)))


def _bfgs(logs: tuple[np.ndarray, ...], delta: float, rows: np.ndarray) -> np.ndarray:
    """One replicate as Epoch fitted it: the plain sum of Huber's penalty, BFGS with scipy's tolerances."""
    from scipy.optimize import minimize

    x, z, y = (values[rows] for values in logs)

    def objective(theta):
        a, b, e, alpha, beta = theta
        U, V, E = np.exp(a - alpha * x), np.exp(b - beta * z), np.exp(e)
        L = U + V + E
        r = np.log(L) - y
        slope = np.clip(r, -delta, delta)
        by = slope / L
        byU, byV = by * U, by * V
        gradient = np.array([byU.sum(), byV.sum(), E * by.sum(), -(byU @ x), -(byV @ z)])
        return (slope * (r - slope / 2)).sum(), gradient

    return np.append(minimize(objective, TEX, jac=True, method="BFGS").x, 0.0)


def profile(fit: Fit, name: str = "alpha", level: float = 0.9, points: int = 41) -> tuple[float, float]:
    """(low, high) of a log-parameter by the profile likelihood: the others refitted at every value of a grid.

    The objective's rise counts as chi^2 / 2 in units of E[psi^2] / E[psi'], right for penalties that are no likelihood
    (Heritier & Ronchetti 1994) where rows are independent; the bootstrap does not need that.
    """
    from scipy.stats import chi2

    free = FORMS[fit.form]
    column = int(np.argmax(free[NAMES.index(name)]))
    others = np.delete(free, column, 1)
    penalty = fit.goal(parametric.residuals(parametric.centred(fit.theta, fit.at)[None], fit.at, fit.goal))
    scale = (penalty.slope**2).mean() / max(_flatness(fit), 1e-300)
    limit = fit.value + scale * chi2.ppf(level, 1) / 2
    edges = []
    for sign in (-1, 1):
        start = np.repeat(parametric.centred(fit.theta, fit.at)[None], points, 0)
        moved = fit.theta[NAMES.index(name)] * np.exp(sign * np.linspace(0, 1.5, points))
        start[:, free[:, column] > 0] = moved[:, None]
        value = parametric.minimise(start, fit.at, fit.goal, others).value
        beyond = np.flatnonzero(value > limit)
        pair = slice(beyond[0] - 1, beyond[0] + 1) if len(beyond) else slice(0, 0)
        edges.append(float(np.interp(limit, value[pair], moved[pair])) if len(beyond) else float("nan"))
    return edges[0], edges[1]


def _flatness(fit: Fit) -> float:
    """E[psi'] of the residuals, smoothed over their own width where the penalty has a corner."""
    r = parametric.residuals(parametric.centred(fit.theta, fit.at)[None], fit.at, fit.goal)[0]
    h = max(1.5 * np.median(np.abs(r)) * len(r) ** -0.2, 1e-12)
    return float(((fit.goal(r + h).slope - fit.goal(r - h).slope) / (2 * h)).mean())
