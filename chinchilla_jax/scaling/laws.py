"""Laws of the loss in parameters and tokens."""

import dataclasses
from typing import Any

import numpy as np

from chinchilla_jax.config import require


@dataclasses.dataclass(frozen=True)
class Surface:
    """L(N, D) = exp(e) + (exp(a) / N^alpha + exp(b) / D^beta)^k (Hoffmann et al. 2022, eq. 2; k = 1 there).

    The fields may be arrays of one shape: many laws at once.
    """

    a: Any
    b: Any
    e: Any
    alpha: Any
    beta: Any
    k: Any = 1.0

    def _terms(self, N, D):
        N, D = np.asarray(N, np.float64), np.asarray(D, np.float64)
        return np.exp(self.a - self.alpha * np.log(N)), np.exp(self.b - self.beta * np.log(D))

    def loss(self, N, D):
        """Loss of N parameters after D tokens."""
        p, t = self._terms(N, D)
        return np.exp(self.e) + (p + t) ** self.k

    def gradient(self, N, D):
        """(dL/dN, dL/dD)."""
        p, t = self._terms(N, D)
        outer = self.k * (p + t) ** (np.asarray(self.k) - 1)
        return -outer * self.alpha * p / N, -outer * self.beta * t / D

    @property
    def exponents(self):
        """(a, b) of N* ~ C^a and D* ~ C^b."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def optimum(self, C, flops: float = 6.0):
        """(N, D) of least loss at C = flops N D: N = G (C / flops)^a, G = (alpha A / (beta B))^(1 / (alpha + beta))."""
        total = self.alpha + self.beta
        G = np.exp((np.log(self.alpha) + self.a - np.log(self.beta) - self.b) / total)
        N = G * (np.asarray(C, np.float64) / flops) ** (self.beta / total)
        return N, np.asarray(C, np.float64) / flops / N
