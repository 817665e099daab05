"""Bits per byte of a clean text whose context is faulty: mistyped, with wrong words, or cut into unusual pieces.

Targets stay clean. Behind each token of a mistyped text the model is asked for the clean token that starts at that
place, where one does; the others are not scored, and neither are their bytes. So the figure is bits per clean byte over
the share `scored` of the bytes, all of them at share 0. The bytes not scored are the rest of a word with a mistake in
it: what the figure measures is how far a mistake troubles what comes after it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.data.batches import gather
from chinchilla_jax.data.split import Split
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.evaluation.typos import corrupt, targets
from chinchilla_jax.types import Batch


@dataclass(frozen=True)
class Stream:
    """Documents end to end: what is read, what is to be predicted with which weight (T,), and where documents start."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "Stream":
        """From (tokens, targets, weights) of each document."""
        sizes = [len(tokens) for tokens, _, _ in documents]
        starts = np.cumsum([0, *sizes[:-1]], dtype=np.uint64)
        return cls(*(np.concatenate(arrays) for arrays in zip(*documents)), starts)

    def batches(self, rows: int, length: int) -> Iterator[Batch]:
        """Windows in order, as `valid_batch` cuts them."""
        split = Split(np.append(self.tokens, 0), self.starts, 0)
        for first in range(0, -(-len(self.tokens) // length), rows):
            starts_B = (first + np.arange(rows)) * length
            batch = gather(split, starts_B, length)
            at_BL = np.minimum(starts_B[:, None] + np.arange(length), len(self.tokens) - 1)
            real_BL = batch.weights > 0
            yield dataclasses.replace(
                batch,
                targets=np.where(real_BL, self.targets[at_BL], 0).astype(np.int32),
                weights=np.where(real_BL, self.weights[at_BL], 0).astype(np.float32),
            )


def excerpts(split: Split, tokenizer: BaseTokenizer, tokens: int, length: int) -> list[str]:
    """The beginnings of documents spread evenly over a split, about `tokens` tokens in all, `length` each or more."""
    ends = np.append(split.starts[1:].astype(np.int64), len(split.tokens) - 1)
    count = min(len(ends), max(1, tokens // length))
    texts = []
    for number in np.arange(count) * len(ends) // count:
        start = int(split.starts[number]) + 1
        ids = split.tokens[start : min(int(ends[number]), start + -(-tokens // count))]
        texts.append(tokenizer.decode(ids).rstrip("\ufffd"))  # where a character was cut in two
    return [text for text in texts if text]


def typo_report(
    params: Any,
    likelihood: Likelihood,
    texts: Sequence[str],
    tokenizer: BaseTokenizer,
    shares: Sequence[float],
    seed: int,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, dict[float, float]]:
    """{"typo": {share: bits per clean byte}, "typo_scored": {share: share of the bytes}}; share 0 comes first, always.

    The texts must come back unchanged from the tokenizer (`BaseTokenizer.lossless`).
    """
    found: dict[str, dict[float, float]] = {"typo": {}, "typo_scored": {}}
    whole = sum(len(text.encode()) for text in texts)
    for share in [0.0, *(share for share in shares if share)]:
        draw = np.random.default_rng([seed, round(share * 1e9)])
        stream = Stream.of([mistyped(text, tokenizer, share, draw) for text in texts])
        scored = float(tokenizer.sizes[stream.targets] @ stream.weights)
        found["typo"][share], kept = _bits(params, likelihood, stream, scored, tokenizer.sizes, poll)
        found["typo_scored"][share] = kept * scored / whole
    return found


def mistyped(text: str, tokenizer: BaseTokenizer, share: float, draw: np.random.Generator):
    """Tokens of a text with mistakes, clean targets and their weights, all (n,)."""
    faulty, places = corrupt(text, share, draw)
    if tokenizer.prefixes_space:
        places = np.append(0, np.where(places < 0, -1, places + 1))
    read, clean = tokenizer.encode_array(faulty), tokenizer.encode_array(text)
    return np.append(tokenizer.separator, read), *targets(read, clean, places, tokenizer.sizes, tokenizer.closing)


def word_report(
    params: Any,
    likelihood: Likelihood,
    texts: Sequence[str],
    tokenizer: BaseTokenizer,
    shares: Sequence[float],
    seed: int,
    poll: Callable[[], None] = lambda: None,
) -> dict[float, float]:
    """Bits per byte where a share of the tokens that are read are others, drawn uniformly; targets stay clean."""
    stream = Stream.of([_plain(tokenizer.encode_array(text), tokenizer) for text in texts])
    whole = sum(len(text.encode()) for text in texts)
    words = np.flatnonzero(tokenizer.sizes)
    found = {}
    for share in shares:
        draw = np.random.default_rng([seed, round(share * 1e9), 1])
        wrong = (draw.random(len(stream.tokens)) < share) & (stream.tokens != tokenizer.separator)
        drawn = draw.choice(words, len(stream.tokens))
        faulty = dataclasses.replace(stream, tokens=np.where(wrong, drawn, stream.tokens))
        found[share], _ = _bits(params, likelihood, faulty, whole, tokenizer.sizes, poll)
    return found


def segmentation_report(
    params: Any,
    likelihood: Likelihood,
    texts: Sequence[str],
    tokenizer: BaseTokenizer,
    seed: int,
    poll: Callable[[], None] = lambda: None,
) -> float:
    """Bits per byte of the texts in pieces that the tokenizer's `sample_array` drew, read and predicted alike."""
    drawn = [tokenizer.sample_array(text, (seed + number) % 2**32) for number, text in enumerate(texts)]
    whole = sum(len(text.encode()) for text in texts)
    stream = Stream.of([_plain(ids, tokenizer) for ids in drawn])
    return _bits(params, likelihood, stream, whole, tokenizer.sizes, poll)[0]


def _plain(ids: np.ndarray, tokenizer: BaseTokenizer):
    return np.append(tokenizer.separator, ids), np.append(ids, tokenizer.closing), np.ones(len(ids) + 1, np.float32)


def _bits(params, likelihood: Likelihood, stream: Stream, size: float, sizes: np.ndarray, poll) -> tuple[float, float]:
    """Bits per byte of a stream of `size` bytes, and the share of these that is read: a soft prompt stands before every
    document and pushes as many tokens out of the window.
    """
    program, read = likelihood.program, 0.0

    def fed() -> Iterator[Batch]:
        nonlocal read
        for batch in stream.batches(likelihood.rows, program.config.train.seq_len):
            batch = program.recipe.fed(batch)
            read += float(sizes[batch.targets].ravel() @ batch.weights.ravel())
            yield batch

    loss = likelihood.sums(params, fed(), poll).loss
    kept = read / float(sizes[stream.targets] @ stream.weights)
    return loss / (math.log(2) * size * kept), kept
