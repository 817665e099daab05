"""The rows of a microbatch that get a pass of their own, and what such passes share."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config, whole_rows
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Sums

UNROLLED = 4  # ascent steps that are written out; a loop of more compiles once


@dataclass(frozen=True)
class Rows:
    """The first n = fraction * B rows of a microbatch, rounded down, to 1 at least.

    The first, so that the dropout masks of a pass over n rows are those that the same rows have in a pass over all.
    """

    config: Config
    fraction: float

    def count(self, rows: int) -> int:
        """n of so many rows."""
        return whole_rows(self.fraction, rows)

    @property
    def shards(self) -> int:
        """Devices that share the rows of a batch."""
        return abs(self.config.mesh.data * self.config.mesh.fsdp)

    def take(self, tree):
        """The first n rows of every array, and as many empty ones as it takes until the shards divide them.

        The first array has all B rows; others may have less, but n.
        """
        n = self.count(len(jax.tree.leaves(tree)[0]))

        def one(x):
            x = jnp.pad(x[:n], [(0, -n % self.shards)] + [(0, 0)] * (x.ndim - 1))
            return constrain(x, "batch", *[None] * (x.ndim - 1))

        return jax.tree.map(one, tree)


def spread(x_nLD: jax.Array, rows: int) -> jax.Array:
    """An array of the first n rows as one of all of them, 0 in the others."""
    return constrain(jnp.pad(x_nLD, [(0, rows - len(x_nLD)), (0, 0), (0, 0)]), "batch", None, None)


def sums(losses_BL: jax.Array, weights_BL: jax.Array) -> Sums:
    """The weighted sum of token losses, and the weight."""
    return Sums(jnp.sum(weights_BL * losses_BL), jnp.sum(weights_BL))


def add(a, b):
    """The sum of two trees."""
    return jax.tree.map(jnp.add, a, b)


def when(active: bool | jax.Array, yes: Callable, no: Callable):
    """yes() or no(), whichever is due; only that one is computed."""
    return yes() if active is True else jax.lax.cond(active, yes, no)


def repeat(times: int, one: Callable, start):
    """`one` applied so many times, written out where that is little."""
    if times <= UNROLLED:
        for _ in range(times):
            start = one(start)
        return start
    return jax.lax.fori_loop(0, times, lambda _, x: one(x), start)
