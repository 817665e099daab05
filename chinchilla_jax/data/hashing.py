"""Stateless pseudo-random numbers, the same on every machine."""

import numpy as np


def mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014): a bijection that scatters the bits of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def seeded(x: np.ndarray, seed: int) -> np.ndarray:
    """Uniform uint64 numbers, one for each of `x`, others for another seed; arrays only, so that overflow wraps."""
    start = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    return mix(np.asarray(x, np.uint64) + mix(start))
