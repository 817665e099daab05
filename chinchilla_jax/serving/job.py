"""One HTTP request at work: its choices, what they gained, and the objects that say so."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.data.tokenizer_base import BaseTokenizer, Streamer
from chinchilla_jax.inference.scheduler import Event, Request, Scheduler, Token
from chinchilla_jax.inference.text import Writer
from chinchilla_jax.serving.protocol import FAILURES, ApiError, Ask, failure

ANSWER_SECONDS = 600


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
    """One continuation: a request to the scheduler, and the text and log-probabilities that were not said yet."""

    def __init__(self, index: int, ids: list[int], room: int, job: "Job"):
        ask, model = job.ask, job.model
        self.index, self.ids, self.new = index, ids, ask.new
        begins = ask.echo or job.chat or ids == job.tokenizer.prompt("")  # any other text goes on with its prompt
        self.writer = Writer(job.tokenizer, ask.stops, begins)
        self.text = self.writer.streamer.feed(ids) if ask.echo else ""
        self.hidden = len(model.soft)  # log-probabilities of a soft prompt, which are nobody's
        self.made, self.offset, self.said, self.end = 0, 0, False, ""
        self.spelling = Streamer(job.tokenizer, begins)  # tells how far `offset` is
        self.request = Request(
            [*model.soft, *ids],
            min(room, room if ask.new is None else max(1, ask.new)),
            ask.how,
            int(np.random.SeedSequence([ask.seed, index]).generate_state(1)[0]),
            lambda event: job.tell(self, event),
            model.name,
            stops=frozenset() if ask.ignore_eos else model.stops,
            bias=ask.bias,
            logprobs=ask.logprobs is not None,
            echo=ask.echo and ask.logprobs is not None,
        )
        self.scored = [Token(ids[0], None, [])] if self.request.echo else []

    def take(self, event: Event) -> None:
        """What an event brings: text that may be sent, tokens with log-probabilities, an end."""
        self.scored += event.prompt[self.hidden :]
        self.hidden = max(0, self.hidden - len(event.prompt))
        for token in event.tokens[: self.new]:  # of a request for none, the engine makes one
            self.made += 1
            self.text += self.writer.feed([token.id])
            self.scored += [token] if self.request.logprobs else []
            if self.writer.stopped:
                break
        if event.end:
            self.text += self.writer.flush()
        self.end = "stop" if self.writer.stopped else event.end


class Job:
    """All choices of a request. `submit` raises `ApiError`; `next` waits for news; `close` frees what still runs.

    `seen(name, value)` hears at the end how many tokens it was.
    """

    def __init__(self, ask: Ask, scheduler: Scheduler, tokenizer: BaseTokenizer, model: Model, kind: str, seen):
        self.ask, self.scheduler, self.tokenizer, self.model, self.seen = ask, scheduler, tokenizer, model, seen
        self.chat, self.loop, self.news = kind == "chat", asyncio.get_running_loop(), asyncio.Queue()
        self.id, self.created = f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}", int(time.time())
        self.until, self.choices = self.loop.time() + ANSWER_SECONDS, []
        for ids in ask.prompts:
            room = scheduler.capacity - len(model.soft) - len(ids)
            if room < 1:
                message = f"the prompt has {len(ids)} tokens, and prompt and answer may have {len(ids) + room}"
                param = "messages" if self.chat else "prompt"
                raise ApiError(400, message, param=param, code="context_length_exceeded")
            self.choices += [Choice(len(self.choices) + i, ids, room, self) for i in range(ask.n)]

    def tell(self, choice: Choice, event: Event) -> None:
        """Hear of the scheduler's thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed: the server has ended and nobody listens
            self.loop.call_soon_threadsafe(self.news.put_nowait, (choice, event))

    def submit(self) -> None:
        """Hand the choices to the scheduler."""
        if why := self.scheduler.submit([choice.request for choice in self.choices]):
            raise failure(why)

    async def next(self) -> Choice:
        """The choice that gained something. Raises `ApiError` where the engine ended it, or after ten minutes."""
        while True:
            try:
                choice, event = await asyncio.wait_for(self.news.get(), self.until - self.loop.time())
            except TimeoutError:
                raise failure("late") from None
            if choice.end:
                continue  # it ended at a stop string before its slot heard of it
            if event.end in FAILURES:
                raise failure(event.end)
            choice.take(event)
            if choice.writer.stopped:
                self.scheduler.cancel(choice.request)
            return choice

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.end for choice in self.choices)

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        while not self.done:
            await self.next()
        return self._envelope([self._said(choice, chunk=False) for choice in self.choices], usage=self.usage())

    async def events(self, choice: Choice) -> AsyncIterator[str]:
        """The answer as server-sent events, from the first choice that gained something on."""

        def sent(chunk: dict) -> str:
            return f"data: {json.dumps(chunk)}\n\n"

        more = {"usage": None} if self.ask.usage else {}
        try:
            while True:
                if choice.text or choice.scored or choice.end or not choice.said:
                    yield sent(self._envelope([self._said(choice, chunk=True)], chunk=True, **more))
                if self.done:
                    break
                choice = await self.next()
            if self.ask.usage:
                yield sent(self._envelope([], chunk=True, usage=self.usage()))
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield sent(error.body)

    def close(self) -> None:
        """Free what still runs or waits, and count what came of it."""
        for choice in self.choices:
            if not choice.end:
                self.scheduler.cancel(choice.request)
        if any(choice.made or choice.end for choice in self.choices):
            used = self.usage()
            self.seen("prompt_tokens", used["prompt_tokens"])
            self.seen("generation_tokens", used["completion_tokens"])
            self.seen("cached_tokens", used["prompt_tokens_details"]["cached_tokens"])

    def usage(self) -> dict[str, Any]:
        """Tokens of all prompts and of all choices; of the prompts, those that were not read again."""
        prompt, made = sum(map(len, self.ask.prompts)), sum(choice.made for choice in self.choices)
        cached = sum(min(one.request.cached, len(one.ids)) for one in self.choices[:: self.ask.n])
        counts = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        return {**counts, "prompt_tokens_details": {"cached_tokens": cached}}

    def _envelope(self, choices: list[dict], *, chunk: bool = False, **more) -> dict[str, Any]:
        """The object around choices."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        about = {"id": self.id, "object": kind, "created": self.created, "model": self.model.name}
        return {**about, "system_fingerprint": self.model.fingerprint, "choices": choices, **more}

    def _said(self, choice: Choice, *, chunk: bool) -> dict[str, Any]:
        """What a choice gained since the last time, in the shape of its route."""
        text, scored, first, end = choice.text, choice.scored, not choice.said, choice.end or None
        choice.text, choice.scored, choice.said = "", [], True
        logprobs = None
        if self.ask.logprobs is not None:
            logprobs = self._content(scored) if self.chat else self._legacy(choice, scored)
        found = {"index": choice.index, "finish_reason": end, "logprobs": logprobs}
        if not self.chat:
            return {**found, "text": text}
        if not chunk:
            return {**found, "message": {"role": "assistant", "content": text, "refusal": None}}
        delta = {"role": "assistant", "content": ""} if first else {}
        return {**found, "delta": {**delta, **({"content": text} if text else {})}}

    def _legacy(self, choice: Choice, scored: list[Token]) -> dict[str, Any]:
        names, offsets, tops = [spelled(self.tokenizer, token.id) for token in scored], [], []
        for name, token in zip(names, scored):
            offsets.append(choice.offset)
            choice.offset += len(choice.spelling.feed([token.id]))
            top = {spelled(self.tokenizer, id): logprob for id, logprob in token.top[: self.ask.logprobs]}
            tops.append(None if token.logprob is None else {**top, name: token.logprob})
        found = {"tokens": names, "token_logprobs": [token.logprob for token in scored]}
        return {**found, "top_logprobs": tops, "text_offset": offsets}

    def _content(self, scored: list[Token]) -> dict[str, Any]:
        def about(id: int, logprob: float) -> dict[str, Any]:
            return {"token": spelled(self.tokenizer, id), "logprob": logprob, "bytes": list(self.tokenizer.pieces[id])}

        content = [{**about(token.id, token.logprob), "top_logprobs": [about(*one) for one in
                    token.top[: self.ask.logprobs]]} for token in scored]  # fmt: skip
        return {"content": content, "refusal": None}


def spelled(tokenizer: BaseTokenizer, id: int) -> str:
    """A token as log-probabilities name it: its text, or its bytes where they are no text by themselves."""
    piece = tokenizer.pieces[id]
    try:
        return piece.decode() or control(tokenizer, id) or f"<{id}>"
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def control(tokenizer: BaseTokenizer, id: int | None) -> str | None:
    """The name of a control piece."""
    return next((name for name, piece in tokenizer.controls.items() if piece == id), None)
