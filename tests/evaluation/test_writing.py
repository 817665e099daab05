"""Answers of a validation: which tokens count, with an engine of ours in its place; beams and endings: test_beam."""

import numpy as np
import pytest

from chinchilla_jax.evaluation import writing
from chinchilla_jax.evaluation.writing import AT_ONCE, Reader, Writer, Written

STOP = 9


class Engine:
    """Says behind a prompt [n, ...] the numbers n + 1, n + 2 and so on, three at a time, `STOP` in place of 20."""

    def __init__(self, cfg, pieces):
        self.calls, self.blocks = [], []

    def prepare(self, params):
        return params

    def stream(self, split, prompts, new, rows, both):
        self.calls.append((len(prompts), both))
        for start in range(0, new, 3):
            said = [[p[0] + 1 + start + n for n in range(min(3, new - start))] for p in prompts]
            self.blocks.append(start)
            yield np.where(np.array(said) == 20, STOP, said)


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(writing, "Engine", Engine)
    return Writer(None, 99, frozenset([STOP]))


def test_an_answer_ends_before_its_stop_or_at_the_most_tokens(writer):
    polled = []
    found = writer({}, [[17, 1], [10]], None, 7, lambda: polled.append(1))
    assert found == [Written([18, 19], True), Written([11, 12, 13, 14, 15, 16, 17], False)]
    assert len(polled) == 3, "after every block"
    assert writer({}, [[17], [18, 5]], None, 700) == [Written([18, 19], True), Written([19], True)]
    assert writer.engine.blocks == [0, 3, 6, 0], "nobody waits for tokens behind the last stop"


def test_prompts_go_in_groups_of_one_size_with_their_own_blocks(writer):
    """What fills a group up takes no part; numbers of blocks stay with their prompts."""
    prompts = [[30 + n, 1] for n in range(AT_ONCE + 3)]
    found = writer({}, prompts, [[n, 0] for n in range(len(prompts))], 2)
    assert [one.ids for one in found] == [[p[0] + 1, p[0] + 2] for p in prompts]
    sizes, blocks = zip(*writer.engine.calls)
    assert sizes == (AT_ONCE, AT_ONCE)
    assert blocks[1][:4] == [[AT_ONCE, 0], [AT_ONCE + 1, 0], [AT_ONCE + 2, 0], [AT_ONCE, 0]]


@pytest.mark.parametrize("longest, new", [(1, 1), (5, 300), (200, 10), (1000, 10)])
def test_a_slot_has_room_for_a_prompt_with_its_padding_and_what_is_said(monkeypatch, longest, new):
    """A prompt is written in parts that may be as long as the longest one, and what follows needs `new`."""
    monkeypatch.setattr(writing, "Engine", Engine)
    room = Reader(None, 99, 4).room({"embed": {"table": np.zeros((9, 2))}}, longest, new)
    assert room % writing.BUCKET == 0
    assert room >= longest + new and room >= 2 * longest and room >= longest + writing.CHUNK
    assert room < longest + max(new, longest, writing.CHUNK) + writing.BUCKET
