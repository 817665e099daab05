"""Attention with Transformer-XL's position term on a TPU: one Pallas kernel forward and one backward.

The scores of a block of queries and keys stay on the chip. Their position term needs the products of the queries with
the 2 b distances that the b x b block spans, and is these products with row i turned by i, which is one strided roll
(Dai et al. 2019, appendix B, inside a block). The softmax is the running one of FlashAttention-2 (Dao 2023).

Letters as in `attention`, heads first; b is the block of queries or keys. The table of distances comes backwards, so
that distances fall where keys rise, and with b zeros behind it for the distances of future keys.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MASKED = -1e30  # attention's, which reads this module
BLOCK = 256
# The backward kernel holds the float32 gradients of whole rows of a head on the chip: 2 MB each at this size.
LARGEST = 2**19
# Heads are the slowest dimension of both grids; chips of two cores (v5p) share them.
HEADS_APART = pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"))


def fits(length: int, width: int) -> bool:
    """Whether there is a kernel for rows of `length` tokens with heads of `width` numbers: before v5 no TPU turns each
    row by its own number."""
    return length % 128 == 0 and length * width <= LARGEST and pltpu.get_tpu_info().generation >= 5


def _dot(a, b, a_axis: int, b_axis: int):
    """The product over an axis of each, summed in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _distances(i, j, rows: int, b: int):
    """Where the 2 b distances from queries i to keys j begin in the table, the largest first."""
    return pl.ds(pl.multiple_of(rows - b - (i - j + 1) * b, b), 2 * b)


def _scores(q_bK, qr_bK, k_bK, r_XK, q_segments_b1, k_segments_1b, i, j):
    """Masked scores of a block, (b, b)."""
    b = q_bK.shape[0]
    place_bX = _dot(qr_bK, r_XK, 1, 1)
    turned_bX = pltpu.roll(place_bX, b + 1, 1, stride=1, stride_axis=0)  # row i to the right by i + b + 1
    s_bb = _dot(q_bK, k_bK, 1, 1) + turned_bX[:, :b]
    query, key = (jax.lax.broadcasted_iota(jnp.int32, (b, b), axis) for axis in (0, 1))
    seen = (i * b + query >= j * b + key) & (q_segments_b1 == k_segments_1b)
    return jnp.where(seen, s_bb, MASKED)


def _forward_kernel(q_segments, k_segments, q, qr, k, v, r, out, log_sum, largest, total, mixed):
    i, j, b = pl.program_id(2), pl.program_id(3), q.shape[2]

    @pl.when(j == 0)
    def begin():
        largest[...] = jnp.full(largest.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        mixed[...] = jnp.zeros(mixed.shape, jnp.float32)

    @pl.when(j <= i)
    def add():
        r_XK = r[0, _distances(i, j, r.shape[1], b), :]
        s_bb = _scores(q[0, 0], qr[0, 0], k[0, 0], r_XK, q_segments[0], k_segments[0], i, j)
        top_b1 = jnp.maximum(largest[...], s_bb.max(1, keepdims=True))
        p_bb, kept_b1 = jnp.exp(s_bb - top_b1), jnp.exp(largest[...] - top_b1)
        total[...] = total[...] * kept_b1 + p_bb.sum(1, keepdims=True)
        mixed[...] = mixed[...] * kept_b1 + _dot(p_bb.astype(v.dtype), v[0, 0], 1, 0)
        largest[...] = top_b1

    @pl.when(j == i)
    def end():
        out[0, 0] = (mixed[...] / total[...]).astype(out.dtype)
        log_sum[0, 0] = largest[...] + jnp.log(total[...])


def _backward_kernel(q_segments, k_segments, q, qr, k, v, r, qr_flipped, dout, log_sum, mean, dq, dqr, dk, dv, dr):
    """Gradients of keys and values add up over the queries, which turn fastest; the others lie here for a whole row.

    A roll turns lower rows further to the right, and the way back turns them less: so the block's gradient is turned
    upside down, as `qr_flipped` is and as `dqr` is given.
    """
    row, j, i, b = pl.program_id(1), pl.program_id(2), pl.program_id(3), q.shape[2]

    @pl.when((row == 0) & (j == 0) & (i == 0))
    def of_a_head():
        dr[...] = jnp.zeros(dr.shape, jnp.float32)

    @pl.when((j == 0) & (i == 0))
    def of_a_row():
        dq[...] = jnp.zeros(dq.shape, jnp.float32)
        dqr[...] = jnp.zeros(dqr.shape, jnp.float32)

    @pl.when(i == 0)
    def of_keys():
        dk[...] = jnp.zeros(dk.shape, jnp.float32)
        dv[...] = jnp.zeros(dv.shape, jnp.float32)

    @pl.when(j <= i)
    def add():
        near = _distances(i, j, r.shape[1], b)
        r_XK, q_bK, k_bK, dout_bK = r[0, near, :], q[0, 0], k[0, 0], dout[0, 0]
        s_bb = _scores(q_bK, qr[0, 0], k_bK, r_XK, q_segments[0], k_segments[0], i, j)
        p_bb = jnp.exp(s_bb - log_sum[0, 0])
        ds_bb = (p_bb * (_dot(dout_bK, v[0, 0], 1, 1) - mean[0, 0])).astype(q.dtype)
        dv[0, 0] += _dot(p_bb.astype(q.dtype), dout_bK, 0, 0)
        dk[0, 0] += _dot(ds_bb, q_bK, 0, 0)
        here = pl.ds(pl.multiple_of(i * b, b), b)
        dq[0, 0, here, :] += _dot(ds_bb, k_bK, 1, 0)
        row_bb, column_bb = (jax.lax.broadcasted_iota(jnp.int32, (b, b), axis) for axis in (0, 1))
        flipped_bb = _dot((row_bb + column_bb == b - 1).astype(q.dtype), ds_bb, 1, 0)
        wide_bX = jnp.concatenate([flipped_bb, jnp.zeros((b, b), jnp.float32)], axis=1)
        turned_bX = pltpu.roll(wide_bX, 0, 1, stride=1, stride_axis=0).astype(q.dtype)
        dr[0, near, :] += _dot(turned_bX, qr_flipped[0, 0], 0, 0)
        dqr[0, 0, here, :] += _dot(turned_bX, r_XK, 1, 0)


def _whole(*shape: int, index):
    """A block that stays for many steps of the grid and is held once."""
    return pl.BlockSpec(shape, index, pipeline_mode=pl.Buffered(1))


def _specs(b: int, width: int, rows: int, share: int, order):
    """Blocks of the inputs of both kernels; `order` makes (batch, head, query block, key block) of the grid's place."""

    def at(make):
        return lambda *place: make(*order(*place))

    queries = pl.BlockSpec((1, 1, b, width), at(lambda n, h, i, j: (n, h, i, 0)))
    keys = pl.BlockSpec((1, 1, b, width), at(lambda n, h, i, j: (n, h // share, j, 0)))
    sums = pl.BlockSpec((1, 1, b, 1), at(lambda n, h, i, j: (n, h, i, 0)))
    q_segments = pl.BlockSpec((1, b, 1), at(lambda n, h, i, j: (n, i, 0)))
    k_segments = pl.BlockSpec((1, 1, b), at(lambda n, h, i, j: (n, 0, j)))
    table = _whole(1, rows, width, index=at(lambda n, h, i, j: (h, 0, 0)))
    return [q_segments, k_segments, queries, queries, keys, keys, table], sums


def _inputs(q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL, b: int):
    """What both kernels read first: segments as columns and rows, and the table backwards with its zeros."""
    backwards_HTK = jnp.pad(jnp.flip(r_HLK, 1), ((0, 0), (0, b), (0, 0)))
    return segments_BL[:, :, None], segments_BL[:, None, :], q_BHLK, qr_BHLK, k_BGLK, v_BGLK, backwards_HTK


def _flipped(x_BHLK, b: int):
    """Every block upside down."""
    return jnp.flip(x_BHLK.reshape(*x_BHLK.shape[:2], -1, b, x_BHLK.shape[3]), 3).reshape(x_BHLK.shape)


def _sizes(q_BHLK, k_BGLK):
    B, H, L, K = q_BHLK.shape
    b = math.gcd(L, BLOCK)
    return B, H, L, K, H // k_BGLK.shape[1], b, L // b


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def fused(q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL, interpret: bool = False):
    """softmax(q . k + qr . r[i - j]) v, causal inside segments; both queries come scaled. Returns (B, H, L, K)."""
    return _forward(q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL, interpret)[0]


def _forward(q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL, interpret):
    B, H, L, K, share, b, count = _sizes(q_BHLK, k_BGLK)
    # Keys that no query of the block sees are not fetched: the block before stays.
    specs, sums = _specs(b, K, L + b, share, lambda h, n, i, j: (n, h, i, jnp.minimum(i, j)))
    out_BHLK, sums_BHL1 = pl.pallas_call(
        _forward_kernel,
        grid=(H, B, count, count),
        in_specs=specs,
        out_specs=[specs[2], sums],
        out_shape=[jax.ShapeDtypeStruct(q_BHLK.shape, q_BHLK.dtype), jax.ShapeDtypeStruct((B, H, L, 1), jnp.float32)],
        scratch_shapes=[pltpu.VMEM((b, width), jnp.float32) for width in (1, 1, K)],
        compiler_params=HEADS_APART,
        interpret=interpret,
    )(*_inputs(q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL, b))
    out_BHLK, sums_BHL = (checkpoint_name(x, "attention_sums") for x in (out_BHLK, sums_BHL1[..., 0]))
    return out_BHLK, ((q_BHLK, qr_BHLK, k_BGLK, v_BGLK, r_HLK, segments_BL), out_BHLK, sums_BHL)


def _backward(interpret, saved, dout_BHLK):
    (q_BHLK, qr_BHLK, k_BGLK, *_), out_BHLK, sums_BHL = saved
    B, H, L, K, share, b, count = _sizes(q_BHLK, k_BGLK)
    mean_BHL = jnp.einsum("bhlk,bhlk->bhl", dout_BHLK, out_BHLK, preferred_element_type=jnp.float32)
    specs, sums = _specs(b, K, L + b, share, lambda h, n, j, i: (n, h, jnp.maximum(i, j), j))
    row = _whole(1, 1, L, K, index=lambda h, n, j, i: (n, h, 0, 0))
    keys = pl.BlockSpec((1, 1, b, K), lambda h, n, j, i: (n, h, j, 0))
    table = _whole(1, L + b, K, index=lambda h, n, j, i: (h, 0, 0))
    rows, longer = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((B, H, L, K), (H, L + b, K)))
    dq_BHLK, dqr_BHLK, dk_BHLK, dv_BHLK, dr_HTK = pl.pallas_call(
        _backward_kernel,
        grid=(H, B, count, count),
        in_specs=[*specs, specs[2], specs[2], sums, sums],
        out_specs=[row, row, keys, keys, table],
        out_shape=[rows, rows, rows, rows, longer],
        compiler_params=HEADS_APART,
        interpret=interpret,
    )(*_inputs(*saved[0], b), _flipped(qr_BHLK, b), dout_BHLK, sums_BHL[..., None], mean_BHL[..., None])
    dk_BGLK, dv_BGLK = (x.reshape(B, H // share, share, L, K).sum(2) for x in (dk_BHLK, dv_BHLK))
    grads = dq_BHLK, _flipped(dqr_BHLK, b), dk_BGLK, dv_BGLK, jnp.flip(dr_HTK[:, :L], 1)
    return *(grad.astype(x.dtype) for grad, x in zip(grads, saved[0])), None


fused.defvjp(_forward, _backward)
