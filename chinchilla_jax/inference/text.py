"""Text in, text out: the engine with its tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.data.tokenizer_base import BaseTokenizer, Streamer
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling


class Completer:
    """Continues texts; a text that ends before its allowance ends with one of the tokenizer's stops.

    `form` is that of the weights: "float" or "int8".
    """

    def __init__(self, cfg: ModelConfig, tokenizer: BaseTokenizer, how: Sampling, form: str = "float"):
        self.tokenizer, self.how = tokenizer, how
        self.engine = Engine(cfg, tokenizer.size, form=form)
        self.prepare = self.engine.prepare

    def stream(self, weights: Any, prompts: Sequence[str], new: int, seeds: Sequence[int]) -> Iterator[list[str]]:
        """Per block of tokens, the text that each row gained; rows that have ended gain nothing.

        `weights` come from `prepare(params)`; `new` is the most tokens a row gains; a row's seed decides its draws.
        """
        stops = np.array(sorted(self.tokenizer.stops))
        ids = [self.tokenizer.prompt(prompt) for prompt in prompts]
        streamers, ended = [Streamer(self.tokenizer) for _ in ids], np.zeros(len(ids), bool)
        for block_BC in self.engine.stream(weights, ids, new, Rows.of(self.how, seeds)):
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
