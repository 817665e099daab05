"""Decoding over a cache against the whole pass; where keys and values of a slot lie."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer
from tests import tiny


def test_decoding_equals_the_whole_pass():
    """Two questions as blocks and two answers token by token, over a cache, against one masked pass."""
    params, batch = tiny.spiced(tiny.MODERN), tiny.dialogue()
    expected = tiny.jit(partial(transformer.apply, cfg=tiny.MODERN))(params, batch)
    split = caches.split_layers(params, tiny.MODERN)
    extend = {block: tiny.jit(partial(caches.extend, cfg=tiny.MODERN, block=block)) for block in (True, False)}
    cache, found = caches.empty(split, tiny.MODERN, 1, 16), []
    for start, stop, block in [(0, 4, True), (4, 7, False), (7, 10, True), (10, 12, False)]:
        part = jnp.asarray(batch.tokens[:, start:stop])
        hidden, cache = extend[block](split, part, np.array([stop - start]), cache)
        found.append(hidden)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, atol=1e-5)


def test_a_block_of_a_slot_goes_into_another_and_nowhere_else():
    """As a shared prefix does: from tokens 2 to 5 of slot 0 to the same places of slot 2."""
    cfg, draw = tiny.MODERN, np.random.default_rng(4)
    G, T, K = cfg.kv_heads, 8, cfg.head_dim
    kept = [[draw.standard_normal((n * 3 * G, T, K)).astype(np.float32) for _ in range(2)] for n in (1, 3)]
    cache = caches.Cache(tuple(caches.Kept(k, v) for k, v in kept), jnp.array([8, 4, 0]))
    block = caches.block_of(cache, 0, 2, cfg, 3)
    assert block.shape == (4, 2, G, 3, K) and cache.capacity == T
    found = caches.with_block(cache, 2, 2, block, cfg)
    np.testing.assert_array_equal(found.used_S, [8, 4, 5])
    for stack, pair in zip(found.stacks, kept):
        for new, old in zip(stack[:2], pair):
            expected = old.reshape(-1, 3, G, T, K).copy()
            expected[:, 2, :, 2:5] = expected[:, 0, :, 2:5]
            np.testing.assert_array_equal(new, expected.reshape(old.shape))
