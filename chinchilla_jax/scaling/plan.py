"""From a budget to a run: what a law advises, how sure it is, and a config that can be trained as it is."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.scaling import optimum as best
from chinchilla_jax.scaling.lawfile import Law, percentiles
from chinchilla_jax.scaling.laws import Surface
from chinchilla_jax.scaling.optimum import REACHED, Conditions

FLOPS = 6.0  # a parameter and token of training: 6 N D, the accounting of every law here
FACTORS = (0.25, 0.5, 2.0, 4.0)  # sizes off the optimum whose cost is shown


@dataclass(frozen=True)
class Question:
    """What is fixed: one of these leaves the rest to the law, two leave only the loss. None is free."""

    flops: float | None = None
    params: float | None = None
    tokens: float | None = None
    loss: float | None = None
    ratio: float | None = None

    def __post_init__(self):
        for name, value in self.given.items():
            require(value > 0 and np.isfinite(value), f"--{name} {value:g} must be a positive number")
        names = " and ".join(f"--{name}" for name in self.given)
        require(bool(self.given), "nothing to plan from: give --flops, --chips and --hours, --minutes, --params, ...")
        require(len(self.given) <= 2, f"{names} say more than a plan has freedom for; give one of them, or two")
        require(set(self.given) != {"ratio"}, "--ratio goes with a budget: give --flops, --params or --tokens as well")
        require(
            len(self.given) == 1 or "loss" not in self.given,
            f"{names}: a loss is planned for alone, at the least compute",
        )

    @property
    def given(self) -> dict[str, float]:
        """What is fixed, by name."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def solve(law: Surface, asked: Question, where: Conditions) -> tuple[Any, Any]:
    """(N, D) under a law, or under many at once."""
    given = asked.given
    if len(given) == 1 and "flops" not in given:
        [(name, value)] = given.items()
        C = best.compute(law, -value if name == "loss" else value, REACHED[name], FLOPS, where)
        never = np.isinf(C)
        N, D = (np.where(never, np.inf, v) for v in best.optimum(law, np.where(never, 1.0, C), FLOPS, where))
        return (value if name == "params" else N), (value if name == "tokens" else D)
    if len(given) == 1:
        return best.optimum(law, asked.flops, FLOPS, where)
    flops, N, D, ratio = asked.flops, asked.params, asked.tokens, asked.ratio
    if N is None:
        N = D / ratio if flops is None else (flops / FLOPS / ratio) ** 0.5 if D is None else flops / FLOPS / D
    if D is None:
        D = ratio * N if flops is None else flops / FLOPS / N
    same = 0 * np.asarray(law.alpha, np.float64)
    return N + same, D + same


def point(law: Law, asked: Question, where: Conditions) -> tuple[float, float]:
    """(N, D) by the best fit; `UserError` where the law never reaches what is asked for."""
    N, D = map(float, solve(law.surface, asked, where))
    reached = np.isfinite(N) and np.isfinite(D)
    require(reached, f"no compute reaches what is asked for; the loss of {law.name} ends at {law.floor:.4g}")
    return N, D


def answer(law: Law, asked: Question, where: Conditions, level: float) -> dict[str, Any]:
    """Parameters, tokens, tokens a parameter, compute and loss: value and `level` interval of each, over the law's
    bootstrap; the loss's interval is that of a new run, and has the scatter of single runs in it.

    Raises `UserError` where the law never reaches what is asked for.
    """
    N, D = point(law, asked, where)
    figures = _figures(law.surface, N, D, where)
    many = solve(law.replicates, asked, where) if law.replicates is not None else None
    spread = _figures(law.replicates, *many, where) if many else {}
    if many:
        spread["loss"] = law.scattered(spread["loss"])
    known = {name: _between(values, level) for name, values in spread.items()}
    return {name: {"value": value, "interval": known.get(name)} for name, value in figures.items()}


def _between(values: Any, level: float) -> list[float]:
    values = np.atleast_1d(values)
    return list(percentiles(values[np.isfinite(values)], level))


def _figures(law: Surface, N: Any, D: Any, where: Conditions) -> dict[str, Any]:
    return {
        "params": N,
        "tokens": D,
        "tokens_per_param": D / N,
        "flops": FLOPS * N * D,
        "loss": best.loss(law, N, D, where),
    }


def off_optimum(law: Surface, N: float, D: float, where: Conditions) -> list[dict[str, float]]:
    """What other sizes at the same compute would reach: loss, and by how many per cent it is more."""
    base = float(best.loss(law, N, D, where))
    rows = []
    for factor in FACTORS:
        loss = float(best.loss(law, factor * N, D / factor, where))
        rows.append({"params_factor": factor, "params": factor * N, "tokens": D / factor, "loss": loss,
                     "loss_percent": 100 * (loss / base - 1)})  # fmt: skip
    return rows
