"""Decoding with the cache against whole forward passes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from chinchilla_jax.inference.decode import BUCKET, CHUNK, Decoder, pad_left
from chinchilla_jax.inference.sampling import Sampling
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch
from tests import tiny

LENGTHS, AHEAD = [8, 3, 1], 5
CONFIGS = {"chinchilla": tiny.CHINCHILLA, "modern": tiny.MODERN, "mixed": tiny.MIXED, "normed": tiny.NORMED,
           "scaled": tiny.SCALED}  # fmt: skip


@functools.cache
def whole(cfg):
    """Hidden states of right-padded rows in one pass."""
    return tiny.jit(functools.partial(transformer.apply, cfg=cfg))


def full_pass(params, rows, cfg, length: int):
    """Hidden states of every token of each row, without a cache: rows padded on the right, none sees another."""
    tokens, segments = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)], segments[row, : len(ids)] = ids, 1
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    hidden_BLD = whole(cfg)(params, Batch(tokens, tokens, np.float32(segments), segments, positions))
    return [np.asarray(hidden_BLD)[row, : len(ids)] for row, ids in enumerate(rows)]


@pytest.mark.parametrize("family", CONFIGS)
def test_the_cache_gives_what_the_whole_pass_gives(family):
    """Unequal prompts padded on the left, prefilled at once, then token by token; every position is compared."""
    cfg, draw = CONFIGS[family], np.random.default_rng(0)
    params = tiny.spiced(cfg)
    rows = [draw.integers(0, 61, n + AHEAD).tolist() for n in LENGTHS]
    expected = full_pass(params, rows, cfg, 16)

    extend = tiny.jit(functools.partial(caches.extend, cfg=cfg))
    split = caches.split_layers(params, cfg)
    tokens, segments = pad_left([row[:-AHEAD] for row in rows], 8)
    hidden_BLD, cache = extend(split, tokens, segments, caches.empty(split, cfg, 3, 16))
    found = [[hidden_BLD[row, 8 - n :]] for row, n in enumerate(LENGTHS)]
    for step in range(AHEAD):
        tokens = np.array([[row[len(row) - AHEAD + step]] for row in rows], np.int32)
        hidden_BLD, cache = extend(split, tokens, np.ones_like(tokens), cache)
        for row in range(3):
            found[row].append(hidden_BLD[row])
    assert int(cache.used) == 8 + AHEAD
    assert tiny.worst([np.concatenate(parts) for parts in found], expected) < 1e-5


def test_padding_on_the_left():
    tokens, segments = pad_left([[5, 6, 7], [8]], 4)
    np.testing.assert_array_equal(tokens, [[0, 5, 6, 7], [0, 0, 0, 8]])
    np.testing.assert_array_equal(segments, [[0, 1, 1, 1], [0, 0, 0, 1]])
    assert pad_left([[1] * 5], 4)[0].shape == (1, 8)


@functools.cache
def decoder(how: Sampling):
    return Decoder(dataclasses.replace(tiny.MODERN, layers=1, kernels="cpu"), how, pieces=59)


@functools.cache
def weights():
    cfg = dataclasses.replace(tiny.MODERN, layers=1)
    return tiny.spiced(cfg), cfg


def continuations(how: Sampling, prompts, new: int, seeds) -> np.ndarray:
    run = decoder(how)
    return np.concatenate(list(run.stream(run.prepare(weights()[0]), prompts, new, seeds)), axis=1)


PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
LIVELY = Sampling(temperature=1.0, top_k=20, top_p=0.95)


def test_greedy_takes_the_best_token_of_the_whole_pass():
    params, cfg = weights()
    made = continuations(Sampling(temperature=0), PROMPTS, 20, [0, 0, 0])
    hidden = full_pass(params, [prompt + row.tolist() for prompt, row in zip(PROMPTS, made)], cfg, 32)
    for prompt, row, hidden_LD in zip(PROMPTS, made, hidden):
        logits_LV = hidden_LD @ np.asarray(transformer.unembedding(params)).T
        np.testing.assert_array_equal(row, logits_LV[len(prompt) - 1 : -1, :59].argmax(-1))


def test_a_row_depends_on_its_prompt_and_seed_alone():
    together = continuations(LIVELY, PROMPTS, CHUNK, [7, 8, 9])
    np.testing.assert_array_equal(together, continuations(LIVELY, PROMPTS, CHUNK, [7, 8, 9]))
    mixed = continuations(LIVELY, [PROMPTS[2], PROMPTS[0], PROMPTS[0]], CHUNK, [9, 7, 8])
    np.testing.assert_array_equal(mixed[:2], together[[2, 0]])
    assert (mixed[2] != together[0]).any(), "another seed, another text"
    np.testing.assert_array_equal(continuations(LIVELY, PROMPTS[1:2], CHUNK, [8]), together[1:2])
    assert (together < 59).all(), "a row of the table that is no piece"


def test_a_longer_continuation_begins_with_the_shorter():
    short, longer = (continuations(LIVELY, PROMPTS, new, [1, 2, 3]) for new in (5, 20))
    np.testing.assert_array_equal(longer[:, :5], short)


@pytest.mark.parametrize("new, sizes", [(1, [1]), (CHUNK, [16]), (20, [16, 4]), (33, [16, 16, 1])])
def test_tokens_come_in_blocks(new, sizes):
    run = Decoder(tiny.MODERN, LIVELY, pieces=59)

    def prefill(split, tokens_BL, segments_BL, seeds_B, capacity):
        assert capacity >= BUCKET + new, "the cache is too small for what is asked"
        return tokens_BL[:, -1], None

    run._prefill = prefill
    run._more = lambda split, tokens_B, cache, seeds_B, at: (tokens_B, cache, np.zeros((3, CHUNK), np.int32))
    assert [block.shape[1] for block in run.stream(None, PROMPTS, new, [0, 0, 0])] == sizes


def test_bfloat16_decodes():
    cfg = dataclasses.replace(tiny.CHINCHILLA, dtype="bfloat16", layers=1)
    run = Decoder(cfg, Sampling(temperature=0), 61)
    made = list(run.stream(run.prepare(tiny.spiced(cfg)), [[1, 2]], 3, [0]))
    assert made[0].shape == (1, 3)
    assert jax.tree.leaves(run.prepare(tiny.spiced(cfg))["blocks"])[0].dtype == "bfloat16"
