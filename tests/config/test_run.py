"""Where a run is trained, how long, and what it leaves."""

import pytest

from chinchilla_jax.config import MeshConfig, TrainConfig
from chinchilla_jax.errors import UserError
from tests.config.refusals import refused

BAD = [
    ("mesh.data", 0, "-1 or at least 1"),
    ("train.batch_size", 0, "at least 1"),
    ("train.microbatches", 3, "not divisible"),
    ("train.seed", -1, "[0, 2**32)"),
    ("train.seed", 2**32, "[0, 2**32)"),
    ("train.batch_ramp", ((20, 8), (10, 16)), "rising"),
    ("train.batch_ramp", ((10, 12),), "multiple of the microbatch"),
    ("checkpoint.keep", 0, "at least 1"),
    ("train.eval_batches", -2, "-1, 0 or the number"),
    ("train.batch_ramp", ((0, 16),), "rising steps above 0"),
    ("mesh.slices", 0, "at least 1"),
    ("checkpoint.keep_every", -1, "negative"),
]


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({path: value}, hint)


def test_rows_before_a_step_are_those_of_every_step_before_it():
    train = TrainConfig(batch_size=4, batch_ramp=((3, 8), (7, 12)))
    sizes = [next(rows for start, rows in reversed(train.phases) if step >= start) for step in range(20)]
    assert [train.rows_before(step) for step in range(20)] == [sum(sizes[:step]) for step in range(20)]


def test_one_wildcard_axis_only():
    with pytest.raises(UserError, match="only one"):
        MeshConfig(data=-1, fsdp=-1)


def test_phases():
    assert TrainConfig(batch_ramp=((10, 16),)).phases == ((0, 8), (10, 16))
