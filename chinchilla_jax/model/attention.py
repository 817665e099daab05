"""Causal attention inside documents: one function, a readable reference and one fast path a platform.

Letters: B batch, L queries, T keys, H query heads, G key/value heads, K head width. A query sees the keys at or before
it that carry its own segment number. `relative` adds Transformer-XL's position term (Dai et al. 2019): a second query
qr_BLHK and a table r_THK indexed by the distance i - j.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require
from chinchilla_jax.model import packed
from chinchilla_jax.parallel.sharding import HEADS, ROWS, over_shards, shards

MASKED = -1e30  # finite, so that a fully masked (padding) row stays free of NaN


class Relative(NamedTuple):
    """The position term: score += qr[i] . r[i - j]."""

    qr_BLHK: jax.Array
    r_THK: jax.Array


def attention(
    q_BLHK, k_BLGK, v_BLGK, segments_BL, *, kernels: str, relative: Relative | None = None, blocks_BL=None, documents=0
):
    """Attend causally inside segments; scores are scaled by K**-0.5. Returns (B, L, H, K).

    With `blocks_BL`, tokens of a segment that carry the same number above 0 see each other in both directions. Where
    `documents` is not 0 no row has more of them, and the packed kernel takes them.
    """
    if blocks_BL is not None:
        return BLOCK_PATHS[kernels](q_BLHK, k_BLGK, v_BLGK, segments_BL, blocks_BL)
    if documents and relative is None:
        return packed.attention(q_BLHK, k_BLGK, v_BLGK, segments_BL, documents)
    path = PATHS[kernels] if relative is None else RELATIVE_PATHS[kernels]
    return path(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative)


def skew(scores):
    """[..., i, d], the score at distance d, becomes [..., i, j], the score at key j, for the last n of T queries.

    Row i stands at position T - n + i. Keys in a row's future hold rubbish, which the causal mask covers. Only pads,
    reshapes and slices: rows are laid end to end and cut again one step shorter, so each starts one step later.
    """
    *lead, n, width = scores.shape
    padded = jnp.pad(jnp.flip(scores, -1), [(0, 0)] * (len(lead) + 1) + [(0, n)])
    start, stride = n - 1, width + n - 1
    flat = padded.reshape(*lead, n * (width + n))
    return flat[..., start : start + n * stride].reshape(*lead, n, stride)[..., :width]


def scores_to_output(s_BGMLT, v_BTGK, mask_BLT):
    """Masked softmax in float32, then the mix of values: (B, G, M, L, T), (B, T, G, K) -> (B, L, G, M, K)."""
    s_BGMLT = jnp.where(mask_BLT[:, None, None], s_BGMLT, MASKED)
    p_BGMLT = jax.nn.softmax(s_BGMLT, axis=-1).astype(v_BTGK.dtype)
    return jnp.einsum("bgmlt,btgk->blgmk", p_BGMLT, v_BTGK)


def _block(q_BLHK, k_BTGK, v_BTGK, q_segments_BL, k_segments_BT, relative):
    """Attention of the last L of T positions."""
    B, L, H, K = q_BLHK.shape
    T, G = k_BTGK.shape[1:3]
    q_BLGMK = (q_BLHK * K**-0.5).reshape(B, L, G, H // G, K)
    s_BGMLT = jnp.einsum("blgmk,btgk->bgmlt", q_BLGMK, k_BTGK, preferred_element_type=jnp.float32)
    if relative is not None:
        qr_BLGMK = (relative.qr_BLHK * K**-0.5).reshape(B, L, G, H // G, K)
        r_TGMK = relative.r_THK[:T].reshape(T, G, H // G, K)
        s_BGMLT += skew(jnp.einsum("blgmk,tgmk->bgmlt", qr_BLGMK, r_TGMK, preferred_element_type=jnp.float32))
    at_L = jnp.arange(T - L, T)
    mask_BLT = (at_L[:, None] >= jnp.arange(T)) & (q_segments_BL[:, :, None] == k_segments_BT[:, None, :])
    return scores_to_output(s_BGMLT, v_BTGK, mask_BLT).reshape(B, L, H, K)


def reference(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    """All scores at once, in a few readable lines; every other path is held to it."""
    return _block(q_BLHK, k_BLGK, v_BLGK, segments_BL, segments_BL, relative)


def blocked(block: int):
    """Blocks of queries against the keys before their end: skips the masked half, and bounds the scores in memory."""

    def path(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
        outputs = []
        for rows in _causal_blocks(q_BLHK.shape[1], block):
            seen = slice(0, rows.stop)
            term = relative and Relative(relative.qr_BLHK[:, rows], relative.r_THK)
            outputs.append(
                _block(
                    q_BLHK[:, rows],
                    k_BLGK[:, seen],
                    v_BLGK[:, seen],
                    segments_BL[:, rows],
                    segments_BL[:, seen],
                    term,
                )
            )
        return jnp.concatenate(outputs, axis=1)

    return path


def _causal_blocks(L: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, L)) for start in range(0, L, block)]


def _weights(q_BGMLK, k_BGTK, q_segments_BL, k_segments_BT):
    """exp(score - row maximum) and its row sums, for the last L of T positions."""
    L, T = q_BGMLK.shape[3], k_BGTK.shape[2]
    mask_BLT = (jnp.arange(T - L, T)[:, None] >= jnp.arange(T)) & (
        q_segments_BL[:, :, None] == k_segments_BT[:, None, :]
    )
    s_BGMLT = jnp.einsum("bgmlk,bgtk->bgmlt", q_BGMLK, k_BGTK, preferred_element_type=jnp.float32)
    s_BGMLT = jnp.where(mask_BLT[:, None, None], s_BGMLT, MASKED)
    p_BGMLT = jnp.exp(s_BGMLT - s_BGMLT.max(-1, keepdims=True))
    return p_BGMLT, p_BGMLT.sum(-1, keepdims=True)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _saving(q_BGMLK, k_BGTK, v_BGTK, segments_BT, block):
    """Blocked attention whose backward pass starts from the saved weights; q comes scaled."""
    return _saving_forward(q_BGMLK, k_BGTK, v_BGTK, segments_BT, block)[0]


def _saving_forward(q_BGMLK, k_BGTK, v_BGTK, segments_BT, block):
    outputs, saved = [], []
    for rows in _causal_blocks(q_BGMLK.shape[3], block):
        seen = slice(0, rows.stop)
        p_BGMLT, sum_BGML1 = _weights(
            q_BGMLK[..., rows, :], k_BGTK[:, :, seen], segments_BT[:, rows], segments_BT[:, seen]
        )
        p_BGMLT = p_BGMLT.astype(v_BGTK.dtype)
        mixed_BGMLK = jnp.einsum("bgmlt,bgtk->bgmlk", p_BGMLT, v_BGTK[:, :, seen])
        outputs.append((mixed_BGMLK / sum_BGML1).astype(v_BGTK.dtype))
        saved.append((p_BGMLT, sum_BGML1))
    out_BGMLK = jnp.concatenate(outputs, axis=3)
    return out_BGMLK, (q_BGMLK, k_BGTK, v_BGTK, out_BGMLK, saved)


def _saving_backward(block, residuals, dout_BGMLK):
    q_BGMLK, k_BGTK, v_BGTK, out_BGMLK, saved = residuals
    dq, dk_BGTK, dv_BGTK = [], *(jnp.zeros(x.shape, jnp.float32) for x in (k_BGTK, v_BGTK))
    for rows, (p_BGMLT, sum_BGML1) in zip(_causal_blocks(q_BGMLK.shape[3], block), saved):
        seen, dout = slice(0, rows.stop), dout_BGMLK[..., rows, :] / sum_BGML1
        dp_BGMLT = jnp.einsum("bgmlk,bgtk->bgmlt", dout, v_BGTK[:, :, seen])
        mean_BGML1 = jnp.sum(dout * out_BGMLK[..., rows, :], axis=-1, keepdims=True)
        ds_BGMLT = p_BGMLT * (dp_BGMLT - mean_BGML1)
        dq.append(jnp.einsum("bgmlt,bgtk->bgmlk", ds_BGMLT, k_BGTK[:, :, seen]))
        dk_BGTK = dk_BGTK.at[:, :, seen].add(jnp.einsum("bgmlt,bgmlk->bgtk", ds_BGMLT, q_BGMLK[..., rows, :]))
        dv_BGTK = dv_BGTK.at[:, :, seen].add(jnp.einsum("bgmlt,bgmlk->bgtk", p_BGMLT, dout))
    dq_BGMLK = jnp.concatenate(dq, axis=3)
    return dq_BGMLK.astype(q_BGMLK.dtype), dk_BGTK.astype(k_BGTK.dtype), dv_BGTK.astype(v_BGTK.dtype), None


_saving.defvjp(_saving_forward, _saving_backward)


def saving(blocks: int):
    """For a CPU: skips masked blocks as `blocked` does, with the gradient written out.

    The unnormalised weights are saved and the heads laid first, which makes fewer passes over the scores than XLA:CPU
    finds by itself.
    """

    def path(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
        del relative
        B, L, H, K = q_BLHK.shape
        G = k_BLGK.shape[2]
        q_BGMLK = (q_BLHK * K**-0.5).reshape(B, L, G, H // G, K).transpose(0, 2, 3, 1, 4)
        out_BGMLK = _saving(q_BGMLK, k_BLGK.swapaxes(1, 2), v_BLGK.swapaxes(1, 2), segments_BL, -(-L // blocks))
        return out_BGMLK.transpose(0, 3, 1, 2, 4).reshape(B, L, H, K)

    return path


def cudnn(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    """cuDNN's fused kernel; document boundaries go in as a mask, which its public interface turns into a bias."""
    del relative
    mask_B1LL = (segments_BL[:, :, None] == segments_BL[:, None, :])[:, None]
    return jax.nn.dot_product_attention(q_BLHK, k_BLGK, v_BLGK, mask=mask_B1LL, is_causal=True, implementation="cudnn")


# The axes of queries, keys, values, segments, second queries and the table of distances.
WITH_DISTANCES = (HEADS, HEADS, HEADS, ROWS, HEADS, (None, "heads", None))


def cudnn_relative(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    """cuDNN's fused kernel with the position term as its bias, whose gradient it gives; a shard at a time."""

    def local(q_BLHK, k_BLGK, v_BLGK, segments_BL, qr_BLHK, r_THK):
        scale = q_BLHK.shape[-1] ** -0.5
        bias_BHLT = skew(jnp.einsum("blhk,thk->bhlt", qr_BLHK * scale, r_THK[: q_BLHK.shape[1]]))
        mask_B1LT = (segments_BL[:, :, None] == segments_BL[:, None, :])[:, None]
        return jax.nn.dot_product_attention(
            q_BLHK, k_BLGK, v_BLGK, bias_BHLT, mask_B1LT, is_causal=True, implementation="cudnn"
        )

    arrays = q_BLHK, k_BLGK, v_BLGK, segments_BL, *relative
    return over_shards(local, arrays, WITH_DISTANCES)


def splash(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    """The Pallas splash kernel of a TPU, a shard at a time; its saved log-sums carry a name for the remat policy."""
    del relative
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    L, H, K = q_BLHK.shape[1:]
    size = math.gcd(L, 512)
    require(size >= 128, f"a TPU's attention wants --train.seq-len in multiples of 128, not {L}")
    sizes = kernel.BlockSizes(
        block_q=size, block_kv=size, block_kv_compute=size,
        block_q_dkv=size, block_kv_dkv=size, block_kv_dkv_compute=size,
        block_q_dq=size, block_kv_dq=size,
    )  # fmt: skip

    def local(q_BLHK, k_BLGK, v_BLGK, segments_BL):
        attend = kernel.make_splash_mha(
            mask=masks.MultiHeadMask([masks.CausalMask((L, L))] * (H // shards("heads"))),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=sizes,
            residual_checkpoint_name="attention_sums",
        )
        heads_first = [x.swapaxes(1, 2) for x in (q_BLHK * K**-0.5, k_BLGK, v_BLGK)]
        out_BHLK = jax.vmap(attend)(*heads_first, kernel.SegmentIds(segments_BL, segments_BL))
        return out_BHLK.swapaxes(1, 2)

    return over_shards(local, (q_BLHK, k_BLGK, v_BLGK, segments_BL), (HEADS, HEADS, HEADS, ROWS))


def tpu_relative(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    """The Pallas kernel of `relative_tpu`, a shard at a time; rows that it does not take, in blocks of queries."""
    from chinchilla_jax.model import relative_tpu

    L, _, K = q_BLHK.shape[1:]
    if not relative_tpu.fits(L, K):
        return blocked(512)(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative)

    def local(q_BLHK, k_BLGK, v_BLGK, segments_BL, qr_BLHK, r_THK):
        heads_first = [x.swapaxes(1, 2) for x in (q_BLHK * K**-0.5, qr_BLHK * K**-0.5, k_BLGK, v_BLGK)]
        return relative_tpu.fused(*heads_first, r_THK[:L].swapaxes(0, 1), segments_BL).swapaxes(1, 2)

    arrays = q_BLHK, k_BLGK, v_BLGK, segments_BL, *relative
    return over_shards(local, arrays, WITH_DISTANCES)


def either_way(block: int):
    """Causal attention and both directions inside blocks; `block` queries at a time bound the scores in memory."""

    def path(q_BLHK, k_BLGK, v_BLGK, segments_BL, blocks_BL):
        B, L, H, K = q_BLHK.shape
        G, at_L, outputs = k_BLGK.shape[2], jnp.arange(L), []
        for rows in _causal_blocks(L, block):
            mask_BLT = _visible(segments_BL, blocks_BL, at_L, rows)
            q_BLGMK = (q_BLHK[:, rows] * K**-0.5).reshape(B, -1, G, H // G, K)
            s_BGMLT = jnp.einsum("blgmk,btgk->bgmlt", q_BLGMK, k_BLGK, preferred_element_type=jnp.float32)
            outputs.append(scores_to_output(s_BGMLT, v_BLGK, mask_BLT))
        return jnp.concatenate(outputs, axis=1).reshape(B, L, H, K)

    return path


def _visible(segments_BL, blocks_BL, at_L, rows: slice):
    """Which keys the queries `rows` see: (B, rows, L)."""
    same_BLT = segments_BL[:, rows, None] == segments_BL[:, None, :]
    joined_BLT = (blocks_BL[:, rows, None] == blocks_BL[:, None, :]) & (blocks_BL[:, rows, None] > 0)
    return same_BLT & ((at_L <= at_L[rows, None]) | joined_BLT)


def cudnn_either_way(q_BLHK, k_BLGK, v_BLGK, segments_BL, blocks_BL):
    """cuDNN's fused kernel with the whole mask given."""
    mask_BLL = _visible(segments_BL, blocks_BL, jnp.arange(q_BLHK.shape[1]), slice(None))
    return jax.nn.dot_product_attention(q_BLHK, k_BLGK, v_BLGK, mask=mask_BLL[:, None], implementation="cudnn")


PATHS = {"reference": reference, "cpu": saving(4), "cuda": cudnn, "tpu": splash}
RELATIVE_PATHS = {"reference": reference, "cpu": blocked(128), "cuda": cudnn_relative, "tpu": tpu_relative}
BLOCK_PATHS = {"reference": either_way(2**30), "cpu": either_way(256), "cuda": cudnn_either_way, "tpu": either_way(512)}
