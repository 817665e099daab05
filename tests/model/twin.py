"""The forward pass once more, in plain jnp and without Flax: same parameter tree, every formula written out naively.

Letters: B batch, L length, D model, H query heads, G key/value heads, K head width, F hidden, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np


def rms_norm(x_BLD, scale_D, eps):
    return x_BLD / jnp.sqrt((x_BLD**2).mean(-1, keepdims=True) + eps) * scale_D


def affine(p, x, equation):
    y = jnp.einsum(equation, x, p["kernel"])
    return y + p["bias"] if "bias" in p else y


def rope(x_BLHK, positions_BL, theta):
    """Pairs (x[i], x[i + K/2]) as complex numbers, turned by position * theta**(-2i/K)."""
    half = x_BLHK.shape[-1] // 2
    angle_BLk = positions_BL[..., None] * theta ** (-np.arange(half) / half)
    z = (x_BLHK[..., :half] + 1j * x_BLHK[..., half:]) * jnp.exp(1j * angle_BLk)[:, :, None]
    return jnp.concatenate([z.real, z.imag], -1)


def sinusoid(distance, width):
    """R[distance] of Dai et al. 2019: sines, then cosines."""
    angle = np.outer(distance, 10000.0 ** (-np.arange(0, width, 2) / width))
    return np.concatenate([np.sin(angle), np.cos(angle)], -1).astype(np.float32)


def position_scores(p, q_BLHK, width):
    """(q_i + v) . W_r R[i - j], a table row gathered for every pair (i, j)."""
    L = q_BLHK.shape[1]
    r_THK = jnp.einsum("td,dhk->thk", sinusoid(np.arange(L), width), p["kernel"])
    distance_LL = np.array([[max(i - j, 0) for j in range(L)] for i in range(L)])
    return jnp.einsum("bihk,ijhk->bhij", q_BLHK + p["position_bias"], r_THK[distance_LL])


def attention(p, x_BLD, batch, cfg):
    q_BLHK = affine(p["query"], x_BLD, "bld,dhk->blhk")
    k_BLGK = affine(p["key"], x_BLD, "bld,dgk->blgk")
    v_BLGK = affine(p["value"], x_BLD, "bld,dgk->blgk")
    extra_BHLL = 0.0
    if cfg.positions == "rope":
        q_BLHK, k_BLGK = (rope(x, batch.positions, cfg.rope_theta) for x in (q_BLHK, k_BLGK))
    else:
        extra_BHLL = position_scores(p["positions"], q_BLHK, cfg.d_model)
        q_BLHK = q_BLHK + p["positions"]["content_bias"]
    share = q_BLHK.shape[2] // k_BLGK.shape[2]
    k_BLHK, v_BLHK = (jnp.repeat(x, share, axis=2) for x in (k_BLGK, v_BLGK))
    s_BHLL = (jnp.einsum("bihk,bjhk->bhij", q_BLHK, k_BLHK) + extra_BHLL) / np.sqrt(cfg.head_dim)
    past_LL = np.tril(np.ones(s_BHLL.shape[-2:], bool))
    same_BLL = batch.segments[:, :, None] == batch.segments[:, None, :]
    e_BHLL = jnp.exp(s_BHLL - s_BHLL.max(-1, keepdims=True)) * (past_LL & same_BLL)[:, None]
    mixed_BLHK = jnp.einsum("bhij,bjhk->bihk", e_BHLL / e_BHLL.sum(-1, keepdims=True), v_BLHK)
    return affine(p["out"], mixed_BLHK, "blhk,hkd->bld")


def mlp(p, x_BLD, cfg):
    up_BLF = affine(p["up"], x_BLD, "bld,df->blf")
    if cfg.mlp in ("swiglu", "reglu"):
        gate_BLF = affine(p["gate"], x_BLD, "bld,df->blf")
        h_BLF = (gate_BLF / (1 + jnp.exp(-gate_BLF)) if cfg.mlp == "swiglu" else jnp.maximum(gate_BLF, 0)) * up_BLF
    elif cfg.mlp == "gelu":  # the tanh form (Hendrycks & Gimpel 2016)
        h_BLF = 0.5 * up_BLF * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (up_BLF + 0.044715 * up_BLF**3)))
    else:
        h_BLF = jnp.maximum(up_BLF, 0) ** 2
    return affine(p["down"], h_BLF, "blf,fd->bld")


def forward(params, batch, cfg, delta_BLD=0.0):
    """Hidden states (B, L, D) after the last norm."""
    x_BLD = params["embed"]["table"][batch.tokens] + delta_BLD
    for n in range(cfg.layers):
        p = jax.tree.map(lambda w, n=n: w[n], params["blocks"])
        x_BLD += attention(p["attention"], rms_norm(x_BLD, p["norm_attention"]["scale"], cfg.norm_eps), batch, cfg)
        x_BLD += mlp(p["mlp"], rms_norm(x_BLD, p["norm_mlp"]["scale"], cfg.norm_eps), cfg)
    return rms_norm(x_BLD, params["norm"]["scale"], cfg.norm_eps)


def logits(params, hidden_BLD, cfg):
    return hidden_BLD @ params["embed" if cfg.tied else "unembed"]["table"].T


def loss(params, batch, cfg, delta_BLD=0.0):
    """sum of weight * -log p(target), in nats."""
    logits_BLV = logits(params, forward(params, batch, cfg, delta_BLD), cfg)
    p_BLV = jnp.exp(logits_BLV - logits_BLV.max(-1, keepdims=True))
    gold_BL = jnp.take_along_axis(p_BLV, batch.targets[..., None], -1)[..., 0]
    return -(batch.weights * jnp.log(gold_BL / p_BLV.sum(-1))).sum()
