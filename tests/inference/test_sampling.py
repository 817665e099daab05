"""Filters and draws against brute force in numpy."""

import jax
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.inference import sampling
from chinchilla_jax.inference.sampling import Sampling, sampler

LOGITS = (3 * np.random.default_rng(0).standard_normal((20, 12))).astype(np.float32)


def kept(filtered) -> list[set[int]]:
    return [set(np.flatnonzero(np.isfinite(row))) for row in np.asarray(filtered)]


def softmax(row):
    p = np.exp(row.astype(np.float64) - row.max())
    return p / p.sum()


@pytest.mark.parametrize("k", [1, 5, 12, 100])
def test_top_k_keeps_the_k_largest(k):
    assert kept(sampling.keep_top_k(k)(LOGITS)) == [set(np.argsort(-row)[:k]) for row in LOGITS]


def test_top_k_keeps_ties():
    assert kept(sampling.keep_top_k(2)(np.array([[1.0, 3.0, 1.0, 0.0]]))) == [{0, 1, 2}]


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p):
    expected = []
    for row in LOGITS:
        chosen, mass = set(), 0.0
        for token in np.argsort(-row):
            if mass >= p:
                break
            chosen.add(token)
            mass += softmax(row)[token]
        expected.append(chosen)
    assert kept(sampling.keep_top_p(p)(LOGITS)) == expected


def test_unknown_rows_are_never_kept():
    assert kept(sampling.keep_known(9)(LOGITS)) == [set(range(9))] * 20


def draws(how: Sampling, logits_V, pieces: int, count: int = 4000):
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(sampler(how, pieces)(np.tile(logits_V, (count, 1)), keys))


GREEDY = [Sampling(0), Sampling(0, top_k=3), Sampling(0, top_p=0.5)]
TINY = [Sampling(1e-7), Sampling(1e-38), Sampling(1e-320), Sampling(1.0, top_p=1e-60)]  # overflow or underflow float32


@pytest.mark.parametrize("how", GREEDY + TINY)
def test_temperature_0_is_greedy_among_the_known(how):
    keys = jax.random.split(jax.random.key(0), 20)
    np.testing.assert_array_equal(sampler(how, 10)(LOGITS, keys), LOGITS[:, :10].argmax(-1))


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.5), Sampling(2.0, top_k=4), Sampling(1.5, top_p=0.8),
                                 Sampling(0.7, top_k=6, top_p=0.9)])  # fmt: skip
def test_draws_have_the_filtered_distribution(how):
    """Temperature first, then top-k, then top-p of what top-k left."""
    logits = LOGITS[0][:10] / how.temperature
    order = np.argsort(-logits)[: how.top_k or None]
    p = softmax(logits[order])
    before = np.cumsum(p) - p
    order, p = order[before < how.top_p], p[before < how.top_p]
    expected = np.zeros(12)
    expected[order] = p / p.sum()
    share = np.bincount(draws(how, LOGITS[0], 10), minlength=12) / 4000
    assert set(np.flatnonzero(share)) <= set(order)
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 4000))


def test_a_row_is_drawn_by_its_own_key():
    keys = jax.random.split(jax.random.key(3), 20)
    draw = sampler(Sampling(), 12)
    together = np.asarray(draw(LOGITS, keys))
    np.testing.assert_array_equal(together[::-1], draw(LOGITS[::-1], keys[::-1]))
    np.testing.assert_array_equal(together[4:5], draw(LOGITS[4:5], keys[4:5]))


@pytest.mark.parametrize("bad, name", [({"temperature": -1}, "--temperature"), ({"top_k": -1}, "--top-k"),
                                       ({"top_p": 0}, "--top-p"), ({"top_p": 1.1}, "--top-p")])  # fmt: skip
def test_bad_values_name_the_option(bad, name):
    with pytest.raises(UserError, match=name):
        Sampling(**bad)
