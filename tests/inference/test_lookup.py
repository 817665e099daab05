"""Guesses against a search of the whole text."""

import random

from chinchilla_jax.inference.lookup import DRAFT, GRAM, PAUSE, Lookup


def searched(ids: list[int]) -> list[int]:
    """What followed the last occurrence of the last three tokens, going round where the text ends."""
    for at in range(len(ids) - 1, GRAM - 1, -1):
        if ids[at - GRAM : at] == ids[-GRAM:]:
            return [ids[at + i % (len(ids) - at)] for i in range(DRAFT)]
    return []


def test_guesses_are_those_of_a_search():
    draw, found = random.Random(0), 0
    for _ in range(200):
        ids = draw.choices(range(3), k=draw.randint(0, 40))
        cut = draw.randint(0, len(ids))
        known = Lookup(ids[:cut])
        known.add(ids[cut:])
        assert known.guess() == searched(ids)
        found += bool(searched(ids))
    assert found > 50


def test_wrong_guesses_pause_for_a_while():
    known = Lookup([1, 2, 3] * 4)
    tries = 0
    while known.guess():
        known.heard(1)
        tries += 1
    assert 2 <= tries <= 8
    known.add([1, 2, 3] * (PAUSE // 3))
    assert not known.guess()
    known.add([1, 2])
    assert known.guess() == [3, 1, 2, 3, 1, 2, 3]
    for _ in range(20):
        known.heard(3)
    assert known.guess(), "guesses that are worth it go on"
