"""The next run of a sweep: the one whose loss tells most, per FLOP, of the tokens a parameter at a budget to come.

Replicates of the law disagree about ln D/N there, and about the loss of a run not yet made. By their covariance, and
the scatter of single runs, a loss once seen takes

    cov(ln D/N, ln L)^2 / (var(ln L) + scatter^2)

off the variance of ln D/N; the replicates are then moved as if it had been seen (an ensemble Kalman update), and the
run after it is chosen.
"""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require, stored
from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import ladder
from chinchilla_jax.planning.plan import COUNTS
from chinchilla_jax.scaling.lawfile import LawFile

BOUNDS = (1 / 8, 8)  # sizes over the optimal one that are looked at
SIZES, BUDGETS = 13, 9  # of the grid
CHEAPEST = 1 / 64  # of the budget: runs below it say little and are not proposed


@dataclass(frozen=True)
class Next:
    """One run, and the standard deviation of ln D/N at the budget asked about once it is known."""

    N: float
    D: float
    flops: float
    left: float


def next_runs(law: LawFile, target: float, budget: float, most: int = 1) -> tuple[float, list[Next]]:
    """(standard deviation of ln D/N at `target` FLOPs now, at most `most` runs of `budget` FLOPs together).

    Where the law has its recipe, sizes are those of shapes like the recipe's. Raises `UserError` for a budget or target
    that is no positive number, and where no such shape is near.
    """
    require(budget > 0 and np.isfinite(budget), f"--budget {budget:g}: a positive number of FLOPs for the next runs")
    require(target > 0 and np.isfinite(target), f"--flops {target:g}: a positive number of FLOPs to plan for")
    laws = law.replicates
    N, D = laws.optimum(target, law.per_nd)
    asked = np.log(D / N)
    first, found, spent = float(asked.std()), [], 0.0
    sizes, lengths = _grid(law, budget)
    cost = law.per_nd * sizes * lengths
    losses = np.log(laws.loss(sizes[:, None], lengths[:, None]))  # (candidates, replicates)
    scatter = _scatter(law)
    for _ in range(most):
        there = np.flatnonzero(cost <= budget - spent)
        if not len(there):
            break
        off = losses - losses.mean(1, keepdims=True)
        shared = off @ (asked - asked.mean()) / len(asked)
        gain = shared**2 / ((off**2).mean(1) + scatter**2)
        best = there[np.argmax((gain / cost)[there])]
        seen = off[best] / ((off[best] ** 2).mean() + scatter**2)
        shrink = 1 / (1 + np.sqrt(scatter**2 / ((off[best] ** 2).mean() + scatter**2)))  # Potter's square root
        asked = asked - shrink * shared[best] * seen
        losses = losses - shrink * (off @ off[best] / off.shape[1])[:, None] * seen
        spent += cost[best]
        found.append(Next(float(sizes[best]), float(lengths[best]), float(cost[best]), float(asked.std())))
    return first, found


def _grid(law: LawFile, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """N and D of the candidates: sizes round the optimum of budgets up to `budget`."""
    C = np.repeat(budget * np.geomspace(CHEAPEST, 1, BUDGETS), SIZES)
    N = _shaped(law, law.surface.optimum(C, law.per_nd)[0] * np.tile(np.geomspace(*BOUNDS, SIZES), BUDGETS))
    real = np.isfinite(N)
    require(bool(real.any()), f"--budget {budget:g}: no shape like that of the law's recipe is of a size near the "
            "optimal one; name another budget")  # fmt: skip
    return N[real], (C / law.per_nd / N)[real]


def _shaped(law: LawFile, N: np.ndarray) -> np.ndarray:
    """The sizes of the shapes of the law's recipe nearest to `N`, not-a-number where none is near; without a recipe any
    size can be."""
    if not law.recipe:
        return N
    base, count = stored.from_json(law.recipe["config"]).model, COUNTS[law.count]

    def nearest(size: float) -> float:
        try:
            return count(ladder.rung(base, size, count))
        except UserError:
            return np.nan

    return np.array([nearest(size) for size in N], np.float64)


def _scatter(law: LawFile) -> float:
    """Standard deviation of ln L of single runs, by the leading form's residuals without the outermost."""
    residuals = np.sort(law.forms[0].residuals or (0.0,))
    return float(max(np.std(residuals[2:-2] if len(residuals) > 8 else residuals), 1e-4))
