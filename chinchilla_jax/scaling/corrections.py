"""What bends a law: text that is read again, tokens to be generated, a size off the optimum, weights that are zero."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling.surface import Law, Surface, bisect, positive

# Repetitions and excess parameters after which what is added is worth 1/e of fresh: Muennighoff et al. 2023.
TOKENS_STAR, PARAMS_STAR = 15.387756, 5.309743


@dataclass(frozen=True)
class Repeated(Law):
    """A law where only `unique` tokens exist and are read again: L(N', D'), Muennighoff et al. 2023, arXiv:2305.16264.

    D' = U + U R* (1 - exp(-R / R*)), U = min(D, unique) and R = D / U - 1 repetitions; N' likewise of R = N / U_N - 1,
    U_N = min(N, the optimal size for U tokens). Up to 4 epochs cost next to nothing; 1 + R* of them are the most that
    repetition is ever worth.
    """

    law: Surface
    unique: float
    tokens_star: float = TOKENS_STAR
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


def _worth(amount: Any, base: Any, star: float) -> Any:
    return base - base * star * np.expm1(-(amount / base - 1) / star)


def _by_amount(amount: Any, base: Any, star: float) -> Any:
    """d worth / d amount: 1 where nothing is in excess."""
    return np.exp(-(amount / base - 1) / star)


def _by_base(amount: Any, base: Any, star: float) -> Any:
    """d worth / d base: 0 where nothing is in excess."""
    ratio = amount / base
    return 1 - star * np.expm1(-(ratio - 1) / star) - ratio * np.exp(-(ratio - 1) / star)


def repeated(law: Surface, N: Any, D: Any, unique: Any) -> tuple[Any, Any]:
    """(N', D'), what N parameters and D tokens are worth where only `unique` tokens exist: `Repeated.worth`."""
    return Repeated(law, unique).worth(N, D)


class Served(NamedTuple):
    """A model trained for use: its size and tokens, FLOPs of training and use, and the share of them that it saves."""

    N: float
    D: float
    flops: float
    saved: float


def served(law: Law, loss: float, generated: float, flops: float = 6.0) -> Served:
    """The least `flops` N D + `flops` / 3 N T that reaches `loss` and serves T = `generated` tokens.

    Sardana et al. 2024 (arXiv:2401.00448); `saved` is against the model that is cheapest to train. `UserError` for a
    loss at or below the law's limit.
    """
    require(generated >= 0 and np.isfinite(generated), f"{generated:g} generated tokens: give 0 or more")
    train = law.optimum(law.compute(loss, flops), flops)

    def total(N: Any, D: Any) -> float:
        return float(flops * N * (D + generated / 3))

    def pays(x: Any) -> bool:
        """Whether more parameters still cut the bill, along the line of equal loss."""
        N, D = np.exp(x), law.tokens(np.exp(x), loss)
        by_N, by_D = law.gradient(N, D)
        return D + generated / 3 < N * by_N / by_D

    least = np.log(law.params(np.inf, loss))
    N = np.exp(bisect(pays, least + 1e-9, np.log(train[0]) + 1e-9))
    D = law.tokens(N, loss)
    return Served(float(N), float(D), total(N, D), 1 - total(N, D) / total(*train))


def overhead(law: Surface, size: float) -> tuple[float, float]:
    """(factor on tokens, training compute added) of a model of `size` times the optimal parameters, at equal loss.

    Harm's law: k_D = (1 - (k_N^-alpha - 1) beta / alpha)^(-1/beta), overhead k_N k_D - 1; beta / alpha is what
    (A / B) G^(-alpha - beta) comes to. `UserError` below the critical size, where no number of tokens is enough.
    """
    positive(size=size)
    left = 1 - (size**-law.alpha - 1) * law.beta / law.alpha
    least = (1 + law.alpha / law.beta) ** (-1 / law.alpha)
    require(left > 0, f"{size:g} of the optimal size never reaches its loss; the least that does is {least:.3g}")
    tokens = left ** (-1 / law.beta)
    return float(tokens), float(size * tokens - 1)


# Frantar et al. 2024 (arXiv:2309.08520), T5 on C4, 1.3 M to 85 M non-zeros: a_S, b_S, c_S, b_N, coefficient and
# exponent of D, limit; N in millions of non-zeros, D in 1e5 steps of 65,536 tokens. The refit is the optimum of the
# same objective on the same 48 points, which do not pin b_S down: hence a range and not a number.
FRANTAR = {
    "frantar": (0.5678, 0.7216, 1.5227, 0.2451, 0.6336, 0.2027, 0.6507),
    "frantar-refit": (0.436, 1.345, 1.695, 0.232, 0.418, 0.385, 0.830),
}
# Frantar et al. 2025 (arXiv:2502.16440): dense equivalent, measured at 50 % alone.
COMPRESSION = {0.5: 0.871}
PROMISED = 0.8  # sparsity beyond which the laws part


def frantar(S: float, name: str = "frantar") -> Surface:
    """L(S, N, D) = (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c at a sparsity S; N counts non-zeros."""
    require(name in FRANTAR, f"no sparse law {name!r}{closest(name, FRANTAR)}; known are {', '.join(FRANTAR)}")
    _sparsity(S)
    a, b, c, by_N, scale, by_D, limit = FRANTAR[name]
    size = np.log(a * (1 - S) ** b + c) + by_N * np.log(1e6)
    return Surface(float(size), float(np.log(scale) + by_D * np.log(1e5 * 65536)), float(np.log(limit)), by_N, by_D)


@dataclass(frozen=True)
class Equivalent:
    """Parameters of the dense model that a sparse one is worth: median and range of the published laws, and each.

    `agreed` is false beyond 80 % sparsity, where the laws part.
    """

    value: float
    low: float
    high: float
    laws: dict[str, float]
    agreed: bool


def sparse_equivalent(N: float, S: float, schedule: tuple[float, float] = (0.25, 0.75)) -> Equivalent:
    """Dense parameters that N parameters (zeros counted) are worth once pruned to sparsity S, at equal tokens.

    `schedule` is the shares of the run between which a cubic schedule prunes; it enters `average` alone, and `value` is
    the median of three laws (four at S = 0.5), which it often does not move. The step costs the dense N throughout
    where no kernel skips zeros: sparsity is paid for in training and paid back in use.
    """
    positive(N=N)
    found = {name: N * _frantar(S, name) for name in FRANTAR}
    found["average"] = average_params(N, S, *schedule)
    found |= {"compression": N * COMPRESSION[S]} if S in COMPRESSION else {}
    values = list(found.values())
    return Equivalent(float(np.median(values)), min(values), max(values), found, S <= PROMISED)


def _frantar(S: float, name: str) -> float:
    """Dense over total size at which the first terms are equal."""
    sparse, dense = frantar(S, name), frantar(0.0, name)
    return (1 - S) * float(np.exp((dense.a - sparse.a) / dense.alpha))


def average_params(N: float, S: float, start: float = 0.25, stop: float = 0.75) -> float:
    """Mean non-zeros over a run whose sparsity rises by the cubic schedule: N (1 - S (3/4 (stop - start) + 1 - stop)).

    Jin et al. 2025 (arXiv:2501.12486) find Chinchilla's law to hold with this N.
    """
    positive(N=N)
    _sparsity(S)
    require(0 <= start <= stop <= 1, f"schedule {start:g} to {stop:g}: shares of the run, in order")
    return N * (1 - S * (0.75 * (stop - start) + 1 - stop))


def _sparsity(S: float) -> None:
    require(0 <= S < 1, f"sparsity {S:g} must lie in [0, 1)")
