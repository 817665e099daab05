"""How sure a fit is: a bootstrap over independent runs, and the profile likelihood of an exponent.

The unit is the run (`cluster`): ten checkpoints of one run come and go together. Three protocols, all of one seed of
numpy's legacy generator:

- resample: as many runs as there are, drawn with replacement as Besiroglu et al. 2024 (arXiv:2404.10102) draw them, and
  fitted to convergence. The default from 100 runs on.
- weights: every run is there with an exponential weight (Rubin 1981's Bayesian bootstrap). The default below 100, where
  resamples lack a corner of the design too often and intervals become too wide.
- epoch: the resamples with their optimiser (BFGS at scipy's defaults, from Hoffmann's values), whose early stops change
  the last digits that they print.
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


PROTOCOLS = ("auto", "resample", "weights", "epoch")
MANY = 100  # independent runs from which resamples keep their design


@dataclass(frozen=True)
class Replicates:
    """Log-parameters (R, 6) of the refitted replicates, and the share that converged (None where nobody looked)."""

    theta: np.ndarray
    converged: float | None
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
    fit: Fit, replicates: int = 4000, seed: int = 42, protocol: str = "auto", share: float = 1.0, workers: int = 1
) -> Replicates:
    """`replicates` refits of reweighted runs; see above for the protocols, of which epoch takes `workers` processes."""
    require(replicates >= 20, f"--replicates {replicates}: an interval needs 20 at least")
    require(protocol in PROTOCOLS, f"--protocol {protocol}: one of {', '.join(PROTOCOLS)}")
    if protocol == "auto":
        protocol = "resample" if fit.runs.clusters >= MANY or share < 1 else "weights"
    if protocol == "epoch":
        epochs = fit.form == "chinchilla" and fit.goal.name == "huber-log"
        require(epochs, "--protocol epoch fits --form chinchilla by --objective huber-log; leave one of them out")
        return Replicates(_epoch(fit, draws(fit.runs, replicates, seed), workers), None, seed, protocol)
    if protocol == "weights":
        drawn = np.random.RandomState(seed).standard_exponential((replicates, fit.runs.clusters))
        weights = drawn[:, np.unique(fit.runs.cluster, return_inverse=True)[1]]
    else:
        picked = draws(fit.runs, replicates, seed, share)
        weights = np.array([np.bincount(rows, minlength=len(fit.runs.N)) for rows in picked], np.float64)
    start = np.repeat(parametric.centred(fit.theta, fit.at)[None], replicates, 0)
    found = parametric.minimise(start, fit.at, fit.goal, FORMS[fit.form], weights)
    theta = parametric.centred(found.theta, fit.at, -1)
    return Replicates(theta, float((found.gradient < TOLERANCE).mean()), seed, protocol)


def calibrated(fit: Fit, found: Replicates) -> np.ndarray:
    """Replicates (R, 6) drawn in towards the fit by sqrt(1 - p / n), for p free parameters and n rows.

    Replicates vary as the jackknife does, whose variance is too large by about n / (n - p) where each row has a say of
    its own; tools/calibrate_fit.py measures what intervals then cover.
    """
    p, n = FORMS[fit.form].shape[1], len(fit.runs.N)
    return fit.theta + np.sqrt(1 - p / n) * (found.theta - fit.theta)


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
