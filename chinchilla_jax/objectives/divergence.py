"""How far two predictions of the same tokens lie apart, tile by tile.

With logits a of the reference p and b of the perturbed q, for one token, in nats:

    KL(p||q) = sum p (log p - log q)     d/db = q - p      d/da = p (log p - log q - KL(p||q))
    KL(q||p) is the same with the two changed over; sym_kl is the sum of both.

(The release of ALUM and SMART uses log(p/(1-p)) in place of log p and a factor 2, which is no divergence; not this.)
"""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives.tiles import sweep


def _log_softmax(x_SMD, table_VD):
    logits_SMV = jnp.einsum("smd,vd->smv", x_SMD, table_VD, preferred_element_type=jnp.float32)
    return jax.nn.log_softmax(logits_SMV, axis=-1)


def _tile_gradients(kind, both, table_VD, tile):
    """Loss of a tile, gradients of both hidden states (of q's alone unless `both`), cross-entropies under q."""
    y_SMD, x_SMD, targets_SM, weights_SM = tile
    logp_SMV, logq_SMV = _log_softmax(x_SMD, table_VD), _log_softmax(y_SMD, table_VD)
    p_SMV, q_SMV, apart_SMV = jnp.exp(logp_SMV), jnp.exp(logq_SMV), logp_SMV - logq_SMV
    forth_SM1 = jnp.sum(p_SMV * apart_SMV, axis=-1, keepdims=True)
    back_SM1 = -jnp.sum(q_SMV * apart_SMV, axis=-1, keepdims=True)
    symmetric = float(kind == "sym_kl")
    losses_SM = (forth_SM1 + symmetric * back_SM1)[..., 0]
    weights_SM1 = weights_SM[..., None]

    def products(dlogits_SMV, hidden_SMD):
        dlogits_SMV = (weights_SM1 * dlogits_SMV).astype(hidden_SMD.dtype)
        return jnp.einsum("smv,vd->smd", dlogits_SMV, table_VD), (dlogits_SMV, hidden_SMD)

    dy_SMD, of_table = products(q_SMV - p_SMV - symmetric * q_SMV * (apart_SMV + back_SM1), y_SMD)
    dx_SMD, more = jnp.zeros_like(x_SMD), []
    if both:
        dx_SMD, also = products(p_SMV * (apart_SMV - forth_SM1) + symmetric * (p_SMV - q_SMV), x_SMD)
        more = [also]
    hit_SMV = jnp.arange(table_VD.shape[0]) == targets_SM[..., None]
    entropies_SM = -jnp.sum(jnp.where(hit_SMV, logq_SMV, 0.0), axis=-1)
    return jnp.sum(weights_SM * losses_SM), (dy_SMD, dx_SMD, entropies_SM), [of_table, *more]


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def divergence(perturbed_BLD, clean_BLD, table_VD, targets_BL, weights_BL, kind: str, both: bool, tile_tokens: int):
    """(sum of weight * kind(clean, perturbed), cross-entropy of every token under the perturbed prediction (B, L)).

    `kind` is kl, which is KL(clean||perturbed), or sym_kl. Gradients reach the perturbed hidden states and the table,
    and unless `both` the clean prediction is a constant. No gradient goes through the cross-entropies.
    """
    return _forward(perturbed_BLD, clean_BLD, table_VD, targets_BL, weights_BL, kind, both, tile_tokens)[0]


def _forward(perturbed_BLD, clean_BLD, table_VD, targets_BL, weights_BL, kind, both, tile_tokens):
    arrays = perturbed_BLD, clean_BLD, targets_BL, weights_BL
    loss, values, dtable_VD = sweep(partial(_tile_gradients, kind, both), table_VD, arrays, tile_tokens)
    dy_BLD, dx_BLD, entropies_BL = values
    return (loss, entropies_BL), (dy_BLD, dx_BLD if both else None, dtable_VD)


def _backward(kind, both, tile_tokens, saved, cotangents):
    dy_BLD, dx_BLD, dtable_VD = saved
    cotangent = cotangents[0]
    dx_BLD = dx_BLD * cotangent.astype(dy_BLD.dtype) if both else None
    return dy_BLD * cotangent.astype(dy_BLD.dtype), dx_BLD, dtable_VD * cotangent, None, None


divergence.defvjp(_forward, _backward)
