"""A price on hidden activations, so that most of a gated-ReLU layer's are exactly 0 (Cetin et al. 2026)."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch

RECTIFIED = ("reglu", "relu2")  # what has exact zeros


def forward(cfg: ModelConfig, weight: float) -> Callable:
    """(params, batch, **how) -> hidden_BLD, and the function that adds the price to a sum of losses over tokens:

        sum_t w_t (loss_t + weight * mean over layers of sum_j |h_tj|)

    A weight of 0 is the plain forward pass; above it an activation without exact zeros is a `UserError`.
    """
    if not weight:
        return partial(_plain, cfg=cfg)
    require(
        cfg.mlp in RECTIFIED,
        f"--objective.activation-l1 wants activations that can be 0; set --model.mlp {' or '.join(RECTIFIED)}",
    )
    return partial(_priced, cfg=cfg, weight=weight)


def _plain(params, batch: Batch, *, cfg: ModelConfig, **how):
    return transformer.apply(params, batch, cfg, **how), lambda loss: loss


def _priced(params, batch: Batch, *, cfg: ModelConfig, weight: float, **how):
    hidden_BLD, l1_NBL = transformer.watched(params, batch, cfg, watch=l1, **how)
    return hidden_BLD, lambda loss: loss + weight * jnp.sum(batch.weights * jnp.mean(l1_NBL, axis=0))


def l1(h_BLF):
    """sum_j |h_j| of every token, in float32."""
    return jnp.sum(jnp.abs(h_BLF), axis=-1, dtype=jnp.float32)
