"""From logits to the next token, a row of (S, V) logits at a time: every setting is an array over the rows.

So one compiled program serves every way to sample, and a row's token depends on its own logits, settings and key alone.
What no row asks for is skipped at run time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import require

NEVER = -float("inf")
COLUMNS = 128
COLDEST = 1e-6  # below it the likeliest token is drawn with certainty, and dividing by it would overflow
MOST = 1e9  # of a temperature or a repetition penalty, which are float32 and must not become 0 or infinite
TOP = 20  # likeliest tokens that log-probabilities are given of


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: temperature 0 (or below 1e-6) is greedy; top_k 0, top_p 1 and min_p 0 keep everything.

    Applied in this order: penalties and bias, temperature, top_k, top_p of what top_k left, min_p. The repetition
    penalty divides positive logits of tokens seen in the prompt or the text and multiplies negative ones (Keskar et al.
    2019); presence and frequency penalties are OpenAI's, over the text alone.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self):
        require(
            0 <= self.temperature <= MOST, f"--temperature {self.temperature} must lie in [0, {MOST:.0e}]; 0 is greedy"
        )
        require(0 <= self.top_k < 2**31, f"--top-k {self.top_k} must lie in [0, 2**31); 0 keeps every token")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p} must lie in (0, 1]; 1 keeps every token")
        require(0 <= self.min_p <= 1, f"--min-p {self.min_p} must lie in [0, 1]; 0 keeps every token")
        require(
            1 / MOST <= self.repetition_penalty <= MOST,
            f"--repetition-penalty {self.repetition_penalty} must lie in [{1 / MOST:.0e}, {MOST:.0e}]; 1 is off",
        )


class Rows(NamedTuple):
    """The settings of S rows, each (S,); `bias_S` says whose logit bias counts, `logprobs_S` who asks for them."""

    seed_S: np.ndarray
    temperature_S: np.ndarray
    top_k_S: np.ndarray
    top_p_S: np.ndarray
    min_p_S: np.ndarray
    repetition_penalty_S: np.ndarray
    presence_penalty_S: np.ndarray
    frequency_penalty_S: np.ndarray
    bias_S: np.ndarray
    logprobs_S: np.ndarray

    @classmethod
    def of(cls, how: Sampling, seeds: Sequence[int]) -> "Rows":
        """Rows that differ in their seeds alone."""
        kinds = {"seed_S": np.uint32, "top_k_S": np.int32, "bias_S": bool, "logprobs_S": bool}
        rows = cls(*(np.zeros(len(seeds), kinds.get(name, np.float32)) for name in cls._fields))
        for slot, seed in enumerate(seeds):
            rows.put(slot, how, seed)
        return rows

    @classmethod
    def empty(cls, slots: int) -> "Rows":
        """Greedy rows."""
        return cls.of(Sampling(0.0), [0] * slots)

    def put(self, slot: int, how: Sampling, seed: int, *, bias: bool = False, logprobs: bool = False) -> None:
        """Set one row."""
        self.seed_S[slot], self.bias_S[slot], self.logprobs_S[slot] = seed, bias, logprobs
        for item in fields(Sampling):
            getattr(self, f"{item.name}_S")[slot] = getattr(how, item.name)
        if how.temperature < COLDEST:
            self.temperature_S[slot] = 0


class Text(NamedTuple):
    """What penalties and bias need to know of S rows: tokens of the prompt, counts of the text, bias; each (S, V)."""

    prompt_SV: jax.Array
    made_SV: jax.Array
    bias_SV: jax.Array


class Drawn(NamedTuple):
    """Tokens (S,), their log-probabilities by the model, and the likeliest ones (S, TOP); zeros for rows without."""

    token_S: jax.Array
    logprob_S: jax.Array
    top_SK: jax.Array
    top_logprob_SK: jax.Array

    @classmethod
    def unscored(cls, token_S: jax.Array, V: int) -> "Drawn":
        """Tokens of V whose log-probabilities nobody asked for."""
        S, K = len(token_S), min(TOP, V)
        return cls(token_S, jnp.zeros(S), jnp.zeros((S, K), jnp.int32), jnp.zeros((S, K)))


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


def largest(x_SV: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The smallest set {x >= t} of each row that is `enough`, with whatever ties: a mask (S, V).

    `enough(mask_SV) -> (S,)` must hold for a larger set where it holds for a smaller one. By bisection over the 2^32
    floats in their order: exact, and an order of magnitude faster than a sort on a CPU.
    """
    bits_SV = jax.lax.bitcast_convert_type(x_SV.astype(jnp.float32), jnp.int32)
    order_SV = jnp.where(bits_SV < 0, bits_SV ^ 0x7FFFFFFF, bits_SV)

    def halve(_, bounds):
        low_S, high_S = bounds
        middle_S = (low_S >> 1) + (high_S >> 1) + (low_S & high_S & 1) + ((low_S ^ high_S) & 1)
        ok_S = enough(order_SV >= middle_S[:, None])
        return jnp.where(ok_S, middle_S, low_S), jnp.where(ok_S, high_S, middle_S - 1)

    S, ends = x_SV.shape[0], jnp.iinfo(jnp.int32)
    bounds = jnp.full(S, ends.min, jnp.int32), jnp.full(S, ends.max, jnp.int32)
    return order_SV >= jax.lax.fori_loop(0, 32, halve, bounds)[0][:, None]


def keep(logits_SV: jax.Array, rows: Rows) -> jax.Array:
    """top_k, then top_p of what is left (Holtzman et al. 2020), then min_p: what goes becomes -inf; ties stay."""
    p_SV = jnp.exp(logits_SV - logits_SV.max(-1, keepdims=True))
    k_S = jnp.where(rows.top_k_S > 0, rows.top_k_S, logits_SV.shape[-1])
    kept_SV = largest(logits_SV, lambda mask_SV: mask_SV.sum(-1) >= k_S)
    p_SV *= kept_SV
    need_S = rows.top_p_S * p_SV.sum(-1)
    some_SV = largest(logits_SV, lambda mask_SV: (jnp.sum(p_SV * mask_SV, -1) >= need_S) & mask_SV.any(-1))
    kept_SV &= some_SV | (rows.top_p_S >= 1)[:, None]
    return jnp.where(kept_SV & (p_SV >= rows.min_p_S[:, None]), logits_SV, NEVER)


def adjust(logits_SV: jax.Array, rows: Rows, text: Text) -> jax.Array:
    """Logits after penalties and bias."""
    seen_SV = text.prompt_SV | (text.made_SV > 0)
    rate_S1 = rows.repetition_penalty_S[:, None]
    punished_SV = jnp.where(logits_SV > 0, logits_SV / rate_S1, logits_SV * rate_S1)
    logits_SV = jnp.where(seen_SV, punished_SV, logits_SV)
    logits_SV -= rows.frequency_penalty_S[:, None] * text.made_SV
    logits_SV -= rows.presence_penalty_S[:, None] * (text.made_SV > 0)
    return logits_SV + jnp.where(rows.bias_S[:, None], text.bias_SV, 0.0)


def masked(logits_BV: jax.Array, pieces: int) -> jax.Array:
    """Logits of what the tokenizer has: rows of the table beyond `pieces` never come."""
    return jnp.where(jnp.arange(logits_BV.shape[-1]) < pieces, logits_BV, NEVER)


def draw(logits_SV: jax.Array, rows: Rows, text: Text, at_S: jax.Array, pieces: int) -> Drawn:
    """The next token of every row; `at_S` counts its draws so far."""
    model_SV = masked(logits_SV, pieces)
    adjusts = (rows.repetition_penalty_S != 1) | (rows.presence_penalty_S != 0) | (rows.frequency_penalty_S != 0)
    logits_SV = jax.lax.cond(jnp.any(adjusts | rows.bias_S), lambda x: adjust(x, rows, text), lambda x: x, model_SV)
    hot_S = rows.temperature_S > 0
    filters = (rows.top_k_S > 0) | (rows.top_p_S < 1) | (rows.min_p_S > 0)

    def gumbel(logits_SV):
        warm_SV = logits_SV / jnp.where(hot_S, rows.temperature_S, 1.0)[:, None]
        warm_SV = jax.lax.cond(jnp.any(hot_S & filters), lambda x: keep(x, rows), lambda x: x, warm_SV)
        keys_S = jax.vmap(lambda seed, at: jax.random.fold_in(jax.random.key(seed), at))(rows.seed_S, at_S)
        noise_SV = jax.vmap(lambda key: jax.random.gumbel(key, logits_SV.shape[1:]))(keys_S)
        return jnp.where(hot_S, argmax(warm_SV + noise_SV), argmax(logits_SV))

    token_S = jax.lax.cond(jnp.any(hot_S), gumbel, argmax, logits_SV).astype(jnp.int32)
    unscored = partial(Drawn.unscored, V=logits_SV.shape[-1])
    return jax.lax.cond(jnp.any(rows.logprobs_S), partial(scored, model_SV), unscored, token_S)


def scored(logits_SV: jax.Array, token_S: jax.Array) -> Drawn:
    """`token_S` with log p of each, and the likeliest tokens with theirs."""
    logp_SV = jax.nn.log_softmax(logits_SV)
    top_logprob_SK, top_SK = jax.lax.top_k(logp_SV, min(TOP, logits_SV.shape[-1]))
    return Drawn(token_S, jnp.take_along_axis(logp_SV, token_S[:, None], -1)[:, 0], top_SK, top_logprob_SK)
