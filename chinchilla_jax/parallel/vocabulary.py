"""Tables whose vocabulary is split over devices that have different tokens: rows travel, tables stay where they are.

`rows` looks tokens up, a tile at a time: the ids of a tile are gathered, every device fills in the rows that it holds,
and their sum is scattered back. Going backward the gradients of a tile's rows are gathered and added in place, so that
the table's gradient is the only array of its size. Letters: b rows of the batch on one device, v of the table.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from chinchilla_jax.parallel.sharding import RULES, spec

TILE = 8192  # tokens whose rows are on a device at once
# Moving tokens costs links in proportion to the tokens, moving the table in proportion to the vocabulary: up to so many
# tokens a row of the table its memory is worth more.
TOKENS_PER_ROW = 4


def tokens_travel(rows: int, batch: tuple[int, ...]) -> bool:
    """Whether a (B, L) batch goes to the shards of a table of so many rows, rather than the table to the batch."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(batch) != 2 or mesh.shape["fsdp"] == 1:
        return False
    split = spec(("vocab",), (rows,), mesh)[0]
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    fits = split is not None and "fsdp" in split and batch[0] % shares == 0
    return fits and batch[0] // mesh.shape["data"] * batch[1] <= TOKENS_PER_ROW * rows


@jax.custom_vjp
def rows(table_VD: jax.Array, tokens_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows (B, L, D) of the table by number, and the table, through which other gradients reach the same sum."""
    return _mapped(_look_up, table_VD, tokens_BL), table_VD


def _backward(saved, cotangents):
    tokens_BL, (dx_BLD, dtable_VD) = saved, cotangents
    return _mapped(_add, dtable_VD, tokens_BL, dx_BLD), None


rows.defvjp(lambda table_VD, tokens_BL: (rows(table_VD, tokens_BL), tokens_BL), _backward)


def _mapped(local, table_VD, tokens_BL, *more):
    table, batch = PartitionSpec(("tensor", "fsdp")), PartitionSpec(RULES["batch"])
    out = table if more else batch
    specs = table, batch, *[batch] * len(more)
    return jax.shard_map(local, in_specs=specs, out_specs=out, check_vma=False)(table_VD, tokens_BL, *more)


def _tiles(x_bL: jax.Array, fill: int) -> jax.Array:
    """(b, L, ...) -> (n, b, length, ...), as many tokens of all devices as a tile may hold; `fill` beyond L."""
    (b, L), F = x_bL.shape[:2], jax.lax.axis_size("fsdp")
    length = -(-L // -(-L // max(1, TILE // (F * b))))
    n = -(-L // length)
    padding = [(0, 0), (0, n * length - L)] + [(0, 0)] * (x_bL.ndim - 2)
    x_bL = jnp.pad(x_bL, padding, constant_values=fill)
    return jnp.moveaxis(x_bL.reshape(b, n, length, *x_bL.shape[2:]), 1, 0)


def _own(tokens_bM: jax.Array, v: int) -> jax.Array:
    """Where the rows of all devices' tokens lie in this device's part of the table; v where it has them not."""
    first = v * (jax.lax.axis_index("tensor") * jax.lax.axis_size("fsdp") + jax.lax.axis_index("fsdp"))
    at = jax.lax.all_gather(tokens_bM, "fsdp", tiled=True) - first
    return jnp.where((at >= 0) & (at < v), at, v)


def _look_up(table_vD, tokens_bL):
    def one(_, tokens_bM):
        at = _own(tokens_bM, table_vD.shape[0])
        found = table_vD.at[at].get(mode="fill", fill_value=0)
        found = jax.lax.psum_scatter(found, "fsdp", tiled=True)
        return None, jax.lax.psum(found, "tensor") if jax.lax.axis_size("tensor") > 1 else found

    x_nbMD = jax.lax.scan(one, None, _tiles(tokens_bL, -1))[1]
    x_bLD = jnp.moveaxis(x_nbMD, 0, 1).reshape(tokens_bL.shape[0], -1, table_vD.shape[1])
    return x_bLD[:, : tokens_bL.shape[1]]


def _add(dtable_vD, tokens_bL, dx_bLD):
    def one(sum_vD, tile):
        tokens_bM, dx_bMD = tile
        at = _own(tokens_bM, sum_vD.shape[0])
        return sum_vD.at[at].add(jax.lax.all_gather(dx_bMD, "fsdp", tiled=True), mode="drop"), None

    replicas = jax.lax.axis_size("data") > 1
    if replicas:
        dtable_vD = jnp.where(jax.lax.axis_index("data") == 0, dtable_vD, 0)  # which is the sum over `data` already
    sum_vD, _ = jax.lax.scan(one, dtable_vD, (_tiles(tokens_bL, -1), _tiles(dx_bLD, 0)))
    return jax.lax.psum(sum_vD, "data") if replicas else sum_vD
