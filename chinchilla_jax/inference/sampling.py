"""From logits to the next token: filters in a row, then a draw. All of it is per row of (B, V) logits."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require

NEVER = -float("inf")
COLUMNS = 128
COLDEST = 1e-6  # below it the likeliest token is drawn with certainty, and dividing by it would overflow


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: temperature 0 (or below 1e-6) is greedy; top_k 0 and top_p 1 keep everything."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        known = 0 <= self.temperature < float("inf")
        require(known, f"--temperature {self.temperature} must be finite and not negative; 0 is greedy")
        require(self.top_k >= 0, f"--top-k {self.top_k} must not be negative; 0 keeps every token")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p} must lie in (0, 1]; 1 keeps every token")


def keep_known(pieces: int) -> Callable:
    """Never choose a row of the table beyond the tokenizer's pieces."""
    return lambda logits_BV: jnp.where(jnp.arange(logits_BV.shape[-1]) < pieces, logits_BV, NEVER)


def keep_top_k(k: int) -> Callable:
    """Keep the k largest logits (and whatever ties with the k-th)."""

    def keep(logits_BV):
        smallest_B1 = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))[0][:, -1:]
        return jnp.where(logits_BV >= smallest_B1, logits_BV, NEVER)

    return keep


def keep_top_p(p: float) -> Callable:
    """Keep the smallest set of tokens whose probability reaches p (Holtzman et al. 2020)."""

    def keep(logits_BV):
        sorted_BV = -jnp.sort(-logits_BV, axis=-1)
        probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
        first_V = jnp.arange(logits_BV.shape[-1]) == 0  # kept even where p is smaller than float32 can hold
        smallest_B1 = jnp.min(jnp.where((before_BV < p) | first_V, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits_BV >= smallest_B1, logits_BV, NEVER)

    return keep


def argmax(x_BV: jax.Array) -> jax.Array:
    """The place of each row's largest value; of equal ones, any.

    First over columns of a folded row: XLA:CPU goes through a reduction of the last dimension one value at a time, and
    through one of another dimension a vector at a time.
    """
    B, V = x_BV.shape
    x_BRC = jnp.pad(x_BV, [(0, 0), (0, -V % COLUMNS)], constant_values=NEVER).reshape(B, -1, COLUMNS)
    column_B = jnp.argmax(x_BRC.max(axis=1), axis=-1)
    row_B = jnp.argmax(jnp.take_along_axis(x_BRC, column_B[:, None, None], axis=2)[..., 0], axis=-1)
    return row_B * COLUMNS + column_B


def sampler(how: Sampling, pieces: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """draw(logits_BV, keys_B) -> tokens_B, a key a row, so that a row's text does not depend on its neighbours."""
    filters = [keep_known(pieces)]
    drawn = how.temperature >= COLDEST
    filters += [lambda logits_BV: logits_BV / how.temperature] if drawn else []
    filters += [keep_top_k(how.top_k)] if how.top_k else []
    filters += [keep_top_p(how.top_p)] if how.top_p < 1 else []

    def greedy(keys_B, logits_BV):
        del keys_B
        return argmax(logits_BV)

    def gumbel(keys_B, logits_BV):
        noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BV.shape[1:]))(keys_B)
        return argmax(logits_BV + noise_BV)

    pick = gumbel if drawn else greedy

    def draw(logits_BV, keys_B):
        for apply in filters:
            logits_BV = apply(logits_BV)
        return pick(keys_B, logits_BV).astype(jnp.int32)

    return draw
