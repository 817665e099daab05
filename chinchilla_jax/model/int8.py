"""Weights in int8 for decoding, with products of int8 by int8 that lose nothing of the activations.

XLA:CPU has no product of int8 by float32 (it would write the weight out in float32 first), but a fast one of int8 by
int8. So a row of activations becomes two: x = s (q + r / 254) with q and r in int8, where r holds what the rounding of
q lost; one product of twice the rows gives the accuracy of weight-only quantisation. Sums are exact in int32 up to
133,000 inputs.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require
from chinchilla_jax.model.adapted import Bottleneck, prefix
from chinchilla_jax.model.linear import look_up, product
from chinchilla_jax.model.transformer import table_logits
from chinchilla_jax.model.weights import array


@partial(jax.tree_util.register_dataclass, data_fields=("q_PD", "scale_P"), meta_fields=("shape",))
@dataclasses.dataclass(frozen=True)
class Packed8:
    """A weight of `shape`: w = q * scale, q in [-127, 127] along rows of (out, in), a float32 scale an output."""

    q_PD: jax.Array
    scale_P: jax.Array
    shape: tuple[int, ...]

    @classmethod
    def of(cls, w: jax.Array, contract: int = 1) -> "Packed8":
        """The nearest of a kernel, whose first `contract` dimensions are the inputs; adapters on it are merged."""
        w = array(w)
        return cls(*_nearest(w.reshape(math.prod(w.shape[:contract]), -1).T), w.shape)

    @classmethod
    def of_table(cls, w_VD: jax.Array) -> "Packed8":
        """The nearest of a table, a scale a row: as an output matrix and for look-ups."""
        require(not prefix(w_VD), "int8 weights cannot hold the rows of a soft prompt; use --weights float")
        w_VD = array(w_VD)
        return cls(*_nearest(w_VD), w_VD.shape)

    def astype(self, dtype) -> "Packed8":
        """Itself: the type is the product's own."""
        return self


def packed8(w: Any, contract: int) -> Any:
    """`Packed8.of` a kernel; one with a houlsby adapter, which cannot be merged, stays below it."""
    if isinstance(w, Bottleneck):
        return dataclasses.replace(w, kernel=Packed8.of(w.kernel, contract))
    return Packed8.of(w, contract)


def _nearest(w_PD: jax.Array) -> tuple[jax.Array, jax.Array]:
    scale_P = jnp.max(jnp.abs(w_PD), axis=1).astype(jnp.float32) / 127
    by_P = jnp.where(scale_P == 0, 1, scale_P)
    return jnp.round(w_PD / by_P[:, None]).astype(jnp.int8), scale_P


def matmul8(x_MD: jax.Array, q_PD: jax.Array, scale_P: jax.Array) -> jax.Array:
    """x (q * scale)^T in float32: (M, D) by (P, D) to (M, P)."""
    x_MD = x_MD.astype(jnp.float32)
    s_M1 = jnp.max(jnp.abs(x_MD), axis=1, keepdims=True) / 127
    by_M1 = jnp.where(s_M1 == 0, 1, s_M1)
    high_MD = jnp.round(x_MD / by_M1)
    low_MD = jnp.round((x_MD / by_M1 - high_MD) * 254)
    rows_WD = jnp.concatenate([high_MD, low_MD]).astype(jnp.int8)
    y_WP = jax.lax.dot_general(rows_WD, q_PD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
    high_MP, low_MP = jnp.split(y_WP.astype(jnp.float32), 2)
    return (high_MP + low_MP / 254) * s_M1 * scale_P


@product.register(Packed8)
def _(w: Packed8, x, kernels, contract):
    del kernels
    y_MP = matmul8(x.reshape(-1, math.prod(w.shape[:contract])), w.q_PD, w.scale_P)
    return y_MP.astype(x.dtype).reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


@look_up.register(Packed8)
def _(table: Packed8, tokens):
    return table.q_PD[tokens].astype(jnp.float32) * table.scale_P[tokens][..., None]


@table_logits.register(Packed8)
def _(table: Packed8, hidden_BD):
    return matmul8(hidden_BD, table.q_PD, table.scale_P)
