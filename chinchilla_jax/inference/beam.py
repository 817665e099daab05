"""Beam search over the cache that serves: of every text the W likeliest beginnings go on side by side.

A finished one is worth log p / ((5 + n) / 6)^a, where n counts its tokens with the end (Wu et al. 2016). The search is
over when nothing that still goes on can be worth more than what is finished. Letters: P texts, W beams, T new tokens.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.inference.sampling import NEVER, masked
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer


class Beam(NamedTuple):
    """What goes on (`live`) and what has ended (`done`), best first; scores of the first are log-probabilities."""

    at: jax.Array
    cache: caches.Cache
    token_PW: jax.Array
    live_PW: jax.Array
    live_PWT: jax.Array
    done_PW: jax.Array
    done_PWT: jax.Array
    length_PW: jax.Array


class Search:
    """`run(weights, cache, token_S)`: the best continuation of every text, its length, and whether it has ended.

    The cache has W slots a text, of which the first is read up to the token before `token_S`, the last of the prompt.
    """

    def __init__(self, cfg: ModelConfig, pieces: int, stops: frozenset[int], width: int, penalty: float, new: int):
        settings = {"cfg": cfg, "pieces": pieces, "stops": tuple(sorted(stops)), "W": width, "a": penalty, "T": new}
        self.run = jax.jit(partial(_search, **settings))


def worth(n, a: float):
    """What the log-probability of n tokens is divided by."""
    return ((5.0 + n) / 6.0) ** a


def gathered(cache: caches.Cache, slot_S: jax.Array, cfg: ModelConfig) -> caches.Cache:
    """The slots with these numbers, in this order."""

    def rows(kept_JTK):
        return caches.by_slot(kept_JTK, len(cache.used_S), cfg)[:, slot_S].reshape(-1, *kept_JTK.shape[1:])

    return caches.Cache(jax.tree.map(rows, cache.stacks), cache.used_S[slot_S])


def pick(x_PC: jax.Array, at_PW: jax.Array) -> jax.Array:
    """x[p, at[p, w]] for what stands behind the first two dimensions."""
    at = at_PW.reshape(at_PW.shape + (1,) * (x_PC.ndim - 2))
    return jnp.take_along_axis(x_PC, at, axis=1)


def _search(weights: Any, cache, token_S, *, cfg, pieces: int, stops: tuple[int, ...], W: int, a: float, T: int):
    P, ends = token_S.shape[0] // W, jnp.array(stops)
    first_PW = jnp.repeat(jnp.arange(P) * W, W)
    empty_PW, blank_PWT = jnp.full((P, W), NEVER), jnp.zeros((P, W, T), jnp.int32)
    begun = Beam(
        jnp.int32(0), gathered(cache, first_PW, cfg), token_S[first_PW].reshape(P, W), empty_PW.at[:, 0].set(0.0),
        blank_PWT, empty_PW, blank_PWT, jnp.zeros((P, W), jnp.int32),
    )  # fmt: skip

    def goes_on(beam: Beam):
        possible_P = beam.live_PW[:, 0] / worth(T, a)  # at most: log-probabilities only fall, and T divides most
        return (beam.at < T) & jnp.any(possible_P > beam.done_PW[:, -1])

    def step(beam: Beam) -> Beam:
        one_S = jnp.ones(P * W, jnp.int32)
        hidden_S1D, cache = caches.extend(weights, beam.token_PW.reshape(-1, 1), one_S, beam.cache, cfg)
        logits_SV = masked(transformer.logits(weights, hidden_S1D[:, 0]), pieces)
        V = logits_SV.shape[-1]
        total_PWV = beam.live_PW[..., None] + jax.nn.log_softmax(logits_SV).reshape(P, W, V)
        # Twice as many as there are beams: with one end each, as many go on. More ends take more.
        many = min(W * (1 + len(stops)), W * V)
        score_PC, flat_PC = jax.lax.top_k(total_PWV.reshape(P, W * V), many)
        from_PC, next_PC = flat_PC // V, (flat_PC % V).astype(jnp.int32)
        over_PC = jnp.isin(next_PC, ends)
        made_PCT = pick(beam.live_PWT, from_PC)
        # Ended: without the end token, which counts in the length that divides.
        ended_PC = jnp.where(over_PC, score_PC / worth(beam.at + 1, a), NEVER)
        done_PW, at_PW = jax.lax.top_k(jnp.concatenate([beam.done_PW, ended_PC], 1), W)
        done_PWT = pick(jnp.concatenate([beam.done_PWT, made_PCT], 1), at_PW)
        length_PC = jnp.broadcast_to(beam.at, ended_PC.shape)
        length_PW = pick(jnp.concatenate([beam.length_PW, length_PC], 1), at_PW)
        # Going on.
        live_PW, at_PW = jax.lax.top_k(jnp.where(over_PC, NEVER, score_PC), W)
        token_PW, from_PW = pick(next_PC, at_PW), pick(from_PC, at_PW)
        live_PWT = pick(made_PCT, at_PW).at[:, :, beam.at].set(token_PW)
        slot_S = (jnp.arange(P)[:, None] * W + from_PW).reshape(-1)
        return Beam(
            beam.at + 1, gathered(cache, slot_S, cfg), token_PW, live_PW, live_PWT, done_PW, done_PWT, length_PW
        )

    beam = jax.lax.while_loop(goes_on, step, begun)
    ended_P = beam.done_PW[:, 0] > NEVER
    made_PT = jnp.where(ended_P[:, None], beam.done_PWT[:, 0], beam.live_PWT[:, 0])
    return made_PT, jnp.where(ended_P, beam.length_PW[:, 0], beam.at), ended_P


def rewound(cache: caches.Cache) -> caches.Cache:
    """The cache without the last token of every slot, to be read once more for what follows it."""
    return dataclasses.replace(cache, used_S=jnp.maximum(cache.used_S - 1, 0))


def endings(weights: Any, cache, token_1, next_CL: np.ndarray, *, cfg: ModelConfig, pieces: int) -> jax.Array:
    """log p of every token of C endings (C, L) behind the text of slot 0, whose last token is `token_1`."""
    C, L = next_CL.shape
    shown = gathered(rewound(cache), jnp.zeros(C, jnp.int32), cfg)
    tokens_CL = jnp.concatenate([jnp.broadcast_to(token_1, (C, 1)), next_CL[:, :-1]], axis=1)
    hidden_CLD, _ = caches.extend(weights, tokens_CL, jnp.full(C, L), shown, cfg)
    logits_BV = transformer.logits(weights, hidden_CLD.reshape(C * L, -1))
    logp_BV = jax.nn.log_softmax(masked(logits_BV, pieces))
    return jnp.take_along_axis(logp_BV, next_CL.reshape(-1, 1), axis=-1).reshape(C, L)
