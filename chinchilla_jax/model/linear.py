"""The one matrix product of the house, with the two habits of XLA:CPU that it works around.

`x.T @ dy`, the gradient of a weight, runs at down to half the speed of the forward product, because XLA folds the
transpose into the product. Materialising it (an optimisation barrier keeps XLA from folding it back) cures that. Where
the outputs are few, as an adapter's rank, it is the result that is transposed: 3 to 7 times as fast at rank 8. And a
product with few rows, as in decoding, is bound by the reading of `w`, which goes faster along rows of (out, in) than of
(in, out): `packed` lays a weight so, and `along_rows` multiplies it from the left. Elsewhere either would only cost.
"""

import dataclasses
import functools
import itertools
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from chinchilla_jax.parallel.sharding import constrain, shards
from chinchilla_jax.parallel.vocabulary import rows, tokens_travel

FEW_ROWS = 16
NARROW = 4  # inputs an output, above which the gradient of a weight is formed transposed


def _plain(x, w):
    return x @ w


@jax.custom_vjp
def _transposed(x, w):
    return x @ w


def _transposed_backward(saved, dy):
    x, w = saved
    lay = laid if dy.dtype == jnp.bfloat16 else lambda a: a
    if NARROW * dy.shape[1] <= x.shape[1]:
        return dy @ lay(w.T), jax.lax.optimization_barrier(lay(dy.T) @ x).T
    return dy @ lay(w.T), jax.lax.optimization_barrier(lay(x.T)) @ dy


def laid(w):
    """A copy along rows, which is what the matrix units of a CPU (AMX) take; a transposed view runs at a fifth."""
    return with_layout_constraint(w, Layout((0, 1)))


_transposed.defvjp(lambda x, w: (x @ w, (x, w)), _transposed_backward)


def _cpu(x, w):
    return (w.T @ x.T).T if x.shape[0] <= FEW_ROWS else _transposed(x, w)


def along_rows(x_MD, w_PD, out=None):
    """x w^T, (M, P), both read along their rows, in the type `out`.

    A transposed operand, and a single row, would make XLA:CPU turn bfloat16 into float32 first, all of `w` each time.
    """
    M = len(x_MD)
    if M == 1 and x_MD.dtype == jnp.bfloat16:
        x_MD = jnp.concatenate([x_MD, x_MD])
    product = partial(jax.lax.dot_general, dimension_numbers=(((1,), (1,)), ((), ())), preferred_element_type=out)
    return product(x_MD, w_PD) if M > FEW_ROWS else product(w_PD, x_MD).T[:M]


JOINED = ("cuda",)
PRODUCTS = {"reference": _plain, "cpu": _cpu, "cuda": _plain, "tpu": _plain}


def matmul(x_MD: jax.Array, w_DP: jax.Array, kernels: str) -> jax.Array:
    """(M, D) @ (D, P) with the platform's gradient."""
    return PRODUCTS[kernels](x_MD, w_DP)


def dense(x: jax.Array, w: Any, kernels: str, contract: int = 1) -> jax.Array:
    """Contract the last `contract` dimensions of `x` with the first ones of `w`: (..., D) x (D, ...) -> (..., ...).

    `w` is an array, or whatever has registered a `product`.
    """
    return product(w, x, kernels, contract)


class Affine(NamedTuple):
    """x -> x w + bias, `w` contracting its first `contract` dimensions."""

    w: Any
    bias: jax.Array | None = None
    contract: int = 1


def affine(x: jax.Array, layer: Affine, kernels: str) -> jax.Array:
    """What a layer makes of x."""
    return _biased(dense(x, layer.w, kernels, layer.contract), layer)


def _biased(y: jax.Array, layer: Affine) -> jax.Array:
    return y if layer.bias is None else y + layer.bias


def side_by_side(x: jax.Array, layers: list[Affine], kernels: str) -> list[jax.Array]:
    """What every layer makes of the same x: one product where narrow ones run below a card's peak, or where it is kept.

    The matrices are joined along their outputs, which no device may share: those of tensor parallelism stay apart.
    """
    whole, shapes = layers[0].w, [layer.w.shape[1:] for layer in layers]
    if isinstance(whole, Joined):
        whole = whole.whole
    elif kernels in JOINED and not outputs_shared() and all(_joins(layer.w) for layer in layers):
        flat = [jax.tree.map(lambda leaf: leaf.reshape(x.shape[-1], -1), layer.w) for layer in layers]
        whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *flat)
    else:
        return [affine(x, layer, kernels) for layer in layers]
    ends = itertools.accumulate(map(math.prod, shapes))
    ys = jnp.split(dense(x, whole, kernels), list(ends)[:-1], axis=-1)
    return [_biased(y.reshape(*x.shape[:-1], *shape), layer) for y, shape, layer in zip(ys, shapes, layers)]


def outputs_shared() -> bool:
    """Whether several devices hold the outputs of a projection: tensor parallelism."""
    return max(shards("heads"), shards("mlp")) > 1


def _joins(w: Any) -> bool:
    """Whether several such weights are joined leaf by leaf."""
    return isinstance(w, jax.Array) or getattr(w, "joins", False)


@functools.singledispatch
def product(w, x: jax.Array, kernels: str, contract: int) -> jax.Array:
    """`dense` by the kind of the weight; this one is an array's."""
    inner = math.prod(w.shape[:contract])
    y = matmul(x.reshape(-1, inner), w.reshape(inner, -1), kernels)
    return y.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


@functools.singledispatch
def look_up(table_VD, tokens: jax.Array) -> jax.Array:
    """Rows of a table by number, by the kind of the table; of an array without a copy of it that is split along D."""
    if stays(table_VD, tokens):
        return rows(table_VD, tokens)[0]
    return constrain(table_VD, "whole_vocab", None)[tokens]


def stays(table_VD: jax.Array, tokens: jax.Array) -> bool:
    """Whether the tokens go to the shards of a table, rather than the table to them."""
    return jnp.issubdtype(table_VD.dtype, jnp.floating) and tokens_travel(len(table_VD), tokens.shape)


def drop(x: jax.Array, share: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; without a key (evaluation, or a share of 0) the identity."""
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - share, x.shape), x / (1 - share), 0).astype(x.dtype)


@functools.singledispatch
def packed(w, kernels: str, contract: int = 1):
    """A weight as decoding reads it best; its product is the same."""
    return Packed(w.reshape(math.prod(w.shape[:contract]), -1).T, w.shape) if kernels == "cpu" else w


@partial(jax.tree_util.register_dataclass, data_fields=("w_PD",), meta_fields=("shape",))
@dataclasses.dataclass(frozen=True)
class Packed:
    """A weight of `shape`, laid along rows of (out, in)."""

    w_PD: jax.Array
    shape: tuple[int, ...]

    def astype(self, dtype) -> "Packed":
        """In another type."""
        return Packed(self.w_PD.astype(dtype), self.shape)


@product.register(Packed)
def _(w: Packed, x, kernels, contract):
    y_MP = along_rows(x.reshape(-1, w.w_PD.shape[1]), w.w_PD)
    return y_MP.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


@look_up.register(Packed)
def _(table: Packed, tokens):
    return look_up(table.w_PD, tokens)


@partial(jax.tree_util.register_dataclass, data_fields=("whole",), meta_fields=("shape",))
@dataclasses.dataclass(frozen=True)
class Joined:
    """A weight of `shape` at the beginning of what it shares its inputs with; of those that follow, the shape alone."""

    whole: Any
    shape: tuple[int, ...]

    def astype(self, dtype) -> "Joined":
        """In another type."""
        return Joined(self.whole and self.whole.astype(dtype), self.shape)


def joined(weights: list) -> list[Joined]:
    """Weights of one kind, laid along rows of (out, in), as one product; apart again in `side_by_side`."""
    inputs, width = weights[0].shape[0], sum(math.prod(w.shape[1:]) for w in weights)
    rows_of = {f.name: [getattr(w, f.name) for w in weights] for f in dataclasses.fields(weights[0])}
    del rows_of["shape"]
    whole = type(weights[0])(**{name: jnp.concatenate(rows) for name, rows in rows_of.items()}, shape=(inputs, width))
    return [Joined(None if i else whole, w.shape) for i, w in enumerate(weights)]
