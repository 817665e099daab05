"""Approaches 1 and 2 of Hoffmann et al. 2022: optima read off the runs, budget by budget, and a line through them.

Both are biased and say so. Approach 1 takes the least loss near each budget among the sizes that happened to be run.
Approach 2's parabola in ln N is not the shape of an isoFLOP curve: where exponents differ its vertex moves (Czech et
al. 2026, arXiv:2603.22339); `vertex_shift` tells by how much on a surface.
"""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.runs import Runs

SAME_BUDGET = 0.09  # runs whose ln C are a chain of gaps of at most so much have one budget
LEAST = 3  # runs of different sizes that a parabola takes
MARGIN = 0.1  # share of the sizes' range at either end where a vertex is not inside


@dataclass(frozen=True)
class Budget:
    """One budget of C FLOPs: the parabola's vertex and, where there are enough sizes, Akima's, as parameters."""

    C: float
    N: float
    akima: float | None
    loss: float
    coefficients: tuple[float, float, float]  # of ln N - `centre`, highest power first
    centre: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """N* = exp(`intercept`) C^`exponent`, with what it goes through and what is wrong with it."""

    exponent: float
    intercept: float
    C: np.ndarray
    N: np.ndarray
    warnings: tuple[str, ...]


def line(C: np.ndarray, N: np.ndarray, *warnings: str) -> Line:
    """Least squares in logs."""
    exponent, intercept = np.polyfit(np.log(C), np.log(N), 1)
    return Line(float(exponent), float(intercept), np.asarray(C), np.asarray(N), warnings)


def envelope(runs: Runs, bins: int = 12) -> Line:
    """Approach 1: of every bin of ln C the run of least loss. `UserError` where fewer than two bins have a run."""
    c = np.log(runs.C)
    edges = np.linspace(c.min(), c.max() + 1e-9, bins + 1)
    bin_of = np.searchsorted(edges, c, "right")
    best = []
    for i in range(1, bins + 1):
        here = np.flatnonzero(bin_of == i)
        here = here[np.lexsort((-c[here], runs.loss[here]))]
        if len(here) and (not best or runs.loss[here[0]] < runs.loss[best[-1]]):
            best.append(here[0])
    require(len(best) >= 2, f"{runs.source}: approach 1 needs runs at two budgets, column {runs.accounting}")
    best = np.array(best)
    sizes = len(np.unique(runs.N[best]))
    return line(
        runs.C[best],
        runs.N[best],
        f"approach 1 chooses among the {len(np.unique(runs.N))} sizes that were run ({sizes} are on the envelope) and "
        "by the least of noisy losses: its optimum leans to where the runs are",
    )


def budgets(runs: Runs, tolerance: float = SAME_BUDGET) -> list[np.ndarray]:
    """Rows of every budget, the least first."""
    require(tolerance > 0, f"--budget-tolerance {tolerance:g}: a positive difference of ln C, such as {SAME_BUDGET}")
    order = np.argsort(runs.C, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(runs.C[order])) > tolerance) + 1
    return np.split(order, cuts)


def isoflop(runs: Runs, tolerance: float = SAME_BUDGET) -> tuple[Line, list[Budget]]:
    """Approach 2: a parabola in ln N for every budget with three sizes or more, and the line through their vertices.

    A budget without an optimum inside its sizes is left out and named; `UserError` where fewer than two are left.
    """
    groups = budgets(runs, tolerance)
    many = [rows for rows in groups if len(np.unique(runs.N[rows])) >= LEAST]
    if not many:
        rows = groups[0]
        raise UserError(
            f"{runs.source} row {runs.row[rows[0]]}, column {runs.count}: the budget of {runs.C[rows].mean():.3g} FLOPs"
            f" has {(sizes := len(np.unique(runs.N[rows])))} size{'s' * (sizes > 1)}; approach 2 needs {LEAST}"
        )
    found, notes = [], []
    for rows in many:
        try:
            found.append(_vertex(runs, rows))
        except UserError as error:
            notes.append(f"approach 2 left out a budget: {error}")
    require(
        len(found) >= 2,
        f"{runs.source}: approach 2 needs two budgets, and has {len(found)} with {LEAST} sizes or more and an optimum"
        + "".join(f"; {note.partition(': ')[2]}" for note in notes[:1]),
    )
    left = [int(runs.row[i]) for rows in groups if len(np.unique(runs.N[rows])) < LEAST for i in rows]
    notes += [f"approach 2 left out rows {left}: their budgets have fewer than {LEAST} sizes"] if left else []
    return line([b.C for b in found], [b.N for b in found], *notes), found


def _vertex(runs: Runs, rows: np.ndarray) -> Budget:
    x, y = np.log(runs.N[rows]), runs.loss[rows]
    order = np.argsort(x)
    x, y, rows = x[order], y[order], rows[order]
    C, centre = float(np.exp(np.log(runs.C[rows]).mean())), float(x.mean())
    place = f"{runs.source} row {runs.row[rows[np.argmin(y)]]}, column loss: the budget of {C:.3g} FLOPs"
    a, b, c = (float(v) for v in np.polyfit(x - centre, y, 2))
    require(a > 0, f"{place} opens downward, so it has no optimum; add sizes on both sides, or drop this budget")
    vertex, edge = centre - b / (2 * a), MARGIN * np.ptp(x)
    require(
        x[0] + edge < vertex < x[-1] - edge,
        f"{place} has its optimum at an end of its sizes ({runs.N[rows].min():.3g} to {runs.N[rows].max():.3g}); "
        f"add {'smaller' if vertex <= centre else 'larger'} ones",
    )
    loss = c - b * b / (4 * a)
    return Budget(
        C, float(np.exp(vertex)), _akima(x, y), loss, (a, b, c), centre, tuple(int(r) for r in runs.row[rows])
    )


def _akima(x: np.ndarray, y: np.ndarray) -> float | None:
    """Parameters at the least of Akima's interpolation, which bends only where the runs do; needs five sizes."""
    from scipy.interpolate import Akima1DInterpolator

    sizes, at = np.unique(x, return_inverse=True)
    if len(sizes) < 5:
        return None
    mean = np.bincount(at, y) / np.bincount(at)
    fine = np.linspace(sizes[0], sizes[-1], 2001)
    return float(np.exp(fine[np.argmin(Akima1DInterpolator(sizes, mean)(fine))]))


def vertex_shift(law: Surface, C: float, N: np.ndarray, per_nd: float = 6.0) -> float:
    """ln of the parabola's vertex over the true N*, were the runs at C with these sizes noise-free on the law."""
    x = np.log(N)
    centre = x.mean()
    a, b, _ = np.polyfit(x - centre, law.loss(N, C / per_nd / N), 2)
    return float(centre - b / (2 * a) - np.log(law.optimum(C, per_nd)[0]))
