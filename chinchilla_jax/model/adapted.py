"""Further representations: what scales, what follows a product, and what a table has beside its rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.errors import UserError
from chinchilla_jax.model.linear import look_up
from chinchilla_jax.model.weights import Weight, array, node, settled, static


@node
class Scaled(Weight):
    """y = (x W) * l over the last `outputs` dimensions, or (x * l) W where that is 0: IA3 (Liu et al. 2022).

    l is (N, *O) or (N, *I).
    """

    kernel: Any
    factors: jax.Array
    outputs: int = static()

    def product(self, x, contract, plain):
        if self.outputs:
            return plain(x, self.kernel, contract) * self.factors
        return plain(x * self.factors, self.kernel, contract)

    def merge(self):
        w, factors = array(self.kernel).astype(jnp.float32), self.factors.astype(jnp.float32)
        lead = factors.ndim - self.outputs  # where the inputs are scaled, all of it
        ones = [1] * (w.ndim - factors.ndim)
        return w * factors.reshape(*factors.shape[:lead], *ones, *factors.shape[lead:])


@node
class Bottleneck(Weight):
    """z + silu(z down + shift) up + shift, z = x W: Houlsby et al. 2019, after the last projection of a sublayer.

    down (N, *O, R), up (N, R, *O) and their shifts (N, R), (N, *O).
    """

    kernel: Any
    down: jax.Array
    down_shift: jax.Array
    up: jax.Array
    up_shift: jax.Array

    @staticmethod
    def outline(lead, inward, outward, rank):
        """Shapes, or axes, of the leaves that train."""
        return {
            "down": (*lead, *outward, rank),
            "down_shift": (*lead, rank),
            "up": (*lead, rank, *outward),
            "up_shift": (*lead, *outward),
        }

    def product(self, x, contract, plain):
        z = plain(x, self.kernel, contract)
        hidden = jax.nn.silu(plain(z, self.down, self.down.ndim - 1) + self.down_shift)
        return z + plain(hidden, self.up, 1) + self.up_shift

    def settle(self):
        return self

    def merge(self):
        raise UserError("a houlsby adapter is not linear and has no merged form; keep the adapter beside its base")


@node
class Rows(Weight):
    """A table some of whose rows, `ids`, have learned ones (n, D) added to them."""

    kernel: Any
    rows_nD: jax.Array
    ids: tuple[int, ...] = static()

    def merge(self):
        return array(self.kernel).astype(jnp.float32).at[jnp.asarray(self.ids)].add(self.rows_nD.astype(jnp.float32))

    def rows(self, tokens):
        hit = (tokens[..., None] == jnp.asarray(self.ids)).astype(self.rows_nD.dtype)
        return look_up(self.kernel, tokens) + hit @ self.rows_nD


@node
class Shifted(Weight):
    """A table whose rows delta (B, L, D) perturbs at the tokens of a batch; as an output table it is unchanged."""

    kernel: Any
    delta_BLD: jax.Array

    def merge(self):
        return array(self.kernel)

    def rows(self, tokens):
        return look_up(self.kernel, tokens) + self.delta_BLD


def prefix(table: Any) -> tuple[int, ...]:
    """Ids that have to stand before every document: those of a soft prompt, if the input table has one."""
    if not isinstance(table, Prompt):
        return ()
    first = table.kernel.shape[0]
    return tuple(range(first, first + table.prompt_PD.shape[0]))


@node
class Prompt(Weight):
    """An input table that goes on, at ids from V upward, with the learned rows (P, D) of a soft prompt.

    Nothing predicts these ids: the output table ends where it did (Lester et al. 2021).
    """

    kernel: Any
    prompt_PD: jax.Array

    def array(self):
        return array(self.kernel)

    def settle(self):
        return dataclasses.replace(self, kernel=settled(self.kernel))

    def merge(self):
        raise UserError("a soft prompt is no part of any matrix and has no merged form; keep it beside its base")

    def rows(self, tokens):
        V, P = self.kernel.shape[0], self.prompt_PD.shape[0]
        plain = look_up(self.kernel, jnp.minimum(tokens, V - 1))
        learned = self.prompt_PD[jnp.clip(tokens - V, 0, P - 1)]
        return jnp.where((tokens >= V)[..., None], learned.astype(plain.dtype), plain)
