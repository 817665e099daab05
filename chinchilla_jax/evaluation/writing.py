"""Answers for validation, with the engine that serves: a prompt each, greedy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling

AT_ONCE = 8


@dataclass(frozen=True)
class Written:
    """The ids behind a prompt, and whether the model stopped by itself."""

    ids: list[int]
    stopped: bool


class Writer:
    """Writes to the first of the ids `stops`; `pieces` is the size of the tokenizer."""

    def __init__(self, cfg: ModelConfig, pieces: int, stops: frozenset[int]):
        self.engine, self.stops = Engine(cfg, pieces), stops

    def __call__(
        self,
        params: Any,
        prompts: Sequence[list[int]],
        blocks: Sequence[list[int]] | None,
        new: int,
        poll: Callable[[], None] = lambda: None,
    ) -> list[Written]:
        """At most `new` tokens behind every prompt; `blocks` as `Engine.stream` wants them."""
        split, found = self.engine.prepare(params), []
        for start in range(0, len(prompts), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found += self.some(split, prompts[part], blocks and blocks[part], new, poll)
        return found

    def some(self, split: Any, prompts, blocks, new: int, poll) -> list[Written]:
        """`AT_ONCE` prompts at most, filled up to as many so that one program serves all."""
        missing = AT_ONCE - len(prompts)
        filled, both = ([*one, *[one[0]] * missing] if one else None for one in (prompts, blocks))
        made, ended = [[] for _ in prompts], [False] * len(prompts)
        for block_BC in self.engine.stream(split, filled, new, Rows.of(Sampling(0.0), [0] * AT_ONCE), both):
            poll()
            for row in range(len(prompts)):
                for token in block_BC[row].tolist():
                    ended[row] = ended[row] or token in self.stops
                    made[row] += [] if ended[row] else [token]
            if all(ended):
                break
        return [Written(ids, stopped) for ids, stopped in zip(made, ended)]
