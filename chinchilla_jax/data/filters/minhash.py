"""MinHash signatures of documents, cut into bands (Broder 1997; Leskovec et al., "Mining of massive datasets", ch. 3).

Shingles are runs of `words` folded words. Of HASHES = BANDS * ROWS minima, documents of Jaccard similarity s agree in
all of some band with probability 1 - (1 - s**ROWS)**BANDS: 0.97 at 0.57, 0.36 at 0.34, 1e-6 at 0.01.
"""

import numpy as np

from chinchilla_jax.data.filters.words import Words, folded_words
from chinchilla_jax.data.hashing import mix, seeded

BANDS, ROWS = 32, 4
HASHES = BANDS * ROWS
SLACK = 2.5  # standard errors below the threshold down to which an estimated similarity is accepted
VERSION = 1


def coefficients() -> tuple[np.ndarray, np.ndarray]:
    """Odd factors and offsets of the hashes, uint32 (HASHES,)."""
    draws = seeded(np.arange(2 * HASHES), VERSION)
    return (draws[:HASHES] >> np.uint64(32)).astype(np.uint32) | np.uint32(1), (draws[HASHES:] >> np.uint64(32)).astype(
        np.uint32
    )


def shingles(words: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all shingles, uint32 (G,), and the number of the first one of each document, (D + 1,).

    A document of fewer than `n` words is one shingle; one without words has none.
    """
    begins, hashes = words.grams(n)
    owner = words.document[begins]
    short = np.flatnonzero((words.counts > 0) & (words.counts < n))
    if len(short):
        spread = [
            mix(words.hashes[a:b] + mix(np.arange(b - a, dtype=np.uint64))).sum()
            for a, b in zip(words.first[short].tolist(), words.first[short + 1].tolist())
        ]
        owner, hashes = np.append(owner, short), np.append(hashes, mix(np.array(spread, np.uint64)))
        order = np.argsort(owner, kind="stable")
        owner, hashes = owner[order], hashes[order]
    return (hashes >> np.uint64(32)).astype(np.uint32), np.searchsorted(owner, np.arange(len(words.counts) + 1))


def signatures(texts: list[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The minima of each document, uint32 (D, HASHES), and which documents have words at all, (D,)."""
    hashes, first = shingles(folded_words(texts), n)
    there = np.diff(first) > 0
    found = np.zeros((len(texts), HASHES), np.uint32)
    if not there.any():
        return found, there
    starts = first[:-1][there]
    factor, offset = coefficients()
    held = np.empty_like(hashes)
    minima = np.empty((HASHES, len(starts)), np.uint32)
    for number in range(HASHES):
        np.multiply(hashes, factor[number], out=held)
        np.add(held, offset[number], out=held)
        np.minimum.reduceat(held, starts, out=minima[number])
    found[there] = minima.T
    return found, there


def bands(signature: np.ndarray, there: np.ndarray) -> np.ndarray:
    """A key of each band, uint64 (D, BANDS); 0 for documents without words, which are near to nothing."""
    parts = signature.reshape(len(signature), BANDS, ROWS).astype(np.uint64)
    key = np.zeros(parts.shape[:2], np.uint64)
    for row in range(ROWS):
        key = mix(key + parts[:, :, row] + np.uint64(row))
    return np.where(there[:, None], key | np.uint64(1), np.uint64(0))


def sketch(signature: np.ndarray) -> np.ndarray:
    """The last byte of each minimum, uint8 (D, HASHES): enough to estimate a similarity (Li and Koenig 2010)."""
    return (mix(signature.astype(np.uint64)) & np.uint64(0xFF)).astype(np.uint8)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of the shingles of pairs of sketches, (P,); bytes agree by chance in 1 of 256."""
    same = (a == b).mean(axis=1)
    return (same - 1 / 256) / (1 - 1 / 256)


def threshold(jaccard: float, n: int) -> float:
    """The similarity of shingles of `n` words from which a pair is near.

    Where a share 1 - p of the words is kept at random, words overlap by J = (1 - p) / (1 + p) and shingles by
    s / (2 - s), s = (1 - p)**n. A pair is accepted down to `SLACK` standard errors of the estimate below that.
    """
    kept = (2 * jaccard / (1 + jaccard)) ** n
    exact = kept / (2 - kept)
    return exact - SLACK * float(np.sqrt(exact * (1 - exact) / HASHES))
