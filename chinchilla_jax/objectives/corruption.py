"""Input tokens replaced by others, targets clean: a wrapper round any objective, or copies beside its clean rows.

Every token that may be touched (no padding, no control piece, no soft prompt) is replaced with probability
share * ramp(step), by a piece that `KINDS` draws. In place every attack and every penalty sees the replaced batch; as
copies, n rows are trained corrupted beside all clean ones: (CE(x) + w CE(x')) / W, W the weight of the clean tokens.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config, whole_rows
from chinchilla_jax.model.linear import look_up
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.passes import Pass, Term
from chinchilla_jax.objectives.perturb import allowed
from chinchilla_jax.types import Batch, Sums


def share(config: Config, step) -> jax.Array:
    """The probability that a token is replaced at `step`."""
    cfg, steps = config.corruption, config.train.steps
    rising = jnp.clip((step - cfg.start * steps) / (cfg.ramp * steps), 0.0, 1.0) if cfg.ramp else 1.0
    return cfg.share * rising * cfg.due(step, steps)


def free(config: Config, batch: Batch) -> jax.Array:
    """True where a token may be replaced: (B, L)."""
    return allowed(batch, config.adversarial.control, config.model.vocab_size)[..., 0] > 0


def pieces(config: Config, key, shape: tuple[int, ...]) -> jax.Array:
    """Pieces drawn uniformly from the vocabulary without its control pieces."""
    special = sorted({piece for piece in config.adversarial.control if piece < config.model.vocab_size})
    drawn = jax.random.randint(key, shape, 0, config.model.vocab_size - len(special))
    for piece in special:
        drawn += drawn >= piece
    return drawn


def unigram(config: Config, key, batch: Batch, gradient) -> jax.Array:
    """Tokens of the batch itself, each as likely as it is there, whatever is padding or control left out."""
    rank = jnp.cumsum(free(config, batch).reshape(-1))
    wanted = jax.random.randint(key, batch.tokens.shape, 1, jnp.maximum(rank[-1], 1) + 1)
    return batch.tokens.reshape(-1)[jnp.searchsorted(rank, wanted)]


def worst(config: Config, key, batch: Batch, gradient) -> jax.Array:
    """Of C pieces a row the one of the largest (e_c - e_t) . dL/de, e_t being that of all (Ebrahimi et al. 2018)."""
    embedding_VD, slope_BLD = gradient
    drawn_BC = pieces(config, key, (len(batch.tokens), config.corruption.candidates))
    score_BLC = jnp.einsum("bld,bcd->blc", slope_BLD.astype(jnp.float32), look_up(embedding_VD, drawn_BC))
    return jnp.take_along_axis(drawn_BC, jnp.argmax(score_BLC, axis=-1), axis=1)


KINDS = {
    "uniform": lambda config, key, batch, gradient: pieces(config, key, batch.tokens.shape),
    "unigram": unigram,
    "mask": lambda config, key, batch, gradient: jnp.full_like(batch.tokens, config.corruption.mask_piece),
    "gradient": worst,
}


def replaced(config: Config, batch: Batch, key, step, gradient=None) -> Batch:
    """`batch` with a share of its input tokens replaced; `gradient`, for `worst` alone: the embedding, and dL/de."""
    where, which = jax.random.split(jax.random.fold_in(key, 2))
    hit_BL = jax.random.bernoulli(where, share(config, step), batch.tokens.shape) & free(config, batch)
    new_BL = KINDS[config.corruption.kind](config, which, batch, gradient)
    return replace(batch, tokens=jnp.where(hit_BL, new_BL.astype(batch.tokens.dtype), batch.tokens))


def in_place(base: Objective, objective: Objective, config: Config) -> Objective:
    """`objective`, made from `base`, on corrupted rows alone."""

    def gradients(params, batch, key, step, carry):
        gradient = None
        if config.corruption.slopes:
            zeros_BLD = jnp.zeros((*batch.tokens.shape, config.model.d_model))
            slope_BLD = jax.grad(lambda delta_BLD: base.loss(params, batch, key, delta_BLD)[0])(zeros_BLD)
            gradient = base.embedding(params), slope_BLD
        return objective.gradients(params, replaced(config, batch, key, step, gradient), key, step, carry)

    return objective._replace(gradients=gradients)


def count(now: Pass) -> int:
    """The rows that are copied."""
    return whole_rows(now.config.corruption.copies, len(now.batch.tokens))


def copies(now: Pass):
    """Corrupted copies of some rows, with their labels."""
    at = now.rows(count(now))
    gradient = at.base.embedding(at.params), at.slope_nLD
    at = replace(at, batch=replaced(at.config, at.batch, at.key, at.step, gradient))
    grads, _, losses_nL = at.everything(at.config.corruption.weight)
    return (grads, jnp.zeros_like(now.hidden_BLD)), Sums.of(losses_nL, at.batch.weights)


COPIES = Term(
    copies,
    shows="loss_corrupted",
    due=lambda now: now.config.corruption.due(now.step, now.config.train.steps),
    slopes=lambda now: count(now) * now.config.corruption.slopes,
)
