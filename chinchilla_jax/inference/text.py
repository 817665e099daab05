"""Text in, text out: a decoder with its tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.data.tokenizer_base import BaseTokenizer, Streamer
from chinchilla_jax.inference.decode import Decoder
from chinchilla_jax.inference.sampling import Sampling


class Completer:
    """Continues texts; a text that ends before its allowance ends with one of the tokenizer's stops."""

    def __init__(self, cfg: ModelConfig, tokenizer: BaseTokenizer, how: Sampling):
        self.tokenizer = tokenizer
        self.decoder = Decoder(cfg, how, tokenizer.size)
        self.prepare = self.decoder.prepare

    def stream(self, weights: Any, prompts: Sequence[str], new: int, seeds: Sequence[int]) -> Iterator[list[str]]:
        """Per block of tokens, the text that each row gained; rows that have ended gain nothing.

        `weights` come from `prepare(params)`; `new` is the most tokens a row gains; a row's seed decides its draws.
        """
        stops = np.array(sorted(self.tokenizer.stops))
        ids = [self.tokenizer.prompt(prompt) for prompt in prompts]
        streamers, ended = [Streamer(self.tokenizer) for _ in ids], np.zeros(len(ids), bool)
        for block_BC in self.decoder.stream(weights, ids, new, seeds):
            gained = []
            for row, made_C in enumerate(block_BC):
                end = np.flatnonzero(np.isin(made_C, stops))
                kept = made_C[: end[0]] if end.size else made_C
                gained.append("" if ended[row] else streamers[row].feed(kept.tolist()))
                ended[row] |= bool(end.size)
            yield gained
            if ended.all():
                break
        yield [streamer.flush() for streamer in streamers]

    def complete(
        self,
        weights: Any,
        prompts: Sequence[str],
        new: int,
        seeds: Sequence[int],
        poll: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """The whole continuation of each prompt."""
        texts = [""] * len(prompts)
        for gained in self.stream(weights, prompts, new, seeds):
            texts = [text + more for text, more in zip(texts, gained)]
            poll()
        return texts
