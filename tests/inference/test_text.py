"""From prompts to texts: the end of a text, whole characters, stopping early."""

import dataclasses
import random

import numpy as np

from chinchilla_jax.inference.sampling import Sampling
from chinchilla_jax.inference.text import Completer, Stopper, until
from tests import tiny


class Scripted:
    """An engine that plays prepared ids in blocks of 4, and remembers what it was asked."""

    def __init__(self, *rows):
        self.rows, self.asked, self.blocks = np.array(rows), None, 0
        self.read = None

    def stream(self, weights, ids, new, rows, read, lookup):
        self.asked, self.read = (weights, ids, new, rows.seed_S.tolist()), read
        for at in range(0, self.rows.shape[1], 4):
            self.blocks += 1
            yield self.rows[:, at : at + 4]


def completer(tokenizer, *rows):
    made = Completer(tiny.MODERN, tokenizer, Sampling())
    made.engine = Scripted(*rows)
    return made


def padded(ids, length, fill):
    assert len(ids) <= length
    return [*ids, *[fill] * (length - len(ids))]


def test_prompts_begin_with_the_separator(tokenizer):
    made = completer(tokenizer, [5] * 4, [5] * 4)
    made.complete("weights", ["the sea", ""], 4, [1, 2])
    stop = tokenizer.separator
    assert made.engine.asked == ("weights", [[stop, *tokenizer.encode("the sea")], [stop]], 4, [1, 2])
    assert made.engine.read is None
    list(made.stream("weights", ["the sea", [5]], 4, [1, 2], both=True))
    assert made.engine.read == [[1] * len(ids) for ids in made.engine.asked[1]], "a prompt is one part"


def test_a_text_ends_at_the_separator_and_rows_end_on_their_own(tokenizer):
    stop, sea, wind = tokenizer.separator, tokenizer.encode("the sea"), tokenizer.encode("the wind and the sea")
    assert 1 < len(sea) < 8 and len(wind) < 16
    made = completer(tokenizer, padded([*sea, stop, *wind], 24, 5), padded([*wind, stop], 24, 5))
    texts = list(made.stream(None, ["", ""], 24, [0, 0]))
    assert ["".join(parts) for parts in zip(*texts)] == ["the sea", "the wind and the sea"]
    assert made.engine.blocks == len(wind) // 4 + 1, "nothing is decoded after all rows have ended"


def test_a_text_may_use_its_whole_allowance(tokenizer):
    ids = tokenizer.encode("the wind and the sea and the wind")
    assert completer(tokenizer, ids).complete(None, [""], len(ids), [0]) == ["the wind and the sea and the wind"]


def test_characters_cut_by_a_block_come_whole_and_the_unfinished_is_marked(tokenizer):
    ids = tokenizer.encode("海风")  # unknown to the tokenizer: six byte pieces, cut after the fourth
    assert len(ids) == 6
    texts = list(completer(tokenizer, ids).stream(None, [""], 6, [0]))
    assert texts == [["海"], ["风"], [""]]
    assert completer(tokenizer, ids[:4]).complete(None, [""], 4, [0]) == ["海\ufffd"]


def test_a_poll_comes_with_every_block(tokenizer):
    polls = []
    completer(tokenizer, [5] * 12).complete(None, [""], 12, [0], poll=lambda: polls.append(1))
    assert len(polls) >= 3


def test_rows_end_one_by_one_and_nothing_is_asked_for_after_the_last():
    asked, blocks = [], [[[1, 2], [9, 3]], [[9, 4], [5, 6]], [[7, 7], [7, 7]]]

    def made():
        for block in blocks:
            asked.append(block)
            yield np.array(block)

    assert list(until({9}, made())) == [([[1, 2], []], [False, True]), ([[], []], [True, True])]
    assert asked == blocks[:2]


def test_end_to_end(tokenizer):
    """The real engine behind it: greedy text is a function of the prompt."""
    cfg = dataclasses.replace(tiny.MODERN, layers=1, vocab_size=tokenizer.size + 3)
    made = Completer(cfg, tokenizer, Sampling(temperature=0))
    weights = made.prepare(tiny.spiced(cfg))
    one, two = made.complete(weights, ["the sea", "and"], 8, [0, 1])
    assert [two, one] == made.complete(weights, ["and", "the sea"], 8, [5, 6])


def test_no_character_of_a_stop_leaks_and_none_is_lost():
    """Random texts over two letters, so that stops begin everywhere, cut into random pieces."""
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices("ab", k=draw.randint(0, 30)))
        stops = ["".join(draw.choices("ab", k=draw.randint(1, 6))) for _ in range(draw.randint(0, 3))]
        stopper, sent, at = Stopper(stops), "", 0
        while at < len(text) and not stopper.stopped:
            size = draw.randint(1, 4)
            sent += stopper.feed(text[at : at + size])
            at += size
            ends = [i for i in range(at) if any(s.startswith(text[i:at]) for s in stops)]
            held = min(ends, default=min(at, len(text)))
            assert stopper.stopped or len(sent) == held, "an end that a stop may begin with was sent, or more was held"
        sent += stopper.flush()
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        expected = text[: min(found)[1]] if found else text
        assert sent == expected
        assert stopper.stopped == any(stop in text for stop in stops)
