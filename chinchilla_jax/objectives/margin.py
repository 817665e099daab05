"""Cross-entropy under the worst perturbation of the target's own output vector, in closed form.

Wang, Gong and Liu, "Improving neural language modeling via adversarial training", ICML 2019: over all d with
||d|| <= eps ||w_y||, the loss of a token with hidden state h and target y is largest at d = -eps ||w_y|| h / ||h||:

    logit_y <- logit_y - eps ||w_y|| ||h||,    where cos(w_y, h) > 0 and with no gradient through ||w_y||
"""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives.tiles import sweep


def _tile_gradients(z_loss, table_VD, tile):
    """As the dense loss's, but for the lowered logit; also the loss without it."""
    x_SMD, targets_SM, weights_SM, margin_SM = tile
    logits_SMV = jnp.einsum("smd,vd->smv", x_SMD, table_VD, preferred_element_type=jnp.float32)
    hit_SMV = jnp.arange(table_VD.shape[0]) == targets_SM[..., None]
    gold_SM = jnp.sum(jnp.where(hit_SMV, logits_SMV, 0.0), axis=-1)
    x32_SMD = x_SMD.astype(jnp.float32)
    length_SM = jnp.sqrt(jnp.sum(jnp.square(x32_SMD), axis=-1))
    margin_SM = jnp.where(gold_SM > 0, margin_SM, 0.0)
    low_SM = gold_SM - margin_SM * length_SM

    lowered_SMV = jnp.where(hit_SMV, low_SM[..., None], logits_SMV)
    largest_SM = lowered_SMV.max(-1)
    p_SMV = jnp.exp(lowered_SMV - largest_SM[..., None])
    sum_SM, low_p_SM = p_SMV.sum(-1), jnp.exp(low_SM - largest_SM)
    norm_SM = largest_SM + jnp.log(sum_SM)
    losses_SM = norm_SM - low_SM + z_loss * jnp.square(norm_SM)
    others_SM = largest_SM + jnp.log(jnp.maximum(sum_SM - low_p_SM, 0.0))
    plain_norm_SM = jnp.logaddexp(others_SM, gold_SM)
    plain_SM = plain_norm_SM - gold_SM + z_loss * jnp.square(plain_norm_SM)

    scale_SM = weights_SM * (1 + 2 * z_loss * norm_SM) / sum_SM
    dlogits_SMV = p_SMV * scale_SM[..., None] - jnp.where(hit_SMV, weights_SM[..., None], 0.0)
    dlogits_SMV = dlogits_SMV.astype(x_SMD.dtype)
    dlow_SM = low_p_SM * scale_SM - weights_SM
    pull_SM1 = (dlow_SM * margin_SM / jnp.maximum(length_SM, 1e-30))[..., None]
    dx_SMD = jnp.einsum("smv,vd->smd", dlogits_SMV, table_VD) - (pull_SM1 * x32_SMD).astype(x_SMD.dtype)
    return jnp.sum(weights_SM * losses_SM), (dx_SMD, losses_SM, plain_SM), [(dlogits_SMV, x_SMD)]


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def margin_cross_entropy(
    hidden_BLD, table_VD, targets_BL, weights_BL, margin_BL, z_loss: float, tile_tokens: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Sum of weight * loss, and the losses of every token with and without the margin (B, L), which have no gradient.

    `margin_BL` is eps ||w_y||, a constant; 0 gives the plain cross-entropy.
    """
    return _forward(hidden_BLD, table_VD, targets_BL, weights_BL, margin_BL, z_loss, tile_tokens)[0]


def _forward(hidden_BLD, table_VD, targets_BL, weights_BL, margin_BL, z_loss, tile_tokens):
    arrays = hidden_BLD, targets_BL, weights_BL, margin_BL
    loss, values, dtable_VD = sweep(partial(_tile_gradients, z_loss), table_VD, arrays, tile_tokens)
    dx_BLD, losses_BL, plain_BL = values
    return (loss, (losses_BL, plain_BL)), (dx_BLD, dtable_VD)


def _backward(z_loss, tile_tokens, saved, cotangents):
    dx_BLD, dtable_VD = saved
    return dx_BLD * cotangents[0].astype(dx_BLD.dtype), dtable_VD * cotangents[0], None, None, None


margin_cross_entropy.defvjp(_forward, _backward)
