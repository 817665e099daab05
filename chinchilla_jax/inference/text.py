"""Text in, text out: the engine with its tokenizer; of what is made, whole characters and nothing of a stop string."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.data.tokenizer_base import BaseTokenizer, Streamer
from chinchilla_jax.inference.engine import FEW_STEPS, STEPS, Engine
from chinchilla_jax.inference.sampling import Rows, Sampling


class Stopper:
    """Text up to the stop string that is complete first. Held back is the longest end that one may begin with."""

    def __init__(self, stops: Sequence[str]):
        self.stops, self.held, self.stopped = [stop for stop in stops if stop], "", False

    def feed(self, text: str) -> str:
        """What may be sent of the text so far and `text`."""
        if self.stopped:
            return ""
        whole = self.held + text
        found = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in self.stops if stop in whole]
        if found:
            self.stopped, self.held = True, ""
            return whole[: min(found)[1]]
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(whole)), 0, -1):
            if any(stop.startswith(whole[-size:]) for stop in self.stops):
                self.held = whole[-size:]
                return whole[:-size]
        self.held = ""
        return whole

    def flush(self) -> str:
        """What was held back, at the end of a text that did not stop."""
        held, self.held = self.held, ""
        return held


class Writer:
    """The text of one choice, which `begins` by itself or goes on; `feed` and `flush` give what may be sent."""

    def __init__(self, tokenizer: BaseTokenizer, stops: Sequence[str], begins: bool = True):
        self.streamer, self.stopper = Streamer(tokenizer, begins), Stopper(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self.stopper.stopped

    def feed(self, ids: Iterable[int]) -> str:
        """The text that became certain with more tokens."""
        return self.stopper.feed(self.streamer.feed(ids))

    def flush(self) -> str:
        """The rest of a text that ended."""
        return self.stopper.feed(self.streamer.flush()) + self.stopper.flush()


def until(stops: Collection[int], blocks: Iterable[np.ndarray]) -> Iterator[tuple[list[list[int]], list[bool]]]:
    """Of every block (B, some), what each row gained before the first of `stops`, and which rows have met one.

    It is over when all have.
    """
    ended: list[bool] = []
    for block_BC in blocks:
        rows, gained = block_BC.tolist(), []
        ended = ended or [False] * len(rows)
        for row, made in enumerate(rows):
            end = next((i for i, token in enumerate(made) if token in stops), None)
            gained.append([] if ended[row] else made[:end])
            ended[row] |= end is not None
        yield gained, [*ended]
        if all(ended):
            break


class Completer:
    """Continues texts; a text that ends before its allowance ends with one of the tokenizer's stops.

    `how` may be changed between calls; `form` is that of the weights: "float" or "int8". With `lookup`, a text that is
    alone goes on by guesses where it repeats itself.
    """

    def __init__(
        self, cfg: ModelConfig, tokenizer: BaseTokenizer, how: Sampling, form: str = "float", lookup: bool = False
    ):
        self.tokenizer, self.how, self.lookup = tokenizer, how, lookup
        self.engine = Engine(cfg, tokenizer.size, FEW_STEPS if lookup else STEPS, form)
        self.prepare = self.engine.prepare

    def stream(
        self,
        weights: Any,
        prompts: Sequence[str | Sequence[int]],
        new: int,
        seeds: Sequence[int],
        stops: Sequence[str] = (),
        both: bool = False,
    ) -> Iterator[list[str]]:
        """Per block of tokens, the text that each row gained; rows that have ended gain nothing.

        `weights` come from `prepare(params)`; `new` is the most tokens a row gains; a row's seed decides its draws. A
        row ends before the first of `stops`. Prompts are texts, which go on, or ids as they are, whose answer begins;
        `both` reads them in both directions, as a model that was tuned so (`--task.source bidirectional`).
        """
        ids = [self.tokenizer.prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        writers = [Writer(self.tokenizer, stops, not isinstance(prompt, str) or not prompt) for prompt in prompts]
        read = [[1] * len(prompt) for prompt in ids] if both else None
        blocks = self.engine.stream(weights, ids, new, Rows.of(self.how, seeds), read, self.lookup)
        for gained, ended in until(self.tokenizer.stops, blocks):
            yield [writer.feed(made) for writer, made in zip(writers, gained)]
            if all(over or writer.stopped for over, writer in zip(ended, writers)):
                break
        yield [writer.flush() for writer in writers]

    def complete(
        self,
        weights: Any,
        prompts: Sequence[str | Sequence[int]],
        new: int,
        seeds: Sequence[int],
        poll: Callable[[], None] = lambda: None,
        stops: Sequence[str] = (),
    ) -> list[str]:
        """The whole continuation of each prompt."""
        texts = [""] * len(prompts)
        for gained in self.stream(weights, prompts, new, seeds, stops):
            texts = [text + more for text, more in zip(texts, gained)]
            poll()
        return texts
