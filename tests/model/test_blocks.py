"""Prompts read in both directions (`Batch.blocks`): against loops, against the causal path, and in decoding."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.model import attention as room
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch
from tests import tiny

CFG = dataclasses.replace(tiny.MODERN, layers=2)


def loops(q_BLHK, k_BLGK, v_BLGK, segments_BL, blocks_BL):
    """One query and one key at a time."""
    out = np.zeros_like(q_BLHK)
    for b, i, h in np.ndindex(q_BLHK.shape[:3]):
        g = h * k_BLGK.shape[2] // q_BLHK.shape[2]
        keys = [
            j
            for j in range(q_BLHK.shape[1])
            if segments_BL[b, j] == segments_BL[b, i] and (j <= i or blocks_BL[b, i] == blocks_BL[b, j] > 0)
        ]
        s = np.array([q_BLHK[b, i, h] @ k_BLGK[b, j, g] for j in keys]) / np.sqrt(q_BLHK.shape[-1])
        p = np.exp(s - s.max())
        out[b, i, h] = sum(w * v_BLGK[b, j, g] for w, j in zip(p / p.sum(), keys))
    return out


@pytest.mark.parametrize("path", [room.BLOCK_PATHS["reference"], room.either_way(4)], ids=["whole", "by queries"])
def test_paths_equal_loops(path):
    draw = np.random.default_rng(0)
    q, k, v = (draw.standard_normal((2, 11, n, 6)).astype(np.float32) for n in (4, 2, 2))
    segments = np.array([[1] * 6 + [2] * 5, [1] * 9 + [0] * 2], np.int32)
    blocks = np.array([[1, 1, 0, 2, 2, 0, 1, 1, 1, 0, 0], [0, 3, 3, 3, 0, 0, 1, 1, 0, 0, 0]], np.int32)
    np.testing.assert_allclose(tiny.jit(path)(q, k, v, segments, blocks), loops(q, k, v, segments, blocks), atol=2e-6)


def dialogue(L: int = 12) -> Batch:
    """One segment: a question of 4 tokens, an answer of 3, another question of 3, another answer."""
    tokens = np.random.default_rng(1).integers(4, CFG.vocab_size, (1, L)).astype(np.int32)
    blocks = np.array([[1] * 4 + [0] * 3 + [2] * 3 + [0] * (L - 10)], np.int32)
    ones = np.ones((1, L), np.int32)
    return Batch(tokens, np.roll(tokens, -1), ones * 1.0, ones, np.arange(L, dtype=np.int32)[None], blocks)


def test_a_token_sees_what_its_number_says_and_nothing_else():
    """The gradient of one position's output by another's embedding is 0 exactly where the mask hides it."""
    params, batch = tiny.spiced(CFG), dialogue()
    zeros = np.zeros((1, 12, CFG.d_model), np.float32)
    weights = np.random.default_rng(2).standard_normal(CFG.d_model)

    def seen(delta_BLD):
        return transformer.apply(params, batch, CFG, delta_BLD=delta_BLD)[0] @ weights

    jacobian_LL = np.abs(tiny.jit(jax.jacrev(seen))(zeros)).sum((1, -1))
    blocks, at = batch.blocks[0], np.arange(12)
    # Two layers of this mask reach no further than one: what a visible token sees is visible too.
    visible = (at <= at[:, None]) | ((blocks[:, None] == blocks) & (blocks > 0))
    assert (jacobian_LL[~visible] == 0).all() and (jacobian_LL[visible] > 0).all()


def test_without_blocks_nothing_is_computed_for_them():
    params, batch = tiny.spiced(CFG), dialogue()
    plain = dataclasses.replace(batch, blocks=None)
    causal = dataclasses.replace(batch, blocks=np.zeros_like(batch.blocks))
    apply = tiny.jit(partial(transformer.apply, cfg=CFG))
    np.testing.assert_allclose(apply(params, plain), apply(params, causal), atol=1e-6)
    assert len(jax.tree.leaves(plain)) == 5


def test_decoding_equals_the_whole_pass():
    """Two questions as blocks and two answers token by token, over a cache, against one masked pass."""
    params, batch = tiny.spiced(CFG), dialogue()
    expected = tiny.jit(partial(transformer.apply, cfg=CFG))(params, batch)
    split = caches.split_layers(params, CFG)
    extend = {block: tiny.jit(partial(caches.extend, cfg=CFG, block=block)) for block in (True, False)}
    cache, found = caches.empty(split, CFG, 1, 16), []
    for start, stop, block in [(0, 4, True), (4, 7, False), (7, 10, True), (10, 12, False)]:
        part = jnp.asarray(batch.tokens[:, start:stop])
        hidden, cache = extend[block](split, part, np.array([stop - start]), cache)
        found.append(hidden)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, atol=1e-5)
