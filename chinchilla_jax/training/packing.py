"""Masks on disk: a bit an entry. Eight neighbours along the last axis share a byte, so that a mask stays sharded."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding


def packs(x) -> bool:
    """Whether a leaf is stored packed."""
    return x.dtype == jnp.bool_ and x.ndim > 0


def stored(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape, type and sharding of a packed mask: (..., n) bool -> (..., ceil(n / 8)) uint8."""
    shape = (*x.shape[:-1], -(-x.shape[-1] // 8))
    return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=_fitting(x.sharding, len(shape), shape[-1]))


def _fitting(sharding: Sharding, ndim: int, size: int) -> Sharding:
    """The mask's own sharding; its last axis is left whole where the bytes do not divide as the entries did."""
    if not isinstance(sharding, NamedSharding) or len(sharding.spec) < ndim or sharding.spec[-1] is None:
        return sharding
    axes = sharding.spec[-1]
    parts = math.prod(sharding.mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))
    return sharding if size % parts == 0 else NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:-1]))


def pack(x: jax.Array) -> jax.Array:
    """A mask as it is stored; any other leaf as it is."""
    return _packer(stored(x).sharding)(x) if packs(x) else x


def unpack(x: jax.Array, mask: jax.ShapeDtypeStruct) -> jax.Array:
    """The mask that was stored as `x`, on the sharding of `mask`."""
    return _unpacker(mask.shape[-1], mask.sharding)(x)


@functools.cache
def _packer(sharding: Sharding):
    return jax.jit(functools.partial(jnp.packbits, axis=-1), out_shardings=sharding)


@functools.cache
def _unpacker(count: int, sharding: Sharding):
    return jax.jit(lambda x: jnp.unpackbits(x, axis=-1, count=count).astype(bool), out_shardings=sharding)
