"""The routes of the server."""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.inference.scheduler import Scheduler
from chinchilla_jax.serving import protocol
from chinchilla_jax.serving.admission import Admission
from chinchilla_jax.serving.job import Job, Model, failure
from chinchilla_jax.serving.limits import check_headers, check_key, read_body
from chinchilla_jax.serving.metrics import Metrics
from chinchilla_jax.serving.protocol import ApiError, Ask, busy
from chinchilla_jax.serving.text import names

ANSWER_SECONDS = 600
LONG = 8192  # bytes of a body that takes milliseconds to understand


@dataclass
class Service:
    """What the routes serve: models that share a tokenizer and a scheduler; the first is meant where none is named."""

    models: Sequence[Model]
    scheduler: Scheduler
    tokenizer: BaseTokenizer
    metrics: Metrics
    key: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    turns: tuple[asyncio.Lock, asyncio.Lock] = field(default_factory=lambda: (asyncio.Lock(), asyncio.Lock()))

    def admission(self) -> Admission:
        """What lets requests in; one that it refuses counts as answered."""
        scheduler, requests = self.scheduler, self.metrics.requests
        return Admission(lambda: scheduler.room < 1, len(scheduler.running) + scheduler.most,
                         lambda route: requests.labels(route, "429").inc())  # fmt: skip

    def app(self) -> Starlette:
        """The ASGI application."""
        posts = {"/v1/completions": self.complete, "/v1/chat/completions": self.converse}
        posts |= {"/tokenize": self.tokenize, "/detokenize": self.detokenize}
        gets = {"/v1/models": self.listing, "/v1/models/{id:path}": self.one, "/tokenizer_info": self.info}
        routes = [Route(path, self._guarded(path, call), methods=["POST"]) for path, call in posts.items()]
        routes += [Route(path, self._guarded(path, call), methods=["GET"]) for path, call in gets.items()]
        routes += [Route("/", page), Route("/health", self.health), Route("/metrics", self.figures)]
        handlers = {404: _missing, 405: _missing}
        return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_Bounded)])

    def _guarded(self, path: str, call):
        """`call` behind the key, with errors as the API words them, counted."""

        async def endpoint(request: HttpRequest) -> Response:
            try:
                check_key(request.headers, self.key)
                response = await call(request)
            except ApiError as error:
                response = failed(error)
            except UserError as error:  # a text that the tokenizer refuses
                response = failed(ApiError(400, str(error)))
            self.metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return endpoint

    async def _asked(self, request: HttpRequest, read) -> tuple[Model, Ask]:
        """The model that a request names, and what `read(body, model)` makes of its body."""

        def found(raw: bytes) -> tuple[Model, Ask]:
            if self.scheduler.room < 1:
                raise busy()
            body = protocol.parse(raw)
            model = self._named(body.get("model", self.models[0].name))
            return model, read(body, model)

        return await self._in_turn(request, found)

    async def _in_turn(self, request: HttpRequest, work) -> Any:
        """`work(body)`: one of the short ones between two rounds of the loop, one of the long ones in a thread.

        So what costs next to nothing, `/health` first of all, never waits for many of them.
        """
        raw = await read_body(request.receive, request.headers)
        long = len(raw) > LONG
        async with self.turns[long]:
            await asyncio.sleep(0)
            return await asyncio.to_thread(work, raw) if long else work(raw)

    def _named(self, name: Any) -> Model:
        for model in self.models:
            if model.name == name:
                return model
        names = ", ".join(model.name for model in self.models)
        raise ApiError(404, f"no such model; this server has {names}", param="model", code="model_not_found")

    async def complete(self, request: HttpRequest) -> Response:
        """/v1/completions."""

        def read(body, model: Model) -> Ask:
            return protocol.completion(body, self.tokenizer.prompt, self.tokenizer.size)

        return await self._answer(request, *await self._asked(request, read), "text")

    async def converse(self, request: HttpRequest) -> Response:
        """/v1/chat/completions."""

        def read(body, model: Model) -> Ask:
            if model.chat is None:
                raise ApiError(400, "this model has no chat template; use /v1/completions", code="unsupported")
            return protocol.chat(body, model.chat, self.tokenizer.size)

        return await self._answer(request, *await self._asked(request, read), "chat")

    async def _answer(self, request: HttpRequest, model: Model, ask: Ask, kind: str) -> Response:
        if not self.scheduler.ready:
            raise ApiError(503, "the model is loading", kind="server_error")
        job = Job(ask, self.scheduler, self.tokenizer, model, kind, self.metrics.seen)
        job.submit()
        try:
            answer = await _unless_gone(job.next() if ask.stream else job.whole(), request)
        except BaseException:
            job.close()
            raise
        if ask.stream:
            return EventStream(job, answer)
        job.close()
        return JSONResponse(answer)

    async def tokenize(self, request: HttpRequest) -> Response:
        """Text -> ids."""

        def ids(raw: bytes) -> list[int]:
            body = protocol.parse(raw)
            prompt = protocol.text(body.get("prompt", ""), "prompt")
            start = list(self.tokenizer.start) if protocol.flag(body, "add_special_tokens") else []
            return start + self.tokenizer.encode(prompt)

        return JSONResponse({"tokens": await self._in_turn(request, ids)})

    async def detokenize(self, request: HttpRequest) -> Response:
        """Ids -> text."""

        def text(raw: bytes) -> str:
            ids = protocol.parse(raw).get("tokens", [])
            known = isinstance(ids, list) and all(type(i) is int and 0 <= i < self.tokenizer.size for i in ids)
            if not known:
                raise protocol.bad("tokens", f"expected ids in [0, {self.tokenizer.size})")
            return self.tokenizer.decode(ids)

        return JSONResponse({"prompt": await self._in_turn(request, text)})

    async def listing(self, request: HttpRequest) -> Response:
        """All models."""
        return JSONResponse({"object": "list", "data": [self._about(model) for model in self.models]})

    async def one(self, request: HttpRequest) -> Response:
        """A model by its name."""
        return JSONResponse(self._about(self._named(request.path_params["id"])))

    def _about(self, model: Model) -> dict[str, Any]:
        owner = {"owned_by": "chinchilla_jax", "max_model_len": self.scheduler.capacity - len(model.soft)}
        return {"id": model.name, "object": "model", "created": self.created, **owner}

    async def info(self, request: HttpRequest) -> Response:
        """What lm-eval asks of a tokenizer."""
        known = names(self.tokenizer)
        start = self.tokenizer.start[0] if self.tokenizer.start else None
        end = known.get(self.tokenizer.closing)
        return JSONResponse({"eos_token": end, "bos_token": known.get(start), "pad_token": end, "chat_template": None})

    async def health(self, request: HttpRequest) -> Response:
        """200 while the engine serves; 503 while it loads or drains, failed, or has not moved for a minute."""
        scheduler = self.scheduler
        states = {"failed": scheduler.failed, "draining": scheduler.closed, "loading": not scheduler.ready}
        states["stuck"] = scheduler.stuck
        state = next((name for name, holds in states.items() if holds), "ok")
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    async def figures(self, request: HttpRequest) -> Response:
        """Prometheus' text."""
        running = sum(one is not None for one in self.scheduler.running)
        self.metrics.running.set(running)
        self.metrics.waiting.set(len(self.scheduler.waiting))
        self.metrics.slots.set(len(self.scheduler.running))
        self.metrics.programs.set(self.scheduler.engine.programs)
        self.metrics.prefix_bytes.set(self.scheduler.prefixes.bytes)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")


class _Bounded:
    """An application whose requests have headers of bounded size."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        try:
            check_headers(scope.get("headers", ()))
        except ApiError as error:
            return await failed(error)(scope, receive, send)
        await self.app(scope, receive, send)


class EventStream(Response):
    """Server-sent events of a job whose first news is here. However it ends, the job's slots are free afterwards."""

    def __init__(self, job: Job, news):
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self.job, self.news = job, news

    async def __call__(self, scope, receive, send) -> None:
        """Send until all choices have ended or the client has gone, also one that does not read: see `Protocol`."""
        gone = asyncio.ensure_future(_gone(receive))
        work = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, work):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
            self.job.close()

    async def _send(self, send) -> None:
        async def data(value) -> None:
            body = value if isinstance(value, str) else json.dumps(value)
            await send({"type": "http.response.body", "body": f"data: {body}\n\n".encode(), "more_body": True})

        job, begun = self.job, set()
        more = {"usage": None} if job.ask.usage else {}
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    choice, text, named = self.news
                    first = choice.index not in begun
                    begun.add(choice.index)
                    if text or named or choice.end or first:
                        said = job.said(choice, text, named, chunk=True, first=first)
                        await data(job.envelope([said], chunk=True, **more))
                    if job.done:
                        break
                    self.news = await job.next()
                if job.ask.usage:
                    await data(job.envelope([], chunk=True, usage=job.usage()))
                await data("[DONE]")
        except ApiError as error:
            await data(error.body)
        except TimeoutError:
            await data(failure("late").body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(work, request: HttpRequest) -> Any:
    """The result of `work`; cancelled, and an `ApiError`, where the client goes away or it takes too long."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        raise failure("gone" if gone in done else "late")
    finally:
        for one in (task, gone):
            one.cancel()


def failed(error: ApiError) -> Response:
    """An error as the API words it."""
    headers = {"retry-after": "1"} if error.status in (429, 503) else {}
    return JSONResponse(error.body, error.status, headers)


async def _missing(request: HttpRequest, error) -> Response:
    hint = "this server has /v1/completions, /v1/chat/completions and /v1/models"
    return failed(ApiError(error.status_code, f"{request.method} {request.url.path}: {hint}", kind="not_found_error"))


async def page(request: HttpRequest) -> Response:
    """A page to try the model in a browser."""
    return HTMLResponse(resources.files("chinchilla_jax.serving").joinpath("page.html").read_text(encoding="utf-8"))
