"""Losses of two predictions, or of one under a margin, tile by tile; `tiled` differentiates them.

Each takes (logits, hiddens, *arrays), all of a tile: float32 logits (S, M, V) of every hidden state, and gives the loss
of every token and a tuple of further figures (S, M), of which no gradient is taken.

kl, sym_kl   KL(p||q) = sum p (log p - log q) of the clean prediction p and the perturbed q; sym_kl adds KL(q||p). (The
             release of ALUM and SMART uses log(p/(1-p)) in place of log p and a factor 2, which is no divergence.)
rdrop        (CE(q) - CE(p)) / 2 + a/2 symKL(p, q): with CE(p), which is there, the loss of R-Drop (Liang et al. 2021)
margin       cross-entropy under the worst perturbation of the target's output vector, ||d|| <= eps ||w_y||, in closed
             form (Wang, Gong and Liu 2019): logit_y <- logit_y - eps ||w_y|| ||h|| where cos(w_y, h) > 0
"""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.parallel.tiles import Layout, sweep


def divergence(kind: str, logits, hiddens, targets_SM):
    """kind(clean, perturbed) of logits (perturbed, clean); and the cross-entropy under the perturbed prediction."""
    logq_SMV, logp_SMV = map(jax.nn.log_softmax, logits)
    p_SMV, apart_SMV = jnp.exp(logp_SMV), logp_SMV - logq_SMV
    losses_SM = jnp.sum((p_SMV - jnp.exp(logq_SMV) if kind == "sym_kl" else p_SMV) * apart_SMV, axis=-1)
    return losses_SM, (-gold(logq_SMV, targets_SM),)


def rdrop(alpha: float, logits, hiddens, targets_SM):
    """What R-Drop adds to the cross-entropy of the second prediction."""
    symmetric_SM, figures = divergence("sym_kl", logits, hiddens, targets_SM)
    first_SM, second_SM = (-gold(jax.nn.log_softmax(x_SMV), targets_SM) for x_SMV in logits)
    return (first_SM - second_SM + alpha * symmetric_SM) / 2, figures


def gold(x_SMV, targets_SM):
    """The target's entry. No look-up: the vocabulary may be split."""
    return jnp.sum(jnp.where(jnp.arange(x_SMV.shape[-1]) == targets_SM[..., None], x_SMV, 0.0), axis=-1)


def margin(z_loss: float, logits, hiddens, targets_SM, margin_SM):
    """The loss under the lowered logit; and it, and the loss without. `margin_SM` is eps ||w_y||, 0 for no margin."""
    (logits_SMV,), (x_SMD,) = logits, hiddens
    length_SM = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x_SMD.astype(jnp.float32)), axis=-1), 1e-30))
    gold_SM = gold(logits_SMV, targets_SM)
    low_SM = gold_SM - jnp.where(gold_SM > 0, margin_SM, 0.0) * length_SM
    hit_SMV = jnp.arange(logits_SMV.shape[-1]) == targets_SM[..., None]

    def loss(logits_SMV, gold_SM):
        norm_SM = jax.nn.logsumexp(logits_SMV, axis=-1)
        return norm_SM - gold_SM + z_loss * jnp.square(norm_SM)

    losses_SM = loss(jnp.where(hit_SMV, low_SM[..., None], logits_SMV), low_SM)
    return losses_SM, (losses_SM, loss(logits_SMV, gold_SM))


@partial(jax.custom_vjp, nondiff_argnums=(0, 5))
def tiled(of, moving, table_VD, fixed, arrays, tile_tokens: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Sum of weight * loss over tokens, and the further figures of `of` (B, L), of which no gradient is taken.

    `of(logits, hiddens, *arrays) -> losses, figures` is one of the losses above. `moving` are hidden states (B, L, D)
    that meet `table_VD`, to both of which gradients go; `fixed` are (hidden, table) pairs, all constant; of `arrays`
    (B, L) the last one is the weights, which `of` does not see.
    """
    return _tiled_forward(of, moving, table_VD, fixed, arrays, tile_tokens)[0]


def _tiled_forward(of, moving, table_VD, fixed, arrays, tile_tokens):
    batch = moving[0].shape[:2]
    tables = [Layout(table, batch).table(table, moving[0].dtype) for _, table in fixed]
    k, n = len(moving), len(moving) + len(fixed)

    def tile_gradients(table_VD, tile):
        hiddens, (*rest, weights_SM) = tile[:n], tile[n:]
        every = [jnp.einsum("smd,vd->smv", x, t, preferred_element_type=jnp.float32)
                 for x, t in zip(hiddens, [table_VD] * k + tables)]  # fmt: skip

        def total(logits, xs):
            losses_SM, figures = of((*logits, *every[k:]), (*xs, *hiddens[k:]), *rest)
            return jnp.sum(weights_SM * losses_SM), figures

        (loss, figures), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(every[:k], list(hiddens[:k]))
        down = [d_SMV.astype(x.dtype) for d_SMV, x in zip(grads[0], hiddens)]
        dhiddens = tuple(jnp.einsum("smv,vd->smd", d, table_VD) + dx for d, dx in zip(down, grads[1]))
        return loss, (*dhiddens, *figures), list(zip(down, hiddens))

    arrays = (*moving, *(x for x, _ in fixed), *arrays)
    loss, values, dtable_VD = sweep(tile_gradients, table_VD, arrays, tile_tokens)
    return (loss, values[k:]), (values[:k], dtable_VD)


def _tiled_backward(of, tile_tokens, saved, cotangents):
    dmoving, dtable_VD = saved
    return tuple(dx * cotangents[0].astype(dx.dtype) for dx in dmoving), dtable_VD * cotangents[0], None, None


tiled.defvjp(_tiled_forward, _tiled_backward)
