"""Tensors of another format become sharded leaves, each device's part read by itself."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import source
from chinchilla_jax.interop.names import find
from tests import tiny

LAYERS, D, H, K = 3, 8, 4, 2


def sharded(shape, *spec) -> jax.ShapeDtypeStruct:
    """A leaf over four devices."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices()[:4])
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, P(*spec)))


class Held:
    """A source of arrays, which notes how much is read at a time."""

    def __init__(self, tensors):
        self.tensors, self.largest = tensors, 0

    def read(self, name, index):
        found = self.tensors[name][index]
        self.largest = max(self.largest, found.size)
        return found


@pytest.mark.parametrize("spec", [(), (None, "a", "b"), (None, None, "a"), (None, ("a", "b"))])
def test_a_stacked_matrix_is_theirs_turned_layer_by_layer(spec):
    draw, name = np.random.default_rng(0), find("blocks/attention/query/kernel")
    held = Held({name.theirs.format(n=n): draw.standard_normal((H * K, D)).astype("f4") for n in range(LAYERS)})
    leaf = sharded((LAYERS, D, H, K), *spec)
    found = source.leaf_of(held, name, leaf)
    expected = np.stack([held.tensors[name.theirs.format(n=n)].T.reshape(D, H, K) for n in range(LAYERS)])
    assert found.sharding == leaf.sharding and np.array_equal(found, expected)
    parts = np.prod([4 if isinstance(axis, tuple) else 2 for axis in spec if axis], dtype=int)
    assert held.largest == D * H * K // parts, "a device's part of one layer, and no more"


def test_a_table_and_values_that_are_no_numbers():
    table = np.arange(32, dtype="f4").reshape(4, 8)
    held, leaf = Held({"model.embed_tokens.weight": table}), sharded((4, 8), "a")
    assert np.array_equal(source.leaf_of(held, find("embed/table"), leaf), table)
    table[3, 1] = np.inf
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight holds values that are not finite"):
        source.leaf_of(held, find("embed/table"), leaf)


def test_all_that_does_not_fit_is_counted_and_three_are_named():
    wanted = {"a": (1, 2), "b": (2,), "c": (3,)}
    source.check_tensors("m", dict(wanted), wanted)
    with pytest.raises(
        UserError, match=r"^m: b is missing; z is not understood; a is \[2, 1\] and its config says \[1, 2\]; nothing"
    ):
        source.check_tensors("m", {"a": (2, 1), "c": (3,), "z": ()}, wanted)
    with pytest.raises(UserError, match="and 2 more; nothing was imported"):
        source.check_tensors("m", {"x": (), "y": ()}, wanted)


def test_memory_begins_where_jax_can_take_it_over():
    for shape in ((), (3,), (5, 7)):
        made = source._empty(shape, np.dtype(np.float32))
        assert made.shape == shape and made.ctypes.data % source.ALIGNED == 0


def test_a_source_without_a_head_has_no_leaves_of_one():
    none, labels = (
        source.heads_of(SimpleNamespace(model=tiny.MODERN, task=task))
        for task in (TaskConfig(), TaskConfig(kind="labels", labels=("a", "b")))
    )
    assert none == {} and labels["labels/kernel"] == (2, tiny.MODERN.d_model)
