"""Dense next-token prediction: a cross-entropy at every position, tile by tile.

The logits of all positions never exist together: a tile of positions meets the whole vocabulary, and its gradients are
formed at once in the same sweep, so that logits are computed once (three products instead of four).
"""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Batch, Sums

# Tokens of a tile on one device: large enough to keep the product at full rate, small enough to stay out of the way.
TILE_TOKENS = {"cpu": 1024, "reference": 1024, "cuda": 8192, "tpu": 8192}
TILE_LOGITS = 2**28  # and never more logits than this, a gigabyte in float32


def _tiles(hidden_BLD, targets_BL, weights_BL, tile_tokens: int):
    """Cut (B, L) along L into n tiles of at most about `tile_tokens` tokens a shard: leaves (n, S, M, ...).

    S, the shards of the batch, stays an axis of its own, so that each device sums the table's gradient over its own
    tokens and the sum over devices happens once, after the last tile.
    """
    mesh = jax.sharding.get_abstract_mesh()
    S = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    B, L = targets_BL.shape
    n = -(-(B // S) * L // tile_tokens)
    length = -(-L // n)
    n = -(-L // length)

    def cut(x):
        x = jnp.pad(x, [(0, 0), (0, n * length - L)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(S, B // S, n, length, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0).reshape(n, S, B // S * length, *x.shape[4:])

    def join(tiles):
        x = tiles.reshape(n, S, B // S, length, *tiles.shape[3:])
        return jnp.moveaxis(x, 0, 2).reshape(B, n * length, *tiles.shape[3:])[:, :L]

    return tuple(map(cut, (hidden_BLD, targets_BL, weights_BL))), join


def _tile_loss(table_VD, z_loss, tile):
    """Sum of a tile's losses, and what its gradient needs. Letters: S shards, M tokens of a tile in a shard."""
    x_SMD, targets_SM, weights_SM = tile
    logits_SMV = jnp.einsum("smd,vd->smv", x_SMD, table_VD, preferred_element_type=jnp.float32)
    largest_SM1 = logits_SMV.max(-1, keepdims=True)
    p_SMV = jnp.exp(logits_SMV - largest_SM1)
    sum_SM1 = p_SMV.sum(-1, keepdims=True)
    norm_SM = (largest_SM1 + jnp.log(sum_SM1))[..., 0]
    hit_SMV = jnp.arange(table_VD.shape[0]) == targets_SM[..., None]  # no look-up: the vocabulary may be split
    gold_SM = jnp.sum(jnp.where(hit_SMV, logits_SMV, 0.0), axis=-1)
    loss = jnp.sum(weights_SM * (norm_SM - gold_SM + z_loss * jnp.square(norm_SM)))
    return loss, (p_SMV, sum_SM1, norm_SM, hit_SMV)


def _tile_gradients(table_VD, z_loss, tile):
    """Loss, gradient of the tile's hidden states and of the table: d/dlogits = softmax (1 + 2 z norm) - onehot."""
    x_SMD, _, weights_SM = tile
    loss, (p_SMV, sum_SM1, norm_SM, hit_SMV) = _tile_loss(table_VD, z_loss, tile)
    scale_SM1 = (weights_SM * (1 + 2 * z_loss * norm_SM))[..., None] / sum_SM1
    dlogits_SMV = (p_SMV * scale_SM1 - jnp.where(hit_SMV, weights_SM[..., None], 0.0)).astype(x_SMD.dtype)
    dx_SMD = jnp.einsum("smv,vd->smd", dlogits_SMV, table_VD)
    dtable_SVD = jnp.einsum("smv,smd->svd", dlogits_SMV, x_SMD, preferred_element_type=jnp.float32)
    return loss, dx_SMD, dtable_SVD


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(hidden_BLD, table_VD, targets_BL, weights_BL, z_loss: float, tile_tokens: int) -> jax.Array:
    """sum over tokens of weight * (log Z - logit[target] + z_loss * log(Z)^2), in nats and float32."""
    tiles, _ = _tiles(hidden_BLD, targets_BL, weights_BL, tile_tokens)
    table_VD = _gathered(table_VD, hidden_BLD.dtype)

    def one(total, tile):
        return total + _tile_loss(table_VD, z_loss, tile)[0], None

    return jax.lax.scan(one, jnp.zeros((), jnp.float32), tiles)[0]


def _gathered(table_VD, dtype):
    """The compute copy of the table, whole along D before the loop over tiles rather than once a tile."""
    return constrain(table_VD.astype(dtype), "vocab", None)


def _forward(hidden_BLD, table_VD, targets_BL, weights_BL, z_loss, tile_tokens):
    tiles, join = _tiles(hidden_BLD, targets_BL, weights_BL, tile_tokens)
    compute_VD = _gathered(table_VD, hidden_BLD.dtype)
    S, (V, D) = tiles[0].shape[1], table_VD.shape
    start = jnp.zeros((), jnp.float32), constrain(jnp.zeros((S, V, D), jnp.float32), "batch", "vocab", None)

    def one(carry, tile):
        loss, dx_SMD, dtable_SVD = _tile_gradients(compute_VD, z_loss, tile)
        return (carry[0] + loss, carry[1] + dtable_SVD), dx_SMD

    (loss, dtable_SVD), dx_nSMD = jax.lax.scan(one, start, tiles)
    dtable_VD = constrain(dtable_SVD.sum(0), "vocab", "embed")  # a scatter of the sum, not a whole copy each
    return loss, (join(dx_nSMD), dtable_VD.astype(table_VD.dtype))


def _backward(z_loss, tile_tokens, saved, cotangent):
    dx_BLD, dtable_VD = saved
    return dx_BLD * cotangent.astype(dx_BLD.dtype), dtable_VD * cotangent, None, None


cross_entropy.defvjp(_forward, _backward)


def dense(cfg: ModelConfig, settings: ObjectiveConfig) -> Objective:
    """Cross-entropy of every token that has a weight."""
    most = max(1, TILE_LOGITS // cfg.vocab_size)
    tile_tokens = settings.tile_tokens or min(TILE_TOKENS[cfg.kernels], most)

    def total(params, batch: Batch, key, z_loss: float) -> tuple[jax.Array, Sums]:
        hidden_BLD = transformer.apply(params, batch, cfg, key=key)
        table_VD = transformer.unembedding(params)
        loss = cross_entropy(hidden_BLD, table_VD, batch.targets, batch.weights, z_loss, tile_tokens)
        return loss, Sums(loss, jnp.sum(batch.weights))

    def gradients(params, batch, key, step, carry):
        del step
        grads, sums = jax.grad(total, has_aux=True)(params, batch, key, settings.z_loss)
        return grads, sums, carry

    return Objective(
        init=lambda params: (),
        gradients=gradients,
        evaluate=lambda params, batch: total(params, batch, None, 0.0)[1],
    )
