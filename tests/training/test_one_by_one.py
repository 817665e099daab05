"""Leaves that are made when their turn comes: the same checkpoint, and never two of them in memory."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.training import integrity, one_by_one
from chinchilla_jax.training.one_by_one import Deferred
from tests.training import states
from tests.training.states import opened


@pytest.mark.parametrize(
    "shape, dtype", [((7, 5), "float32"), ((9, 2, 3), "bfloat16"), ((4, 3), "int8"), ((), "float32")]
)
def test_a_fingerprint_of_rows_is_that_of_the_whole(shape, dtype, monkeypatch):
    """With so little room that two rows go at a time."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    monkeypatch.setattr(one_by_one, "CHUNK", 2 * x.nbytes // max(1, len(shape) and shape[0]))
    np.testing.assert_array_equal(one_by_one.fingerprint(x), np.asarray(integrity.fingerprint({"": x}))[0])


def test_a_checkpoint_of_leaves_that_are_made_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(one_by_one, "FILE", 4)  # so that memory is given back after each
    params, alive, most = states.create(3).params, [], []

    def leaf(x):
        def make():
            gc.collect()
            most.append(sum(ref() is not None for ref in alive))
            made = jnp.array(x, copy=True)
            alive.append(weakref.ref(made))
            return made

        return Deferred(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make)

    leaves = {f"params/{name}": leaf(x) for name, x in states.restore.named_leaves(params).items()}
    with opened(tmp_path) as checkpoints:
        checkpoints.save_one_by_one(3, leaves)
    assert len(most) == len(leaves) == 3 and max(most) == 0, "those before it are gone"
    found = states.restore.load_params(tmp_path, jax.tree.map(lambda x: x, params), level="full")
    assert found.step == 3
    states.assert_same(found.state, params)
