"""Records as a reader sees them: what is trained in brackets, control pieces by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.tasks import show

PIECES = {1: "the ", 2: "sea", 3: " sings", 4: "!"}


def made(shown=None):
    tokenizer = SimpleNamespace(controls={"<s>": 0, "<|end|>": 9}, decode=lambda ids: "".join(PIECES[i] for i in ids))
    return SimpleNamespace(tokenizer=tokenizer, kind=SimpleNamespace(shown=shown), soft=())


def example(ids: list[int], trained: list[int]):
    """Ids of which those at the places `trained` have a loss."""
    weights = np.isin(np.arange(1, len(ids)), trained)
    return SimpleNamespace(tokens=np.array(ids[:-1]), targets=np.array(ids[1:]), weights=np.float32(weights))


@pytest.mark.parametrize("ids, trained, expected", [
    ([0, 1, 2, 3, 9], [3, 4], "<s>the sea[[ sings<|end|>]]"),
    ([0, 1, 2, 3, 4], [], "<s>the sea sings!"),
    ([1, 2, 9, 3, 4, 9], [1, 2, 5], "the [[sea<|end|>]] sings![[<|end|>]]"),
    ([9, 9], [1], "<|end|>[[<|end|>]]"),
])  # fmt: skip
def test_brackets_stand_round_what_has_a_loss(ids, trained, expected):
    assert show.marked(made(), example(ids, trained)) == expected


def test_a_kind_may_say_it_in_its_own_way():
    data = made(lambda data, text, part: f"{text} -> {part.targets[-1]}")
    data.first = [SimpleNamespace(where=f"a:{n}", parts=[example([0, 1, 2, n], [3])] * n) for n in (1, 2, 3)]
    assert show.shown(data, 2) == ["--- a:1", "<s>the sea -> 1", "--- a:2", "<s>the sea -> 2", "<s>the sea -> 2"]
