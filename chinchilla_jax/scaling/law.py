"""Laws of the loss L(N, D): loss, gradient, and what follows from them, the optimum of a budget and the inverses.

A `Law` has a loss and a gradient; what it has no closed form for is found by bisection in logarithms, where losses fall
and marginal gains shrink. A single law refuses what cannot be with a `UserError`; many laws at once, such as the
replicates of a bootstrap, answer nan or inf in those places.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from chinchilla_jax.config import require

HALVINGS = 56  # of an interval in logarithms: to float64's rounding
MOST = 1e60  # FLOPs, parameters or tokens that an inverse is looked for below


def positive(single: bool = True, **values: Any) -> list[Any]:
    """Each value as float64; `UserError` names the first that is not positive, or is nan where `single`."""
    arrays = [np.asarray(value, np.float64) for value in values.values()]
    for name, array in zip(values, arrays):
        bad = ~(array > 0) if single else array <= 0
        require(not bad.any(), f"{name} must be a positive number, not {array[bad].flat[0] if bad.any() else 0:g}")
    return arrays


def bisect(more: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """The point in [low, high] up to which `more` holds."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        up = more(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


class Law:
    """What `loss(N, D)` and `gradient(N, D)` of a law imply. Losses in the law's unit, N and D in numbers."""

    def loss(self, N: Any, D: Any) -> Any:
        """Loss of N parameters after D tokens; either may be inf."""
        raise NotImplementedError

    def gradient(self, N: Any, D: Any) -> tuple[Any, Any]:
        """(dL/dN, dL/dD)."""
        raise NotImplementedError

    @property
    def single(self) -> bool:
        """Whether this is one law and not many."""
        return True

    def optimum(self, C: Any, per_nd: float = 6.0) -> tuple[Any, Any]:
        """(N, D) of least loss at C = per_nd N D: where a per cent of either buys the same."""
        (budget,) = positive(self.single, C=np.asarray(C, np.float64) / per_nd)

        def more(x: Any) -> Any:
            N = np.exp(x)
            by_N, by_D = self.gradient(N, budget / N)
            return by_N * N < by_D * budget / N

        N = np.exp(bisect(more, np.minimum(np.log(budget), 0.0), np.maximum(np.log(budget), 0.0)))
        return N, budget / N

    def compute(self, loss: Any, per_nd: float = 6.0) -> Any:
        """The least C = per_nd N D that reaches a loss; `UserError` at or below what no compute reaches."""
        loss = self._reachable(loss, np.inf, np.inf)
        return self._falls(lambda C: self.loss(*self.optimum(C, per_nd)), loss)

    def tokens(self, N: Any, loss: Any) -> Any:
        """Tokens after which N parameters reach a loss."""
        return self._falls(lambda D: self.loss(N, D), self._reachable(loss, N, np.inf))

    def params(self, D: Any, loss: Any) -> Any:
        """Parameters that reach a loss with D tokens."""
        return self._falls(lambda N: self.loss(N, D), self._reachable(loss, np.inf, D))

    def _reachable(self, loss: Any, N: Any, D: Any) -> Any:
        (loss,) = positive(self.single, loss=loss)
        limit = self.loss(N, D)
        ends = f"the law ends at {np.max(limit):.4f}; ask for a larger loss"
        require(not self.single or bool(np.all(loss > limit)), f"nothing reaches a loss of {np.min(loss):g}: {ends}")
        return loss

    def _falls(self, at: Callable[[Any], Any], loss: Any) -> Any:
        ends = np.log(MOST) * np.ones(np.shape(loss))
        return np.exp(bisect(lambda x: at(np.exp(x)) > loss, -ends, ends))


@dataclasses.dataclass(frozen=True)
class Surface(Law):
    """L(N, D) = exp(e) + (exp(a) / N^alpha + exp(b) / D^beta)^k.

    Hoffmann et al. 2022, eq. 2, has k = 1; Skaling (2026, arXiv:2608.07222) k < 1; a tied law alpha = beta. The fields
    may be arrays of one shape: many laws at once. Every method is a closed form, for any k.
    """

    a: Any
    b: Any
    e: Any
    alpha: Any
    beta: Any
    k: Any = 1.0

    @property
    def single(self) -> bool:
        """Whether this is one law and not many."""
        return all(np.ndim(value) == 0 for value in dataclasses.astuple(self))

    @property
    def exponents(self) -> tuple[Any, Any]:
        """(a, b) of N* ~ C^a and D* ~ C^b."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def _terms(self, N: Any, D: Any) -> tuple[Any, Any]:
        N, D = positive(self.single, N=N, D=D)
        return np.exp(self.a - self.alpha * np.log(N)), np.exp(self.b - self.beta * np.log(D))

    def loss(self, N: Any, D: Any) -> Any:
        """Loss of N parameters after D tokens; either may be inf."""
        p, t = self._terms(N, D)
        return np.exp(self.e) + (p + t) ** self.k

    def gradient(self, N: Any, D: Any) -> tuple[Any, Any]:
        """(dL/dN, dL/dD)."""
        p, t = self._terms(N, D)
        outer = self.k * (p + t) ** (np.asarray(self.k) - 1)
        return -outer * self.alpha * p / N, -outer * self.beta * t / D

    def optimum(self, C: Any, per_nd: float = 6.0) -> tuple[Any, Any]:
        """(N, D) of least loss at C = per_nd N D: N = G (C / per_nd)^a, G = (alpha A / beta B)^(1 / (alpha + beta))."""
        C, per_nd = positive(self.single, C=C, per_nd=per_nd)
        if self.single:
            positive(alpha=self.alpha, beta=self.beta)
        total = self.alpha + self.beta
        G = np.exp((np.log(self.alpha) + self.a - np.log(self.beta) - self.b) / total)
        N = G * (C / per_nd) ** (self.beta / total)
        return N, C / per_nd / N

    def params_for(self, D: Any) -> Any:
        """N of the optimum that has D tokens: alpha A / N^alpha = beta B / D^beta."""
        (D,) = positive(self.single, D=D)
        return np.exp((np.log(self.alpha) + self.a - np.log(self.beta) - self.b + self.beta * np.log(D)) / self.alpha)

    def compute(self, loss: Any, per_nd: float = 6.0) -> Any:
        """The least C = per_nd N D that reaches a loss: at the optimum the two terms are as beta to alpha."""
        total, rest = self.alpha + self.beta, self._rest(self._reachable(loss, np.inf, np.inf))
        N = self._inverse(self.a, self.alpha, rest * self.beta / total)
        return per_nd * N * self._inverse(self.b, self.beta, rest * self.alpha / total)

    def tokens(self, N: Any, loss: Any) -> Any:
        """Tokens after which N parameters reach a loss."""
        rest = self._rest(self._reachable(loss, N, np.inf)) - self._terms(N, np.inf)[0]
        return self._inverse(self.b, self.beta, rest)

    def params(self, D: Any, loss: Any) -> Any:
        """Parameters that reach a loss with D tokens."""
        rest = self._rest(self._reachable(loss, np.inf, D)) - self._terms(np.inf, D)[1]
        return self._inverse(self.a, self.alpha, rest)

    def _rest(self, loss: Any) -> Any:
        return np.maximum(loss - np.exp(self.e), 0.0) ** (1 / np.asarray(self.k))

    def _inverse(self, log_scale: Any, exponent: Any, term: Any) -> Any:
        """x with exp(log_scale) / x^exponent = term; inf where the term is not positive."""
        with np.errstate(divide="ignore"):
            return np.exp((log_scale - np.log(np.maximum(term, 0.0))) / exponent)
