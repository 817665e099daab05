"""What is compiled and frozen before the first batch: tokens of a ramp, batches on the mesh, the state's layout."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.training import program as room
from chinchilla_jax.training.program import total_tokens
from tests.training.test_step import batch, program


@pytest.mark.parametrize("mesh", [(1, 1, 1), (8, 1, 1), (2, 2, 2), (2, 1, 4)])
def test_place_gives_one_global_batch_and_asks_for_each_row_once(mesh):
    run, asked, whole = program("modern", mesh, 2 if mesh == (2, 2, 2) else 1), [], batch(0)

    def make(rows: slice):
        asked.append(rows)
        return jax.tree.map(lambda x: x[rows], whole)

    placed = run.place(make, 8)
    jax.tree.map(np.testing.assert_array_equal, placed, whole)
    assert placed.tokens.sharding.is_equivalent_to(run.abstract_batch(8).tokens.sharding, 2)
    assert sorted(row for rows in asked for row in range(rows.start, rows.stop)) == list(range(8))
    assert len(asked) == mesh[0] * mesh[1], "one slice a shard of the batch, not one a device"


def test_tokens_of_a_ramp():
    train = TrainConfig(steps=100, seq_len=16, batch_size=4, batch_ramp=((10, 8), (60, 12), (200, 16)))
    assert total_tokens(train) == 16 * (10 * 4 + 50 * 8 + 40 * 12)
    assert total_tokens(dataclasses.replace(train, steps=5)) == 16 * 5 * 4


@pytest.mark.parametrize("there, needed, fits", [(16e9, 16e9, True), (16e9, 16.1e9, False), (None, 1e15, True)])
def test_a_step_that_does_not_fit_is_refused_where_the_memory_is_known(monkeypatch, there, needed, fits):
    monkeypatch.setattr(room.devices, "memory_bytes", lambda device: there)
    if fits:
        room.check_memory(program("modern"), needed)
        return
    with pytest.raises(UserError, match=r"needs 16\.1 GB a device and there are 16\.0; raise --train\.microbatches"):
        room.check_memory(program("modern"), needed)


def test_programs_are_kept_where_nobody_else_may_write(tmp_path, monkeypatch):
    """What is in the folder is executed: one that others can write to is refused, before anything is configured."""
    told = {}
    monkeypatch.setattr(room.jax.config, "update", told.__setitem__)
    room.use_compile_cache("")
    loose = tmp_path / "loose"
    loose.mkdir()
    for mode in (0o777, 0o720, 0o702):
        loose.chmod(mode)
        with pytest.raises(UserError, match=f"chmod 700 it|{loose}"):
            room.use_compile_cache(str(loose))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--train.compile-cache .*file is no folder"):
        room.use_compile_cache(str(tmp_path / "file"))
    assert not told
    monkeypatch.setenv("HOME", str(tmp_path))
    room.use_compile_cache("~/mine/programs")
    assert told["jax_compilation_cache_dir"] == str(tmp_path / "mine/programs")
    assert (tmp_path / "mine/programs").stat().st_mode & 0o077 == 0
