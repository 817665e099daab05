"""Dense next-token prediction: a cross-entropy at every position, tile by tile."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, ObjectiveConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.losses import gold
from chinchilla_jax.objectives.objective import Objective, plain
from chinchilla_jax.parallel.tiles import Tiling, over_tiles, sweep, tile_size
from chinchilla_jax.types import Batch, Sums

RECTIFIED = ("reglu", "relu2")  # what has exact zeros
# Logits rounded to bfloat16 move half the bytes, as in PyTorch under autocast: the loss changes by 1e-4 of itself and
# its gradient by 0.002 to 0.009 (docs/lab_book.md). Sums and exponentials are float32 either way.
LOGITS = {"cuda": "compute"}


def _indexed(x_SMV, targets_SM):
    return jnp.take_along_axis(x_SMV, targets_SM[..., None], axis=-1)[..., 0]


GOLD = {"cpu": _indexed}  # XLA:CPU would write the masked logits and read them again


def tile_losses(table_VD, z_loss, tile, logits="float32", kernels="reference"):
    """The losses of a tile's tokens, and what their gradient needs."""
    x_SMD, targets_SM = tile
    dtype = x_SMD.dtype if logits == "compute" else jnp.float32
    logits_SMV = jnp.einsum("smd,vd->smv", x_SMD, table_VD, preferred_element_type=dtype).astype(jnp.float32)
    largest_SM1 = logits_SMV.max(-1, keepdims=True)
    p_SMV = jnp.exp(logits_SMV - largest_SM1)
    sum_SM1 = p_SMV.sum(-1, keepdims=True)
    norm_SM = (largest_SM1 + jnp.log(sum_SM1))[..., 0]
    hit_SMV = jnp.arange(table_VD.shape[0]) == targets_SM[..., None]
    gold_SM = GOLD.get(kernels, gold)(logits_SMV, targets_SM)
    return norm_SM - gold_SM + z_loss * jnp.square(norm_SM), (p_SMV, sum_SM1, norm_SM, hit_SMV)


def tile_gradients(z_loss, logits, kernels, table_VD, tile):
    """Loss, gradient of hidden states, factors of the table's gradient: d/dlogits = softmax (1 + 2 z norm) - onehot."""
    x_SMD, targets_SM, weights_SM = tile
    losses_SM, (p_SMV, sum_SM1, norm_SM, hit_SMV) = tile_losses(table_VD, z_loss, (x_SMD, targets_SM), logits, kernels)
    scale_SM1 = (weights_SM * (1 + 2 * z_loss * norm_SM))[..., None] / sum_SM1
    dlogits_SMV = (p_SMV * scale_SM1 - jnp.where(hit_SMV, weights_SM[..., None], 0.0)).astype(x_SMD.dtype)
    dx_SMD = jnp.einsum("smv,vd->smd", dlogits_SMV, table_VD)
    return jnp.sum(weights_SM * losses_SM), (dx_SMD, losses_SM), [(dlogits_SMV, x_SMD)]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    hidden_BLD, table_VD, targets_BL, weights_BL, z_loss: float, tiling: Tiling, logits: str = "float32"
) -> jax.Array:
    """sum over tokens of weight * (log Z - logit[target] + z_loss * log(Z)^2), in nats and float32.

    Differentiable in the hidden states, the table and the weights: d/dweight is the loss of a token, so a backward pass
    that is made anyway tells the loss of every token.
    """

    def summed(table_VD, tile):
        return jnp.sum(tile[2] * tile_losses(table_VD, z_loss, tile[:2], logits, tiling.kernels)[0]), ()

    return over_tiles(summed, table_VD, (hidden_BLD, targets_BL, weights_BL), tiling)[0]


def _forward(hidden_BLD, table_VD, targets_BL, weights_BL, z_loss, tiling, logits):
    arrays = hidden_BLD, targets_BL, weights_BL
    of_tile = partial(tile_gradients, z_loss, logits, tiling.kernels)
    loss, (dx_BLD, losses_BL), dtable_VD = sweep(of_tile, table_VD, arrays, tiling)
    return loss, (dx_BLD, dtable_VD, losses_BL)


def _backward(z_loss, tiling, logits, saved, cotangent):
    dx_BLD, dtable_VD, losses_BL = saved
    return dx_BLD * cotangent.astype(dx_BLD.dtype), dtable_VD * cotangent, None, losses_BL * cotangent


cross_entropy.defvjp(_forward, _backward)


def token_losses(hidden_BLD, table_VD, targets_BL, weights_BL, tiling: Tiling) -> jax.Array:
    """-log p of every target that has a weight (B, L), without anything of a gradient."""

    def losses(table_VD, tile):
        return 0.0, (tile_losses(table_VD, 0.0, tile[:2], kernels=tiling.kernels)[0],)

    return over_tiles(losses, table_VD, (hidden_BLD, targets_BL, weights_BL), tiling)[1][0]


def forward(params, batch: Batch, cfg: ModelConfig, weight: float, **how):
    """Hidden states (B, L, D), and what a weight adds to a sum of losses, sum_t w_t weight mean_layers sum_j |h_tj|."""
    watch = l1 if weight else transformer.unwatched
    hidden_BLD, l1_NBL = transformer.forward(params, batch, cfg, watch=watch, **how)
    return hidden_BLD, weight * jnp.sum(batch.weights * jnp.mean(l1_NBL, axis=0)) if weight else 0.0


def l1(h_BLF):
    """sum_j |h_j| of every token, in float32."""
    return jnp.sum(jnp.abs(h_BLF), axis=-1, dtype=jnp.float32)


def counted(params, batch: Batch, cfg: ModelConfig):
    """Hidden states, and {"activation_zeros": Sums} where they can be 0: a token's share, averaged over layers."""
    if cfg.mlp not in RECTIFIED:
        return transformer.apply(params, batch, cfg), {}
    hidden_BLD, zeros_NBL = transformer.forward(params, batch, cfg, watch=zeros)
    return hidden_BLD, {"activation_zeros": Sums.of(jnp.mean(zeros_NBL, axis=0), batch.weights)}


def zeros(h_BLF):
    """The share of every token's activations that are exactly 0, in float32."""
    return jnp.mean(h_BLF == 0, axis=-1, dtype=jnp.float32)


def dense(
    cfg: ModelConfig,
    settings: ObjectiveConfig,
    table: Callable = transformer.unembedding,
    states: Callable = lambda hidden_BLD, table_VD: hidden_BLD,
    own: Callable | None = None,
) -> Objective:
    """Cross-entropy of every token that has a weight; `table(params)` gives the rows (V, D) that are told apart.

    With the rows of a label head for a table and numbers of labels for targets it is a classifier's loss. `states` is
    what of the hidden states meets the rows; `own` is a head that is no softmax over them, so that no divergence of it
    is defined and the objective has no table.
    """
    require(
        not settings.activation_l1 or cfg.mlp in RECTIFIED,
        f"--objective.activation-l1 wants activations that can be 0; set --model.mlp {' or '.join(RECTIFIED)}",
    )
    tiling = tile_size(cfg, settings)
    rounded = LOGITS.get(cfg.kernels, "float32") if settings.logits == "auto" else settings.logits

    def next_token(hidden_BLD, table_VD, batch: Batch, z_loss: float = settings.z_loss, logits: str = rounded):
        loss = cross_entropy(hidden_BLD, table_VD, batch.targets, batch.weights, z_loss, tiling, logits)
        return loss, hidden_BLD

    def met(head, hidden_BLD, params, batch):
        table_VD = table(params)
        return head(states(hidden_BLD, table_VD), table_VD, batch)

    def total(params, batch: Batch, key, delta_BLD=None, head=own or next_token, priced=True, held=False):
        if held:
            params = params | {"embed": jax.lax.stop_gradient(params["embed"])}
        params, weight = transformer.opened(params, batch.tokens), settings.activation_l1 if priced else 0.0
        hidden_BLD, price = forward(params, batch, cfg, weight, delta_BLD=delta_BLD, key=key)
        loss, aux = met(head, hidden_BLD, params, batch)
        return loss + price, aux

    def evaluate(params, batch):
        hidden_BLD, others = counted(params, batch, cfg)
        loss, _ = met(own or partial(next_token, z_loss=0.0, logits="float32"), hidden_BLD, params, batch)
        return Sums(loss, jnp.sum(batch.weights), others)

    fields = own or next_token, None if own else table, transformer.embedding
    return Objective(lambda params: (), plain(total), evaluate, total, *fields)
