"""Connections that do not do their part, against an application that sends without end."""

import asyncio
import contextlib
import socket
import threading
import time
from functools import partial

import pytest
import uvicorn

from chinchilla_jax.serving import limits
from chinchilla_jax.serving.admission import Admission
from tests.slots import until

SENT = 65536


async def endless(scope, receive, send):
    """Answers a whole request: /whole with 16 MB at once, anything else with a stream that does not end."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/whole":
        await send({"type": "http.response.body", "body": b"x" * 2**24})
        return
    while not (await asyncio.sleep(0.001)):
        await send({"type": "http.response.body", "body": b"x" * SENT, "more_body": True})


@pytest.fixture
def served(monkeypatch):
    """(port, connections that the server holds), with short times."""
    monkeypatch.setattr(limits, "UNREAD", 0.6)
    monkeypatch.setattr(limits, "LOOK", 0.1)
    monkeypatch.setattr(limits, "IDLE", dict.fromkeys(limits.IDLE, 0.5))
    http = partial(limits.Protocol, admission=Admission(lambda: False, 99, print))
    settings = uvicorn.Config(endless, port=0, http=http, lifespan="off", log_config=None, log_level="critical")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1], server.server_state.connections
    server.should_exit = server.force_exit = True
    thread.join(30)


def connect(port: int, sent: bytes) -> socket.socket:
    """A connection that has sent something and takes little at a time."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.sendall(sent)
    return made


@pytest.mark.parametrize("path", ["/stream", "/whole"])
def test_a_client_that_does_not_read_is_dropped_with_its_buffer(served, path):
    port, connections = served
    with connect(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()):
        until(lambda: connections)
        if path == "/stream":
            assert all(one.transport.get_write_buffer_size() <= 2 * SENT for one in list(connections))
        until(lambda: not connections, 20)


def test_a_client_that_reads_slowly_is_not(served):
    port, connections = served
    with connect(port, b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n") as slow:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert slow.recv(2**18)
            time.sleep(0.02)
        assert connections


@pytest.mark.parametrize("sent", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"])
def test_what_is_never_finished_is_closed_although_a_byte_comes_now_and_then(served, sent):
    port, connections = served
    with connect(port, sent) as slow, contextlib.suppress(ConnectionError):
        until(lambda: connections)
        end = time.monotonic() + 20
        while connections:
            assert time.monotonic() < end, "waited in vain"
            slow.sendall(b"a")
            time.sleep(0.02)
