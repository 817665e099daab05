"""The numbers of splitmix64, which decide the order of documents and batches for good."""

import numpy as np
import pytest

from chinchilla_jax.data.hashing import mix, seeded

GAMMA = 0x9E3779B97F4A7C15


def test_the_published_sequence_of_splitmix64():
    """The first outputs for the seed 0 of the reference program (Vigna, splitmix64.c)."""
    states = np.array([GAMMA * n % 2**64 for n in (1, 2, 3)], np.uint64)
    assert [hex(x) for x in mix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@pytest.mark.parametrize("seed", [-1, 0, 1, 2**62, 2**64 - 1, -(2**63)])
def test_a_seed_is_taken_modulo_two_to_the_64th(seed):
    x = np.arange(1000)
    found = seeded(x, seed)
    assert found.dtype == np.uint64 and len(set(found.tolist())) == 1000
    assert (found == seeded(x, seed % 2**64)).all() and (found != seeded(x, seed + 1)).all()
    assert (found[::7] == seeded(x[::7], seed)).all(), "each number by itself"
    ones = np.unpackbits(found.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(64_000)
