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

from chinchilla_jax.inference.engine import CHUNK, Engine, padded
from chinchilla_jax.inference.lookup import DRAFT, Lookup
from chinchilla_jax.inference.prefixes import Prefixes
from chinchilla_jax.inference.sampling import Drawn, Rows, Sampling

READ = 4 * CHUNK  # tokens of prompts, with their padding, that are read between two decoding calls, which wait


class Token(NamedTuple):
    """An id with its log-probability by the model, and the likeliest ids with theirs; zeros where nobody asked."""

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
    keys: Sequence[bytes] = ()  # of its whole chunks, where any are kept
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
        self.changed = threading.Condition()
        self.state, self.moved = "loading", time.monotonic()  # then "ok", in the end "draining" or "failed"
        self.thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Compile and begin; `status` tells when."""
        self.thread.start()

    def submit(self, requests: Sequence[Request]) -> str:
        """Take all of `requests`, or none and say why: "large", "full", or what `state` is in place of "ok"."""
        if len(requests) > self.most + len(self.running):
            return "large"
        with self.changed:
            why = self.state if self.state != "ok" else "full" if len(requests) > self.room else ""
            if not why:
                if not self._busy:
                    self.moved = time.monotonic()
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

    def give_up(self) -> None:
        """End what runs too, after `drain`."""
        for request in filter(None, list(self.running)):
            self.cancel(request)
            request.tell(Event([], [], "draining"))

    @property
    def room(self) -> int:
        """How many more requests would be taken."""
        return self.most + self.running.count(None) - len(self.waiting)

    @property
    def status(self) -> str:
        """What `state` is, or "stuck" where there is work and nothing has moved for a minute."""
        return "stuck" if self.state == "ok" and self._busy and time.monotonic() - self.moved > 60 else self.state

    @property
    def _busy(self) -> bool:
        return any(self.running) or bool(self.waiting)

    def _run(self) -> None:
        try:
            self.models = {name: self.engine.fitted(one, self.capacity) for name, one in self.models.items()}
            self.slots = self.engine.warm_up([*self.models.values()], len(self.running), self.capacity, self.lookup)
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

    def _step(self) -> bool:
        """Admit, read some of the prompts, decode; False when there is nothing left to do and none will come."""
        with self.changed:
            while not self._busy:
                if self.state == "draining":
                    return False
                self.changed.wait()
            self._drop()
            self._admit()
        left = READ
        while left > 0 and (reading := [one for one in self.running if one and one.read < len(one.ids)]):
            left -= self._read(min(reading, key=lambda request: request.asked))
        for model in self.models:
            writing = [one for one in self.running if one and one.made and one.model == model]
            if writing and not (len(writing) == 1 and self._guess(writing[0])):
                self._decode(writing)
        self.moved = time.monotonic()
        return True

    def _drop(self) -> None:
        gone = [request for request in [*self.waiting, *filter(None, self.running)] if request.cancelled]
        self.waiting = deque(request for request in self.waiting if not request.cancelled)
        for request in gone:
            self.seen("cancelled", 1)
            if request.slot >= 0:
                self._free(request)

    def _admit(self) -> None:
        for slot, there in enumerate(self.running):
            if there is None and self.waiting:
                request = self.waiting.popleft()
                request.slot, self.running[slot] = slot, request
                self.rows.put(slot, request.how, request.seed, bias=bool(request.bias), logprobs=request.logprobs)
                if self.prefixes.most:
                    request.keys = self.prefixes.keys(request.model, request.ids, CHUNK)
                self.slots = self.engine.start(self.slots, slot, request.ids, request.bias)
                self.seen("queue_seconds", time.monotonic() - request.asked)

    def _free(self, request: Request) -> None:
        self.running[request.slot] = None
        self.rows.put(request.slot, Sampling(0.0), 0)

    def _read(self, request: Request) -> int:
        """A chunk of its prompt; how many tokens the call read, with padding."""
        self._reuse(request)
        at, weights = request.read, self.models[request.model]
        chunk = request.ids[at : at + CHUNK]
        request.read += len(chunk)
        last = request.read == len(request.ids)
        after = 0 if last else request.ids[request.read]
        self.slots, drawn, prompt = self.engine.prefill(
            weights, self.slots, request.slot, chunk, self.rows, last=last, after=after, wanted=request.echo
        )
        for key in request.keys[at // CHUNK : request.read // CHUNK]:
            if key not in self.prefixes.blocks:
                self.prefixes.keep(key, self.engine.take(self.slots, request.slot, at))
        gained = _tokens(drawn) if last else []  # waits for the device
        if last:
            self.prefixes.touch(request.keys)
            self.seen("prefix_cache_hits", request.cached)
            self.seen("prefix_cache_queries", len(request.ids))
            self.seen("time_to_first_token_seconds", time.monotonic() - request.asked)
        if request.echo or last:
            told = _tokens(prompt)[: len(chunk) - last] if request.echo else []
            self._tell(request, told, gained)
        return padded(len(chunk))

    def _reuse(self, request: Request) -> None:
        """Copy whole chunks that were read before, but the one that gives the first token."""
        for key in () if request.echo else request.keys[request.read // CHUNK : (len(request.ids) - 1) // CHUNK]:
            block = self.prefixes.blocks.get(key)
            if block is None:
                break
            self.slots = self.engine.put(self.slots, request.slot, request.read, block)
            request.read += CHUNK
            request.cached += CHUNK

    def _decode(self, requests: list[Request]) -> None:
        """Tokens for texts of one model."""
        began, slots = time.monotonic(), [request.slot for request in requests]
        # A copy of the settings: the thread changes them while a call may still read them.
        rows, weights = Rows(*map(np.copy, self.rows)), self.models[requests[0].model]
        self.slots, drawn = self.engine.decode(weights, self.slots, slots, rows)
        self.seen("step_seconds", (time.monotonic() - began) / self.engine.steps)
        for place, request in enumerate(requests):
            self._tell(request, [], _tokens(Drawn(*(x_nS[:, place] for x_nS in drawn))))

    def _guess(self, request: Request) -> bool:
        """Go on by a guess, where there is one; whether that was so."""
        if not self.lookup or request.logprobs or request.read + request.made + DRAFT > self.capacity:
            return False
        if not (guess := request.known.guess()):
            return False
        weights = self.models[request.model]
        self.slots, drawn = self.engine.verify(weights, self.slots, request.slot, guess, self.rows)
        found = _tokens(drawn)
        request.known.heard(len(found))
        self.seen("draft_tokens", len(guess))
        self.seen("accepted_tokens", len(found) - 1)
        self._tell(request, [], found)
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


def _tokens(drawn: Drawn) -> list[Token]:
    return [Token(id, logprob, list(zip(*top))) for id, logprob, *top in zip(*(np.asarray(x).tolist() for x in drawn))]
