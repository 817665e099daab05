"""Of equal documents one is left, whatever segment it was read in."""

import random

import numpy as np
import pytest

from chinchilla_jax.data.stages import rows
from tests.data.stages import small

TEXTS = [f"text {n}" for n in range(40)]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_does_not_depend_on_segments(tmp_path, seed):
    """Once in rising order of the hash, with the duplicates counted by source."""
    documents = [(0, "", text) for text in [*TEXTS, *TEXTS[:5], *TEXTS[:2]]]
    random.Random(seed).shuffle(documents)
    job = small.job(tmp_path)
    small.segments(job, *(part for part in (documents[: 9 * seed], documents[9 * seed :]) if part))
    found = small.merge(job)
    whole = np.concatenate([rows.merged(job, number) for number in range(job.partitions)])
    assert (np.diff(whole["key"].astype(object)) > 0).all() and sorted(small.texts_in(job, whole)) == sorted(TEXTS)
    assert sum(one["duplicates"][0] for one in found) == 7 and sum(one["documents"] for one in found) == 40
    shown = {head: copies for one in found for _, copies, head in one["examples"]}
    assert all(copies == 1 + (head in TEXTS[:2]) for head, copies in shown.items()) and set(shown) <= set(TEXTS[:5])


def test_one_that_is_held_out_comes_first_and_then_that_of_the_first_source(tmp_path):
    job = small.job(tmp_path, bits=0)
    small.segments(job, [(2, "", "a"), (2, "train", "b")], [(1, "", "a"), (1, "valid", "b")], [(0, "", "b")])
    (found,) = small.merge(job, sources=3)
    whole = rows.merged(job, 0)
    left = dict(zip(small.texts_in(job, whole), zip(whole["source"].tolist(), whole["own"].tolist())))
    assert left == {"a": (1, rows.FREE), "b": (1, rows.VALID)} and found["duplicates"] == [1, 0, 2]


def test_duplicates_stay_where_they_are_wanted(tmp_path):
    job = small.job(tmp_path, bits=0, deduplicate=False)
    small.segments(job, [(0, "", "a"), (0, "", "a")])
    (found,) = small.merge(job)
    assert small.texts_in(job, rows.merged(job, 0)) == ["a", "a"] and found["duplicates"] == [0]
