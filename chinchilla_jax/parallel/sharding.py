"""Logical axes to mesh axes: one table, and an error for whatever it does not cover."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.config import require

# Every logical axis that a parameter or an activation may name, and the mesh axes it is split over.
RULES = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "layers": (),
    "head_dim": (),
    "norm": (),
    "rank": (),
    None: (),
}

# The setting that a user turns when a logical axis is indivisible.
SETTINGS = {
    "batch": "--train.batch-size (over --train.microbatches)",
    "embed": "--model.d-model",
    "vocab": "--model.vocab-size",
    "heads": "--model.heads",
    "kv_heads": "--model.kv-heads (--model.heads where that is 0)",
    "mlp": "--model.d-ff",
}


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """The mesh axes of an array whose dimensions carry these logical names."""
    for name in axes:
        require(name in RULES, f"logical axis {name!r} has no rule in parallel/sharding.py")
    return PartitionSpec(*[RULES[name] or None for name in axes])


def check(mesh: Mesh, path: str, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> None:
    """Raise a `UserError` that names the setting if the mesh does not divide an array, or an axis that has no rule."""
    spec(axes)
    require(len(shape) == len(axes), f"{path}: shape {shape} has no logical axis for each dimension: {axes}")
    for size, name in zip(shape, axes):
        for_mesh = [m for m in RULES[name] if mesh.shape[m] > 1]
        parts = 1
        for axis in for_mesh:
            parts *= mesh.shape[axis]
        require(
            size % parts == 0,
            f"{path}: {name} of {size} is not divisible by {parts} devices along --mesh.{'/'.join(for_mesh)}; "
            f"change {SETTINGS.get(name)} or the mesh",
        )


def shardings(mesh: Mesh, shapes, axes):
    """NamedShardings for a tree of shapes and the matching tree of logical axes; indivisible is an error."""

    def one(path, leaf, names):
        check(mesh, jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, names)
        return NamedSharding(mesh, spec(names))

    return jax.tree_util.tree_map_with_path(one, shapes, axes)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Keep `x` laid out by its logical axes; nothing where no mesh is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where the rows of a (B, L) batch live."""
    return NamedSharding(mesh, spec(("batch", None)))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
