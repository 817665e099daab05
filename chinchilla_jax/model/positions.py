"""Where a token stands: rotary embedding (Su et al. 2021) and Transformer-XL relative positions (Dai et al. 2019)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model.attention import Relative
from chinchilla_jax.model.linear import dense
from chinchilla_jax.model.weights import weight


def _llama3(cfg: ModelConfig, frequency_k: jax.Array) -> jax.Array:
    """Long waves stretched, short ones kept, a linear blend between them (Llama 3.1); frequencies in radians a token.

    A wave is long where it turns fewer than `rope_low_freq` times over the original length.
    """
    turns_k = cfg.rope_original_len * frequency_k / (2 * math.pi)
    kept_k = jnp.clip((turns_k - cfg.rope_low_freq) / (cfg.rope_high_freq - cfg.rope_low_freq), 0, 1)
    return frequency_k * (kept_k + (1 - kept_k) / cfg.rope_factor)


SCALINGS = {
    "none": lambda cfg, frequency_k: frequency_k,
    "linear": lambda cfg, frequency_k: frequency_k / cfg.rope_factor,  # Chen et al. 2023
    "llama3": _llama3,
}


def rotary_tables(cfg: ModelConfig, positions_BL: jax.Array, length: int):
    """cos and sin of position * theta**(-2i/K), scaled, both (B, L, 1, K/2) in float32."""
    del length
    frequency_k = cfg.rope_theta ** (-jnp.arange(0, cfg.head_dim, 2, dtype=jnp.float32) / cfg.head_dim)
    frequency_k = SCALINGS[cfg.rope_scaling](cfg, frequency_k)
    angle_BL1k = positions_BL[:, :, None, None].astype(jnp.float32) * frequency_k
    # Without the barrier XLA:CPU computes them anew for every head, in every pass of every layer.
    return jax.lax.optimization_barrier((jnp.cos(angle_BL1k), jnp.sin(angle_BL1k)))


def rotate(x_BLHK: jax.Array, cos_BL1k: jax.Array, sin_BL1k: jax.Array) -> jax.Array:
    """Rotate the pairs (x[i], x[i + K/2]), the halves' order of Llama checkpoints; computed in float32."""
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([a * cos_BL1k - b * sin_BL1k, b * cos_BL1k + a * sin_BL1k], axis=-1)
    return turned.astype(x_BLHK.dtype)


def rotate_flipped(x_BLHK: jax.Array, cos_BL1k: jax.Array, sin_BL1k: jax.Array) -> jax.Array:
    """The same numbers without joining halves: x cos + flipped(x) (-sin, sin), which a card does in one pass."""
    x_BLH2k = x_BLHK.astype(jnp.float32).reshape(*x_BLHK.shape[:-1], 2, -1)
    sin_BL12k = jnp.stack([-sin_BL1k, sin_BL1k], axis=-2)
    turned_BLH2k = x_BLH2k * cos_BL1k[..., None, :] + x_BLH2k[..., ::-1, :] * sin_BL12k
    return turned_BLH2k.reshape(x_BLHK.shape).astype(x_BLHK.dtype)


ROTATIONS = {"reference": rotate, "cpu": rotate, "cuda": rotate_flipped, "tpu": rotate}


def sinusoid_tables(cfg: ModelConfig, positions_BL: jax.Array, length: int):
    """sin and cos of distance / 10000**(2i/D) for the distances 0..length-1: (length, D) in float32."""
    del positions_BL
    frequency_d = 10000.0 ** (-jnp.arange(0, cfg.d_model, 2, dtype=jnp.float32) / cfg.d_model)
    angle_Td = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency_d
    return jnp.concatenate([jnp.sin(angle_Td), jnp.cos(angle_Td)], axis=-1)


class Rotary(nn.Module):
    """Turns queries and keys; has no parameters."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, q_BLHK, k_BLGK, tables):
        turn = ROTATIONS[self.cfg.kernels]
        return turn(q_BLHK, *tables), turn(k_BLGK, *tables), None


class RelativePositions(nn.Module):
    """score = (q + u) . k + (q + v) . W_r R[i - j]: Dai et al. 2019, equation in section 3.3."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, q_BLHK, k_BLGK, table_TD):
        cfg = self.cfg
        normal = nn.initializers.normal(cfg.init_std)
        kernel = nn.with_logical_partitioning(normal, ("embed", "heads", "head_dim"))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("heads", "head_dim"))
        w_DHK = weight(self, "kernel", kernel, (cfg.d_model, cfg.heads, cfg.head_dim))
        u_HK = self.param("content_bias", zeros, (cfg.heads, cfg.head_dim)).astype(q_BLHK.dtype)
        v_HK = self.param("position_bias", zeros, (cfg.heads, cfg.head_dim)).astype(q_BLHK.dtype)
        r_THK = checkpoint_name(dense(table_TD.astype(q_BLHK.dtype), w_DHK.astype(q_BLHK.dtype), cfg.kernels), "qkv")
        return q_BLHK + u_HK, k_BLGK, Relative(q_BLHK + v_HK, r_THK)


TABLES = {"rope": rotary_tables, "relative": sinusoid_tables}
ENCODERS = {"rope": Rotary, "relative": RelativePositions}
