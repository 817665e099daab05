"""How sure a fit is: several forms weighted by roll-out, a bootstrap over independent runs, other defensible choices.

The form is the error, not the noise: the interval of any one form holds too few of the losses of larger runs. Forms go
into one pot, each weighted by 1 / mean squared error of the runs of most compute predicted from the others
(docs/scaling/coverage.md says what that covers).

The unit of the bootstrap is the run (`cluster`): ten checkpoints of one run come and go together. Three protocols, all
of one seed of numpy's legacy generator:

- resample: as many runs as there are, drawn with replacement as Besiroglu et al. 2024 (arXiv:2404.10102) draw them, and
  fitted to convergence. The default from 100 runs on.
- weights: every run is there with an exponential weight (Rubin 1981's Bayesian bootstrap). The default below 100, where
  resamples lack a corner of the design too often and intervals become too wide.
- epoch: the resamples with their optimiser (BFGS at scipy's defaults, from Hoffmann's values), whose early stops change
  the last digits that they print.
"""

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import minimise as numerics
from chinchilla_jax.scaling.fit import Fit, fit
from chinchilla_jax.scaling.minimise import FORMS, NAMES, TOLERANCE
from chinchilla_jax.scaling.runs import Runs, without_outliers

MIXED = ("chinchilla", "skaling", "kaplan")  # the forms of a mixture
HELD = 0.25  # share of the runs, those of most compute, whose prediction weighs a form
SIMPLER = 0.5  # of the largest weight: what the simplest form needs to lead
LEAST_ERROR = 1e-6  # of ln L, below which predictions count as equally good
TEX = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)  # Hoffmann et al.'s own, from their TeX source
PROTOCOLS = ("auto", "resample", "weights", "epoch")
MANY = 100  # independent runs from which resamples keep their design
LEFT_OUT = (0.1, 0.2, 0.3, 0.5)  # shares of the independent runs, those of most compute, that are predicted
CHOICES = (  # what a row of the sensitivity table changes
    {"delta": 1e-2}, {"delta": 1e-4}, {"name": "lad-log"}, {"name": "mse-log"}, {"name": "mse-level"},
    {"name": "asymmetric"}, {"form": "tied"}, {"form": "skaling"},
)  # fmt: skip
CUTS = (0, 1, 3, 5, 10)  # highest losses left out, as `--drop-outliers`


@dataclass(frozen=True)
class Member:
    """A form of a mixture: its fit, its share, and the root mean square error of its roll-out (None: it had none)."""

    fit: Fit
    weight: float
    rollout: float | None


def members(runs: Runs, form: str, name: str, delta: float, floor: float | None = None) -> list[Member]:
    """The fits of a form, or of a "mixture": first the simplest of the heavy ones, then by weight.

    `UserError` where no form can be fitted.
    """
    if form != "mixture":
        return [Member(fit(runs, name, delta, form, floor=floor), 1.0, _rollout_error(runs, form, name, delta, floor))]
    few = len(runs.N) <= FORMS["chinchilla"].shape[1]
    found, first = [], None
    for one in ("tied", *MIXED[1:]) if few else MIXED:
        try:
            found.append((fit(runs, name, delta, one, floor=floor), _rollout_error(runs, one, name, delta, floor)))
        except UserError as error:
            first = first or error
    if not found:
        raise first
    errors = np.array([np.inf if error is None else error for _, error in found])
    weights = 1 / (errors**2 + LEAST_ERROR**2) if np.isfinite(errors).any() else np.ones(len(found))
    weights /= weights.sum()
    heavy = [i for i in range(len(found)) if weights[i] >= SIMPLER * weights.max()]
    lead = min(heavy, key=lambda i: (FORMS[found[i][0].form].shape[1], -weights[i]))
    order = [lead, *(i for i in np.argsort(-weights, kind="stable") if i != lead)]
    return [Member(found[i][0], float(weights[i]), found[i][1]) for i in order]


def largest(runs: Runs, share: float) -> np.ndarray:
    """A mask (n,) of the rows of a share of the independent runs, those of most compute; one run at least."""
    names = np.unique(runs.cluster)
    most = np.array([runs.C[runs.cluster == name].max() for name in names])
    order = names[np.argsort(most, kind="stable")]
    return np.isin(runs.cluster, order[len(order) - max(1, round(share * len(order))) :])


def _rollout_error(runs: Runs, form: str, name: str, delta: float, floor: float | None) -> float | None:
    """Root mean square error of ln L of the largest runs, predicted from the others; None where that refuses."""
    out = largest(runs, HELD)
    try:
        law = fit(runs.take(~out), name, delta, form, floor=floor).surface
    except UserError:
        return None
    return float(np.sqrt(np.mean(np.log(law.loss(runs.N[out], runs.D[out]) / runs.loss[out]) ** 2)))


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
    start = np.repeat(numerics.centred(fit.theta, fit.at)[None], replicates, 0)
    found = numerics.minimise(start, fit.at, fit.goal, fit.free, weights)
    theta = numerics.centred(found.theta, fit.at, -1)
    return Replicates(theta, float((found.gradient < TOLERANCE).mean()), seed, protocol)


def calibrated(fit: Fit, found: Replicates) -> np.ndarray:
    """Replicates (R, 6) drawn in towards the fit by sqrt(1 - p / n), for p free parameters and n rows.

    Replicates vary as the jackknife does, whose variance is too large by about n / (n - p) where each row has a say of
    its own; tools/calibrate_fit.py measures what intervals then cover.
    """
    p, n = fit.free.shape[1], len(fit.runs.N)
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

    free = fit.free
    column = int(np.argmax(free[NAMES.index(name)]))
    others = np.delete(free, column, 1)
    penalty = fit.goal(numerics.residuals(numerics.centred(fit.theta, fit.at)[None], fit.at, fit.goal))
    scale = (penalty.slope**2).mean() / max(_flatness(fit), 1e-300)
    limit = fit.value + scale * chi2.ppf(level, 1) / 2
    edges = []
    for sign in (-1, 1):
        start = np.repeat(numerics.centred(fit.theta, fit.at)[None], points, 0)
        moved = fit.theta[NAMES.index(name)] * np.exp(sign * np.linspace(0, 1.5, points))
        start[:, free[:, column] > 0] = moved[:, None]
        value = numerics.minimise(start, fit.at, fit.goal, others).value
        beyond = np.flatnonzero(value[1:] > limit)  # the first point is the fit itself
        pair = slice(beyond[0], beyond[0] + 2) if len(beyond) else slice(0, 0)
        edges.append(float(np.interp(limit, value[pair], moved[pair])) if len(beyond) else float("nan"))
    return edges[0], edges[1]


def _flatness(fit: Fit) -> float:
    """E[psi'] of the residuals, smoothed over their own width where the penalty has a corner."""
    r = numerics.residuals(numerics.centred(fit.theta, fit.at)[None], fit.at, fit.goal)[0]
    h = max(1.5 * np.median(np.abs(r)) * len(r) ** -0.2, 1e-12)
    return float(((fit.goal(r + h).slope - fit.goal(r - h).slope) / (2 * h)).mean())


@dataclass(frozen=True)
class Choice:
    """One row: what was changed, and the optimum at the budget asked about; `note` where the fit refused or failed."""

    what: str
    params: float | None = None
    tokens_per_param: float | None = None
    loss: float | None = None
    exponent: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Predicted:
    """A roll-out: the law of the smaller runs against the larger ones; errors of ln L, predicted minus observed."""

    fitted_on: int
    predicted: int
    C_fitted: float
    C_predicted: float
    mean_error: float | None
    worst_error: float | None
    note: str = ""


def sensitivity(whole: Runs, chosen: Fit, cut: int, C: float) -> list[Choice]:
    """The optimum at C under other objectives, deltas, forms and outlier cuts (`cut` is the own) of `whole`."""
    own = {"name": chosen.goal.name, "delta": chosen.goal.delta, "form": chosen.form}
    rows = [_row("as chosen", chosen, C)]
    for change in CHOICES:
        settings = own | change
        what = ", ".join(f"{name if name != 'name' else 'objective'} {value}" for name, value in change.items())
        if settings != own and not ("delta" in change and own["name"] not in ("huber-log", "asymmetric")):
            rows.append(_tried(what, lambda s=settings: fit(chosen.runs, **s), C))
    for k in CUTS:
        if k != cut and k < len(whole.N) / 4:
            rows.append(_tried(f"outlier cut {k}", lambda k=k: fit(without_outliers(whole, k), **own), C))
    return rows


def _tried(what: str, make: Callable[[], Fit], C: float) -> Choice:
    try:
        return _row(what, make(), C)
    except UserError as error:
        return Choice(what, note=f"refused: {error}")


def _row(what: str, found: Fit, C: float) -> Choice:
    law = found.surface
    N, D = law.optimum(C, found.runs.per_nd)
    note = "" if found.converged else "unconverged"
    return Choice(what, float(N), float(D / N), float(law.loss(N, D)), float(law.exponents[0]), note)


def rollout(chosen: Fit) -> list[Predicted]:
    """Leave the runs of most compute out, a tenth to a half of them, and predict their losses."""
    return [_predict(chosen, chosen.runs, largest(chosen.runs, share)) for share in LEFT_OUT]


def _predict(chosen: Fit, runs: Runs, out: np.ndarray) -> Predicted:
    small = runs.take(~out)
    sizes = int((~out).sum()), int(out.sum()), float(runs.C[~out].max(initial=0)), float(runs.C[out].max())
    try:
        law = fit(small, chosen.goal.name, chosen.goal.delta, chosen.form).surface
    except UserError as error:
        return Predicted(*sizes, None, None, f"refused: {error}")
    errors = np.log(law.loss(runs.N[out], runs.D[out]) / runs.loss[out])
    return Predicted(*sizes, float(errors.mean()), float(errors[np.argmax(np.abs(errors))]))
