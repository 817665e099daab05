"""A price on hidden activations, so that most of a gated-ReLU layer's are exactly 0 (Cetin et al. 2026)."""

from collections.abc import Callable

import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch, Sums

RECTIFIED = ("reglu", "relu2")  # what has exact zeros


def forward(cfg: ModelConfig, weight: float) -> Callable:
    """(params, batch, *, delta_BLD, key) -> hidden_BLD, and the function that adds the price to a sum of losses:

        sum_t w_t (loss_t + weight * mean over layers of sum_j |h_tj|)

    A weight of 0 is the plain forward pass; above it an activation without exact zeros is a `UserError`.
    """
    require(
        not weight or cfg.mlp in RECTIFIED,
        f"--objective.activation-l1 wants activations that can be 0; set --model.mlp {' or '.join(RECTIFIED)}",
    )

    def plain(params, batch: Batch, *, delta_BLD=None, key=None):
        return transformer.apply(params, batch, cfg, delta_BLD=delta_BLD, key=key), lambda loss: loss

    def priced(params, batch: Batch, *, delta_BLD=None, key=None):
        hidden_BLD, l1_NBL = transformer.forward(params, batch, cfg, delta_BLD=delta_BLD, key=key, watch=l1)
        return hidden_BLD, lambda loss: loss + weight * jnp.sum(batch.weights * jnp.mean(l1_NBL, axis=0))

    return priced if weight else plain


def l1(h_BLF):
    """sum_j |h_j| of every token, in float32."""
    return jnp.sum(jnp.abs(h_BLF), axis=-1, dtype=jnp.float32)


def counted(cfg: ModelConfig) -> Callable:
    """(params, batch) -> hidden_BLD, and {"activation_zeros": Sums} of a model whose activations can be exactly 0.

    Each token counts with the share of its d_ff activations that are 0, averaged over layers.
    """

    def one(params, batch: Batch):
        hidden_BLD, zeros_NBL = transformer.forward(params, batch, cfg, watch=zeros)
        zeros_BL = jnp.mean(zeros_NBL, axis=0)
        return hidden_BLD, {"activation_zeros": Sums(jnp.sum(batch.weights * zeros_BL), jnp.sum(batch.weights))}

    return one if cfg.mlp in RECTIFIED else lambda params, batch: (transformer.apply(params, batch, cfg), {})


def zeros(h_BLF):
    """The share of every token's activations that are exactly 0, in float32."""
    return jnp.mean(h_BLF == 0, axis=-1, dtype=jnp.float32)
