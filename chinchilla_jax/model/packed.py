"""Documents of a row as cuDNN's packed layout takes them: a start and a length each, instead of a mask over the scores.

The kernel is compiled for M documents a row. M is one of `SIZES`, the least that holds what the text has; rows with
more, which are rare then, lose their tail (`limited`), and text with more documents a row than the largest size takes
the mask. Letters: B rows, L tokens of a row, M documents of a row.
"""

import dataclasses
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.parallel.sharding import HEADS, ROWS, over_shards
from chinchilla_jax.types import Batch

SIZES = (1, 4, 16, 64, 256)
USUAL = 16  # where nothing is known of the text
NEEDS = ("query", "key", "value", "bias", "mask", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets")
OPTIONS = ("scale", "mask_type", "qkv_layout")


def size_for(most: int) -> int:
    """The compiled size for rows of at most `most` documents; 0, the mask, where there is none."""
    return next((size for size in SIZES if size >= most), 0)


def usable(size: int) -> int:
    """The size, or 0 with a warning where JAX's entry to the kernel is another."""
    if size > 1 and kernel() is None:
        warnings.warn(f"JAX {jax.__version__} has another entry to packed attention; masks are used", stacklevel=2)
        return 0
    return size


def limited(batch: Batch, most: int) -> Batch:
    """The batch, on the host, with what lies behind the first `most` documents of a row made padding; 0 keeps all."""
    if not most:
        return batch
    late_BL = np.asarray(batch.segments) > most
    if not late_BL.any():
        return batch
    gone = {name: np.where(late_BL, 0, getattr(batch, name)) for name in ("tokens", "targets", "segments", "positions")}
    return dataclasses.replace(batch, **gone, weights=np.where(late_BL, np.float32(0), batch.weights))


def kernel():
    """JAX's private entry to cuDNN's fused attention, and its kinds of masks; None where it is not what it was."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as fused
    except ImportError:
        return None
    found = inspect.signature(fused.dot_product_attention).parameters
    known = tuple(found)[: len(NEEDS)] == NEEDS and set(OPTIONS) <= set(found)
    return (fused.dot_product_attention, fused.MaskType.PADDING_CAUSAL) if known else None


def offsets(segments_BL: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Lengths (B, M + 1) and starts (B, M + 2) of a row's documents, -1 where there is none; the last start always is.

    Padding at a row's end is one document more, so that every output is a number.
    """
    numbers_M = jnp.arange(1, most + 1)
    lengths_BM = jnp.sum(segments_BL[:, None, :] == numbers_M[:, None], axis=-1, dtype=jnp.int32)
    rest_B = segments_BL.shape[1] - lengths_BM.sum(-1)
    lengths_BM = jnp.pad(lengths_BM, [(0, 0), (0, 1)])
    padding_BM = jnp.arange(most + 1) == segments_BL.max(-1)[:, None]
    lengths_BM = jnp.where(padding_BM, rest_B[:, None], lengths_BM)
    there_BM = lengths_BM > 0
    starts_BM = jnp.where(there_BM, jnp.cumsum(lengths_BM, axis=-1) - lengths_BM, -1)
    return jnp.where(there_BM, lengths_BM, -1), jnp.pad(starts_BM, [(0, 0), (0, 1)], constant_values=-1)


def _causal(q_BLHK, k_BLGK, v_BLGK, segments_BL, most):
    """One document a row; padding behind it looks at it and is looked at by nobody."""
    del segments_BL, most
    return jax.nn.dot_product_attention(q_BLHK, k_BLGK, v_BLGK, is_causal=True, implementation="cudnn")


def _packed(q_BLHK, k_BLGK, v_BLGK, segments_BL, most):
    attend, kind = kernel()
    lengths_BM, starts_BM = offsets(segments_BL, most)
    places = lengths_BM, lengths_BM, starts_BM, starts_BM
    scale = q_BLHK.shape[-1] ** -0.5
    return attend(q_BLHK, k_BLGK, v_BLGK, None, None, *places, scale=scale, mask_type=kind, qkv_layout="BTNH")


def attention(q_BLHK, k_BLGK, v_BLGK, segments_BL, most: int):
    """Causal attention inside at most `most` documents a row, (B, L, H, K); a row with more gives NaN."""

    def local(q_BLHK, k_BLGK, v_BLGK, segments_BL):
        out_BLHK = (_causal if most == 1 else _packed)(q_BLHK, k_BLGK, v_BLGK, segments_BL, most)
        wrong_B = segments_BL.max(-1) > most
        return jnp.where(wrong_B[:, None, None, None], jnp.nan, out_BLHK)

    return over_shards(local, (q_BLHK, k_BLGK, v_BLGK, segments_BL), (HEADS, HEADS, HEADS, ROWS))
