"""Weights that are more than an array: each knows its product, its lookup and the array that it amounts to.

`linear.dense` asks a weight to multiply, so a node stands wherever an array could, in the blocks' stacked kernels too,
and nodes nest: `LowRank(Int8(...))` is QLoRA. The first child of every adapter is the `kernel` that it changes; the
others are its own, and train. Letters: N layers (where stacked), I inputs, O outputs, R rank, V vocabulary, D model.
`outline` takes the parts of a kernel's shape and gives its own leaves' shapes; given logical axes it gives theirs.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.model.linear import dense, drop, look_up, packed, product, stays
from chinchilla_jax.parallel.vocabulary import rows

ROUNDING = 2e-6  # relative differences of float32 sums of a few thousand squares
RANK = "rank"  # the logical axis of an adapter's rank


def static() -> Any:
    """A field that is no leaf, but part of what the node is."""
    return dataclasses.field(metadata={"static": True})


def node(cls):
    """A frozen dataclass as a pytree whose children stand under their names, as in a dict."""
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    leaves = [field.name for field in fields if not field.metadata.get("static")]
    fixed = [field.name for field in fields if field.metadata.get("static")]

    def flatten(x):
        return [getattr(x, name) for name in leaves], tuple(getattr(x, name) for name in fixed)

    def flatten_with_keys(x):
        children, aux = flatten(x)
        return [(jax.tree_util.DictKey(name), child) for name, child in zip(leaves, children)], aux

    def unflatten(aux, children):
        made = object.__new__(cls)  # children may be anything here: axes, shapes, tracers
        for name, value in (*zip(leaves, children), *zip(fixed, aux)):
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def weight(module, name: str, initial, shape: tuple[int, ...]) -> Any:
    """A Linen parameter, whatever represents it: `param` would hold the first leaf of a node to `shape`."""
    there = module.has_variable("params", name)
    return module.get_variable("params", name) if there else module.param(name, initial, shape)


def is_node(x: Any) -> bool:
    """Whether a weight is a node, and no array."""
    return isinstance(x, Weight)


class Weight:
    """What the nodes have in common. A subclass says `product` and `merge`."""

    kernel: Any
    joins = False  # whether several may be joined, leaf by leaf, along their outputs

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array which the node stands for."""
        return self.kernel.shape

    @property
    def ndim(self) -> int:
        """Dimensions of that array."""
        return len(self.shape)

    @property
    def dtype(self):
        """The type that merging gives."""
        return self.kernel.dtype

    def astype(self, dtype) -> "Weight":
        """The node with its real leaves in another type."""
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, self)

    def product(self, x: jax.Array, contract: int, plain) -> jax.Array:
        """`x` times the weight; `plain(x, w, contract)` is the same for what the node is made of."""
        raise NotImplementedError

    def merge(self) -> jax.Array:
        """The array that multiplies as the node does (without dropout), computed in float32."""
        raise NotImplementedError

    def array(self) -> jax.Array:
        """What an output table is multiplied as: the merged array, unless there is none."""
        return self.merge()

    def settle(self) -> Any:
        """What decoding multiplies by: the merged array, but for a kernel that is to stay small."""
        return self if is_node(self.kernel) else self.merge().astype(self.dtype)

    def rows(self, tokens: jax.Array) -> jax.Array:
        """Rows of a table by number."""
        return self.merge()[tokens]


@product.register(Weight)
def _(w: Weight, x, kernels, contract):
    return w.product(x, contract, partial(dense_of, kernels=kernels))


def dense_of(x, w, contract, kernels):
    """`linear.dense` with its arguments in a node's order."""
    return dense(x, w, kernels, contract)


@look_up.register(Weight)
def _(w: Weight, tokens):
    return w.rows(tokens)


@packed.register(Weight)
def _(w: Weight, kernels, contract):
    inner = getattr(w, "kernel", None)
    return w if inner is None else dataclasses.replace(w, kernel=packed(inner, kernels, contract))


def array(w: Any) -> jax.Array:
    """The array that a weight amounts to; of an array that itself."""
    return w.array() if is_node(w) else w


def merged(params: Any) -> Any:
    """`params` with every node merged into a plain array of its kernel's type; what has no merged form is an error."""
    return jax.tree.map(lambda w: w.merge().astype(w.dtype) if is_node(w) else w, params, is_leaf=is_node)


def settled(params: Any) -> Any:
    """`params` as decoding wants them: merged wherever a node has a merged form and lies on no quantised one."""
    return jax.tree.map(lambda w: w.settle() if is_node(w) else w, params, is_leaf=is_node)


def keyed(params: Any, key: jax.Array | None) -> Any:
    """`params` in which every adapter with dropout has a key of its own, a layer; without a key as they are."""
    if key is None:
        return params
    number = iter(range(1 << 30))

    def one(w):
        if not getattr(w, "dropout", 0.0):
            return w
        own = jax.random.fold_in(key, next(number))
        return dataclasses.replace(w, key=jax.random.split(own, w.a.shape[0]) if w.stacked else own)

    return jax.tree.map(one, params, is_leaf=is_node)


@node
class LowRank(Weight):
    """y = x W + scale * (drop(x) a) b: LoRA (Hu et al. 2021), with scale alpha / R; rsLoRA's is alpha / sqrt(R).

    a (N, *I, R), b (N, R, *O). On a table (V, D), `a` has a row a piece.
    """

    kernel: Any
    a: jax.Array
    b: jax.Array
    key: Any
    scale: float = static()
    dropout: float = static()

    @staticmethod
    def outline(lead, inward, outward, rank):
        """Shapes, or axes, of the leaves that train."""
        return {"a": (*lead, *inward, rank), "b": (*lead, rank, *outward)}

    @property
    def stacked(self) -> bool:
        """Whether the leaves have a dimension of layers in front."""
        return self.a.ndim + self.b.ndim - len(self.kernel.shape) == 3

    def narrow(self, x, contract, plain):
        """x a, what passes through the bottleneck."""
        return plain(drop(x, self.dropout, self.key), self.a, contract)

    def product(self, x, contract, plain):
        return plain(x, self.kernel, contract) + self.scale * plain(self.narrow(x, contract, plain), self.b, 1)

    def change(self, a=None) -> jax.Array:
        """scale * a b in float32, in the kernel's shape."""
        lead = self.a.shape[:1] if self.stacked else (1,)
        a_NIR = (self.a if a is None else a).astype(jnp.float32).reshape(*lead, -1, self.a.shape[-1])
        b_NRO = self.b.astype(jnp.float32).reshape(*lead, self.a.shape[-1], -1)
        return self.scale * (a_NIR @ b_NRO).reshape(self.kernel.shape)

    def merge(self):
        return array(self.kernel).astype(jnp.float32) + self.change()

    def rows(self, tokens):
        return look_up(self.kernel, tokens) + self.scale * (look_up(self.a, tokens) @ self.b)


@node
class Decomposed(LowRank):
    """y = m / |W + scale a b| * (x W + scale * (drop(x) a) b), the norm over the inputs and held fast (DoRA).

    m (N, *O), a magnitude an output, starts at the norms of W (Liu et al. 2024).
    """

    m: jax.Array

    @staticmethod
    def outline(lead, inward, outward, rank):
        """Shapes, or axes, of the leaves that train."""
        return {**LowRank.outline(lead, inward, outward, rank), "m": (*lead, *outward)}

    def astype(self, dtype):
        other = LowRank.astype(self, dtype)
        return dataclasses.replace(other, m=self.m)  # rounded, it would scale every output a little

    def factor(self):
        """m over the norm of W + scale a b, in float32 and in the kernel's number of dimensions."""
        direction, lead = LowRank.merge(self), int(self.stacked)
        norm = lengths(direction, lead, self.ndim - self.m.ndim)
        factor = self.m.astype(jnp.float32).reshape(norm.shape) / jax.lax.stop_gradient(norm)
        # A fresh m is the norm as another program summed it, in another order: exactly 1 then, with the same gradient.
        rounding = jnp.where(jnp.abs(factor - 1) < ROUNDING, 1 - factor, 0)
        return factor + jax.lax.stop_gradient(rounding), direction

    def product(self, x, contract, plain):
        factor = self.factor()[0].reshape(self.m.shape)
        return (factor * LowRank.product(self, x, contract, plain)).astype(x.dtype)

    def merge(self):
        factor, direction = self.factor()
        return factor * direction


def lengths(w: jax.Array, lead: int, contract: int) -> jax.Array:
    """L2 norms over the inputs of a matrix, whose dimensions are kept."""
    return jnp.sqrt(jnp.sum(jnp.square(w.astype(jnp.float32)), range(lead, lead + contract), keepdims=True))


@node
class Triplets(LowRank):
    """y = x W + scale * (drop(x) a * e) b, with singular values e (N, R): AdaLoRA (Zhang et al. 2023)."""

    e: jax.Array

    @staticmethod
    def outline(lead, inward, outward, rank):
        """Shapes, or axes, of the leaves that train."""
        return {**LowRank.outline(lead, inward, outward, rank), "e": (*lead, rank)}

    def narrow(self, x, contract, plain):
        return LowRank.narrow(self, x, contract, plain) * self.e

    def merge(self):
        e = self.e.reshape(*self.e.shape[:-1], *[1] * (self.a.ndim - self.e.ndim), -1)
        return array(self.kernel).astype(jnp.float32) + self.change(self.a.astype(jnp.float32) * e)


@node
class LookedUp(Weight):
    """A table (V, D) and the rows of it (B, L, D) that some tokens have; whoever asks asks for those."""

    kernel: Any
    rows_BLD: jax.Array

    def merge(self):
        return self.kernel

    def rows(self, tokens):
        return self.rows_BLD


def looked_up(table: Any, tokens_BL: jax.Array) -> Any:
    """A table with the rows of some tokens where it is split over its vocabulary; others as they are.

    The gradients of both ends of a tied table are then sums in one array.
    """
    if is_node(table) or not stays(table, tokens_BL):
        return table
    rows_BLD, table_VD = rows(table, tokens_BL)
    return LookedUp(table_VD, rows_BLD)
