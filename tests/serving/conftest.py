"""A tiny model behind the real server, on loopback, in this process."""

import asyncio
import dataclasses
import json
import threading
import time
from functools import partial
from http.client import HTTPConnection

import jax
import pytest

from chinchilla_jax.config import DataConfig, MeshConfig
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.scheduler import Scheduler
from chinchilla_jax.parallel import mesh
from chinchilla_jax.parallel.sharding import replicated
from tests import tiny


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A small tokenizer with byte pieces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    tokenizer_train.train(lambda: ["the sea and the wind\n" * 20] * 5, DataConfig(vocab_size=290), path)
    return Tokenizer(path)


@pytest.fixture(scope="session")
def engine(tokenizer):
    """An engine and two models, on a mesh as a loaded run is."""
    cfg = dataclasses.replace(tiny.MODERN, layers=1, kernels="cpu", vocab_size=tokenizer.size)
    made, where = Engine(cfg, tokenizer.size, steps=4), replicated(mesh.build(MeshConfig(), jax.devices()[:1]))
    models = {name: jax.device_put(tiny.spiced(cfg, seed), where) for seed, name in enumerate(("tiny", "other"))}
    return made, {name: made.prepare(params) for name, params in models.items()}


@pytest.fixture
def scheduler(engine):
    """Three slots of 128 tokens, four more in the queue, no beginnings of prompts kept; ended after the test."""
    made = Scheduler(*engine, slots=3, capacity=128, queue=4)
    made.start()
    until(lambda: made.status == "ok")
    yield made
    made.drain()
    for request in filter(None, made.running):
        made.cancel(request)
    made.thread.join(30)
    assert not made.thread.is_alive() and made.status == "draining"


def until(ready, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Gate:
    """An engine that decodes while it is open."""

    def __init__(self, engine):
        self.engine, self.open = engine, threading.Event()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def decode(self, *args):
        """As the engine's, when the gate opens."""
        assert self.open.wait(60)
        return self.engine.decode(*args)

    def decode_few(self, *args):
        """As the engine's, when the gate opens."""
        assert self.open.wait(60)
        return self.engine.decode_few(*args)


class Client:
    """Plain HTTP to the server."""

    def __init__(self, port: int, service):
        self.port, self.service = port, service

    def ask(self, path: str, body=None, headers=(), method: str = ""):
        """(status, headers, body) of a request; a dict is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method or ("POST" if body is not None else "GET"), path, sent, dict(headers))
        response = connection.getresponse()
        found = response.status, response.headers, response.read()
        connection.close()
        return found

    def json(self, path: str, body=None, status: int = 200, **more) -> dict:
        """The object that a request is answered with."""
        code, _, found = self.ask(path, body, **more)
        assert code == status, found
        return json.loads(found)

    def stream(self, path: str, body: dict) -> list[dict]:
        """The chunks of a streamed answer; the end mark is checked and left out."""
        code, headers, found = self.ask(path, {**body, "stream": True})
        assert code == 200 and headers["content-type"].startswith("text/event-stream")
        *chunks, end, rest = found.decode().split("\n\n")
        assert end == "data: [DONE]" and rest == ""
        return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


@pytest.fixture
def client(scheduler, tokenizer):
    """The server with a chat template that spells roles as text."""
    import uvicorn

    from chinchilla_jax.serving.app import Service
    from chinchilla_jax.serving.job import Model
    from chinchilla_jax.serving.limits import HEADER_BYTES, Protocol
    from chinchilla_jax.serving.metrics import Metrics

    def chat(messages):
        return tokenizer.prompt("".join(f"{role}: {content}\n" for role, content in messages))

    metrics = Metrics()
    scheduler.seen = metrics.seen
    models = Model("tiny", tokenizer.stops, chat), Model("other", tokenizer.stops)
    service = Service(models, scheduler, tokenizer, metrics)
    limits = {"h11_max_incomplete_event_size": HEADER_BYTES, "ws": "none", "lifespan": "off"}
    http = partial(Protocol, admission=service.admission())
    server = uvicorn.Server(
        uvicorn.Config(service.app(), port=0, http=http, log_config=None, log_level="warning", **limits)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until(lambda: server.started)
    yield Client(server.servers[0].sockets[0].getsockname()[1], service)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
