"""Where an answer stands in its context, and windows that leave no piece of it out."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds import contexts
from chinchilla_jax.tasks.records import Question
from tests.tasks.made import HERE


@pytest.mark.parametrize("context, answers, place", [
    ("the Old  Wind sings", (("old wind", -1),), (4, 13)),  # blanks and capitals may differ
    ("a cat, a cat", (("cat", 9),), (9, 12)),  # the file says which
    ("a cat", (("dog", -1), ("cat", -1)), (2, 5)),  # the first that stands there
    ("1+1 is (2)", (("(2)", -1),), (7, 10)),  # no pattern
    ("a cat", (("dog", -1),), None), ("a cat", ((" ", -1),), None), ("a cat", (), None),
])  # fmt: skip
def test_the_place_of_an_answer(context, answers, place):
    assert contexts.place_of(Question(HERE, context, "q", answers)) == place


class Letters:
    """A tokenizer of a piece a letter."""

    separator, opening = 0, 0

    def encode(self, text):
        return [ord(letter) for letter in text]


def windows(monkeypatch, letters: int, asked: str, limit: int, **task):
    ids = np.arange(letters)
    monkeypatch.setattr(contexts, "context_of", lambda tokenizer, context: SimpleNamespace(ids=ids))
    task = SimpleNamespace(**{"source": "causal", "stride": 0} | task)
    encoder = SimpleNamespace(renderer=SimpleNamespace(tokenizer=Letters()), task=task, limit=limit)
    return contexts.windows(encoder, Question(HERE, "c" * letters, asked, ()))


@pytest.mark.parametrize("letters, limit, task", [
    (5, 40, {}), (100, 40, {}), (101, 40, {"stride": 5}), (100, 40, {"stride": 32}), (100, 40, {"source": "twice"}),
    (0, 40, {}), (33, 40, {"stride": 999}),
])  # fmt: skip
def test_windows_overlap_and_cover_all_of_it(monkeypatch, letters, limit, task):
    question, found = windows(monkeypatch, letters, "who?", limit, **task)
    assert question == [*map(ord, "who?"), ord("\n")]
    copies = 2 if task.get("source") == "twice" else 1
    size = (limit - 1) // copies - 5 - 1
    assert found[0][0] == 0 and found[-1][1] == letters and all(stop - start <= size for start, stop in found)
    overlap = min(task.get("stride") or size // 2, size - 1)
    assert all(b[0] == a[1] - overlap for a, b in pairwise(found)), "each goes on before the last one's end"
    assert copies * (len(question) + size + 1) + 1 <= limit


def test_a_question_takes_half_of_a_window_at_most(monkeypatch):
    question, _ = windows(monkeypatch, 100, "long " * 50, 40)
    assert len(question) == 39 // contexts.SHARE + 1
    with pytest.raises(UserError, match=r"here:1 .*no room for a context in --train\.seq-len 3; raise it"):
        windows(monkeypatch, 100, "who?", 3)


def test_a_stride_as_large_as_a_window_is_refused(monkeypatch):
    """And not taken for a step of one token."""
    told = r"here:1 .*windows of 33 tokens of the context cannot overlap by --task\.stride 33; lower it to 16"
    with pytest.raises(UserError, match=told):
        windows(monkeypatch, 100, "who?", 40, stride=33)
