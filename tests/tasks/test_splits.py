"""Which records train, validate and test."""

import numpy as np
import pytest

from chinchilla_jax.tasks import splits
from chinchilla_jax.tasks.records import (
    Dialogue,
    Document,
    History,
    Preference,
    Question,
    Spans,
    Tagged,
    Tally,
    Turn,
    Where,
)


def histories(*items: str, times: bool = False) -> list[History]:
    """One history of single letters each; times count on through all of them by their place in it."""
    where = Where("file", 1, 1)
    return [
        History(where, str(user), tuple(letters), tuple(float(i) for i in range(len(letters))) if times else ())
        for user, letters in enumerate(items)
    ]


def test_the_core_is_a_fixed_point():
    """Dropping a user makes an item rare, which makes another user short."""
    found = splits.core(histories("abc", "abc", "abd", "d"), 2)
    assert ["".join(h.items) for h in found] == ["abc", "abc", "ab"]
    assert splits.core(histories("abcd", "efgh"), 2) == []


def test_leave_one_out_and_what_is_too_short():
    tally = Tally()
    train, valid, test = splits.leave_one_out(histories("abcde", "abc", "ab", "a"), tally)
    assert [h.items for h in train] == [tuple("abc"), tuple("ab")] and not any(h.asked for h in train)
    assert [h.items for h in valid] == [tuple("abcd"), tuple("ab")] and all(h.asked for h in valid + test)
    assert [h.items for h in test] == [tuple("abcde"), tuple("abc")]
    assert tally.counts == {splits.SHORT: 1, splits.ALONE: 1}


def test_nothing_trained_is_later_than_what_is_asked():
    draw = np.random.default_rng(1)
    where = Where("file", 1, 1)
    made = [
        History(where, str(u), tuple(map(str, draw.integers(0, 9, 8))), tuple(np.sort(draw.random(8)).tolist()))
        for u in range(40)
    ]
    train, valid, test = splits.by_time(made, 0.1, Tally())
    latest = max(history.times[-1] for history in train)
    assert valid and test and latest < min(h.times[-1] for h in valid)
    assert max(h.times[-1] for h in valid) < min(h.times[-1] for h in test)
    assert max(h.times[-2] for h in test) < min(h.times[-1] for h in test)


ASK, SAY, OTHER = Turn("user", "q"), Turn("assistant", "a"), Turn("assistant", "b")
HERE = Where("file", 1, 1)
TWINS = {
    "dialogue": (Dialogue(HERE, (ASK, SAY)), Dialogue(HERE, (ASK, OTHER))),
    "preference": (Preference(HERE, (ASK,), (SAY,), (OTHER,)), Preference(HERE, (ASK,), (OTHER,), (SAY,))),
    "tagged": (Tagged(HERE, ("a",), ("O",)), Tagged(HERE, ("a",), ("B-X",))),
    "question": (Question(HERE, "c", "q", (("c", 0),)), Question(HERE, "c", "q", ())),
    "spans": (Spans(HERE, "abc", ((0, 1, "X"),)), Spans(HERE, "abc", ())),
}


@pytest.mark.parametrize("kind", TWINS)
def test_repeated_and_contradicted_texts_are_counted(kind):
    one, other = TWINS[kind]
    tally = Tally()
    splits.note_repeats([one, one, other], [other], tally)
    assert tally.counts == {splits.REPEATED: 1, splits.CONTRADICTED: 1, splits.LEAKED: 1}


def test_texts_that_nothing_asks_for_are_no_answers_to_the_same():
    tally = Tally()
    alone = [Dialogue(HERE, (SAY,)), Dialogue(HERE, (OTHER,)), Document(HERE, "a"), Document(HERE, "b")]
    splits.note_repeats(alone, [Preference(HERE, (), (SAY,), (OTHER,))], tally)
    assert not tally.counts
