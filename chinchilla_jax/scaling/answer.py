"""A question and its answer with intervals: the one that `fit` and `plan` give, and what other sizes would cost."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.scaling.conditions import PLAIN, Conditions, bent, loss, optimum, reach
from chinchilla_jax.scaling.law import Surface, bisect
from chinchilla_jax.scaling.lawfile import LawFile, percentiles

FACTORS = (0.25, 0.5, 2.0, 4.0)  # sizes off the optimum whose cost is shown
CHEAP = 0.01  # of the compute: what a size may cost and still count as good


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
        alone = len(self.given) == 1 or "loss" not in self.given
        require(alone, f"{names}: a loss is planned for alone, at the least compute")

    @property
    def given(self) -> dict[str, float]:
        """What is fixed, by name."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def solve(law: Surface, asked: Question, per_nd: float = 6.0, where: Conditions = PLAIN) -> tuple[Any, Any]:
    """(N, D) under a law, or under many at once; inf where a law never gets there."""
    given = asked.given
    if len(given) == 1 and "flops" not in given:
        [(name, value)] = given.items()
        C = reach(law, name, value, per_nd, where)
        never = np.isinf(C)
        N, D = (np.where(never, np.inf, v) for v in optimum(law, np.where(never, 1.0, C), per_nd, where))
        return (value + 0 * N if name == "params" else N), (value + 0 * D if name == "tokens" else D)
    if len(given) == 1:
        return optimum(law, asked.flops, per_nd, where)
    C, N, D, ratio = asked.flops, asked.params, asked.tokens, asked.ratio
    if N is None:
        N = D / ratio if C is None else (C / per_nd / ratio) ** 0.5 if D is None else C / per_nd / D
    if D is None:
        D = ratio * N if C is None else C / per_nd / N
    same = 0 * np.asarray(law.alpha, np.float64)
    return N + same, D + same


def point(law: LawFile, asked: Question, where: Conditions = PLAIN) -> tuple[float, float]:
    """(N, D) by the best fit; `UserError` where the law never reaches what is asked for."""
    N, D = map(float, solve(law.surface, asked, law.per_nd, where))
    reached = np.isfinite(N) and np.isfinite(D)
    require(reached, f"no compute reaches what is asked for; the loss of {law.name} ends at {law.floor:.4g}")
    return N, D


def answer(law: LawFile, asked: Question, where: Conditions = PLAIN, level: float = 0.9) -> dict[str, Any]:
    """Parameters, tokens, tokens a parameter, compute and loss: value, `level` interval, and `never`, the share of the
    replicates that do not get there; the "prediction" of the loss is the interval of a new run, scatter and all.

    Raises `UserError` where the law itself never reaches what is asked for.
    """
    require(0 < level < 1, f"--level {level:g}: a share inside (0, 1), such as 0.9")
    best = _figures(law.surface, point(law, asked, where), law, where)
    found = {name: {"value": float(value), "interval": None} for name, value in best.items()}
    if law.draws is None:
        return found
    laws = law.replicates
    many = _figures(laws, solve(laws, asked, law.per_nd, where), law, where)
    for name, values in many.items():
        values = np.broadcast_to(values, np.shape(laws.alpha))
        found[name] |= {"interval": _edges(values, level), "never": float(np.mean(~np.isfinite(values)))}
    found["loss"]["prediction"] = _edges(law.scattered(many["loss"]), level)
    return found


def _edges(values: np.ndarray, level: float) -> list[float | None]:
    """The interval, None at an end that is never reached."""
    return [end if np.isfinite(end) else None for end in percentiles(values, level)]


def _figures(surface: Surface, at: tuple[Any, Any], law: LawFile, where: Conditions) -> dict[str, Any]:
    N, D = at
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isinf(N) | np.isinf(D), np.inf, D / N)
    figures = {"params": N, "tokens": D, "tokens_per_param": ratio, "flops": law.per_nd * N * D}
    return figures | {"loss": loss(surface, N, D, where), "exponent_n": surface.exponents[0] + 0 * surface.alpha}


def price(law: LawFile, N: float, D: float, factor: float, where: Conditions = PLAIN) -> tuple[float, float]:
    """(tokens, compute over that of N and D) of `factor` N parameters that reach the same loss; inf where none do.

    What is to be generated counts as compute. Harm's law, where nothing bends the law.
    """
    surface, size = bent(law.surface, where), where.dense_equivalent * factor * N
    target = loss(law.surface, N, D, where)
    if not target > surface.loss(size, np.inf):
        return np.inf, np.inf
    tokens = float(surface.tokens(size, target))
    return tokens, factor * (tokens + where.generated / 3) / (D + where.generated / 3)


def other_sizes(law: LawFile, N: float, D: float, where: Conditions = PLAIN) -> dict[str, Any]:
    """What other sizes cost: in compute at the same loss, in loss at the same compute; the sizes within 1 %."""
    base, rows = float(loss(law.surface, N, D, where)), []
    for factor in FACTORS:
        tokens, times = price(law, N, D, factor, where)
        off = float(loss(law.surface, factor * N, D / factor, where))
        more = None if np.isinf(times) else 100 * (times - 1)
        tokens = None if np.isinf(tokens) else tokens
        rows.append({"params_factor": factor, "params": factor * N, "tokens": tokens, "compute_percent": more,
                     "tokens_at_budget": D / factor, "loss": off, "loss_percent": 100 * (off / base - 1)})  # fmt: skip
    ends = []
    for sign in (-1, 1):
        x = bisect(lambda x, sign=sign: price(law, N, D, float(np.exp(sign * x)), where)[1] < 1 + CHEAP, 0.0, 5.0)
        ends.append(float(N * np.exp(sign * x)))
    return {"rows": rows, "within_1_percent": ends}
