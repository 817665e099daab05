"""Log-probabilities of a reference: stored where pairs come again as they are, and kept for the same pairs alone."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks import reference


@pytest.mark.parametrize("asked, passes, augmented, expected", [
    ("auto", 2.0, False, "stored"), ("auto", 0.5, False, "computed"), ("auto", 3.0, True, "computed"),
    ("computed", 9.0, False, "computed"), ("stored", 0.1, False, "stored"),
])  # fmt: skip
def test_it_is_stored_where_every_pair_is_seen_again_as_it_is(asked, passes, augmented, expected):
    task = TaskConfig(reference=asked, deletion=0.1 if augmented else 0.0)
    assert reference.passing(task, passes).reference == expected


@dataclass(frozen=True)
class Part:
    """An answer."""

    reference: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Chosen and rejected."""

    parts: tuple[Part, ...] = (Part(), Part())


class Judge:
    """Scores of three pairs, counted."""

    asked = 0

    def before_training(self, pairs):
        self.asked += 1
        return np.arange(2.0 * len(pairs)).reshape(-1, 2)


def examination(how="stored", data="pairs", base="base"):
    model = SimpleNamespace(dtype="float32")
    config = SimpleNamespace(task=SimpleNamespace(reference=how), model=model)
    program = SimpleNamespace(config=config, base=SimpleNamespace(facts={"fingerprint": base}))
    task = SimpleNamespace(preference="dpo")
    return SimpleNamespace(
        program=program, data=SimpleNamespace(fingerprint=data, task=task, first=[Pair() for _ in range(3)])
    )


def test_scores_are_made_once_for_the_same_pairs_and_the_same_base(tmp_path):
    judge = Judge()
    for _ in range(2):
        one = examination()
        reference.prepare(one, judge, tmp_path)
        assert [[part.reference for part in pair.parts] for pair in one.data.first] == [[0, 1], [2, 3], [4, 5]]
    assert judge.asked == 1
    reference.prepare(examination(base="another"), judge, tmp_path)
    reference.prepare(examination(base="another", data="others"), judge, tmp_path)
    assert judge.asked == 3
    computed = examination("computed")
    reference.prepare(computed, judge, tmp_path)
    assert judge.asked == 3 and computed.data.first == [Pair()] * 3
