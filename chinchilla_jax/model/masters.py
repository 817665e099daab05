"""Matrices that multiply in the compute type and whose gradient is a sum in float32.

A product of bfloat16 arrays gives a weight's gradient in bfloat16: rounded before microbatches and devices are summed,
and summed over devices in bfloat16. Here it leaves the product in float32, as the gradient of the float32 `master`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.model.linear import laid, product
from chinchilla_jax.model.weights import Weight, node


@node
class Mastered(Weight):
    """`kernel` in the compute type multiplies; the gradient is that of `master`, which is only there to receive it."""

    kernel: jax.Array
    master: jax.Array
    joins = True

    def astype(self, dtype) -> "Mastered":
        """What multiplies in another type; the master stays."""
        return Mastered(self.kernel.astype(dtype), self.master)


def mastered(w: jax.Array, dtype: Any) -> Any:
    """A matrix in the compute type; of another type than that it keeps itself as the master."""
    return w if w.dtype == jnp.dtype(dtype) else Mastered(jax.lax.stop_gradient(w.astype(dtype)), w)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _times(x_MD, kernel_DP, master_DP, kernels):
    return x_MD @ kernel_DP


def _forward(x_MD, kernel_DP, master_DP, kernels):
    return x_MD @ kernel_DP, (x_MD, kernel_DP)


def _backward(kernels, saved, dy_MP):
    x_MD, kernel_DP = saved
    along_rows = laid if kernels == "cpu" else lambda a: a
    dmaster_DP = jnp.matmul(along_rows(x_MD.T), dy_MP, preferred_element_type=jnp.float32)
    return dy_MP @ along_rows(kernel_DP.T), jnp.zeros_like(kernel_DP), dmaster_DP


_times.defvjp(_forward, _backward)


@product.register(Mastered)
def _(w: Mastered, x, kernels, contract):
    inner = math.prod(w.shape[:contract])
    kernel, master = (leaf.reshape(inner, -1) for leaf in (w.kernel, w.master))
    y = _times(x.reshape(-1, inner), kernel, master, kernels)
    return y.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])
