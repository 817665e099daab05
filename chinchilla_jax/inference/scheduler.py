"""Continuous batching: one thread that gives slots to requests, reads prompts in chunks and decodes all slots together.

A few chunks of prompts stand between two decoding calls at most, so that long prompts do not stall running texts. A
text that ends inside a call is cut there, and its slot is free for the next call. Chunks that another prompt began with
are copied. Several models of one shape share the slots: each decodes its own, while the others' texts stand still.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from chinchilla_jax.inference.engine import CHUNK, FEW, Engine
from chinchilla_jax.inference.lookup import DRAFT, Lookup
from chinchilla_jax.inference.prefixes import Prefixes
from chinchilla_jax.inference.sampling import Drawn, Rows, Sampling

CHUNKS = 4  # parts of prompts that are read between two decoding calls, which wait for them


class Token(NamedTuple):
    """An id with its log-probability by the model and the likeliest ids with theirs, where they were asked for."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


class Event(NamedTuple):
    """News of a request: log-probabilities of its prompt, tokens it gained, and why it ended ("" while it runs)."""

    prompt: list[Token]
    tokens: list[Token]
    end: str = ""


@dataclass(eq=False)
class Request:
    """A prompt and how `model` continues it; `tell(event)` is called in the scheduler's thread.

    It ends with "stop" at an id of `stops`, which is not told, with "length" after `new` tokens, with "failed" where
    the engine failed, or with "draining" where that ends before it. One that is cancelled hears nothing more.
    """

    ids: Sequence[int]
    new: int
    how: Sampling
    seed: int
    tell: Callable[[Event], None]
    model: str = ""
    stops: frozenset[int] = frozenset()
    bias: dict[int, float] = field(default_factory=dict)
    logprobs: bool = False
    echo: bool = False
    asked: float = field(default_factory=time.monotonic)
    slot: int = -1
    read: int = 0
    cached: int = 0  # of the prompt's tokens, those copied
    keys: list[bytes] = field(default_factory=list)  # of its whole chunks
    made: int = 0
    known: Lookup | None = None
    cancelled: bool = False


class Scheduler:
    """Requests over `slots` slots of `capacity` tokens; at most `queue` wait. `seen(name, value)` hears of its work.

    `models` names weights; `prefixes` bytes are kept of beginnings of prompts. With `lookup`, a text that runs alone
    goes on by guesses, unless it wants log-probabilities, whose last bits depend on the program that gives them.
    """

    def __init__(
        self,
        engine: Engine,
        models: dict[str, Any],
        *,
        slots: int,
        capacity: int,
        queue: int,
        prefixes: int = 0,
        lookup: bool = False,
        seen: Callable[[str, float], None] = lambda name, value: None,
    ):
        self.engine, self.models, self.capacity = engine, models, capacity
        self.most, self.seen, self.prefixes, self.lookup = queue, seen, Prefixes(prefixes), lookup
        self.waiting: deque[Request] = deque()
        self.running: list[Request | None] = [None] * slots
        self.rows = Rows.empty(slots)
        self.few = (
            FEW if slots > FEW and engine.cfg.kernels == "cpu" else 0
        )  # texts that are decoded apart: see `_agree`
        self.changed = threading.Condition()
        self.state, self.moved = "loading", time.monotonic()  # then "ok", in the end "draining" or "failed"
        self.thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Compile and begin; `status` tells when."""
        self.thread.start()

    def submit(self, requests: Sequence[Request]) -> str:
        """Take all of `requests`, or none and say why: "full", or what `state` is in place of "ok"."""
        with self.changed:
            why = self.state if self.state != "ok" else "full" if len(requests) > self.room else ""
            if not why:
                self.waiting.extend(requests)
                self.changed.notify()
        return why

    def cancel(self, request: Request) -> None:
        """Free the request's place, at the latest after the call that is running."""
        with self.changed:
            request.cancelled = True
            self.changed.notify()

    def drain(self) -> None:
        """Take no more requests and end those that wait; what runs goes on."""
        with self.changed:
            self.state = "draining"
            waiting, self.waiting = list(self.waiting), deque()
            self.changed.notify()
        for request in waiting:
            request.tell(Event([], [], "draining"))

    @property
    def room(self) -> int:
        """How many more requests would be taken."""
        return self.most + self.running.count(None) - len(self.waiting)

    @property
    def status(self) -> str:
        """What `state` is, or "stuck" where there is work and nothing has moved for a minute."""
        busy = any(self.running) or bool(self.waiting)
        return "stuck" if self.state == "ok" and busy and time.monotonic() - self.moved > 60 else self.state

    def _run(self) -> None:
        try:
            self.slots = self._warm()
            with self.changed:
                self.state, self.moved = "ok" if self.state == "loading" else self.state, time.monotonic()
            while self._step():
                pass
        finally:
            with self.changed:
                self.state = "failed" if self.state != "draining" else self.state
                left = [*filter(None, self.running), *self.waiting]
                self.waiting.clear()
            for request in left:
                request.tell(Event([], [], "failed"))

    def _warm(self) -> Any:
        """Run every program until none is compiled any more, so that none is while requests are served."""
        before, nobody_S = -1, np.zeros(len(self.running), bool)
        state = self.engine.empty(next(iter(self.models.values())), len(self.running), self.capacity)
        while before != self.engine.programs:
            before = self.engine.programs
            for weights in self.models.values():
                state = self._agree(weights, state)
                state, drawn = self.engine.decode(weights, state, nobody_S, self.rows)
                if self.lookup:
                    state, drawn, _ = self.engine.verify(weights, state, 0, [0] * DRAFT, self.rows)
                drawn.token_S.block_until_ready()
            state = self.engine.put(state, 0, 0, self.engine.take(state, 0, 0))
        return state

    def _agree(self, weights: Any, state: Any) -> Any:
        """Decode a text among all slots and among few: unless the bits are the same, it is always among all."""
        rows, first_S, found = Rows.empty(len(self.running)), np.arange(len(self.running)) == 0, []
        rows.logprobs_S[0] = True
        for decode, which in ((self.engine.decode, first_S), (self.engine.decode_few, [0]))[: 1 + bool(self.few)]:
            state = self.engine.start(state, 0, [0])
            state, *_ = self.engine.prefill(weights, state, 0, [0, 1, 2], rows)
            state, drawn = decode(weights, state, which, rows)
            kept = np.asarray(self.engine.take(state, 0, 0)).tobytes()  # keys and values of every layer
            found.append([kept, *(np.asarray(field_nS)[:, 0].tobytes() for field_nS in drawn)])
        self.few *= found[0] == found[-1]
        return state

    def _step(self) -> bool:
        """Admit, read a few chunks of prompts, decode; False when there is nothing left to do and none will come."""
        with self.changed:
            while not self.waiting and not any(self.running):
                if self.state == "draining":
                    return False
                self.changed.wait()
            self._drop()
            self._admit()
        for _ in range(CHUNKS):
            reading = [request for request in self.running if request and request.read < len(request.ids)]
            if reading:
                self._read(min(reading, key=lambda request: request.asked))
        for model in self.models:
            active_S = np.array([bool(one and one.made and one.model == model) for one in self.running])
            if active_S.any() and not self._guess(model, active_S):
                self._decode(model, active_S)
        self.moved = time.monotonic()
        return True

    def _drop(self) -> None:
        self.waiting = deque(request for request in self.waiting if not request.cancelled)
        for request in filter(None, list(self.running)):
            if request.cancelled:
                self.seen("cancelled", 1)
                self._free(request)

    def _admit(self) -> None:
        for slot, there in enumerate(self.running):
            if there is None and self.waiting:
                request = self.waiting.popleft()
                request.slot, self.running[slot] = slot, request
                self.rows.put(slot, request.how, request.seed, bias=bool(request.bias), logprobs=request.logprobs)
                self.slots = self.engine.start(self.slots, slot, request.ids, request.bias)
                self.seen("queue_seconds", time.monotonic() - request.asked)

    def _free(self, request: Request) -> None:
        self.running[request.slot] = None
        self.rows.put(request.slot, Sampling(0.0), 0)

    def _read(self, request: Request) -> None:
        self._reuse(request)
        at, weights = request.read, self.models[request.model]
        chunk = request.ids[at : at + CHUNK]
        request.read += len(chunk)
        last = request.read == len(request.ids)
        after = 0 if last else request.ids[request.read]
        self.slots, drawn, prompt = self.engine.prefill(
            weights, self.slots, request.slot, chunk, self.rows, last=last, after=after, wanted=request.echo
        )
        if len(chunk) == CHUNK and self.prefixes.most:
            request.keys.append(self._key(request, chunk))
            if request.keys[-1] not in self.prefixes.blocks:
                self.prefixes.keep(request.keys[-1], self.engine.take(self.slots, request.slot, at))
        scored = []
        if request.echo:
            targets = [*chunk[1:], *([] if last else [after])]
            scored = [_token(target, *found) for target, *found in zip(targets, *map(np.asarray, prompt))]
        if last:
            self.prefixes.touch(request.keys)
            self.seen("prefix_cache_hits", request.cached)
            self.seen("prefix_cache_queries", len(request.ids))
            self.seen("time_to_first_token_seconds", time.monotonic() - request.asked)
        if scored or last:
            drawn = Drawn(*map(np.asarray, drawn))
            self._tell(request, scored, _tokens(drawn, 0, request.logprobs) if last else [])

    def _reuse(self, request: Request) -> None:
        """Copy whole chunks that were read before, but the one that gives the first token."""
        while not request.echo and request.read + CHUNK < len(request.ids):
            key = self._key(request, request.ids[request.read : request.read + CHUNK])
            block = self.prefixes.blocks.get(key)
            if block is None:
                break
            self.slots = self.engine.put(self.slots, request.slot, request.read, block)
            request.keys.append(key)
            request.read += CHUNK
            request.cached += CHUNK

    def _key(self, request: Request, chunk: Sequence[int]) -> bytes:
        return self.prefixes.key(request.keys[-1] if request.keys else request.model.encode(), chunk)

    def _decode(self, model: str, active_S: np.ndarray) -> None:
        began, slots = time.monotonic(), np.flatnonzero(active_S).tolist()
        # A copy of the settings: the thread changes them while a call may still read them.
        rows, weights = Rows(*map(np.copy, self.rows)), self.models[model]
        if few := len(slots) <= self.few:
            self.slots, drawn = self.engine.decode_few(weights, self.slots, slots, rows)
        else:
            self.slots, drawn = self.engine.decode(weights, self.slots, active_S, rows)
        drawn = Drawn(*map(np.asarray, drawn))
        self.seen("step_seconds", (time.monotonic() - began) / self.engine.steps)
        for place, slot in enumerate(slots):
            request = self.running[slot]
            row = Drawn(*(field_nS[:, place if few else slot] for field_nS in drawn))
            self._tell(request, [], [_tokens(row, i, request.logprobs)[0] for i in range(self.engine.steps)])

    def _guess(self, model: str, active_S: np.ndarray) -> bool:
        """Go on by a guess, where one text runs and there is one; whether that was so."""
        if not self.lookup or active_S.sum() > 1:
            return False
        request = self.running[active_S.argmax()]
        if request.logprobs or request.read + request.made + DRAFT > self.capacity:
            return False
        guess = request.known.guess()
        if not guess:
            return False
        self.slots, drawn, count = self.engine.verify(self.models[model], self.slots, request.slot, guess, self.rows)
        request.known.heard(count)
        self.seen("draft_tokens", len(guess))
        self.seen("accepted_tokens", count - 1)
        self._tell(request, [], [Token(id, 0.0, []) for id in np.asarray(drawn.token_S)[:count].tolist()])
        return True

    def _tell(self, request: Request, prompt: list[Token], tokens: list[Token]) -> None:
        """Hand out what a request gained, up to its end."""
        if request.cancelled:
            return
        end = ""
        for number, token in enumerate(tokens):
            if token.id in request.stops:
                tokens, end = tokens[:number], "stop"
                break
            request.made += 1
            if request.made == request.new:
                tokens, end = tokens[: number + 1], "length"
                break
        if end:
            self._free(request)
        if self.lookup:
            request.known = request.known or Lookup(request.ids)
            request.known.add(token.id for token in tokens)
        request.tell(Event(prompt, tokens, end))


def _token(id: int, logprob, top_K, top_logprob_K) -> Token:
    return Token(int(id), float(logprob), list(zip(top_K.tolist(), top_logprob_K.tolist())))


def _tokens(drawn: Drawn, at: int, logprobs: bool) -> list[Token]:
    if not logprobs:
        return [Token(int(drawn.token_S[at]), 0.0, [])]
    return [_token(*(values[at] for values in drawn))]
