"""Input tokens replaced by others, targets clean: a wrapper round any objective, or copies beside its clean rows.

Every token that may be touched (no padding, no control piece, no soft prompt) is replaced with probability
share * ramp(step), by a piece that `KINDS` draws. In place the batch is replaced before anything else is done with it,
so that every attack and every penalty sees it; as copies, n rows are trained corrupted beside all clean ones:
(CE(x) + w CE(x')) / W, W being the weight of the clean tokens. `gradient` draws C pieces a row and takes, for every
token, the one with the largest first-order change of the loss, e_c . dL/de (HotFlip, Ebrahimi et al. 2018; the token's
own e_t . dL/de is the same for all of them).
"""

import dataclasses

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config
from chinchilla_jax.model.linear import look_up
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.perturb import allowed
from chinchilla_jax.types import Batch


def share(config: Config, step) -> jax.Array:
    """The probability that a token is replaced at `step`."""
    cfg, steps = config.corruption, config.train.steps
    begin, ramp, end = cfg.start * steps, cfg.ramp * steps, cfg.stop * steps
    rising = jnp.clip((step - begin) / ramp, 0.0, 1.0) if ramp else 1.0
    return cfg.share * rising * ((step >= begin - 1e-6) & (step < end - 1e-6))


def free(config: Config, batch: Batch) -> jax.Array:
    """True where a token may be replaced: (B, L)."""
    return (allowed(batch, config.adversarial.control)[..., 0] > 0) & (batch.tokens < config.model.vocab_size)


def pieces(config: Config, key, shape: tuple[int, ...]) -> jax.Array:
    """Pieces drawn uniformly from the vocabulary without its control pieces."""
    special = sorted({piece for piece in config.adversarial.control if piece < config.model.vocab_size})
    drawn = jax.random.randint(key, shape, 0, config.model.vocab_size - len(special))
    for piece in special:
        drawn += drawn >= piece
    return drawn


def unigram(config: Config, key, batch: Batch, score) -> jax.Array:
    """Tokens of the batch itself, each as likely as it is there, whatever is padding or control left out."""
    rank = jnp.cumsum(free(config, batch).reshape(-1))
    wanted = jax.random.randint(key, batch.tokens.shape, 1, jnp.maximum(rank[-1], 1) + 1)
    return batch.tokens.reshape(-1)[jnp.searchsorted(rank, wanted)]


def worst(config: Config, key, batch: Batch, score) -> jax.Array:
    """Of C pieces a row the one that `score(pieces_BC) -> (B, L, C)` finds worst for each token."""
    drawn_BC = pieces(config, key, (len(batch.tokens), config.corruption.candidates))
    best_BL = jnp.argmax(score(drawn_BC), axis=-1)
    return jnp.take_along_axis(drawn_BC, best_BL, axis=1)


KINDS = {
    "uniform": lambda config, key, batch, score: pieces(config, key, batch.tokens.shape),
    "unigram": unigram,
    "mask": lambda config, key, batch, score: jnp.full_like(batch.tokens, config.corruption.mask_piece),
    "gradient": worst,
}


def replaced(config: Config, batch: Batch, key, step, score=None) -> Batch:
    """`batch` with a share of its input tokens replaced; `score` is for `worst` alone."""
    where, which = jax.random.split(jax.random.fold_in(key, 2))
    hit_BL = jax.random.bernoulli(where, share(config, step), batch.tokens.shape) & free(config, batch)
    new_BL = KINDS[config.corruption.kind](config, which, batch, score)
    return dataclasses.replace(batch, tokens=jnp.where(hit_BL, new_BL.astype(batch.tokens.dtype), batch.tokens))


def scored(embedding_VD: jax.Array, slope_BLD: jax.Array):
    """e_c . dL/de of candidates (B, C) at every token: (B, L, C)."""
    return lambda drawn_BC: jnp.einsum("bld,bcd->blc", slope_BLD.astype(jnp.float32), look_up(embedding_VD, drawn_BC))


def in_place(base: Objective, objective: Objective, config: Config) -> Objective:
    """`objective`, made from `base`, on corrupted rows alone."""

    def gradients(params, batch, key, step, carry):
        score = None
        if config.corruption.slopes:
            zeros_BLD = jnp.zeros((*batch.tokens.shape, config.model.d_model))
            slope_BLD = jax.grad(lambda delta_BLD: base.loss(params, batch, key, delta_BLD)[0])(zeros_BLD)
            score = scored(base.embedding(params), slope_BLD)
        return objective.gradients(params, replaced(config, batch, key, step, score), key, step, carry)

    return objective._replace(gradients=gradients)
