"""Losses of two predictions, or of one under a margin, as `parallel.tiles.tiled` takes them.

kl, sym_kl   KL(p||q) = sum p (log p - log q) of the clean prediction p and the perturbed q; sym_kl adds KL(q||p). (The
             release of ALUM and SMART uses log(p/(1-p)) in place of log p and a factor 2, which is no divergence.)
rdrop        (CE(q) - CE(p)) / 2 + a/2 symKL(p, q): with CE(p), which is there, the loss of R-Drop (Liang et al. 2021)
margin       cross-entropy under the worst perturbation of the target's output vector, ||d|| <= eps ||w_y||, in closed
             form (Wang, Gong and Liu 2019): logit_y <- logit_y - eps ||w_y|| ||h|| where cos(w_y, h) > 0
"""

import jax
import jax.numpy as jnp


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
