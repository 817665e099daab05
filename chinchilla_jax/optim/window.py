"""The part of a run in which zeros are made, counted in steps that were applied."""

from typing import NamedTuple

import jax.numpy as jnp

from chinchilla_jax.config import SparsityConfig

EVERY, CHANGES = 100, 10  # steps between two changes that nobody chose, unless that makes too few of them


class Window(NamedTuple):
    """From update `first` to update `last`; masks change at every `every`-th between the two and at both."""

    first: int
    last: int
    every: int

    def due(self, count):
        """Whether the mask changes in the update after `count` others."""
        between = (count >= self.first) & (count < self.last) & ((count - self.first) % self.every == 0)
        return between | (count == self.last)

    def open(self, count):
        """Whether zeros are being made; after the window what is zero stays so."""
        return (count >= self.first) & (count <= self.last)

    def share(self, count):
        """How much of the window is over: 0 at `first`, 1 from `last` on."""
        done = (count - self.first) / max(1, self.last - self.first)
        return jnp.where(count >= self.last, 1.0, jnp.clip(done, 0.0, 1.0))


def window(cfg: SparsityConfig, steps: int) -> Window:
    """The window of a run of `steps` updates.

    The last change comes at the last update at the latest, if no step is skipped: a run that skips k steps makes k
    updates less, and misses it if `stop` lies in these.
    """
    first, last = (min(round(share * steps), steps - 1) for share in (cfg.begin, cfg.stop))
    return Window(first, last, cfg.every or min(EVERY, max(1, (last - first) // CHANGES)))


def cubic(share):
    """s / s_final = 1 - (1 - share)^3, share being how much of the window is over (Zhu & Gupta 2017)."""
    return 1 - (1 - share) ** 3


def cosine(share):
    """(1 + cos(pi share)) / 2, RigL's fall of the share of moved weights (Evci et al. 2020)."""
    return 0.5 * (1 + jnp.cos(jnp.pi * share))
