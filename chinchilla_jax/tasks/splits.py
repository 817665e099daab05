"""Histories as sequential recommendation wants them: a k-core, then who is trained on and what is asked.

Leave-one-out (Kang and McAuley 2018): of every user the last item is the test, the one before it the validation, the
rest trains; a model may then learn from what other users did later. By time: nothing that trains is later than what is
asked.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.tasks.records import History, Tally

SHORT = "users with fewer than three items: trained on, never asked"
ALONE = "users dropped: one item alone"
LEAST = 3  # items of a user who is asked: one to start from, one for validation, one for the test

Split = tuple[list[History], list[History], list[History]]


def core(histories: Sequence[History], k: int) -> list[History]:
    """The largest part in which every user and every item has k events: rare ones go until none is left."""
    kept = list(histories)
    while True:
        counts = Counter(item for history in kept for item in history.items)
        fresh = [_only(history, {item for item in history.items if counts[item] >= k}) for history in kept]
        fresh = [history for history in fresh if len(history.items) >= k]
        if sum(len(h.items) for h in fresh) == sum(len(h.items) for h in kept):
            return fresh
        kept = fresh


def _only(history: History, items: set[str]) -> History:
    if len(items) == len(set(history.items)):
        return history
    at = [i for i, item in enumerate(history.items) if item in items]
    times = tuple(history.times[i] for i in at) if history.times else ()
    return dataclasses.replace(history, items=tuple(history.items[i] for i in at), times=times)


def until(history: History, end: int, asked: bool = False) -> History:
    """The first `end` items of a history."""
    return dataclasses.replace(history, items=history.items[:end], times=history.times[:end], asked=asked)


def leave_one_out(histories: Sequence[History], tally: Tally) -> Split:
    """Train, validation and test; the test's history has the item of the validation."""
    train, valid, test = [], [], []
    for history in histories:
        count = len(history.items)
        if count < LEAST:
            tally.note(SHORT if count > 1 else ALONE, history.where)
            train += [history] if count > 1 else []
            continue
        train += [until(history, count - 2)] if count > LEAST else []
        valid.append(until(history, count - 1, asked=True))
        test.append(until(history, count, asked=True))
    return train, valid, test


def by_time(histories: Sequence[History], fraction: float, tally: Tally) -> Split:
    """The last `fraction` of all events is the test's time, the one before it the validation's.

    What happened earlier trains; a user is asked the first item of such a time, from all that he did before.
    """
    for history in histories:
        require(
            len(history.times) == len(history.items),
            f"{history.where}: no times, which --task.split time goes by; use --task.split leave_one_out",
        )
    times = np.sort([time for history in histories for time in history.times])
    first, second = (float(times[int(len(times) * (1 - n * fraction))]) for n in (2, 1))
    train, asked = [], {first: [], second: []}
    for history in histories:
        when = np.array(history.times)
        begun = int((when < first).sum())
        if begun > 1:
            train.append(until(history, begun))
        for start, stop in ((first, second), (second, np.inf)):
            at = int((when < start).sum())
            if 0 < at < len(when) and when[at] < stop:
                asked[start].append(until(history, at + 1, asked=True))
    lone = [history for history in histories if len(history.items) < 2]
    if lone:
        tally.note(ALONE, lone[0].where, len(lone))
    return train, asked[first], asked[second]


def last_asked(histories: Sequence[History], tally: Tally) -> list[History]:
    """Histories of a file of their own, each asked for its last item."""
    lone = [history for history in histories if len(history.items) < 2]
    if lone:
        tally.note(ALONE, lone[0].where, len(lone))
    return [until(history, len(history.items), asked=True) for history in histories if len(history.items) > 1]
