"""The one matrix product of the house, with the two habits of XLA:CPU that it works around.

`x.T @ dy`, the gradient of a weight, runs at down to half the rate of the forward product, because XLA folds the
transpose into the product. Materialising it (an optimisation barrier keeps XLA from folding it back) cures that. And a
product with few rows, as in decoding, is bound by the reading of `w`, which goes faster along rows of (out, in) than of
(in, out): `pack` lays a weight so, and `matmul` multiplies from the left. On a TPU or a GPU either would only cost.
"""

import math

import jax

FEW_ROWS = 16


def _plain(x, w):
    return x @ w


@jax.custom_vjp
def _transposed(x, w):
    return x @ w


def _transposed_backward(saved, dy):
    x, w = saved
    return dy @ w.T, jax.lax.optimization_barrier(x.T) @ dy


_transposed.defvjp(lambda x, w: (x @ w, (x, w)), _transposed_backward)


def _cpu(x, w):
    return (w.T @ x.T).T if x.shape[0] <= FEW_ROWS else _transposed(x, w)


PRODUCTS = {"reference": _plain, "cpu": _cpu, "cuda": _plain, "tpu": _plain}


def matmul(x_MD: jax.Array, w_DP: jax.Array, kernels: str) -> jax.Array:
    """(M, D) @ (D, P) with the platform's gradient."""
    return PRODUCTS[kernels](x_MD, w_DP)


def dense(x: jax.Array, w: jax.Array, kernels: str, contract: int = 1) -> jax.Array:
    """Contract the last `contract` dimensions of `x` with the first ones of `w`: (..., D) x (D, ...) -> (..., ...)."""
    inner = math.prod(w.shape[:contract])
    y = matmul(x.reshape(-1, inner), w.reshape(inner, -1), kernels)
    return y.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


def pack(w: jax.Array, kernels: str, contract: int = 1) -> jax.Array:
    """A weight as decoding reads it best; `unpack` inside the decoding loop gives it back at no cost."""
    if kernels != "cpu":
        return w
    return w.reshape(math.prod(w.shape[:contract]), -1).T


def unpack(packed: jax.Array, shape: tuple[int, ...], kernels: str) -> jax.Array:
    """The weight of `shape` that `pack` was given."""
    return packed.T.reshape(shape) if kernels == "cpu" else packed
