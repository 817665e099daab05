"""Logical axes on a mesh: the table of rules, and errors that say which setting to change."""

import contextlib
import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel import sharding
from chinchilla_jax.training.program import Program

MODEL = ModelConfig(layers=1, d_model=16, heads=8, kv_heads=4, head_dim=4, d_ff=24, vocab_size=64)


TRAIN = TrainConfig(batch_size=8, seq_len=16)


@pytest.mark.parametrize("mesh, changes, setting", [
    ((1, 8, 1), {"d_model": 12}, "--model.d-model"),
    ((1, 1, 8), {"vocab_size": 61, "kv_heads": 0}, "--model.vocab-size"),
    ((1, 1, 8), {"heads": 12, "kv_heads": 0}, "--model.heads"),
    ((1, 1, 8), {}, "--model.kv-heads"),
    ((2, 1, 4), {"d_ff": 26}, "--model.d-ff"),
])  # fmt: skip
def test_an_indivisible_model_names_its_setting(mesh, changes, setting):
    config = Config(model=dataclasses.replace(MODEL, **changes), mesh=MeshConfig(*mesh), train=TRAIN)
    with pytest.raises(UserError, match=f"not divisible by . devices.*{setting}") as caught:
        Program(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 4, 1)])
def test_an_indivisible_microbatch_names_its_settings(mesh):
    train = dataclasses.replace(TRAIN, batch_size=8, microbatches=2)
    with pytest.raises(UserError, match=re.escape("--train.batch-size (over --train.microbatches)")):
        Program(Config(model=MODEL, mesh=MeshConfig(*mesh), train=train))


def test_axes_without_a_rule_or_of_another_rank_are_refused():
    mesh = meshes.build(MeshConfig())
    shapes = {"w": jax.ShapeDtypeStruct((8, 8), np.float32)}
    with pytest.raises(UserError, match="'nope' has no rule"):
        sharding.shardings(mesh, shapes, {"w": ("embed", "nope")})
    with pytest.raises(UserError, match="'nope' has no rule"):
        sharding.spec(("nope",))
    with pytest.raises(UserError, match="no logical axis for each dimension"):
        sharding.shardings(mesh, shapes, {"w": ("embed",)})


def test_the_table_of_rules():
    assert sharding.spec(("batch", None)) == PartitionSpec(("data", "fsdp"), None)
    assert sharding.spec(("layers", "embed", "heads", "head_dim")) == PartitionSpec(None, "fsdp", "tensor", None)
    where = sharding.batch_sharding(meshes.build(MeshConfig(2, 2, 2)))
    assert where.shard_shape((8, 16)) == (2, 16)


@pytest.mark.parametrize("mesh, kept", [(None, 3), ((2, 2, 2), 4), ((8, 1, 1), 8)])
def test_the_first_rows_are_filled_up_until_the_devices_divide_them(mesh, kept):
    """And what is made of them goes back into as many as there were, 0 in the others."""
    x = np.arange(8 * 2 * 3, dtype=np.float32).reshape(8, 2, 3) + 1
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(meshes.build(MeshConfig(*mesh))):
        first, few = jax.jit(lambda *tree: sharding.first_rows(tree, 3))(x, x[:3, 0, 0])
        back = jax.jit(lambda x: sharding.spread(x, 8))(x[:3])
    np.testing.assert_array_equal(first, np.concatenate([x[:3], np.zeros((kept - 3, 2, 3))]))
    np.testing.assert_array_equal(few, [*x[:3, 0, 0], *[0] * (kept - 3)])
    np.testing.assert_array_equal(back, np.where(np.arange(8)[:, None, None] < 3, x, 0))
