"""The one matrix product of the house.

XLA:CPU runs `x.T @ dy`, the gradient of a weight, at about half the rate of the forward product, because it folds the
transpose into the product. Materialising the transpose (an optimisation barrier keeps XLA from folding it back) cures
it; on a TPU or a GPU the barrier would only cost, so those take the plain product.
"""

import math

import jax
import jax.numpy as jnp


def _plain(x, w):
    return x @ w


@jax.custom_vjp
def _transposed(x, w):
    return x @ w


def _transposed_backward(saved, dy):
    x, w = saved
    return dy @ w.T, jax.lax.optimization_barrier(x.T) @ dy


_transposed.defvjp(lambda x, w: (x @ w, (x, w)), _transposed_backward)

PRODUCTS = {"reference": _plain, "cpu": _transposed, "cuda": _plain, "tpu": _plain}


def matmul(x_MD: jax.Array, w_DP: jax.Array, kernels: str) -> jax.Array:
    """(M, D) @ (D, P) with the platform's gradient."""
    return PRODUCTS[kernels](x_MD, w_DP)


def dense(x: jax.Array, w: jax.Array, kernels: str, contract: int = 1) -> jax.Array:
    """Contract the last `contract` dimensions of `x` with the first ones of `w`: (..., D) x (D, ...) -> (..., ...)."""
    inner = math.prod(w.shape[:contract])
    y = matmul(x.reshape(-1, inner), w.reshape(inner, -1), kernels)
    return y.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


def cast(w: jax.Array, dtype) -> jax.Array:
    """The compute copy of a master weight."""
    return w.astype(jnp.dtype(dtype))
