"""Perturbations of embeddings: their size, the balls that hold them, their first values and their steps.

All of it is in float32, whatever the model computes in: the square of a token's gradient may underflow where the
gradient itself does not. `norm` says what the radius bounds, in every function here:

l2_token      the L2 norm of each token's perturbation (length-free and width-free; Xhonneux et al. 2024, CAT)
l2_sequence   the L2 norm over all tokens of a document together (Miyato et al. 2017; Zhu et al. 2020, FreeLB)
linf          every coordinate (Liu et al. 2020, ALUM; Aghajanyan et al. 2021, R3F)
"""

import jax
import jax.numpy as jnp

from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Batch


def unit(kind: str, table_VD: jax.Array, batch: Batch, norm: str = "l2_token") -> jax.Array:
    """What a radius of 1 is, of which no gradient is taken: (B, L, 1), or one number for all.

    token      |e_t|, the norm of the token's own row, so that a radius is a share of what it perturbs, whatever pieces
               the vocabulary has; over a document (l2_sequence) the mean over its tokens
    table      the mean norm of the table's rows, pieces that never occur included
    absolute   1
    """
    if kind == "absolute":
        return jnp.ones(())
    norm_V = jax.lax.stop_gradient(jnp.linalg.norm(table_VD.astype(jnp.float32), axis=-1))
    if kind == "table":
        return jnp.mean(norm_V)
    there_BL = (batch.segments > 0).astype(jnp.float32)
    norm_BL = constrain(norm_V, None)[batch.tokens] * there_BL
    count_BL = jnp.maximum(shared(there_BL, batch.segments, norm), 1.0)
    return (shared(norm_BL, batch.segments, norm) / count_BL)[..., None]


def allowed(batch: Batch, special: tuple[int, ...], vocab: int = 2**31 - 1) -> jax.Array:
    """1 where a token may be perturbed, 0 on padding, control pieces and, from `vocab` on, soft prompts: (B, L, 1)."""
    real_BL = (batch.segments > 0) & (batch.tokens < vocab)
    for piece in special:
        real_BL &= batch.tokens != piece
    return real_BL.astype(jnp.float32)[..., None]


def shared(x_BL, segments_BL, norm, reduce=jax.ops.segment_sum):
    """`reduce` over what shares a ball with each token: the document for l2_sequence, else nothing but itself."""
    if norm != "l2_sequence":
        return x_BL
    most = x_BL.shape[1] + 1  # numbers of documents in a row, that of padding included
    return jax.vmap(lambda x_L, at_L: reduce(x_L, at_L, most)[at_L])(x_BL, segments_BL)


def steepest(g_BLD: jax.Array, segments_BL: jax.Array, norm: str) -> jax.Array:
    """The point of the unit ball along which a loss with gradient g grows fastest; 0 where g is.

    g / ||g|| for the L2 balls, sign(g) for linf. (FreeLB's code steps by g / max|g| in its linf branch; not this.)
    """
    g_BLD = g_BLD.astype(jnp.float32)
    if norm == "linf":
        return jnp.sign(g_BLD)
    largest_BL1 = shared(jnp.abs(g_BLD).max(-1), segments_BL, norm, jax.ops.segment_max)[..., None]
    g_BLD = g_BLD / jnp.where(largest_BL1 > 0, largest_BL1, 1.0)  # so that no square underflows
    return g_BLD / jnp.where(largest_BL1 > 0, _length(g_BLD, segments_BL, norm), 1.0)


def _length(x_BLD, segments_BL, norm):
    """The L2 norm that the ball bounds, at each of its tokens: (B, L, 1)."""
    return jnp.sqrt(shared(jnp.sum(jnp.square(x_BLD), -1), segments_BL, norm))[..., None]


def project(delta_BLD: jax.Array, segments_BL: jax.Array, size: jax.Array, norm: str) -> jax.Array:
    """The nearest point of the ball of radius `size`."""
    if norm == "linf":
        return jnp.clip(delta_BLD, -size, size)
    length_BL1 = _length(delta_BLD, segments_BL, norm)
    return delta_BLD * jnp.where(length_BL1 > size, size / jnp.maximum(length_BL1, 1e-30), 1.0)


def draw(key: jax.Array, batch: Batch, width: int, size: jax.Array, norm: str, kind: str) -> jax.Array:
    """A random perturbation (B, L, D) that does not depend on how rows are laid out.

    uniform: U(-1, 1) size / sqrt(D) for l2_token, size / sqrt(n D) in a document of n tokens, padding not counted, for
    l2_sequence (NEFTune's rule with alpha = size, and FreeLB's start), size for linf (R3F). gaussian: so with N(0, 1).
    """
    shape = (*batch.tokens.shape, width)
    if kind == "zeros":
        return jnp.zeros(shape)
    drawn_BLD = jax.random.uniform(key, shape, minval=-1.0) if kind == "uniform" else jax.random.normal(key, shape)
    there_BL = (batch.segments > 0).astype(jnp.float32)
    count_BL1 = jnp.maximum(shared(there_BL, batch.segments, norm), 1.0)[..., None]
    scale_BL1 = 1.0 if norm == "linf" else 1 / jnp.sqrt(width * count_BL1)
    return drawn_BLD * size * scale_BL1
