"""Answers for validation, with the engine that serves: greedy, by beam search, or one of a few."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.inference import beam
from chinchilla_jax.inference.engine import BUCKET, CHUNK, Engine, State
from chinchilla_jax.inference.sampling import Rows
from chinchilla_jax.inference.text import until
from chinchilla_jax.model.adapted import prefix

AT_ONCE = 8
Poll = Callable[[], None]
Blocks = Sequence[list[int]] | None  # as `Engine.stream` wants them


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
        self, params: Any, prompts: Sequence[list[int]], blocks: Blocks, new: int, poll: Poll = lambda: None
    ) -> list[Written]:
        """At most `new` tokens behind every prompt."""
        split, found = self.engine.prepare(params), []
        for start in range(0, len(prompts), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found += self.some(split, prompts[part], blocks and blocks[part], new, poll)
        return found

    def some(self, split: Any, prompts, blocks, new: int, poll) -> list[Written]:
        """`AT_ONCE` prompts at most, filled up to as many so that one program serves all."""
        missing = AT_ONCE - len(prompts)
        filled, both = ([*one, *[one[0]] * missing] if one else None for one in (prompts, blocks))
        blocks = self.engine.stream(split, filled, new, Rows.empty(AT_ONCE), both)
        made, ended = [[] for _ in filled], []
        for gained, ended in until(self.stops, blocks):
            poll()
            made = [ids + more for ids, more in zip(made, gained)]
            if all(ended[: len(prompts)]):
                break
        return [Written(ids, stopped) for ids, stopped in zip(made, ended)][: len(prompts)]


class Reader:
    """Prompts in slots of an engine, as many tokens wide as the longest needs."""

    def __init__(self, cfg: ModelConfig, pieces: int, slots: int):
        self.engine, self.slots = Engine(cfg, pieces), slots
        self.rows = Rows.empty(slots)

    def room(self, weights: Any, longest: int, new: int) -> int:
        """The capacity for prompts of at most `longest` tokens, written with their padding, and `new` more."""
        longest += len(prefix(weights["embed"]["table"]))
        return -(-(longest + max(new, longest, CHUNK)) // BUCKET) * BUCKET

    def read(self, weights: Any, state: State, slot: int, ids: list[int], numbers: list[int] | None, whole: int):
        """`ids` in `slot`; with numbers of blocks in parts of at most `whole` tokens, which is always the same."""
        length = CHUNK if numbers is None else whole
        return self.engine.read(weights, state, slot, ids, self.rows, length, numbers)


class Beams:
    """The same answers as `Writer`, by beam search with a length penalty."""

    def __init__(self, cfg: ModelConfig, pieces: int, stops: frozenset[int], width: int, penalty: float):
        self.reader, self.width = Reader(cfg, pieces, AT_ONCE * width), width
        self.make = partial(beam.Search, cfg, pieces, stops, width, penalty)
        self.searches: dict[int, beam.Search] = {}

    def __call__(
        self, params: Any, prompts: Sequence[list[int]], blocks: Blocks, new: int, poll: Poll = lambda: None
    ) -> list[Written]:
        """At most `new` tokens behind every prompt."""
        weights, found = self.reader.engine.prepare(params), []
        longest = max(map(len, prompts))
        capacity = self.reader.room(weights, longest, new)
        weights = self.reader.engine.fitted(weights, capacity)
        search = self.searches.setdefault(new, self.make(new))
        for start in range(0, len(prompts), AT_ONCE):
            some = list(range(start, min(start + AT_ONCE, len(prompts))))
            state, last_S = self.reader.engine.empty(weights, self.reader.slots, capacity), np.zeros(self.reader.slots)
            for place in range(AT_ONCE):
                number = some[min(place, len(some) - 1)]  # filled up with the last one
                slot, ids = place * self.width, prompts[number]
                state = self.reader.read(weights, state, slot, ids, blocks and blocks[number], capacity // 2)
                last_S[slot] = ids[-1]
            made = search.run(weights, beam.rewound(state.cache), jnp.asarray(last_S, jnp.int32))
            poll()
            for ids_T, length, ended in list(zip(*map(np.asarray, made)))[: len(some)]:
                found.append(Written(ids_T[:length].tolist(), bool(ended)))
        return found


class Chooser:
    """Log-probabilities of the same few endings behind every prompt."""

    def __init__(self, cfg: ModelConfig, pieces: int, endings: Sequence[list[int]]):
        self.reader, self.lengths = Reader(cfg, pieces, 1), [len(ids) for ids in endings]
        self.next_CL = np.zeros((len(endings), max(self.lengths)), np.int32)
        for row, ids in enumerate(endings):
            self.next_CL[row, : len(ids)] = ids
        self.score = jax.jit(partial(beam.endings, cfg=cfg, pieces=pieces))

    def __call__(
        self, params: Any, prompts: Sequence[list[int]], blocks: Blocks, poll: Poll = lambda: None
    ) -> np.ndarray:
        """The summed log-probability of every ending behind every prompt: (prompts, endings)."""
        weights, found = self.reader.engine.prepare(params), []
        capacity = self.reader.room(weights, max(map(len, prompts)), self.next_CL.shape[1])
        weights = self.reader.engine.fitted(weights, capacity)
        counts_CL = np.arange(self.next_CL.shape[1]) < np.array(self.lengths)[:, None]
        for number, ids in enumerate(prompts):
            state = self.reader.engine.empty(weights, 1, capacity)
            state = self.reader.read(weights, state, 0, ids, blocks and blocks[number], capacity // 2)
            logp_CL = np.asarray(self.score(weights, state.cache, jnp.int32(ids[-1]), self.next_CL))
            found.append(np.where(counts_CL, logp_CL, 0.0).sum(axis=1))
            poll()
        return np.array(found)
