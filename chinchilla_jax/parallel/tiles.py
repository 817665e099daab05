"""Products with the vocabulary, tile by tile: the logits of all positions never exist together.

A tile of positions meets the whole vocabulary, and its gradients are formed at once in the same sweep, so that logits
are computed once (three products instead of four). Where the vocabulary is split over devices that have different
tokens, a tile's tokens are gathered and every device meets them with its own rows of the table (`parallel/vocabulary`).
Letters: S shards, M tokens of a tile in a shard, n tiles; P shards of the batch, T tokens of one.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.parallel.sharding import constrain, shards
from chinchilla_jax.parallel.vocabulary import tokens_travel

# Tokens of a tile on one device: large enough to keep the product at full speed, small enough to stay out of the way.
TILE_TOKENS = {"cpu": 1024, "reference": 1024, "cuda": 8192, "tpu": 8192}
TILE_LOGITS = 2**28  # and never more logits than this, a gigabyte in float32
PIECES = range(128, 1025)  # rows of a split table whose gradient by one tile is made at once, a sixteenth if that many
# A tile of positions that train: small, since of few of them the last tile is most of the work.
TRAINED_TOKENS = {"cpu": 128, "reference": 128, "cuda": 2048, "tpu": 2048}
TURNED = ("cpu",)  # where the table's gradient is summed transposed: XLA:CPU is slow at x.T @ y (`model/linear.py`)
TILE_ARRAYS = 4  # of a tile's size that exist together; they share the tokens where memory is what matters


class Tiling(NamedTuple):
    """Tokens of a tile on one device, whether tiles without a weight are left out, and the platform's habits."""

    tokens: int
    trained: bool = False
    kernels: str = "reference"


class Layout:
    """How a table (V, D) and the tokens of a batch (B, L) meet."""

    def __init__(self, table_VD: jax.Array, batch: tuple[int, int]):
        self.split = tokens_travel(len(table_VD), batch)
        self.batch = "replica" if self.split else "batch"
        divisible = len(table_VD) % shards("whole_vocab") == 0  # rows of labels may not be
        self.rows = "vocab" if self.split else "whole_vocab" if divisible else None

    def table(self, table_VD: jax.Array, dtype) -> jax.Array:
        """The compute copy of the table, laid out before the loop over tiles rather than once a tile."""
        return constrain(table_VD.astype(dtype), self.rows, None)

    def gathered(self, tile: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The arrays (S, M, ...) of a tile on all devices that have a part of the table."""
        return tuple(constrain(x, self.batch, *[None] * (x.ndim - 1)) for x in tile)

    def scattered(self, tile: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """What becomes of the tokens of a tile, (S, M, ...), back on the devices that have these tokens."""
        if not self.split:
            return tile
        return tuple(constrain(x, self.batch, "member", *[None] * (x.ndim - 2)) for x in tile)


def cut(arrays: tuple[jax.Array, ...], tiling: Tiling, layout: Layout):
    """Cut arrays (B, L, ...) into n tiles of at most about `tiling.tokens` tokens a shard: (n, S, M, ...).

    S, the shards of the batch, stays an axis of its own, so that each device sums the table's gradient over its own
    tokens and the sum over devices happens once, after the last tile. Also returns the way back, and the loop over the
    tiles, as `jax.lax.scan` is.
    """
    tokens = max(1, tiling.tokens // TILE_ARRAYS) if layout.split else tiling.tokens
    return (_trained_first if tiling.trained else _by_place)(arrays, tokens, shards(layout.batch))


def _by_place(arrays: tuple[jax.Array, ...], tokens: int, S: int):
    """Tiles that are cut along L."""
    B, L = arrays[0].shape[:2]
    n = -(-(B // S) * L // tokens)
    length = -(-L // n)
    n = -(-L // length)

    def tiles(x):
        x = jnp.pad(x, [(0, 0), (0, n * length - L)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(S, B // S, n, length, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0).reshape(n, S, B // S * length, *x.shape[4:])

    def join(tiles):
        x = tiles.reshape(n, S, B // S, length, *tiles.shape[3:])
        return jnp.moveaxis(x, 0, 2).reshape(B, n * length, *tiles.shape[3:])[:, :L]

    return tuple(map(tiles, arrays)), join, jax.lax.scan


def _trained_first(arrays: tuple[jax.Array, ...], tokens: int, S: int):
    """Positions with a weight, the last of `arrays`, before the others, and a loop over the tiles that have any.

    In a task whose prompts have no loss that is a tenth of the logits. Values of the others are not defined.
    """
    B, L = arrays[0].shape[:2]
    P = shards("batch")  # every device orders its own tokens; of a split table S is fewer
    T = B // P * L
    M = min(max(1, tokens * S // P), T)
    n = -(-T // M)
    there_PT = arrays[-1].reshape(P, T) != 0
    order_PT = jnp.argsort(~there_PT, axis=1)
    back_PT = jnp.argsort(order_PT, axis=1)

    def placed(x, at_PT):
        return jnp.take_along_axis(x, at_PT.reshape(P, T, *[1] * (x.ndim - 2)), axis=1)

    def tiles(x):
        x = placed(x.reshape(P, T, *x.shape[2:]), order_PT)
        x = jnp.pad(x, [(0, 0), (0, n * M - T)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(P, n, M, *x.shape[2:]), 1, 0).reshape(n, S, P // S * M, *x.shape[2:])

    def join(tiles):
        x = jnp.moveaxis(tiles.reshape(n, P, M, *tiles.shape[3:]), 0, 1).reshape(P, n * M, *tiles.shape[3:])
        return placed(x, back_PT).reshape(B, L, *tiles.shape[3:])

    count = -(-jnp.max(jnp.sum(there_PT, axis=1)) // M)
    return tuple(map(tiles, arrays)), join, partial(_first, count)


def _first(count: jax.Array, one: Callable, carry, tiles: tuple[jax.Array, ...]):
    """`jax.lax.scan` over the first `count` tiles, which is known at run time."""

    def at(i):
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tiles)

    _, of_one = jax.eval_shape(lambda: one(carry, at(0)))
    values = jax.tree.map(lambda x: jnp.zeros((len(tiles[0]), *x.shape), x.dtype), of_one)

    def body(i, found):
        carry, new = one(found[0], at(i))
        return carry, jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), found[1], new)

    return jax.lax.fori_loop(0, count, body, (carry, values))


def tile_size(cfg: ModelConfig, settings: ObjectiveConfig) -> Tiling:
    """How the tokens of a device are cut."""
    most, trained = max(1, TILE_LOGITS // cfg.vocab_size), settings.positions == "trained"
    usual = (TRAINED_TOKENS if trained else TILE_TOKENS)[cfg.kernels]
    return Tiling(settings.tile_tokens or min(usual, most), trained, cfg.kernels)


def over_tiles(of_tile, table_VD: jax.Array, arrays: tuple[jax.Array, ...], tiling: Tiling):
    """One pass over the tiles, without anything of a gradient.

    `of_tile(table_VD, tile) -> number, values` with `values` a tuple of arrays (S, M, ...); returns the sum of the
    numbers, and the values as (B, L, ...).
    """
    layout = Layout(table_VD, arrays[0].shape[:2])
    tiles, join, scan = cut(arrays, tiling, layout)
    compute_VD = layout.table(table_VD, arrays[0].dtype)

    def one(total, tile):
        number, values = of_tile(compute_VD, layout.gathered(tile))
        return total + number, layout.scattered(values)

    total, values = scan(one, jnp.zeros((), jnp.float32), tiles)
    return total, tuple(map(join, values))


def sweep(tile_gradients, table_VD: jax.Array, arrays: tuple[jax.Array, ...], tiling: Tiling):
    """One pass over the tiles: the loss, what each token gives, and the table's gradient.

    `tile_gradients(table_VD, tile) -> loss, values, products` with `values` a tuple of arrays (S, M, ...), which come
    back as (B, L, ...), and `products` pairs dlogits_SMV, hidden_SMD whose products are the gradient of the table;
    `arrays[0]` are hidden states, in whose type the products are done.
    """
    layout = Layout(table_VD, arrays[0].shape[:2])
    tiles, join, scan = cut(arrays, tiling, layout)
    compute_VD = layout.table(table_VD, arrays[0].dtype)
    S, (V, D) = tiles[0].shape[1], table_VD.shape
    turned = tiling.kernels in TURNED and not layout.split
    add = _add_in_place if layout.split else _add_turned if turned else _add
    zeros_SVD = constrain(jnp.zeros((S, V, D), jnp.float32), layout.batch, layout.rows, None)
    zeros = jnp.swapaxes(zeros_SVD, 1, 2) if turned else zeros_SVD

    def one(carry, tile):
        loss, values, products = tile_gradients(compute_VD, layout.gathered(tile))
        return (carry[0] + loss, add(carry[1], products)), layout.scattered(values)

    (loss, dtable), values = scan(one, (jnp.zeros((), jnp.float32), zeros), tiles)
    # The layout of the table's parameter: a scatter of the sum, not a whole copy each.
    dtable_VD = constrain(dtable.sum(0).T if turned else dtable.sum(0), "vocab" if layout.rows else None, "embed")
    return loss, tuple(map(join, values)), dtable_VD.astype(table_VD.dtype)


def _add(sum_SVD: jax.Array, products: list, spec: str = "smv,smd->svd") -> jax.Array:
    more_SVD = [jnp.einsum(spec, *pair, preferred_element_type=jnp.float32) for pair in products]
    return sum_SVD + sum(more_SVD[1:], more_SVD[0])


def _add_turned(sum_SDV: jax.Array, products: list) -> jax.Array:
    """`_add` of the transpose, for which the smaller factor is turned, as a copy that XLA leaves out of the product."""
    turned = [(jax.lax.optimization_barrier(jnp.swapaxes(hidden, 1, 2)), dlogits) for dlogits, hidden in products]
    return _add(sum_SDV, turned, "sdm,smv->sdv")


def _add_in_place(sum_SVD: jax.Array, products: tuple) -> jax.Array:
    """`_add` for a table split over its rows: some rows of every part at a time, so that there is no second table."""
    S, V, D = sum_SVD.shape
    parts = shards("vocab")
    v = V // parts
    most = min(v, max(PIECES.start, min(PIECES[-1], v // 16)))
    p = max(size for size in range(1, most + 1) if v % size == 0)
    p = v if 16 * p < most else p  # a number of rows that has no such divisor

    def apart(x, axis):
        return x.reshape(*x.shape[:axis], parts, v // p, p, *x.shape[axis + 1 :])

    products = [
        (constrain(apart(dlogits, 2), "replica", None, "vocab", None, None), hidden) for dlogits, hidden in products
    ]

    def one(i, sum_SZKPD):
        sum_SZPD = jax.lax.dynamic_index_in_dim(sum_SZKPD, i, 2, keepdims=False)
        for dlogits_SMZKP, hidden_SMD in products:
            dlogits_SMZP = jax.lax.dynamic_index_in_dim(dlogits_SMZKP, i, 3, keepdims=False)
            sum_SZPD += jnp.einsum("smzp,smd->szpd", dlogits_SMZP, hidden_SMD, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_index_in_dim(sum_SZKPD, sum_SZPD, i, 2)

    start = constrain(apart(sum_SVD, 1), "replica", "vocab", None, None, None)
    return jax.lax.fori_loop(0, v // p, one, start).reshape(S, V, D)


@partial(jax.custom_vjp, nondiff_argnums=(0, 5))
def tiled(of, moving, table_VD, fixed, arrays, tiling: Tiling) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Sum of weight * loss over tokens, and the further figures of `of` (B, L); `sweep` by automatic differentiation.

    `of(logits, hiddens, *arrays) -> losses, figures`, all of a tile: float32 logits (S, M, V) of every hidden state,
    the loss of every token and a tuple of further figures (S, M), of which no gradient is taken. `moving` are hidden
    states (B, L, D) that meet `table_VD`, to both of which gradients go; `fixed` are (hidden, table) pairs, all
    constant; of `arrays` (B, L) the last one is the weights, which `of` does not see.
    """
    return _tiled_forward(of, moving, table_VD, fixed, arrays, tiling)[0]


def _tiled_forward(of, moving, table_VD, fixed, arrays, tiling):
    batch = moving[0].shape[:2]
    tables = [Layout(table, batch).table(table, moving[0].dtype) for _, table in fixed]
    k, n = len(moving), len(moving) + len(fixed)

    def tile_gradients(table_VD, tile):
        hiddens, (*rest, weights_SM) = tile[:n], tile[n:]
        every = [jnp.einsum("smd,vd->smv", x, t, preferred_element_type=jnp.float32)
                 for x, t in zip(hiddens, [table_VD] * k + tables)]  # fmt: skip

        def total(logits, xs):
            losses_SM, figures = of((*logits, *every[k:]), (*xs, *hiddens[k:]), *rest)
            return jnp.sum(weights_SM * losses_SM), figures

        (loss, figures), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(every[:k], list(hiddens[:k]))
        down = [d_SMV.astype(x.dtype) for d_SMV, x in zip(grads[0], hiddens)]
        dhiddens = tuple(jnp.einsum("smv,vd->smd", d, table_VD) + dx for d, dx in zip(down, grads[1]))
        return loss, (*dhiddens, *figures), list(zip(down, hiddens))

    arrays = (*moving, *(x for x, _ in fixed), *arrays)
    loss, values, dtable_VD = sweep(tile_gradients, table_VD, arrays, tiling)
    return (loss, values[k:]), (values[:k], dtable_VD)


def _tiled_backward(of, tiling, saved, cotangents):
    dmoving, dtable_VD = saved
    return tuple(dx * cotangents[0].astype(dx.dtype) for dx in dmoving), dtable_VD * cotangents[0], None, None


tiled.defvjp(_tiled_forward, _tiled_backward)
