"""One HTTP request at work: its choices, what they gained, and the objects that say so."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.inference.scheduler import Closed, Event, Full, Request, Scheduler, Token
from chinchilla_jax.inference.text import Writer
from chinchilla_jax.serving.protocol import ApiError, Ask, busy, usage
from chinchilla_jax.serving.text import spelled

# Status and message of how a request may end without its text.
FAILURES = {
    "closed": (503, "the server is shutting down"),
    "failed": (500, "the engine failed; see the server's log"),
    "late": (504, "the answer took more than ten minutes"),
    "gone": (499, "the client did not wait for the answer"),
}


def failure(why: str) -> ApiError:
    """A new error for each request: one that is raised again and again would keep every frame it passed through."""
    return ApiError(*FAILURES[why], kind="server_error")


@dataclass(frozen=True)
class Model:
    """What requests call by name. `chat(messages) -> ids` renders a conversation; None where there is no template.

    `stops` are ids that end a text; `soft` those of a soft prompt, which stand before every other; `fingerprint` tells
    one state of the weights from another.
    """

    name: str
    stops: frozenset[int] = frozenset()
    chat: Callable[[list[tuple[str, str]]], list[int]] | None = None
    soft: tuple[int, ...] = ()
    fingerprint: str | None = None


class Choice:
    """One continuation: a request to the scheduler, its text and its log-probabilities."""

    def __init__(self, index: int, ids: list[int], ask: Ask, tokenizer: BaseTokenizer, tell, room: int, model: Model):
        self.index, self.ask, self.tokenizer, self.ids = index, ask, tokenizer, ids
        self.writer, self.made, self.end, self.silent = Writer(tokenizer, ask.stops), 0, "", ask.new == 0
        self.head = tokenizer.decode(ids) if ask.echo else ""
        self.offset, self.begun, self.unseen = 0, False, len(model.soft)
        self.request = Request(
            [*model.soft, *ids],
            max(1, min(room, room if ask.new is None else ask.new)),
            ask.how,
            int(np.random.SeedSequence([ask.seed, index]).generate_state(1)[0]),
            lambda event: tell(self, event),
            model.name,
            stops=frozenset() if ask.ignore_eos else model.stops,
            bias=ask.bias,
            logprobs=ask.logprobs is not None,
            echo=ask.echo and ask.logprobs is not None,
        )

    def take(self, event: Event) -> tuple[str, list[tuple[str, Token | None]]]:
        """(text that may be sent, tokens with log-probabilities) of an event; sets `end`."""
        text, named = "", []
        if self.ask.echo and not self.begun:
            text, named = self.head, [(spelled(self.tokenizer, self.ids[0]), None)]
        self.begun = True
        prompt, self.unseen = event.prompt[self.unseen :], max(0, self.unseen - len(event.prompt))
        named += [(spelled(self.tokenizer, token.id), token) for token in prompt]
        for token in () if self.silent else event.tokens:
            self.made += 1
            text += self.writer.feed([token.id])
            named.append((spelled(self.tokenizer, token.id), token))
            if self.writer.stopped:
                self.end = "stop"
                return text, named
        if event.end:
            text += self.writer.flush()
            self.end = "stop" if self.writer.stopped else event.end
        return text, named


class Job:
    """All choices of a request. `submit` raises `ApiError`; `next` waits for news; `close` frees what still runs.

    `seen(name, value)` hears at the end how many tokens it was.
    """

    def __init__(self, ask: Ask, scheduler: Scheduler, tokenizer: BaseTokenizer, model: Model, kind: str, seen):
        self.ask, self.scheduler, self.model, self.kind, self.seen = ask, scheduler, model, kind, seen
        self.loop, self.news = asyncio.get_running_loop(), asyncio.Queue()
        self.id, self.created = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}", int(time.time())
        self.tokenizer, self.choices = tokenizer, []
        for number, ids in enumerate(ask.prompts):
            room = scheduler.capacity - len(model.soft) - len(ids)
            if room < 1:
                message = f"the prompt has {len(ids)} tokens, and prompt and answer may have {len(ids) + room}"
                raise ApiError(400, message, param="prompt", code="context_length_exceeded")
            for i in range(ask.n):
                index = number * ask.n + i
                self.choices.append(Choice(index, ids, ask, tokenizer, self._tell, room, model))

    def _tell(self, choice: Choice, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: the server has ended and nobody listens
            self.loop.call_soon_threadsafe(self.news.put_nowait, (choice, event))

    def submit(self) -> None:
        """Hand the choices to the scheduler."""
        try:
            self.scheduler.submit([choice.request for choice in self.choices])
        except Full:
            raise busy() from None
        except Closed:
            raise failure("closed") from None

    async def next(self) -> tuple[Choice, str, list]:
        """The choice that gained something, its text and its tokens. Raises `ApiError` where the engine ended it."""
        while True:
            choice, event = await self.news.get()
            if choice.end:
                continue  # it ended at a stop string before its slot heard of it
            if event.end in FAILURES:
                raise failure(event.end)
            text, named = choice.take(event)
            if choice.writer.stopped:
                self.scheduler.cancel(choice.request)
            return choice, text, named

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.end for choice in self.choices)

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        found: dict[int, tuple[str, list]] = {choice.index: ("", []) for choice in self.choices}
        while not self.done:
            choice, more, tokens = await self.next()
            text, named = found[choice.index]
            found[choice.index] = text + more, named + tokens
        choices = [self.said(choice, *found[choice.index], chunk=False) for choice in self.choices]
        return self.envelope(choices, usage=self.usage())

    def close(self) -> None:
        """Free what still runs or waits, and count what came of it."""
        for choice in self.choices:
            if not choice.end:
                self.scheduler.cancel(choice.request)
        if any(choice.begun for choice in self.choices):
            used = self.usage()
            self.seen("prompt_tokens", used["prompt_tokens"])
            self.seen("tokens", used["completion_tokens"])
            self.seen("cached_tokens", used["prompt_tokens_details"]["cached_tokens"])

    def usage(self) -> dict[str, Any]:
        """Tokens of all prompts and of all choices; of the prompts, those that were not read again."""
        firsts = self.choices[:: self.ask.n]
        cached = sum(min(choice.request.cached, len(choice.ids)) for choice in firsts)
        return usage(sum(map(len, self.ask.prompts)), sum(choice.made for choice in self.choices), cached)

    def envelope(self, choices: list[dict], *, chunk: bool = False, **more) -> dict[str, Any]:
        """The object around choices."""
        kinds = {"chat": "chat.completion.chunk" if chunk else "chat.completion"}
        return {
            "id": self.id,
            "object": kinds.get(self.kind, "text_completion"),
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": self.model.fingerprint,
            "choices": choices,
            **more,
        }

    def said(self, choice: Choice, text: str, named: list, *, chunk: bool, first: bool = False) -> dict[str, Any]:
        """A choice in the shape of its route."""
        end = {"index": choice.index, "finish_reason": choice.end or None}
        if self.kind != "chat":
            return {"text": text, **end, "logprobs": self._legacy(choice, named)}
        logprobs = None
        if self.ask.logprobs is not None:
            logprobs = {"content": [self._content(name, token) for name, token in named], "refusal": None}
        if not chunk:
            message = {"role": "assistant", "content": text, "refusal": None}
            return {"message": message, **end, "logprobs": logprobs}
        delta = {"role": "assistant", "content": ""} if first else {}
        return {"delta": {**delta, **({"content": text} if text else {})}, **end, "logprobs": logprobs}

    def _legacy(self, choice: Choice, named: list) -> dict[str, Any] | None:
        if self.ask.logprobs is None:
            return None
        offsets = []
        for name, _ in named:
            offsets.append(choice.offset)
            choice.offset += 0 if name.startswith(("bytes:", "<")) else len(name)
        return {
            "tokens": [name for name, _ in named],
            "token_logprobs": [token and token.logprob for _, token in named],
            "top_logprobs": [token and dict([*self._top(token, self.ask.logprobs), (name, token.logprob)])
                             for name, token in named],
            "text_offset": offsets,
        }  # fmt: skip

    def _content(self, name: str, token: Token) -> dict[str, Any]:
        pieces = self.tokenizer.pieces
        top = [
            {"token": spelled(self.tokenizer, id), "logprob": logprob, "bytes": list(pieces[id])}
            for id, logprob in token.top[: self.ask.logprobs]
        ]
        return {"token": name, "logprob": token.logprob, "bytes": list(pieces[token.id]), "top_logprobs": top}

    def _top(self, token: Token, count: int) -> list[tuple[str, float]]:
        return [(spelled(self.tokenizer, id), logprob) for id, logprob in token.top[:count]]
