"""Tiny models and packed batches that many tests share; no two sizes are equal, so no axis passes for another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch

PLAIN = {"dtype": "float32", "kernels": "reference", "remat": "none", "scan_unroll": 1}
SIZES = {"layers": 2, "d_model": 20, "heads": 4, "head_dim": 6, "d_ff": 28, "vocab_size": 61}
CHINCHILLA = ModelConfig(positions="relative", mlp="gelu", biases=True, tied=True, **SIZES, **PLAIN)
MODERN = ModelConfig(positions="rope", mlp="swiglu", biases=False, tied=False, kv_heads=2, **SIZES, **PLAIN)
SQUARED = ModelConfig(positions="rope", mlp="relu2", biases=True, tied=True, kv_heads=1, **SIZES, **PLAIN)
RECTIFIED = ModelConfig(positions="rope", mlp="reglu", biases=False, tied=True, **SIZES, **PLAIN)
MIXED = ModelConfig(positions="relative", mlp="swiglu", biases=False, tied=False, kv_heads=2, **SIZES, **PLAIN)
NORMED = ModelConfig(positions="rope", mlp="swiglu", qk_norm=True, tied=True, kv_heads=2, rope_theta=50.0,
                     rope_scaling="llama3", rope_factor=8.0, rope_original_len=32, **SIZES, **PLAIN)  # fmt: skip
SCALED = ModelConfig(positions="rope", mlp="geglu", attention_biases=True, tied=False, embed_scale=20**0.5,
                     norm_offset=1.0, rope_scaling="linear", rope_factor=4.0, **SIZES, **PLAIN)  # fmt: skip
# The tiny Llama of the reference's section 7: V 256, D 64, F 128, N 3, H 4, G 2, K 16, tied.
LLAMA = ModelConfig(layers=3, d_model=64, heads=4, kv_heads=2, head_dim=16, d_ff=128, vocab_size=256, **PLAIN)
FAMILIES = {"chinchilla": CHINCHILLA, "modern": MODERN}


# Compiles in half the time and runs slower: for small checks of numbers.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=QUICK)


def init(cfg: ModelConfig, seed: int = 0):
    """`transformer.init`, compiled."""
    return jit(partial(transformer.init, cfg=cfg))(jax.random.key(seed))


def spiced(cfg: ModelConfig, seed: int = 0, scale: float = 0.2):
    """Parameters with noise on every leaf: biases that are not 0 and norm scales that are not 1."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: transformer.init(jax.random.key(seed), cfg)))
    draw = np.random.default_rng(seed)
    paths = [path[-1].key for path, _ in jax.tree_util.tree_flatten_with_path(tree.unflatten(leaves))[0]]
    noise = [
        scale * draw.standard_normal(leaf.shape) + (name == "scale") * (1 - cfg.norm_offset)
        for name, leaf in zip(paths, leaves)
    ]
    return tree.unflatten([jnp.asarray(x, jnp.float32) for x in noise])


def packed(rows: list[list[int]], length: int, vocab: int, seed: int = 0) -> Batch:
    """Random tokens in documents of the given lengths, row by row; padding up to `length`, a fifth without a loss."""
    draw = np.random.default_rng(seed)
    shape = (len(rows), length)
    segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, documents in enumerate(rows):
        start = 0
        for number, size in enumerate(documents, 1):
            segments[row, start : start + size] = number
            positions[row, start : start + size] = np.arange(size)
            start += size
        assert start <= length
    real = segments > 0
    tokens, targets = (np.where(real, draw.integers(0, vocab, shape), 0).astype(np.int32) for _ in range(2))
    return Batch(tokens, targets, (real & (draw.random(shape) < 0.8)).astype(np.float32), segments, positions)


def dialogue(L: int = 12) -> Batch:
    """One segment: a question of 4 tokens, an answer of 3, a question of 3, an answer; questions are read both ways."""
    tokens = np.random.default_rng(1).integers(4, MODERN.vocab_size, (1, L)).astype(np.int32)
    blocks = np.array([[1] * 4 + [0] * 3 + [2] * 3 + [0] * (L - 10)], np.int32)
    ones = np.ones((1, L), np.int32)
    return Batch(tokens, np.roll(tokens, -1), ones * 1.0, ones, np.arange(L, dtype=np.int32)[None], blocks)


def worst(found, expected, floor: float = 1e-30) -> float:
    """The largest difference of two trees, each leaf measured against its own largest entry, or `floor` if more."""

    def one(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        return np.abs(a - b).max() / max(np.abs(b).max(), floor)

    return max(jax.tree.leaves(jax.tree.map(one, found, expected)))


def naive_loss(hidden_BLD, table_VD, targets_BL, weights_BL, z_loss: float = 0.0) -> jax.Array:
    """What `cross_entropy` sums tile by tile, with all logits at once."""
    logits_BLV = jnp.einsum("bld,vd->blv", hidden_BLD, table_VD, preferred_element_type=jnp.float32)
    norm_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    gold_BL = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0]
    return jnp.sum(weights_BL * (norm_BL - gold_BL + z_loss * jnp.square(norm_BL)))
