"""Losses over the vocabulary, tile by tile: the logits of all positions never exist together.

A tile of positions meets the whole vocabulary, and its gradients are formed at once in the same sweep, so that logits
are computed once (three products instead of four). Letters: S shards, M tokens of a tile in a shard, n tiles.
"""

import jax
import jax.numpy as jnp

from chinchilla_jax.parallel.sharding import constrain


def cut(arrays: tuple[jax.Array, ...], tile_tokens: int):
    """Cut arrays (B, L, ...) along L into n tiles of at most about `tile_tokens` tokens a shard: (n, S, M, ...).

    S, the shards of the batch, stays an axis of its own, so that each device sums the table's gradient over its own
    tokens and the sum over devices happens once, after the last tile. Also returns the way back.
    """
    mesh = jax.sharding.get_abstract_mesh()
    S = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    B, L = arrays[0].shape[:2]
    n = -(-(B // S) * L // tile_tokens)
    length = -(-L // n)
    n = -(-L // length)

    def tiles(x):
        x = jnp.pad(x, [(0, 0), (0, n * length - L)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(S, B // S, n, length, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0).reshape(n, S, B // S * length, *x.shape[4:])

    def join(tiles):
        x = tiles.reshape(n, S, B // S, length, *tiles.shape[3:])
        return jnp.moveaxis(x, 0, 2).reshape(B, n * length, *tiles.shape[3:])[:, :L]

    return tuple(map(tiles, arrays)), join


def gathered(table_VD: jax.Array, dtype) -> jax.Array:
    """The compute copy of the table, whole along D before the loop over tiles rather than once a tile."""
    return constrain(table_VD.astype(dtype), rows_axis(table_VD), None)


def rows_axis(table_VD: jax.Array) -> str | None:
    """How rows are shared: as those of a vocabulary, or not at all where the devices do not divide them, as labels'."""
    mesh = jax.sharding.get_abstract_mesh()
    return "vocab" if mesh.empty or table_VD.shape[0] % mesh.shape["tensor"] == 0 else None


def sweep(tile_gradients, table_VD: jax.Array, arrays: tuple[jax.Array, ...], tile_tokens: int):
    """One pass over the tiles: the loss, what each token gives, and the table's gradient.

    `tile_gradients(table_VD, tile) -> loss, values, dtable_SVD` with `values` a tuple of arrays (S, M, ...), which come
    back as (B, L, ...); `arrays[0]` are hidden states, in whose type the products are done.
    """
    tiles, join = cut(arrays, tile_tokens)
    compute_VD = gathered(table_VD, arrays[0].dtype)
    S, (V, D) = tiles[0].shape[1], table_VD.shape
    start = jnp.zeros((), jnp.float32), constrain(jnp.zeros((S, V, D), jnp.float32), "batch", rows_axis(table_VD), None)

    def one(carry, tile):
        loss, values, dtable_SVD = tile_gradients(compute_VD, tile)
        return (carry[0] + loss, carry[1] + dtable_SVD), values

    (loss, dtable_SVD), values = jax.lax.scan(one, start, tiles)
    dtable_VD = constrain(
        dtable_SVD.sum(0), rows_axis(table_VD), "embed"
    )  # a scatter of the sum, not a whole copy each
    return loss, tuple(map(join, values)), dtable_VD.astype(table_VD.dtype)
