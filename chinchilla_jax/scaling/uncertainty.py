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
from chinchilla_jax.scaling.parametric import TOLERANCE

TEX = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)  # Hoffmann et al.'s own, from their TeX source


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
        theta = _epoch(fit, picked, workers)
        return Replicates(theta, float("nan"), seed, protocol)
    n = len(fit.runs.N)
    weights = np.array([np.bincount(rows, minlength=n) for rows in picked], np.float64)
    start = np.repeat(parametric.centred(fit.theta, fit.at)[None], replicates, 0)
    found = parametric.minimise(start, fit.at, fit.goal, fit.form, weights)
    theta = parametric.centred(found.theta, fit.at, -1)
    return Replicates(theta, float((found.gradient < TOLERANCE).mean()), seed, protocol)


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
