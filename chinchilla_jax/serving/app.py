"""The routes of the server."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.inference.scheduler import Scheduler
from chinchilla_jax.serving import protocol
from chinchilla_jax.serving.admission import Admission
from chinchilla_jax.serving.job import Choice, Job, Model, control
from chinchilla_jax.serving.limits import Server, check_headers, check_key, check_origin, read_body
from chinchilla_jax.serving.metrics import Metrics
from chinchilla_jax.serving.protocol import ApiError, Ask, failed, failure

LOG = logging.getLogger("uvicorn.error")
LONG = 8192  # bytes of a body that takes milliseconds to understand
OPEN = ("/", "/health", "/metrics")  # routes that ask for no key


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

    def server(self) -> Server:
        """The routes behind their limits, to be run with sockets; a request that is not let in counts as answered."""
        scheduler, requests = self.scheduler, self.metrics.requests
        admission = Admission(lambda: scheduler.room < 1, len(scheduler.running) + scheduler.most,
                              lambda route: requests.labels(route, "429").inc())  # fmt: skip
        return Server(self.app(), admission, scheduler)

    def app(self) -> Starlette:
        """The ASGI application."""
        posts = {"/v1/completions": partial(self.answer, kind="text"), "/tokenize": self.tokenize,
                 "/v1/chat/completions": partial(self.answer, kind="chat"), "/detokenize": self.detokenize}  # fmt: skip
        gets = {"/": page, "/health": self.health, "/metrics": self.figures, "/v1/models": self.listing,
                "/v1/models/{id:path}": self.one, "/tokenizer_info": self.info}  # fmt: skip
        routes = [Route(path, self._guarded(path, call), methods=[method])
                  for method, calls in (("POST", posts), ("GET", gets)) for path, call in calls.items()]  # fmt: skip
        app = Starlette(routes=routes, exception_handlers={404: _missing, 405: _missing})
        app.router.redirect_slashes = False  # a redirection would lead to http:// behind whatever adds TLS
        return app

    def _guarded(self, path: str, call):
        """`call` behind the key, with headers of bounded size and errors as the API words them, counted."""

        async def endpoint(request: HttpRequest) -> Response:
            try:
                check_headers(request.scope)
                if path not in OPEN:
                    check_key(request.headers, self.key)
                if self.key is None:
                    check_origin(request.headers)
                response = await call(request)
            except ApiError as error:
                response = failed(error)
            except UserError as error:  # a text that the tokenizer refuses
                response = failed(ApiError(400, str(error)))
            except Exception:
                LOG.exception("%s failed", path)
                response = failed(failure("failed"))
            self.metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return endpoint

    async def _in_turn(self, request: HttpRequest, work) -> Any:
        """`work(body)`: one of the short ones between two rounds of the loop, one of the long ones in a thread.

        So what costs next to nothing, `/health` first of all, never waits for many of them.
        """
        raw = await read_body(request)
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

    def _asked(self, raw: bytes, kind: str) -> tuple[Model, Ask]:
        """The model that a body names, and what is asked of it."""
        if self.scheduler.room < 1:
            raise failure("full")
        body = protocol.parse(raw)
        model = self._named(body.get("model", self.models[0].name))
        if kind == "text":
            return model, protocol.completion(body, self.tokenizer.prompt, self.tokenizer.size)
        if model.chat is None:
            raise ApiError(400, "this model has no chat template; use /v1/completions", code="unsupported")
        return model, protocol.chat(body, model.chat, self.tokenizer.size)

    async def answer(self, request: HttpRequest, kind: str) -> Response:
        """/v1/completions and /v1/chat/completions."""
        model, ask = await self._in_turn(request, partial(self._asked, kind=kind))
        job = Job(ask, self.scheduler, self.tokenizer, model, kind, self.metrics.seen)
        job.submit()
        try:
            found = await _unless_gone(job.next() if ask.stream else job.whole(), request.receive)
        except BaseException:
            job.close()
            raise
        if ask.stream:
            return EventStream(job, found)
        job.close()
        return JSONResponse(found)

    async def tokenize(self, request: HttpRequest) -> Response:
        """Text -> ids."""

        def ids(raw: bytes) -> list[int]:
            body = protocol.parse(raw)
            prompt = protocol.text(body.get("prompt"), "prompt")
            start = list(self.tokenizer.start) if protocol.flag(body, "add_special_tokens") else []
            return start + self.tokenizer.encode(prompt)

        return JSONResponse({"tokens": await self._in_turn(request, ids)})

    async def detokenize(self, request: HttpRequest) -> Response:
        """Ids -> text."""

        def text(raw: bytes) -> str:
            ids = protocol.parse(raw).get("tokens")
            if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < self.tokenizer.size for i in ids):
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
        start, end = (control(self.tokenizer, id) for id in ((*self.tokenizer.start, None)[0], self.tokenizer.closing))
        return JSONResponse({"eos_token": end, "bos_token": start, "pad_token": end, "chat_template": None})

    async def health(self, request: HttpRequest) -> Response:
        """200 while the engine serves; 503 while it loads or drains, failed, or has not moved for a minute."""
        status = self.scheduler.status
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    async def figures(self, request: HttpRequest) -> Response:
        """Prometheus' text."""
        scheduler = self.scheduler
        found = self.metrics.text(
            requests_running=sum(map(bool, scheduler.running)),
            requests_waiting=len(scheduler.waiting),
            slots=len(scheduler.running),
            programs=scheduler.engine.programs,
            prefix_cache_bytes=scheduler.prefixes.bytes,
        )
        return Response(found, media_type="text/plain; version=0.0.4")


class EventStream(StreamingResponse):
    """Server-sent events of a job. However it ends, the job's slots are free afterwards."""

    def __init__(self, job: Job, first: Choice):
        events, more = job.events(first), {"cache-control": "no-cache"}
        super().__init__(events, media_type="text/event-stream", headers=more)
        self.job = job

    async def __call__(self, scope, receive, send) -> None:
        """Send until all choices have ended or the client has gone, also one that does not read: see `Protocol`.

        Starlette's own way imports anyio's groups of tasks in the first answer, which stalls all others for 0.1 s.
        """
        try:
            with contextlib.suppress(ApiError):
                await _unless_gone(self.stream_response(send), receive)
        finally:
            self.job.close()


async def _gone(receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(work, receive) -> Any:
    """The result of `work`; cancelled, and an `ApiError`, where the client goes away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise failure("gone")
    finally:
        task.cancel()
        gone.cancel()


async def _missing(request: HttpRequest, error: HTTPException) -> Response:
    """What asks for a path or in a way that this server does not have."""
    allowed = error.headers or {}
    hint = "this server has /v1/completions, /v1/chat/completions and /v1/models"
    hint = f"this path takes {allowed['Allow']}" if allowed else hint
    found = failed(ApiError(error.status_code, f"{request.method} {request.url.path[:100]}: {hint}"))
    found.headers.update(allowed)
    return found


async def page(request: HttpRequest) -> Response:
    """A page to try the model in a browser."""
    return HTMLResponse(resources.files("chinchilla_jax.serving").joinpath("page.html").read_text(encoding="utf-8"))
