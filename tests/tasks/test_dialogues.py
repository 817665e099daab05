"""Dialogues: what is left out and counted."""

from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.records import (
    Turn,
)
from tests.tasks.made import lines, said


def test_empty_messages_and_silent_dialogues_are_counted(tmp_path):
    records = [
        {"messages": said(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"))},
        {"messages": said(("assistant", "first"), ("user", ""))},
        {"messages": said(("user", "a"), ("assistant", " "))},
    ]
    found = read([lines(tmp_path, *records)])
    assert [r.turns for r in found.records] == [
        (Turn("user", "a\nb"), Turn("assistant", "c\nd")),
        (Turn("assistant", "first"),),
    ]
    assert found.tally.counts == {"empty messages left out": 2, "dialogues dropped: no assistant text": 1}
    equal = read(
        [
            lines(
                tmp_path,
                {"prompt": "q", "chosen": "a", "rejected": "b"},
                {"prompt": "q", "chosen": "a", "rejected": "a"},
            )
        ]
    )
    assert len(equal.records) == 1 and "equal" in equal.tally.lines()[0]


def test_only_the_sides_of_a_pair_say_whether_there_are_messages(tmp_path):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for record, messages in (({**pair, "tags": ["x"]}, False), ({**pair, "prompt": said(("user", "q"))}, True)):
        [found] = read([lines(tmp_path, record)]).records
        assert found.messages == messages
