"""The engine against whole forward passes, and rows against themselves in other company."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from chinchilla_jax.inference import engine as engines
from chinchilla_jax.inference.engine import CHUNK, Engine
from chinchilla_jax.inference.lookup import DRAFT
from chinchilla_jax.inference.sampling import Rows, Sampling
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch
from tests import tiny

LENGTHS, AHEAD = [8, 3, 1], 5
CONFIGS = {"chinchilla": tiny.CHINCHILLA, "modern": tiny.MODERN, "mixed": tiny.MIXED, "normed": tiny.NORMED,
           "scaled": tiny.SCALED}  # fmt: skip
STEPS = 4


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
    """Unequal prompts into slots of their own, two of them in parts, then all token by token; wider on the way."""
    cfg, draw = CONFIGS[family], np.random.default_rng(0)
    params = tiny.spiced(cfg)
    rows = [draw.integers(0, 61, n + AHEAD).tolist() for n in LENGTHS]
    expected = full_pass(params, rows, cfg, 16)

    extend = tiny.jit(functools.partial(caches.extend, cfg=cfg))
    unfitted = caches.split_layers(params, cfg)
    split = caches.fitted(unfitted, caches.distances(unfitted, cfg, 12))
    cache, found = caches.empty(split, cfg, 3, 12), [[], [], []]
    for row, n in enumerate(LENGTHS):
        for at in range(0, n, 4):
            part = (rows[row][at : min(at + 4, n)] + [0] * 4)[:4]
            count = min(4, n - at)
            hidden_1LD, cache = extend(split, np.array([part]), np.array([count]), cache, slot_B=np.array([row]))
            found[row].append(hidden_1LD[0, :count])
    cache, split = caches.widen(cache, 16), caches.fitted(unfitted, caches.distances(unfitted, cfg, 16))
    for step in range(AHEAD):
        tokens = np.array([[row[len(row) - AHEAD + step]] for row in rows], np.int32)
        hidden_BLD, cache = extend(split, tokens, np.ones(3, np.int32), cache)
        for row in range(3):
            found[row].append(hidden_BLD[row])
    np.testing.assert_array_equal(cache.used_S, np.add(LENGTHS, AHEAD))
    assert tiny.worst([np.concatenate(parts) for parts in found], expected) < 1e-5


CFG = dataclasses.replace(tiny.MODERN, layers=1, kernels="cpu")


@functools.cache
def engine():
    return Engine(CFG, 59, STEPS)


@functools.cache
def weights():
    return engine().prepare(tiny.spiced(CFG))


PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
LIVELY = Sampling(temperature=1.0, top_k=20, top_p=0.95)
GREEDY = Sampling(temperature=0)


def continuations(how, prompts, new: int, seeds) -> np.ndarray:
    return np.concatenate(list(engine().stream(weights(), prompts, new, Rows.of(how, seeds))), axis=1)


def test_greedy_takes_the_best_token_of_the_whole_pass():
    """Through several chunks of a prompt, and through the slots being made longer."""
    params = tiny.spiced(CFG)
    long = np.random.default_rng(1).integers(0, 59, CHUNK + 58).tolist()
    made = continuations(GREEDY, [*PROMPTS[:2], long], 20, [0, 0, 0])
    hidden = full_pass(params, [prompt + row.tolist() for prompt, row in zip([*PROMPTS[:2], long], made)], CFG, 160)
    for prompt, row, hidden_LD in zip([*PROMPTS[:2], long], made, hidden):
        logits_LV = hidden_LD @ np.asarray(transformer.unembedding(params)).T
        np.testing.assert_array_equal(row, logits_LV[len(prompt) - 1 : -1, :59].argmax(-1))


def test_a_row_depends_on_its_prompt_and_seed_alone():
    together = continuations(LIVELY, PROMPTS, 16, [7, 8, 9])
    np.testing.assert_array_equal(together, continuations(LIVELY, PROMPTS, 16, [7, 8, 9]))
    mixed = continuations(LIVELY, [PROMPTS[2], PROMPTS[0], PROMPTS[0]], 16, [9, 7, 8])
    np.testing.assert_array_equal(mixed[:2], together[[2, 0]])
    assert (mixed[2] != together[0]).any(), "another seed, another text"
    assert (together < 59).all(), "a row of the table that is no piece"
    longer = continuations(LIVELY, PROMPTS, 27, [7, 8, 9])
    np.testing.assert_array_equal(longer[:, :16], together)


def alone(ids, how, seed, new: int, capacity: int, slot: int = 0):
    """Tokens and log-probabilities of one text in a slot of three, with nothing else about."""
    run, rows = engine(), Rows.empty(3)
    rows.put(slot, how, seed, logprobs=True)
    state = run.start(run.empty(weights(), 3, capacity), slot, ids)
    state, drawn, _ = run.prefill(weights(), state, slot, ids, rows)
    made = [(drawn.token_S[:1], drawn.logprob_S[:1])]
    for _ in range(0, new, STEPS):
        state, drawn = run.decode(weights(), state, [slot], rows)
        made.append((drawn.token_S[:, 0], drawn.logprob_S[:, 0]))
    return [np.concatenate(parts) for parts in zip(*made)]


def test_the_bits_of_a_row_do_not_depend_on_its_company():
    """A text that joins two others on the way, in another slot; one of them ends while it runs."""
    how = Sampling(0.9, top_p=0.9, min_p=0.01, repetition_penalty=1.3, frequency_penalty=0.1)
    expected = alone(PROMPTS[0], how, 5, 16, 128)
    assert all((a == b).all() for a, b in zip(expected, alone(PROMPTS[0], how, 5, 16, 128, slot=2)))
    run, rows = engine(), Rows.empty(3)
    rows.put(0, LIVELY, 3)
    rows.put(1, GREEDY, 4)
    rows.put(2, how, 5, logprobs=True)
    state = run.empty(weights(), 3)
    for slot in (0, 1):
        state = run.start(state, slot, PROMPTS[slot + 1], bias={7: 2.0})
        state, *_ = run.prefill(weights(), state, slot, PROMPTS[slot + 1], rows)
    state, _ = run.decode(weights(), state, [0, 1], rows)
    state = run.start(state, 2, PROMPTS[0])
    state, drawn, _ = run.prefill(weights(), state, 2, PROMPTS[0], rows)
    found = [(drawn.token_S, drawn.logprob_S)]
    for call in range(4):
        state, drawn = run.decode(weights(), state, [2, 0] if call else [0, 1, 2], rows)
        found.append((drawn.token_S[:, 0 if call else 2], drawn.logprob_S[:, 0 if call else 2]))
    for a, b in zip(expected, [np.concatenate(parts) for parts in zip(*found)]):
        np.testing.assert_array_equal(a, b)


def test_models_that_share_slots_have_their_own_distances():
    """Relative positions are projected by a kernel of every layer, which a tuned model may have changed."""
    cfg = dataclasses.replace(tiny.CHINCHILLA, layers=1)
    run, ids, rows = Engine(cfg, 59, STEPS), [*range(2, 40)], Rows.empty(2)
    one, other = (run.fitted(run.prepare(tiny.spiced(cfg, seed)), 128) for seed in (0, 1))

    def second_chunk(weights, state):
        for at in (0, 20):
            state, drawn, _ = run.prefill(weights, state, 1, ids[at : at + 20], rows, last=at > 0)
        return drawn.logprob_S

    rows.put(1, GREEDY, 0, logprobs=True)
    shared = run.start(run.empty(one, 2), 0, ids)
    shared, *_ = run.prefill(one, shared, 0, ids, rows)
    expected = second_chunk(other, run.start(run.empty(other, 2), 1, ids))
    np.testing.assert_array_equal(second_chunk(other, run.start(shared, 1, ids)), expected)
    [hidden_LD] = full_pass(tiny.spiced(cfg, 1), [ids], cfg, 64)
    logits_V = (hidden_LD[-1] @ np.asarray(transformer.unembedding(tiny.spiced(cfg, 1))).T)[:59]
    np.testing.assert_allclose(expected, [jax.nn.log_softmax(logits_V).max()], atol=1e-4)


def test_log_probabilities_are_the_models():
    """Of what was drawn and of the prompt, before any penalty or filter, against the whole pass."""
    ids, how = PROMPTS[0], Sampling(0.7, top_k=3, presence_penalty=1.0)
    tokens, found = alone(ids, how, 5, 8, 128)
    params = tiny.spiced(CFG)
    [hidden_LD] = full_pass(params, [ids + tokens.tolist()], CFG, 16)
    logp_LV = jax.nn.log_softmax((hidden_LD @ np.asarray(transformer.unembedding(params)).T)[:, :59])
    at = len(ids) - 1 + np.arange(len(tokens))
    np.testing.assert_allclose(found, np.asarray(logp_LV)[at, tokens], atol=1e-4)
    run, rows = engine(), Rows.of(how, [5, 5, 5])
    state = run.start(run.empty(weights(), 3), 1, ids)
    _, _, prompt = run.prefill(weights(), state, 1, ids, rows, after=int(tokens[0]), wanted=True)
    expected = np.asarray(logp_LV)[np.arange(len(ids)), [*ids[1:], tokens[0]]]
    np.testing.assert_allclose(prompt.logprob_S[: len(ids)], expected, atol=1e-4)
    np.testing.assert_array_equal(prompt.top_SK[: len(ids), 0], np.asarray(logp_LV)[: len(ids)].argmax(-1))


def test_a_prompt_read_in_both_directions_equals_the_whole_pass():
    params, ids = tiny.spiced(CFG), list(range(2, 12))
    tokens = np.zeros((1, 16), np.int32)
    tokens[0, :10] = ids
    segments = np.int32(tokens > 0)
    batch = Batch(tokens, tokens, np.float32(segments), segments, np.arange(16)[None], blocks=segments)
    logits_V = np.asarray(whole(CFG)(params, batch))[0, 9] @ np.asarray(transformer.unembedding(params)).T
    [made] = engine().stream(weights(), [ids], 1, Rows.of(GREEDY, [0]), [[1] * len(ids)])
    assert made.item() == logits_V[:59].argmax()


@pytest.mark.parametrize("how", [GREEDY, LIVELY, Sampling(0.01, repetition_penalty=1.1, frequency_penalty=0.05)])
def test_guesses_do_not_change_a_text(how, monkeypatch):
    """Right, wrong and half right, behind a short prompt and those of several chunks, while the slot is made longer."""
    gained, verify = [], engine().verify

    def counted(*args):
        found = verify(*args)
        gained.append(len(found[1].token_S))
        return found

    monkeypatch.setattr(engine(), "verify", counted)
    for prompt in ([3, 1, 4] * 5, ([3, 1, 4] * CHUNK)[: CHUNK + 46], [7] * (CHUNK + 46)):
        expected = continuations(how, [prompt], 40, [3])
        blocks = list(engine().stream(weights(), [prompt], 40, Rows.of(how, [3]), lookup=True))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), expected)
    assert all(1 <= count <= DRAFT + 1 for count in gained)
    assert how is LIVELY or max(gained) > 1


@pytest.mark.parametrize("new, sizes", [(1, [1]), (5, [1, 4]), (8, [1, 4, 3])])
def test_tokens_come_in_blocks(new, sizes):
    blocks = list(engine().stream(weights(), PROMPTS, new, Rows.of(GREEDY, [0] * 3)))
    assert [block.shape for block in blocks] == [(3, size) for size in sizes]


def test_capacities_are_few():
    assert [engines.capacity_for(n) for n in (1, 128, 129, 512, 513)] == [128, 128, 256, 512, 1024]


def test_bfloat16_decodes():
    cfg = dataclasses.replace(tiny.CHINCHILLA, dtype="bfloat16", layers=1)
    run = Engine(cfg, 61)
    split = run.prepare(tiny.spiced(cfg))
    assert np.concatenate(list(run.stream(split, [[1, 2]], 3, Rows.of(GREEDY, [0]))), axis=1).shape == (1, 3)
    assert jax.tree.leaves(split["blocks"])[0].dtype == "bfloat16"
