"""Logical axes to mesh axes: one table, and an error for whatever it does not cover."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.config import require

# Every logical axis that a parameter or an activation may name, and the mesh axes it is split over. An array is split
# over a mesh axis once, by the first of its dimensions that names it.
RULES = {
    "batch": ("data", "fsdp"),
    "replica": ("data",),  # of the batch: what the devices of one copy of the model share
    "member": ("fsdp",),  # of a replica's tokens: what one of these devices has
    "vocab": ("tensor", "fsdp"),
    "whole_vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "layers": (),
    "head_dim": (),
    "norm": (),
    "rank": (),
    None: (),
}

# Where a dimension is not divisible: a table of an odd vocabulary is split along its columns.
OTHERWISE = {"vocab": "whole_vocab"}

# The setting that a user turns when a logical axis is indivisible.
SETTINGS = {
    "batch": "--train.batch-size (over --train.microbatches)",
    "embed": "--model.d-model",
    "vocab": "--model.vocab-size",
    "heads": "--model.heads",
    "kv_heads": "--model.kv-heads (--model.heads where that is 0)",
    "mlp": "--model.d-ff",
}


def spec(axes: tuple[str | None, ...], shape: tuple[int, ...] = (), mesh: Mesh | None = None) -> PartitionSpec:
    """The mesh axes of an array whose dimensions carry these logical names; with a shape, `OTHERWISE` is heeded."""
    return PartitionSpec(*[split or None for split in _split(axes, shape, mesh)])


def _split(axes, shape, mesh) -> list[tuple[str, ...]]:
    splits, taken = [], set()
    for i, name in enumerate(axes):
        require(name in RULES, f"logical axis {name!r} has no rule in parallel/sharding.py")
        if shape and shape[i] % _parts(mesh, RULES[name]):
            name = OTHERWISE.get(name, name)
        splits.append(tuple(axis for axis in RULES[name] if axis not in taken))
        taken |= set(splits[-1])
    return splits


def _parts(mesh: Mesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape.get(axis, 1) for axis in axes)


def shards(name: str, mesh: Mesh | None = None) -> int:
    """How many parts a logical axis is split into, on a mesh or on the one that is set; 1 without any."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return 1 if mesh.empty else _parts(mesh, RULES[name])


def check(mesh: Mesh, path: str, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> None:
    """Raise a `UserError` that names the setting if the mesh does not divide an array, or an axis that has no rule."""
    require(len(shape) == len(axes), f"{path}: shape {shape} has no logical axis for each dimension: {axes}")
    for size, name, split in zip(shape, axes, _split(axes, shape, mesh)):
        over = tuple(axis for axis in split if mesh.shape[axis] > 1)
        parts = _parts(mesh, over)
        require(
            size % parts == 0,
            f"{path}: {name} of {size} is not divisible by {parts} devices along --mesh.{'/'.join(over)}; "
            f"change {SETTINGS.get(name)} or the mesh",
        )


def shardings(mesh: Mesh, shapes, axes):
    """NamedShardings for a tree of shapes and the matching tree of logical axes; indivisible is an error."""

    def one(path, leaf, names):
        check(mesh, jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, names)
        return NamedSharding(mesh, spec(names, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, shapes, axes)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Keep `x` laid out by its logical axes; nothing where no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, spec(axes, x.shape, mesh))


def first_rows(tree, n: int):
    """The first n rows of every array, and as many empty ones as it takes until the shards of a batch divide them."""

    def one(x):
        x = jnp.pad(x[:n], [(0, -n % shards("batch"))] + [(0, 0)] * (x.ndim - 1))
        return constrain(x, "batch", *[None] * (x.ndim - 1))

    return jax.tree.map(one, tree)


def spread(x_nLD: jax.Array, rows: int) -> jax.Array:
    """An array of the first n rows of a batch as one of all of them, 0 in the others."""
    return constrain(jnp.pad(x_nLD, [(0, rows - len(x_nLD)), (0, 0), (0, 0)]), "batch", None, None)


HEADS, ROWS = ("batch", None, "heads", None), ("batch", None)  # (B, L, H, K) and (B, L)


def over_shards(local, arrays: tuple[jax.Array, ...], axes: tuple[tuple[str | None, ...], ...], out=HEADS) -> jax.Array:
    """`local` of every device's own parts of `arrays`, whose dimensions `axes` name; of the whole where no mesh is set.

    For kernels that the partitioner cannot look into.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return local(*arrays)
    return jax.shard_map(local, in_specs=tuple(map(spec, axes)), out_specs=spec(out), check_vma=False)(*arrays)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where the rows of a (B, L) batch live."""
    return NamedSharding(mesh, spec(("batch", None)))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
