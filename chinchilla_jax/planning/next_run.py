"""The next run of a sweep: the one whose loss tells most, per FLOP, of the tokens a parameter at a budget to come.

Replicates of the law disagree about ln D/N there, and about the loss of a run not yet made. By their covariance, and
the scatter of single runs, a loss once seen takes

    cov(ln D/N, ln L)^2 / (var(ln L) + scatter^2)

off the variance of ln D/N; the replicates are then moved as if it had been seen (an ensemble Kalman update), and the
run after it is chosen.
"""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require
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
    """(standard deviation of ln D/N at `target` FLOPs now, at most `most` runs of `budget` FLOPs together)."""
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
    N = law.surface.optimum(C, law.per_nd)[0] * np.tile(np.geomspace(*BOUNDS, SIZES), BUDGETS)
    return N, C / law.per_nd / N


def _scatter(law: LawFile) -> float:
    """Standard deviation of ln L of single runs, by the leading form's residuals without the outermost."""
    residuals = np.sort(law.forms[0].residuals or (0.0,))
    return float(max(np.std(residuals[2:-2] if len(residuals) > 8 else residuals), 1e-4))
