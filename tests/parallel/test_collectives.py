"""Decisions that all processes take alike: what each would exchange, with the exchange by hand."""

import numpy as np
import pytest

from chinchilla_jax.parallel import collectives


def among(monkeypatch, others: list, act):
    """`act()` as process 1 of several, to whom every exchange brings also what `others` contribute."""
    monkeypatch.setattr(collectives.jax, "process_count", lambda: 1 + len(others))
    gather = lambda x: np.stack([np.asarray(o, x.dtype) for o in others] + [x])  # noqa: E731
    monkeypatch.setattr(collectives.multihost_utils, "process_allgather", gather)
    return act()


def padded(word: str) -> np.ndarray:
    found = np.zeros(collectives.LONGEST, np.uint8)
    found[: len(word.encode())] = np.frombuffer(word.encode(), np.uint8)
    return found


def test_alone_nothing_is_exchanged(monkeypatch):
    monkeypatch.delattr(collectives.multihost_utils, "process_allgather")
    monkeypatch.delattr(collectives.multihost_utils, "broadcast_one_to_all")
    value = {"a": [1, None]}
    assert collectives.from_first(value) is value
    assert collectives.largest(3) == 3 and collectives.first_said("x") == "x"


@pytest.mark.parametrize("mine", [None, {"another": 1}, "a much longer value than that of the first process"])
def test_everybody_takes_the_value_of_the_first(monkeypatch, mine):
    """Whatever the length of one's own: it is sent after its length."""
    value, sent = {"steps": [1, 2], "why": "mèsh 海"}, []
    text = np.frombuffer(collectives.json.dumps(value).encode(), np.uint8)

    def broadcast(x):
        sent.append(np.asarray(x))
        return np.int32(text.size) if np.ndim(x) == 0 else text

    monkeypatch.setattr(collectives.jax, "process_count", lambda: 2)
    monkeypatch.setattr(collectives.multihost_utils, "broadcast_one_to_all", broadcast)
    assert collectives.from_first(mine) == value
    assert sent[1].shape == text.shape and sent[1].dtype == np.uint8, "all processes bring arrays of one shape"


def test_the_largest_and_the_first_that_speaks(monkeypatch):
    assert among(monkeypatch, [2, 9], lambda: collectives.largest(5)) == 9
    words = [padded(""), padded("disk full")]
    assert among(monkeypatch, words, lambda: collectives.first_said("mine")) == "disk full"
    assert among(monkeypatch, [padded("")] * 2, lambda: collectives.first_said("mine")) == "mine"
    assert among(monkeypatch, [padded("")], lambda: collectives.first_said("")) == ""


def test_a_long_word_is_cut_between_two_letters(monkeypatch):
    found = among(monkeypatch, [padded("")], lambda: collectives.first_said("é" * 200 + "!"))
    assert found == "é" * 150
    found = among(monkeypatch, [padded("")], lambda: collectives.first_said("x" + "é" * 200))
    assert found == "x" + "é" * 149, "half a letter is left out"
