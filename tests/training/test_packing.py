"""Masks on disk: a bit an entry, on any mesh, back to the same bits."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.training import packing, restore
from chinchilla_jax.training.checkpoint import Checkpoints

SPECS = [(), ("x",), (None, "x"), (None, None, "x"), (None, None, ("x", "y"))]


def placed(value, spec, shape=(4, 2)):
    mesh = Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), ("x", "y"))
    return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*spec)))


def draw(shape):
    return np.random.default_rng(len(shape)).random(shape) < 0.3


@pytest.mark.parametrize("shape", [(4, 8, 32), (4, 8, 64), (4, 8, 24)])
@pytest.mark.parametrize("spec", SPECS)
def test_packed_is_numpys_packbits_and_comes_back_on_its_sharding(shape, spec):
    mask, abstract = draw(shape), placed(draw(shape), spec)
    found = packing.pack(abstract)
    np.testing.assert_array_equal(found, np.packbits(mask, axis=-1))
    assert found.shape == packing.stored(abstract).shape and found.sharding == packing.stored(abstract).sharding
    back = packing.unpack(found, abstract)
    np.testing.assert_array_equal(back, mask)
    assert back.sharding == abstract.sharding and back.dtype == bool


def test_other_leaves_pass():
    for leaf in (jax.numpy.ones((3, 8)), jax.numpy.array(True), jax.numpy.arange(8, dtype="uint8")):
        assert packing.pack(leaf) is leaf


def test_a_checkpoint_holds_an_eighth_and_another_mesh_reads_it(tmp_path):
    big = np.random.default_rng(0).random((64, 40_000)) < 0.5
    state = {"masks": {"odd": placed(draw((5, 13)), ()), "w": placed(big, ("x", "y"))}}
    with Checkpoints(tmp_path, CheckpointConfig(verify="full"), meta={}) as checkpoints:
        checkpoints.save(3, state, wait=True)
        elsewhere = {"masks": {"odd": placed(draw((5, 13)), (), (2, 1)), "w": placed(~big, ("y", None), (2, 1))}}
        found = checkpoints.restore(elsewhere).state["masks"]
    np.testing.assert_array_equal(found["w"], big)
    np.testing.assert_array_equal(found["odd"], draw((5, 13)))
    assert found["w"].sharding == elsewhere["masks"]["w"].sharding
    assert restore.inspect(tmp_path)["steps"][0]["bytes"] < 1.2 * big.size / 8
    assert restore.examine(tmp_path / "3", "hash")["manifest"]["leaves"]["masks/w"]["shape"] == [64, 40_000]
