"""The real server over the small models of `tests.slots`, on loopback, in this process."""

import asyncio
import contextlib
import json
import socket
import threading
from http.client import HTTPConnection

import pytest

from tests.slots import until


class Client:
    """Plain HTTP to the server."""

    def __init__(self, port: int, service, admission):
        self.port, self.service, self.admission = port, service, admission

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
    from chinchilla_jax.serving.app import Service
    from chinchilla_jax.serving.job import Model
    from chinchilla_jax.serving.metrics import Metrics

    def chat(messages):
        return tokenizer.prompt("".join(f"{role}: {content}\n" for role, content in messages))

    metrics = Metrics()
    scheduler.seen = metrics.seen
    models = Model("tiny", tokenizer.stops, chat), Model("other", tokenizer.stops)
    service = Service(models, scheduler, tokenizer, metrics)
    server, listening = service.server(), socket.create_server(("127.0.0.1", 0))
    server.capture_signals = contextlib.nullcontext  # they come to the main thread alone
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    until(lambda: server.started)
    yield Client(listening.getsockname()[1], service, server.config.http.keywords["admission"])
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
