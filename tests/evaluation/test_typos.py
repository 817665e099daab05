"""Mistakes come at their rate, and every byte's place in the clean text is what a diff by hand says."""

import string
from itertools import pairwise

import numpy as np
import pytest

from chinchilla_jax.evaluation import typos

TEXT = "The wind carries old songs over the naïve sea; 海风吹过, and 12 stones answer.\n"


def corrupt(text, rate, seed=0):
    return typos.corrupt(text, rate, np.random.default_rng(seed))


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_mistakes_come_at_their_rate_and_are_of_all_four_kinds(rate):
    """Within four standard deviations, less the second halves of swaps; each kind makes up about a quarter."""
    draw = np.random.default_rng(3)
    text = "".join(draw.choice(list(string.ascii_lowercase), 100_000))
    found = list(typos.mistakes(text, rate, np.random.default_rng(1)))
    expected = len(text) * rate / (1 + rate / 4)
    assert abs(len(found) - expected) < 4 * np.sqrt(expected)
    kinds = [(end - start, len(typed)) for start, end, typed in found]
    for kind in ((1, 0), (0, 1), (1, 1), (2, 2)):
        assert abs(kinds.count(kind) - len(kinds) / 4) < 4 * np.sqrt(len(kinds) * 3 / 16) + 0.02 * len(kinds)
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(found))


def test_the_same_seed_makes_the_same_mistakes_and_rate_0_none():
    assert corrupt(TEXT, 0.2)[0] == corrupt(TEXT, 0.2)[0] != corrupt(TEXT, 0.2, seed=1)[0]
    same, places = corrupt(TEXT, 0.0)
    assert same == TEXT and places.tolist() == list(range(len(TEXT.encode()) + 1))
    assert corrupt("", 0.5)[0] == "" and corrupt("", 0.5)[1].tolist() == [0]


def test_keys_lie_beside_each_other():
    assert set(typos.NEIGHBOURS["g"]) == set("fhtyvb") and set(typos.NEIGHBOURS["Q"]) == set("12WA")
    assert all(key in typos.NEIGHBOURS[other] for key, near in typos.NEIGHBOURS.items() for other in near if other in
               typos.NEIGHBOURS and key == key.lower())  # fmt: skip


@pytest.mark.parametrize(
    "mistake, faulty, places",
    [
        ((1, 2, ""), "ac", [0, 1, 3]),
        ((1, 1, "x"), "axbc", [0, 1, 1, 2, 3]),
        ((1, 2, "x"), "axc", [0, 1, 2, 3]),
        ((1, 3, "cb"), "acb", [0, 1, -1, 3]),
        ((0, 1, ""), "bc", [0, 2, 3]),
        ((1, 2, "é"), "aéc", [0, 1, -1, 2, 3]),
    ],
)
def test_places_are_what_they_are_by_hand(monkeypatch, mistake, faulty, places):
    monkeypatch.setattr(typos, "mistakes", lambda *given: iter([mistake]))
    found, where = corrupt("abc", 0.1)
    assert found == faulty and where.tolist() == places


def test_places_point_at_the_same_byte():
    """Wherever two neighbouring places are neighbours in both texts, the byte between them is the same or hit wrong."""
    text = TEXT * 20
    faulty, places = corrupt(text, 0.1, seed=5)
    one, two = text.encode(), faulty.encode()
    runs = np.flatnonzero((places[:-1] >= 0) & (places[1:] == places[:-1] + 1))
    same = np.array([one[places[i]] == two[i] for i in runs])
    assert len(runs) > 0.8 * len(one) and same.mean() > 0.93
    known = places[places >= 0]
    assert (np.diff(known) >= 0).all() and places[-1] == len(one)


def test_targets_by_hand():
    """Pieces 1: "a", 2: "b", 3: "ab", 0: the separator. "ab|a" is read as "a|x|b" and so on."""
    sizes = np.array([0, 1, 1, 2])
    clean = np.array([3, 1])  # "ab", "a"
    places = np.array([0, 1, 2, 3])
    for read, following, weights in (
        ([3, 1], [3, 1, 0], [1, 1, 1]),  # nothing wrong
        ([1, 2, 1], [3, 0, 1, 0], [1, 0, 1, 1]),  # cut otherwise: inside "ab" no clean token starts
        ([1, 3], [3, 0, 0], [1, 0, 1]),  # and across the start of the second none is scored
    ):
        found = typos.targets(np.array(read), clean, places, sizes, 0)
        assert found[0].tolist() == following and found[1].tolist() == weights
    doubled = np.array([0, 0, 1, 2, 3])  # a letter typed before the text: the token is asked for behind it, once
    found = typos.targets(np.array([1, 3, 1]), clean, doubled, sizes, 0)
    assert found[0].tolist() == [0, 3, 1, 0] and found[1].tolist() == [0, 1, 1, 1]
