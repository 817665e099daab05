"""Augmentation by seed, epoch and record."""

import numpy as np

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks import augment
from chinchilla_jax.tasks.records import Dialogue, Turn
from tests.tasks.made import HERE


def test_augmentation_changes_sources_alone_and_by_epoch():
    task = TaskConfig(deletion=0.2, swap=0.2, replacement=0.2)
    record = Dialogue(HERE, (Turn("user", " ".join(f"w{i}" for i in range(40))), Turn("assistant", "the answer stays")))
    words = augment.vocabulary([record])

    def changed(*seed):
        return augment.augmented(record, task, words, np.random.default_rng(seed))

    assert changed(0, 1) == changed(0, 1) != changed(0, 2)
    assert changed(0, 1).turns[1] == record.turns[1] and changed(0, 1).turns[0] != record.turns[0]
    asked = Dialogue(HERE, (Turn("user", "a b c", "d e f g h i j k"), Turn("assistant", "no")))
    assert augment.vocabulary([asked]) == list("abcdefghijk"), "the second part of a question is one of its sources"
    more = augment.augmented(asked, TaskConfig(deletion=0.5), [], np.random.default_rng(0)).turns
    assert more[0].more != asked.turns[0].more and more[1] == asked.turns[1]
    calm = augment.augmented(record, TaskConfig(), words, np.random.default_rng(0))
    assert calm == record
    gone = augment.changed("a  b\nc", TaskConfig(deletion=0.99), [], np.random.default_rng(0))
    assert len(gone.split()) == 1
