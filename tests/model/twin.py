"""The forward pass once more, in plain jnp and without Flax: same parameter tree, every formula written out naively.

Letters: B batch, L length, D model, H query heads, G key/value heads, K head width, F hidden, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np


def rms_norm(p, x_BLD, cfg):
    return x_BLD / jnp.sqrt((x_BLD**2).mean(-1, keepdims=True) + cfg.norm_eps) * (cfg.norm_offset + p["scale"])


def affine(p, x, equation):
    y = jnp.einsum(equation, x, p["kernel"])
    return y + p["bias"] if "bias" in p else y


def wavelengths(cfg):
    """Tokens a turn of each rotary pair, one by one."""
    found = [2 * np.pi * cfg.rope_theta ** (2 * i / cfg.head_dim) for i in range(cfg.head_dim // 2)]
    if cfg.rope_scaling == "linear":
        return [w * cfg.rope_factor for w in found]
    if cfg.rope_scaling == "llama3":  # as in the code that came with Llama 3.1
        short, long = (cfg.rope_original_len / turns for turns in (cfg.rope_high_freq, cfg.rope_low_freq))
        for i, w in enumerate(found):
            smooth = (cfg.rope_original_len / w - cfg.rope_low_freq) / (cfg.rope_high_freq - cfg.rope_low_freq)
            blended = 1 / ((1 - smooth) / (w * cfg.rope_factor) + smooth / w)
            found[i] = w if w < short else w * cfg.rope_factor if w > long else blended
    return found


def rope(x_BLHK, positions_BL, cfg):
    """Pairs (x[i], x[i + K/2]) as complex numbers, turned by position * 2 pi / wavelength."""
    half = x_BLHK.shape[-1] // 2
    angle_BLk = positions_BL[..., None] * (2 * np.pi / np.array(wavelengths(cfg)))
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
    if cfg.qk_norm:
        q_BLHK, k_BLGK = (rms_norm(p[f"{name}_norm"], x, cfg) for name, x in (("query", q_BLHK), ("key", k_BLGK)))
    if cfg.positions == "rope":
        q_BLHK, k_BLGK = (rope(x, batch.positions, cfg) for x in (q_BLHK, k_BLGK))
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


def gelu(x):
    """The tanh form (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def mlp(p, x_BLD, cfg):
    up_BLF = affine(p["up"], x_BLD, "bld,df->blf")
    if cfg.mlp in ("swiglu", "reglu", "geglu"):
        gate_BLF = affine(p["gate"], x_BLD, "bld,df->blf")
        swish = gate_BLF / (1 + jnp.exp(-gate_BLF))
        h_BLF = {"swiglu": swish, "reglu": jnp.maximum(gate_BLF, 0), "geglu": gelu(gate_BLF)}[cfg.mlp] * up_BLF
    elif cfg.mlp == "gelu":
        h_BLF = gelu(up_BLF)
    else:
        h_BLF = jnp.maximum(up_BLF, 0) ** 2
    return affine(p["down"], h_BLF, "blf,fd->bld")


def forward(params, batch, cfg, delta_BLD=0.0):
    """Hidden states (B, L, D) after the last norm."""
    x_BLD = cfg.embed_scale * params["embed"]["table"][batch.tokens] + delta_BLD
    for n in range(cfg.layers):
        p = jax.tree.map(lambda w, n=n: w[n], params["blocks"])
        x_BLD += attention(p["attention"], rms_norm(p["norm_attention"], x_BLD, cfg), batch, cfg)
        x_BLD += mlp(p["mlp"], rms_norm(p["norm_mlp"], x_BLD, cfg), cfg)
    return rms_norm(params["norm"], x_BLD, cfg)


def logits(params, hidden_BLD, cfg):
    return hidden_BLD @ params["embed" if cfg.tied else "unembed"]["table"].T


def loss(params, batch, cfg, delta_BLD=0.0):
    """sum of weight * -log p(target), in nats."""
    logits_BLV = logits(params, forward(params, batch, cfg, delta_BLD), cfg)
    p_BLV = jnp.exp(logits_BLV - logits_BLV.max(-1, keepdims=True))
    gold_BL = jnp.take_along_axis(p_BLV, batch.targets[..., None], -1)[..., 0]
    return -(batch.weights * jnp.log(gold_BL / p_BLV.sum(-1))).sum()
