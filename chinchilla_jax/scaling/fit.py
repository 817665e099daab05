"""Approach 3 of Hoffmann et al. 2022: a law fitted to runs, with the proof that the fit is one.

Starts come from variable projection (for given exponents the law is linear in E, A and B: the best of a grid, and the
best of eight other parts of it), each polished on the chosen robust objective by `numerics.minimise`. A fit counts as
converged where the relative gradient norm is below 1e-6; how many starts agree is reported beside it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling import minimise as numerics
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.minimise import FORMS, TOLERANCE, Objective, Points, objective
from chinchilla_jax.scaling.runs import Runs

GRID = np.geomspace(0.05, 1.6, 15)  # exponents that variable projection tries: 15 x 15, in 3 x 3 parts
NO_FLOOR = -12.0  # ln E where there is none
AGREE = 1e-6  # relative difference of the objective at which two starts ended in the same place
COLLINEAR = 0.1  # sd of ln D that ln N leaves unexplained (10 %), below which the exponents cannot be told apart
NARROW = 0.5  # ... below which they hardly can
LEAST_VALUES = {"chinchilla": 3, "skaling": 3, "kaplan": 3, "tied": 2}  # sizes, and lengths, that a form needs


@dataclass(frozen=True)
class Fit:
    """A fitted law: `theta` (6,) log-parameters, `value` the objective there, `gradient` the relative gradient norm.

    `agreement` is the share of the starts that ended there too, `starts` the objectives (ascending) of all.
    """

    runs: Runs
    form: str
    goal: Objective
    theta: np.ndarray
    value: float
    gradient: float
    agreement: float
    starts: tuple[float, ...]
    floor: float | None = None

    @property
    def free(self) -> np.ndarray:
        """Which of the six log-parameters (rows) the free ones (columns) move."""
        return free_of(self.form, self.floor)

    @property
    def surface(self) -> Surface:
        """The law itself."""
        return surface(self.theta)

    @property
    def converged(self) -> bool:
        """Whether the objective is flat here."""
        return self.gradient < TOLERANCE

    @cached_property
    def at(self) -> Points:
        """The rows as the numerics have them."""
        return numerics.points(self.runs.N, self.runs.D, self.runs.loss)

    @cached_property
    def residuals(self) -> np.ndarray:
        """ln L predicted minus observed (n,): 0.01 is a prediction 1 % too high."""
        return numerics.differentiated(numerics.centred(self.theta, self.at)[None], self.at, False)[0][0] - self.at.y

    @cached_property
    def condition(self) -> float:
        """Condition number of the Jacobian of ln L by the free parameters, at centred logs and columns of norm 1."""
        J = numerics.differentiated(numerics.centred(self.theta, self.at)[None], self.at)[1][0] @ self.free
        return float(np.linalg.cond(J / np.maximum(np.linalg.norm(J, axis=0), 1e-300)))

    def warnings(self) -> list[str]:
        """What makes this fit worth less than it looks, one line each."""
        found = []
        if not self.converged:
            found.append(f"UNCONVERGED: relative gradient norm {self.gradient:.1e}, not below {TOLERANCE:.0e}")
        if self.agreement < 0.3:
            found.append(f"only {self.agreement:.0%} of the starts agree; the objective has several minima")
        if self.left_over < NARROW:
            found.append(
                f"tokens follow parameters to a factor {np.exp(self.left_over):.2f}: a design of more diverse tokens "
                "per parameter (each size at several lengths) would tell the exponents apart"
            )
        if self.condition > 1e4:
            found.append(f"condition number {self.condition:.1e}: single parameters mean little, trust the intervals")
        if self.runs.per_nd_spread > 1.1:
            found.append(
                f"FLOPs are {self.runs.per_nd:.2f} N D only to a factor {self.runs.per_nd_spread:.2f}: the optimum of "
                "a budget takes the mean"
            )
        return found

    @property
    def left_over(self) -> float:
        """Standard deviation of ln D that a line in ln N leaves."""
        return spread(self.runs)[0]


def free_of(form: str, floor: float | None) -> np.ndarray:
    """The matrix of a form; without the column of the floor where it is held."""
    free = FORMS[form]
    return free if floor is None else free[:, free[2] == 0]


def surface(theta: np.ndarray) -> Surface:
    """The law, or laws (R,), of log-parameters (..., 6)."""
    theta = np.asarray(theta, np.float64)
    columns = [theta[..., i] for i in range(5)] + [np.exp(theta[..., 5])]
    return Surface(*(float(c) for c in columns)) if theta.ndim == 1 else Surface(*columns)


def spread(runs: Runs) -> tuple[float, float]:
    """(sd of ln D that a line in ln N leaves, largest over smallest tokens per parameter)."""
    x, z = np.log(runs.N), np.log(runs.D)
    x, z = x - x.mean(), z - z.mean()
    left = z - x * (x @ z) / max(x @ x, 1e-300)
    ratio = runs.D / runs.N
    return float(np.sqrt(np.mean(left**2))), float(ratio.max() / ratio.min())


def check(runs: Runs, form: str) -> None:
    """`UserError` where the rows cannot tell the parameters of a form."""
    require(form in FORMS, f"--form {form}: one of mixture, {', '.join(FORMS)}{closest(form, ('mixture', *FORMS))}")
    free, least = FORMS[form].shape[1], LEAST_VALUES[form]
    require(
        len(runs.N) > free,
        f"{runs.source} row {runs.row[-1]}, column loss: {len(runs.N)} rows for {free} parameters of {form}; add runs"
        + ("" if form == "tied" or len(runs.N) < 5 else " or take --form tied"),
    )
    for values, column, what in ((runs.N, runs.count, "sizes"), (runs.D, "tokens", "lengths")):
        found = len(np.unique(np.round(np.log(values), 6)))
        require(
            found >= least,
            f"{runs.source} row {runs.row[0]}, column {column}: {found} different {what} for all rows; --form {form} "
            f"needs {least}",
        )
    left = spread(runs)[0]
    require(
        form == "tied" or left >= COLLINEAR,
        f"{runs.source}: tokens follow parameters to {100 * np.expm1(left):.2g} % (about "
        f"{np.exp(np.mean(np.log(runs.D / runs.N))):.3g} tokens per parameter in row {runs.row[0]} and on), so "
        "separate exponents cannot be told apart; add other tokens per parameter, or force one with --form tied",
    )


def fit(
    runs: Runs,
    name: str = "huber-log",
    delta: float = 1e-3,
    form: str = "chinchilla",
    most: int = 400,
    floor: float | None = None,
) -> Fit:
    """The best law of a form under an objective, from nine starts of at `most` so many steps; `floor` holds exp(e).

    `UserError` where the design cannot tell the parameters. An unconverged fit is returned, and says that it is.
    """
    check(runs, form)
    goal = objective(name, delta)
    at = numerics.points(runs.N, runs.D, runs.loss)
    start = {"tied": tied, "kaplan": kaplan}.get(form, np.copy)(projected(at))
    if floor is not None:
        require(0 < floor < runs.loss.min(), f"--floor {floor:g}: give one below the least loss, {runs.loss.min():.4g}")
        start[:, 2] = np.log(floor)
    found = numerics.minimise(start, at, goal, free_of(form, floor), most=most)
    order = np.argsort(found.value)
    best = order[0]
    same = np.abs(found.value - found.value[best]) <= AGREE * found.value[best] + 1e-15
    theta = numerics.centred(found.theta[best], at, -1)
    starts = tuple(float(v) for v in found.value[order])
    return Fit(runs, form, goal, theta, starts[0], float(found.gradient[best]), float(same.mean()), starts, floor)


def tied(theta: np.ndarray) -> np.ndarray:
    """The same starts with one exponent."""
    theta = theta.copy()
    theta[:, 3:5] = theta[:, 3:5].mean(1, keepdims=True)
    return theta


def kaplan(theta: np.ndarray) -> np.ndarray:
    """As many starts of Kaplan's form, ((N_c / N)^alpha + D_c / D)^k at the loss of the others in the middle."""
    middle = np.log(np.exp(theta[:, :3]).sum(1))
    k, alpha = np.repeat((0.1, 0.2, 0.4), 3), np.tile((0.4, 0.7, 1.0), 3)
    scale = middle / k - np.log(2)
    return np.stack([scale, scale, np.full(9, NO_FLOOR), alpha, np.ones(9), np.log(k)], 1)


def projected(at: Points) -> np.ndarray:
    """Nine centred starts (9, 6), the best first: for given exponents E, A and B by robust linear least squares."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(GRID, GRID, indexing="ij"))
    L = np.exp(at.y)
    X = (
        np.stack(np.broadcast_arrays(1.0, np.exp(-alpha[:, None] * at.x), np.exp(-beta[:, None] * at.z)), -1)
        / L[:, None]
    )
    w, least = np.ones(X.shape[:2]), 1e-3 * L.min()
    for _ in range(4):  # relative errors, reweighted towards their absolute values
        Xw = X * w[..., None]
        normal = Xw.transpose(0, 2, 1) @ X
        ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        coefficients = np.maximum(np.linalg.solve(normal + ridge, Xw.sum(1)[..., None])[..., 0], least)
        off = np.abs((X @ coefficients[..., None])[..., 0] - 1)
        w = 1 / np.maximum(off, 1e-3)
    E, A, B = np.log(coefficients).T
    theta = np.stack([A, B, E, alpha, beta, 0 * A], 1)
    part = np.searchsorted(GRID[[5, 10]], alpha, "right") * 3 + np.searchsorted(GRID[[5, 10]], beta, "right")
    loss = off.sum(1)
    best = sorted((min(np.flatnonzero(part == i), key=loss.__getitem__) for i in range(9)), key=loss.__getitem__)
    return theta[best]
