"""Which records train, which validate and which test.

Records of most kinds fall by a hash of their group. Histories are split as sequential recommendation does:
leave-one-out (Kang and McAuley 2018): of every user the last item is the test, the one before it the validation, the
rest trains; a model may then learn from what other users did later. By time: nothing that trains is later than what is
asked.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.data.hashing import seeded
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.records import (
    Dialogue,
    Document,
    History,
    Labelled,
    Preference,
    Question,
    Record,
    Spans,
    Tagged,
    Tally,
)

SHORT = "users with fewer than three items: trained on, never asked"
ALONE = "users dropped: one item alone"
REPEATED = "records to train on that repeat another: the same text with the same label or answer"
CONTRADICTED = "records to train on whose text another has with another label or answer"
LEAKED = "records to validate on whose text trains as well"
LEAST = 3  # items of a user who is asked: one to start from, one for validation, one for the test

Split = tuple[list[History], list[History], list[History]]


def by_group(
    task: TaskConfig,
    train: list[Record],
    valid: list[Record] | None,
    test: list[Record] | None,
    seed: int,
    tally: Tally,
) -> tuple[list, list, list]:
    """Files as they were given; without one to validate on a share of the training's groups."""
    if valid is None:
        train, valid = held_out(train, task.valid_fraction, seed)
    return train, valid, test or []


def held_out(records: list[Record], fraction: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Records to train and to validate on, by a hash of the group: what shares a text never falls apart."""
    groups = list(dict.fromkeys(record.group for record in records))
    if len(groups) < 2:
        raise UserError(
            f"{records[0].where.file}: one record (or one text) cannot be split; name a second file with --task.valid"
        )
    hashes = [
        int.from_bytes(hashlib.sha256(group.encode("utf-8", "replace")).digest()[:8], "little") for group in groups
    ]
    order = np.argsort(seeded(np.array(hashes, np.uint64), seed), kind="stable")
    count = min(len(groups) - 1, max(1, round(fraction * len(groups))))
    chosen = {groups[i] for i in order[:count]}
    return [r for r in records if r.group not in chosen], [r for r in records if r.group in chosen]


def note_repeats(train: Sequence[Record], valid: Sequence[Record], tally: Tally) -> None:
    """Count the texts that train more than once, and those of validation that train as well."""
    seen: dict[tuple, set[tuple]] = {}
    for record in train:
        asked, answer = question_of(record)
        if before := seen.get(asked):
            tally.note(REPEATED if answer in before else CONTRADICTED, record.where)
        seen.setdefault(asked, set()).add(answer)
    for record in valid:
        if question_of(record)[0] in seen:
            tally.note(LEAKED, record.where)


def question_of(record: Record) -> tuple[tuple, tuple]:
    """(what is asked, what is to be said) of a record that is no history: two with the same first part are the same
    text."""
    match record:
        case Labelled():
            return record.texts, record.labels
        case Tagged():
            return record.words, record.tags
        case Question():
            return (record.context, record.question), record.answers
        case Dialogue():
            return record.turns[:-1] or record.turns, record.turns[-1:]
        case Preference():
            return record.prompt or (record.chosen, record.rejected), (record.chosen, record.rejected)
        case Spans():
            return (record.text,), record.spans
        case Document():
            return (record.text,), ()
    raise TypeError(f"{type(record).__name__} is no text")


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


def beside(
    train: Sequence[History], valid: Sequence[History] | None, test: Sequence[History] | None, tally: Tally
) -> Split:
    """Histories that train whole, and files of others; without one to validate on, the last item of each is asked."""
    if valid is None:
        cut = [history for history in train if len(history.items) > 1]
        valid, train = cut, [until(history, len(history.items) - 1) for history in cut]
    return [h for h in train if h.items], last_asked(valid, tally), last_asked(test or (), tally)


def last_asked(histories: Sequence[History], tally: Tally) -> list[History]:
    """Histories of a file of their own, each asked for its last item."""
    lone = [history for history in histories if len(history.items) < 2]
    if lone:
        tally.note(ALONE, lone[0].where, len(lone))
    return [until(history, len(history.items), asked=True) for history in histories if len(history.items) > 1]
