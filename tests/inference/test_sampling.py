"""Filters, penalties and draws against brute force in numpy; every row has settings of its own."""

import jax
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.inference import sampling
from chinchilla_jax.inference.sampling import Rows, Sampling, Text
from tests import tiny

V = 12
LOGITS = (3 * np.random.default_rng(0).standard_normal((20, V))).astype(np.float32)
keep = tiny.jit(sampling.keep)
draw = tiny.jit(sampling.draw, static_argnames="pieces")


def kept(filtered) -> list[set[int]]:
    return [set(np.flatnonzero(np.isfinite(row))) for row in np.asarray(filtered)]


def softmax(row):
    p = np.exp(row.astype(np.float64) - row.max())
    return p / p.sum()


def expected_set(logits_V, how: Sampling) -> set[int]:
    """Top-k, top-p of what is left, then min-p, one token at a time."""
    order = np.argsort(-logits_V)[: how.top_k or None]
    p, chosen, mass = softmax(logits_V[order]), set(), 0.0
    for token, share in zip(order, p):
        if mass >= how.top_p:
            break
        chosen.add(int(token))
        mass += share
    return {t for t in chosen if softmax(logits_V)[t] >= how.min_p * softmax(logits_V).max()}


SETTINGS = [Sampling(), Sampling(top_k=1), Sampling(top_k=5), Sampling(top_k=100), Sampling(top_p=0.01),
            Sampling(top_p=1e-45), Sampling(top_p=0.5), Sampling(top_p=0.9), Sampling(top_p=0.999),
            Sampling(top_k=6, top_p=0.7),
            Sampling(min_p=0.1), Sampling(top_k=4, top_p=0.95, min_p=0.3)]  # fmt: skip


def test_filters_of_every_row_keep_what_they_should():
    hows = [SETTINGS[i % len(SETTINGS)] for i in range(20)]
    rows = Rows.empty(20)
    for slot, how in enumerate(hows):
        rows.put(slot, how, 0)
    assert kept(keep(LOGITS, rows)) == [expected_set(row, how) for row, how in zip(LOGITS, hows)]


def test_ties_and_huge_logits_are_kept():
    rows = Rows.of(Sampling(top_k=2), [0, 0])
    assert kept(keep(np.float32([[1, 3, 1, 0], [-1e30, -2e30, 3e38, -np.inf]]), rows)) == [{0, 1, 2}, {0, 2}]


def nothing(rows: int) -> Text:
    return Text(np.zeros((rows, V), bool), np.zeros((rows, V), np.int32), np.zeros((rows, V), np.float32))


def test_penalties_and_bias():
    rows, text = Rows.empty(3), nothing(3)
    rows.put(0, Sampling(0, repetition_penalty=1.5), 0)
    rows.put(1, Sampling(0, presence_penalty=0.5, frequency_penalty=0.25), 0)
    rows.put(2, Sampling(0), 0, bias=True)
    text.prompt_SV[:, 3], text.made_SV[:, 7], text.bias_SV[:, 5] = True, 4, -100.0
    expected = LOGITS[:3].copy()
    for token in (3, 7):
        expected[0, token] *= 1.5 if expected[0, token] < 0 else 1 / 1.5
    expected[1, 7] -= 0.5 + 4 * 0.25
    expected[2, 5] -= 100
    np.testing.assert_allclose(sampling.adjust(LOGITS[:3], rows, text), expected, rtol=1e-6)


def draws(how: Sampling, logits_V, pieces: int, count: int = 4000):
    rows = Rows.of(how, range(count))
    return np.asarray(draw(np.tile(logits_V, (count, 1)), rows, nothing(count), np.zeros(count, int), pieces).token_S)


GREEDY = [Sampling(0), Sampling(0, top_k=3), Sampling(0, top_p=0.5)]
TINY = [Sampling(1e-7), Sampling(1e-38), Sampling(1e-320), Sampling(1.0, top_p=1e-60)]  # overflow or underflow float32


@pytest.mark.parametrize("how", GREEDY + TINY)
def test_temperature_0_is_greedy_among_the_known(how):
    found = draw(LOGITS, Rows.of(how, range(20)), nothing(20), np.zeros(20, int), pieces=10)
    np.testing.assert_array_equal(found.token_S, LOGITS[:, :10].argmax(-1))


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.5), Sampling(2.0, top_k=4), Sampling(1.5, top_p=0.8),
                                 Sampling(0.7, top_k=6, top_p=0.9)])  # fmt: skip
def test_draws_have_the_filtered_distribution(how):
    """Temperature first, then top-k, then top-p of what top-k left."""
    logits = LOGITS[0][:10] / how.temperature
    expected, allowed = np.zeros(V), sorted(expected_set(logits, how))
    expected[allowed] = softmax(logits[allowed])
    share = np.bincount(draws(how, LOGITS[0], 10), minlength=V) / 4000
    assert set(np.flatnonzero(share)) <= set(allowed)
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 4000))


def test_a_row_is_drawn_by_its_own_seed_count_and_settings():
    """Also where its neighbours want what it does not: greedy ones, filters, log-probabilities."""
    rows = Rows.of(Sampling(), range(20))
    together = np.asarray(draw(LOGITS, rows, nothing(20), np.arange(20), pieces=V).token_S)
    rows.put(3, Sampling(0, frequency_penalty=1.0), 0, logprobs=True)
    rows.put(4, Sampling(0.1, top_k=2), 0)
    mixed = np.asarray(draw(LOGITS, rows, nothing(20), np.arange(20), pieces=V).token_S)
    others = np.arange(20) > 4
    np.testing.assert_array_equal(mixed[others], together[others])
    again = draw(LOGITS[::-1], jax.tree.map(lambda x: x[::-1], rows), nothing(20), np.arange(20)[::-1], pieces=V)
    np.testing.assert_array_equal(again.token_S[::-1], mixed)


BAD = [({"temperature": -1}, "--temperature"), ({"temperature": float("inf")}, "--temperature"),
       ({"temperature": 1e300}, "--temperature"), ({"repetition_penalty": 1e-300}, "--repetition-penalty"),
       ({"repetition_penalty": float("inf")}, "--repetition-penalty"), ({"top_k": 2**31}, "--top-k"),
       ({"top_k": -1}, "--top-k"), ({"top_p": 0}, "--top-p"), ({"top_p": 1.1}, "--top-p"),
       ({"min_p": 2}, "--min-p"), ({"repetition_penalty": 0}, "--repetition-penalty")]  # fmt: skip


@pytest.mark.parametrize("bad, name", BAD)
def test_bad_values_name_the_option(bad, name):
    with pytest.raises(UserError, match=name):
        Sampling(**bad)
