"""Which documents are dropped, trained on, and held out: pure functions of hashes and sizes."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.data.hashing import seeded

DROPPED, TRAIN, VALID = 0, 1, 2
# A document this many times larger than the share to hold out is not held out whole.
TOO_LARGE = 2


@dataclass(frozen=True)
class Plan:
    """What becomes of each document (n,); the last `tail` bytes of document `cut`, if there is one, are held out."""

    fate: np.ndarray
    cut: int | None = None
    tail: int = 0


def plan(digests: np.ndarray, sizes: np.ndarray, own: np.ndarray, fraction: float, seed: int, unique: bool) -> Plan:
    """Fates of n documents from their hashes (n, 2), sizes (n,) and own splits (n,) (0 none, 1 train, 2 valid).

    Of equal documents the first is kept, but one that its source holds out comes before all others. Documents
    without a split of their own are walked in the order of their seeded hash, and held out until `fraction` of
    their bytes is reached; both splits get at least one. Where every document exceeds twice that share (one large
    book, say), that share is taken from the end of the first in that order instead.
    """
    fate = np.where(own == 2, VALID, TRAIN).astype(np.uint8)
    if unique:
        fate[duplicates(digests, own)] = DROPPED
    free = np.flatnonzero((own == 0) & (fate == TRAIN))
    if not len(free):
        return Plan(fate)
    order = free[np.argsort(seeded(digests[free, 0], seed), kind="stable")]
    target = fraction * float(sizes[free].sum())
    fitting = order[sizes[order] <= TOO_LARGE * target]
    if not len(fitting) or len(free) == 1:
        return Plan(fate, int(order[0]), max(1, round(target)))
    middles = np.cumsum(sizes[fitting], dtype=np.float64) - sizes[fitting] / 2
    taken = max(1, int(np.searchsorted(middles, target, side="right")))
    fate[fitting[: min(taken, len(free) - 1)]] = VALID
    return Plan(fate)


def duplicates(digests: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Numbers of the documents that equal an earlier (or a held-out) one."""
    order = np.lexsort((own != 2, digests[:, 0], digests[:, 1]))
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    return order[1:][same]
