"""What bends a law, and the best model of a budget under it: text that repeats, zeros, tokens to be generated.

At the optimum the last per cent of compute buys the same loss in parameters as in tokens. With e_N = -N dL/dN and
e_D = -D dL/dD, training at `per_nd` N D and generating T tokens at per_nd / 3 N T, that is

    e_N = e_D (1 + T / (3 D))

the first-order condition of the least compute at a given loss (Sardana et al. 2024, arXiv:2401.00448); T = 0 is
Hoffmann's. Every function works on arrays of laws at once, such as the replicates of a bootstrap.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.scaling.law import Law, Surface, bisect, positive

MOST = 1e40  # FLOPs that any inverse is looked for below
# Repetitions and excess parameters after which what is added is worth 1/e of fresh: Muennighoff et al. 2023. They give
# no interval; ours takes the first to be known to a factor of two at 90 %.
TOKENS_STAR, PARAMS_STAR = 15.387756, 5.309743
STAR_DOUBT = np.log(2) / 1.645


@dataclass(frozen=True)
class Repeated(Law):
    """A law where only `unique` tokens exist and are read again: L(N', D'), Muennighoff et al. 2023, arXiv:2305.16264.

    D' = U + U R* (1 - exp(-R / R*)), U = min(D, unique) and R = D / U - 1 repetitions; N' likewise of R = N / U_N - 1,
    U_N = min(N, the optimal size for U tokens). Up to 4 epochs cost next to nothing; 1 + R* of them are the most that
    repetition is ever worth.
    """

    law: Surface
    unique: float
    tokens_star: Any = TOKENS_STAR
    params_star: float = PARAMS_STAR

    @property
    def single(self) -> bool:
        """Whether this is one law and not many."""
        return self.law.single

    def worth(self, N: Any, D: Any) -> tuple[Any, Any]:
        """(N', D'): parameters and fresh tokens that would do the same."""
        N, D, unique = positive(self.single, N=N, D=D, unique_tokens=self.unique)
        fresh = np.minimum(D, unique)
        lean = np.minimum(N, self.law.params_for(fresh))
        return _worth(N, lean, self.params_star), _worth(D, fresh, self.tokens_star)

    def loss(self, N: Any, D: Any) -> Any:
        """Loss of N parameters after D tokens, repetitions among them; either may be inf."""
        return self.law.loss(*self.worth(N, D))

    def gradient(self, N: Any, D: Any) -> tuple[Any, Any]:
        """(dL/dN, dL/dD); the right-hand derivative where a repetition begins."""
        N, D, unique = positive(self.single, N=N, D=D, unique_tokens=self.unique)
        by_N, by_D = self.law.gradient(*self.worth(N, D))
        fresh = np.minimum(D, unique)
        best = self.law.params_for(fresh)
        lean = np.minimum(N, best)
        grows = np.less(D, unique) * best * self.law.beta / self.law.alpha / fresh  # d best / dD
        by_D = by_D * _by_amount(D, fresh, self.tokens_star) + by_N * _by_base(N, lean, self.params_star) * grows
        return by_N * _by_amount(N, lean, self.params_star), by_D


def _worth(amount: Any, base: Any, star: Any) -> Any:
    return base - base * star * np.expm1(-(amount / base - 1) / star)


def _by_amount(amount: Any, base: Any, star: Any) -> Any:
    """d worth / d amount: 1 where nothing is in excess."""
    return np.exp(-(amount / base - 1) / star)


def _by_base(amount: Any, base: Any, star: Any) -> Any:
    """d worth / d base: 0 where nothing is in excess."""
    ratio = amount / base
    return 1 - star * np.expm1(-(ratio - 1) / star) - ratio * np.exp(-(ratio - 1) / star)


@dataclass(frozen=True)
class Conditions:
    """What bends a law.

    `unique_tokens` of text, repeated beyond that; `dense_equivalent`, the size of a dense model that a sparse one is
    worth, over its own; `generated` tokens whose compute counts as well.
    """

    unique_tokens: float = np.inf
    dense_equivalent: float = 1.0
    generated: float = 0.0


PLAIN = Conditions()


def bent(law: Surface, where: Conditions) -> Law:
    """The law of a text that runs out; of many laws each has its own R*, by a fixed seed."""
    if not np.isfinite(where.unique_tokens):
        return law
    normal = np.random.RandomState(1).standard_normal(np.shape(law.alpha)) if not law.single else 0.0
    return Repeated(law, where.unique_tokens, TOKENS_STAR * np.exp(STAR_DOUBT * normal))


def loss(law: Surface, N: Any, D: Any, where: Conditions = PLAIN) -> Any:
    """Loss of N parameters after D tokens, in the law's unit."""
    return bent(law, where).loss(where.dense_equivalent * np.asarray(N, np.float64), D)


def optimum(law: Surface, C: Any, per_nd: float = 6.0, where: Conditions = PLAIN) -> tuple[Any, Any]:
    """(N, D) of the best model that `C` = `per_nd` N D FLOPs of training buy; a closed form where nothing bends it."""
    C = np.asarray(C, np.float64) + 0 * np.asarray(law.alpha, np.float64)  # as many as there are laws
    if not where.generated and not np.isfinite(where.unique_tokens):
        N, D = law.optimum(C * where.dense_equivalent, per_nd)
        return N / where.dense_equivalent, D
    surface = bent(law, where)

    def more(x):
        """e_N > e_D (1 + T / 3 D) at N = exp(x): more parameters pay."""
        D, N = C / per_nd / np.exp(x), where.dense_equivalent * np.exp(x)
        by_N, by_D = surface.gradient(N, D)
        return by_D * (D + where.generated / 3) > by_N * N

    x = bisect(more, np.zeros_like(C), np.log(C / per_nd))
    return np.exp(x), C / per_nd / np.exp(x)


def reach(law: Surface, name: str, value: float, per_nd: float = 6.0, where: Conditions = PLAIN) -> Any:
    """The least C whose optimum has `value` params, tokens or loss; inf where none has."""

    def short(c):
        N, D = optimum(law, np.exp(c), per_nd, where)
        return {
            "params": lambda: value > N,
            "tokens": lambda: value > D,
            "loss": lambda: loss(law, N, D, where) > value,
        }[name]()

    zero = 0 * np.asarray(law.alpha, np.float64)
    c = bisect(short, zero + np.log(per_nd), zero + np.log(MOST))
    return np.where(c > np.log(MOST) - 1e-6, np.inf, np.exp(c))
