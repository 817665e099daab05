"""The best model for a budget under a law, and under what bends it: text that repeats, zeros, tokens to be generated.

At the optimum the last per cent of compute buys the same loss in parameters as in tokens. With e_N = -N dL/dN and
e_D = -D dL/dD, training at `flops` N D and generating T tokens at flops / 3 N T, that is

    e_N = e_D (1 + T / (3 D))

the first-order condition of the least 6 N D + 2 N T at a given loss (Sardana et al. 2024, arXiv:2401.00448); T = 0 is
Hoffmann's. Every function works on arrays of laws at once, such as the replicates of a bootstrap.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from chinchilla_jax.scaling.corrections import Repeated
from chinchilla_jax.scaling.surface import Law, Surface

HALVINGS = 48  # of an interval in ln N or ln C: to 1e-12
MOST = 1e40  # FLOPs that any inverse is looked for below


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What bends a law.

    `unique_tokens` of text, repeated beyond that (Muennighoff et al. 2023); `dense_equivalent`, the size of a dense
    model that a sparse one is worth, over its own; `generated` tokens whose compute counts as well.
    """

    unique_tokens: float = np.inf
    dense_equivalent: float = 1.0
    generated: float = 0.0


PLAIN = Conditions()


def loss(law: Surface, N: Any, D: Any, where: Conditions = PLAIN) -> Any:
    """Loss of N parameters after D tokens, in the law's unit."""
    return _bent(law, where).loss(where.dense_equivalent * np.asarray(N, np.float64), D)


def _bent(law: Surface, where: Conditions) -> Law:
    return Repeated(law, where.unique_tokens) if np.isfinite(where.unique_tokens) else law


def _pull(law: Surface, x: Any, C: Any, flops: float, where: Conditions) -> Any:
    """e_N - e_D (1 + T / 3 D) at N = exp(x): positive where more parameters pay."""
    D = C / flops / np.exp(x)
    N = where.dense_equivalent * np.exp(x)
    by_N, by_D = _bent(law, where).gradient(N, D)
    return by_D * (D + where.generated / 3) - by_N * N


def optimum(law: Surface, C: Any, flops: float = 6.0, where: Conditions = PLAIN) -> tuple[Any, Any]:
    """(N, D) of the best model that `C` = `flops` N D training FLOPs buy; a closed form where nothing bends the law."""
    C = np.asarray(C, np.float64) + 0 * np.asarray(law.alpha, np.float64)  # as many as there are laws
    if not where.generated and not np.isfinite(where.unique_tokens):
        N, D = law.optimum(C * where.dense_equivalent, flops)
        return N / where.dense_equivalent, D
    low, high = np.zeros_like(C), np.log(C / flops)
    x = _bisect(lambda x: _pull(law, x, C, flops, where) > 0, low, high)
    return np.exp(x), C / flops / np.exp(x)


def _bisect(more: Callable, low: Any, high: Any) -> Any:
    """The point up to which `more` holds."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        up = more(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


def compute(law: Surface, target: float, reached: Callable, flops: float = 6.0, where: Conditions = PLAIN) -> Any:
    """The least C at which `reached(N*, D*, loss)` comes up to (or, for a loss, down to) `target`; inf where never."""

    def short(c):
        N, D = optimum(law, np.exp(c), flops, where)
        return reached(N, D, loss(law, N, D, where)) < target

    zero = 0 * np.asarray(law.alpha, np.float64)
    c = _bisect(short, zero + np.log(flops), zero + np.log(MOST))
    return np.where(c > np.log(MOST) - 1e-6, np.inf, np.exp(c))


# What a question may fix besides the budget: how it is read off an optimum, rising with compute.
REACHED: dict[str, Callable] = {
    "params": lambda N, D, L: N,
    "tokens": lambda N, D, L: D,
    "loss": lambda N, D, L: -L,
}
