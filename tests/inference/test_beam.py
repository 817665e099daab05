"""Beam search and scored endings against sums over all continuations, by the model without a cache."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.evaluation import writing
from chinchilla_jax.evaluation.writing import Beams, Chooser, Writer
from chinchilla_jax.inference import beam
from chinchilla_jax.model import transformer
from chinchilla_jax.types import Batch
from tests import tiny

V, STOP = 5, 3
CFG = ModelConfig(layers=1, d_model=12, heads=2, head_dim=4, d_ff=20, vocab_size=V, **tiny.PLAIN)
DEEP = dataclasses.replace(CFG, layers=2)  # the last token of a prompt feels what an earlier one sees
PROMPTS = [[1, 2, 0, 4, 4], [2, 2], [4], [0, 1, 1, 4, 2, 4, 0]]


@pytest.fixture(scope="module")
def params():
    return tiny.spiced(CFG, seed=4, scale=0.7)


@pytest.fixture(scope="module")
def logp(params):
    """logp(prompt, endings (N, T)) -> log p of every token of each ending (N, T)."""
    return log_probabilities(CFG, params)


def log_probabilities(cfg, params):
    @tiny.jit
    def run(tokens_BL, blocks_BL):
        B, L = tokens_BL.shape
        ones_BL, at_BL = jnp.ones((B, L), int), jnp.tile(jnp.arange(L), (B, 1))
        batch = Batch(tokens_BL, tokens_BL, jnp.ones((B, L)), ones_BL, at_BL, blocks_BL)
        hidden_BLD = transformer.apply(params, batch, cfg)
        return jax.nn.log_softmax(transformer.logits(params, hidden_BLD.reshape(B * L, -1))).reshape(B, L, V)

    def of(prompt, endings, block: bool = False):
        endings = np.array(endings)
        whole = np.concatenate([np.tile(prompt, (len(endings), 1)), endings], axis=1)
        padded = np.pad(whole, [(0, 0), (0, 12 - whole.shape[1])])
        blocks = np.tile(np.arange(12) < len(prompt) * block, (len(endings), 1)).astype(np.int32)
        found = np.asarray(run(jnp.asarray(padded), blocks))[:, len(prompt) - 1 : whole.shape[1] - 1]
        return np.take_along_axis(found, endings[..., None], axis=2)[..., 0]

    return of


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    """Three texts side by side, so that the last part of four is filled up and the programs are small."""
    monkeypatch.setattr(writing, "AT_ONCE", 3)


def best_of_all(logp, prompt, new: int, penalty: float) -> tuple[list[int], bool]:
    """The best of all continuations of at most `new` tokens, from its definition."""
    every = np.array(list(itertools.product(range(V), repeat=new)))
    each = logp(prompt, every)
    ended: dict[tuple, float] = {}
    for row, logps in zip(every.tolist(), each):
        if STOP in row:
            n = row.index(STOP)
            ended[tuple(row[:n])] = logps[: n + 1].sum() / beam.worth(n + 1, penalty)
    return list(max(ended, key=ended.get)), True


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_a_beam_as_wide_as_all_beginnings_finds_the_best(params, logp, penalty):
    """V^2 beams of three tokens leave nothing out. The last part is filled up, and texts differ in length."""
    search = Beams(CFG, V, frozenset([STOP]), V * V, penalty)
    found = search(params, PROMPTS, None, 3)
    wanted = [best_of_all(logp, prompt, 3, penalty) for prompt in PROMPTS]
    assert [(one.ids, one.stopped) for one in found] == wanted


def test_texts_that_do_not_end_are_said(params):
    """A piece beyond the tokenizer's, here the only end, is never chosen."""
    [one] = Beams(CFG, V - 1, frozenset([V - 1]), 2, 0.0)(params, PROMPTS[:1], None, 3)
    assert not one.stopped and len(one.ids) == 3 and V - 1 not in one.ids


def test_scored_endings_are_those_of_the_whole_text(params, logp):
    endings = [[4, 3], [0, 1, 2, 3], [3]]
    found = Chooser(CFG, V, endings)(params, PROMPTS, None)
    for prompt, row in zip(PROMPTS, found):
        assert row == pytest.approx([logp(prompt, [ending]).sum() for ending in endings], abs=1e-5)


def test_a_prompt_read_in_both_directions_ends_alike():
    """The last token of a prompt is read twice, once in its block: greedy and one beam without ends agree."""
    params = tiny.spiced(DEEP, seed=4, scale=0.7)
    logp, blocks = log_probabilities(DEEP, params), [[1] * len(prompt) for prompt in PROMPTS]
    greedy = Writer(DEEP, V, frozenset([V]))(params, PROMPTS, blocks, 5)
    one = Beams(DEEP, V, frozenset([V]), 1, 0.0)(params, PROMPTS, blocks, 5)
    assert [a.ids for a in greedy] == [b.ids for b in one] and not any(b.stopped for b in one)
    found = Chooser(DEEP, V, [[4, 3]])(params, PROMPTS, blocks)[:, 0]
    assert found == pytest.approx([logp(prompt, [[4, 3]], block=True).sum() for prompt in PROMPTS], rel=2e-5)
    plain = [logp(prompt, [[4, 3]]).sum() for prompt in PROMPTS]
    assert np.abs(found - plain)[[0, 3]].min() > 1e-4
