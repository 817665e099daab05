"""Frozen weights in 8 or 4 bits. Products are made with the dequantised layer, which no backward pass keeps.

The scales are bfloat16, so that an int8 weight takes 1 + 2 / inputs bytes, and an int4 one 0.5 + 2 / 32.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require
from chinchilla_jax.model.linear import look_up
from chinchilla_jax.model.weights import Weight, node, static

GROUP = 32  # inputs that share a scale of Int4
SCALES = jnp.bfloat16


class Quantised(Weight):
    """What both have in common: `expand(dtype)` is the dequantised array."""

    def expand(self, dtype) -> jax.Array:
        """The dequantised array."""
        raise NotImplementedError

    @property
    def dtype(self):
        return jnp.dtype(jnp.float32)

    def astype(self, dtype):
        return self  # the type is the product's own

    def product(self, x, contract, plain):
        return _product(x, self, contract, plain)

    def merge(self):
        return self.expand(jnp.float32)

    def settle(self):
        return self


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, w, contract, plain):
    return plain(x, w.expand(x.dtype), contract)


def _backward(contract, plain, w, dy):
    w_IO = w.expand(dy.dtype)
    outward = w_IO.ndim - contract
    over = tuple(range(dy.ndim - outward, dy.ndim)), tuple(range(contract, w_IO.ndim))
    dx = jnp.tensordot(dy, w_IO, over)
    return dx, None


_product.defvjp(lambda x, w, contract, plain: (_product(x, w, contract, plain), w), _backward)


@node
class Int8(Quantised):
    """w = q * scale with q in [-127, 127] and a scale an output (kernels) or a row (tables), whose inputs are 1."""

    q: jax.Array
    scale: jax.Array

    @classmethod
    @partial(jax.jit, static_argnums=(0, 2))
    def of(cls, w: jax.Array, inputs: range) -> "Int8":
        """The nearest in 8 bits; `inputs` are the dimensions that share a scale."""
        scale = (jnp.max(jnp.abs(w), inputs, keepdims=True) / 127).astype(SCALES)
        by = jnp.where(scale == 0, 1, scale).astype(jnp.float32)
        return cls(jnp.clip(jnp.round(w / by), -127, 127).astype(jnp.int8), scale)

    @classmethod
    def axes(cls, axes: tuple, inputs: range) -> "Int8":
        """The node's logical axes from those of the array."""
        return cls(axes, tuple(None if i in inputs else name for i, name in enumerate(axes)))

    @property
    def shape(self):
        return self.q.shape

    def expand(self, dtype):
        return self.q.astype(dtype) * self.scale.astype(dtype)

    def rows(self, tokens):
        return look_up(self.q, tokens).astype(jnp.float32) * look_up(self.scale, tokens).astype(jnp.float32)


@node
class Int4(Quantised):
    """w = (q - 8) * scale with two q of [0, 15] in a byte, and a scale for every 32 inputs of an output.

    q (..., I / 2, O) and scale (..., I / 32, O) of a kernel, whose `inner` shape is that of a layer; of a table, whose
    inputs are its columns, q (V, D / 2) and scale (V, D / 32). The scale takes the largest weight to -8 exactly.
    """

    q: jax.Array
    scale: jax.Array
    inner: tuple[int, ...] = static()
    along: int = static()  # -2 in a kernel, -1 in a table

    @classmethod
    @partial(jax.jit, static_argnums=(0, 2))
    def of(cls, w: jax.Array, inputs: range) -> "Int4":
        """The nearest in 4 bits; `inputs` are the dimensions of the inputs."""
        kernel = inputs.stop < w.ndim
        along, lead = (-2, w.shape[: inputs.start]) if kernel else (-1, ())
        inner = w.shape[len(lead) :]
        size = math.prod(w.shape[i] for i in inputs)
        require(size % GROUP == 0, f"--tune.weights int4 wants inputs in multiples of {GROUP}, not {size}; use int8")
        groups = _split(w.reshape(*lead, size, -1) if kernel else w, along, GROUP)
        largest = jnp.take_along_axis(groups, jnp.argmax(jnp.abs(groups), along, keepdims=True), along)
        scale = (largest / -8).astype(SCALES)
        by = jnp.where(scale == 0, 1, scale).astype(jnp.float32)
        q = jnp.clip(jnp.round(groups / by) + 8, 0, 15).astype(jnp.uint8)
        pairs = _split(q, along, 2)
        low, high = (jnp.take(pairs, i, along) for i in (0, 1))
        packed = (low | (high << 4)).reshape(*lead, *((size // 2, -1) if kernel else (w.shape[0], -1)))
        return cls(packed, jnp.squeeze(scale, along), inner, along)

    @classmethod
    def axes(cls, axes: tuple, inputs: range, inner: tuple[int, ...]) -> "Int4":
        """The node's logical axes from those of the array: the first ones of the inputs and of the outputs."""
        kernel = inputs.stop < len(axes)
        names = (*axes[: inputs.start], axes[inputs.start], axes[inputs.stop]) if kernel else axes
        return cls(names, names, inner, -2 if kernel else -1)

    @property
    def shape(self):
        return (*(self.q.shape[:-2] if self.along == -2 else ()), *self.inner)

    def expand(self, dtype):
        q = _nibbles(self.q, self.along)
        groups = (_split(q, self.along, GROUP).astype(dtype) - 8) * jnp.expand_dims(self.scale, self.along).astype(
            dtype
        )
        return groups.reshape(self.shape)

    def rows(self, tokens):
        part = Int4(look_up(self.q, tokens), look_up(self.scale, tokens), (), -1)
        groups = _split(_nibbles(part.q, -1), -1, GROUP).astype(jnp.float32) - 8
        return (groups * part.scale[..., None].astype(jnp.float32)).reshape(*tokens.shape, -1)


def _split(x: jax.Array, along: int, size: int) -> jax.Array:
    """Dimension `along`, counted from the end, as (n, size); `size` comes to stand where it stood."""
    at = x.ndim + along
    return x.reshape(*x.shape[:at], -1, size, *x.shape[at + 1 :])


def _nibbles(q: jax.Array, along: int) -> jax.Array:
    """Bytes as twice as many numbers of [0, 15] along a dimension, the low half first."""
    at = q.ndim + along
    pairs = jnp.stack([q & 15, q >> 4], at + 1)
    return pairs.reshape(*q.shape[:at], -1, *q.shape[at + 1 :])
