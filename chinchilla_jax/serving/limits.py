"""What a client may not do: stay silent, send too much, come without the key."""

import asyncio
import contextlib
import hmac
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial

import h11
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from chinchilla_jax.inference.scheduler import Scheduler
from chinchilla_jax.serving.admission import REFUSAL, Admission
from chinchilla_jax.serving.protocol import ApiError, written

BODY_BYTES, HEADER_BYTES, SECONDS = 2**20, 2**14, 10.0
FILES = 65_536
GRACE, TELLING = 30, 2  # seconds that running answers have after SIGTERM; of them, those to say that it is over
SENDING = 2**16  # bytes that the system keeps of an answer; Linux doubles it
LOOK = 1.0  # seconds between two looks at a connection
# Seconds without a header, with an unfinished body (a route that reads it says 408 before), without reading.
IDLE = {h11.IDLE: SECONDS, h11.SEND_BODY: SECONDS + 2}
UNREAD = 30.0
LOCAL = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")  # origins of its own pages
NOTHING = {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}  # no part of a request has come


class Protocol(H11Protocol):
    """uvicorn's protocol with limits on the time of a header, of a body, and of a client that does not read."""

    watching, refused, resumed, still, mark = None, False, 0, 0.0, None

    def __init__(self, *args, admission: Admission, **more):
        super().__init__(*args, **more)
        self.admission = admission

    def connection_made(self, transport) -> None:
        """A connection is looked at as long as it lives."""
        super().connection_made(transport)
        # The system's own buffer, of megabytes otherwise, would hide for a long time whether the client reads.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING)
        self._look()

    def data_received(self, data: bytes) -> None:
        """The first bytes of a request decide whether it is read further."""
        if self.refused:
            return  # the rest of what was refused; closing now would lose the answer on its way
        if self.conn.states == NOTHING and not self.admission.admit(self, data, self.loop):
            self.refused = True
            self.transport.write(REFUSAL)
            return self.transport.write_eof()
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as the API words errors, or nothing where an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            large = len(self.conn.trailing_data[0]) > HEADER_BYTES
            self.transport.write(written(header_too_large() if large else ApiError(400, msg)))
        self.transport.close()

    def on_response_complete(self) -> None:
        """The next request, which may be here already, is admitted for itself."""
        self.admission.arriving.discard(self)
        super().on_response_complete()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.resumed += 1

    def _look(self) -> None:
        """Drop a client that for too long has got no further with its request or has read nothing of an answer."""
        frozen, state = self.flow.write_paused or self.transport.is_closing(), self.conn.their_state
        mark = (self.resumed, self.transport.get_write_buffer_size()) if frozen else (state, self.cycle)
        self.still, self.mark = self.still + LOOK if mark == self.mark else 0.0, mark
        if self.still >= (UNREAD if frozen else IDLE.get(state, float("inf"))):
            self.transport.abort()
        else:
            self.watching = self.loop.call_later(LOOK, self._look)

    def connection_lost(self, exc) -> None:
        """Nothing is left to watch."""
        super().connection_lost(exc)
        self.admission.arriving.discard(self)
        if self.watching:
            self.watching.cancel()


class Server(uvicorn.Server):
    """uvicorn that drains at the first SIGTERM or Ctrl-C and leaves at the second, in both cases with exit code 0.

    What still runs shortly before the end of `GRACE` is told so. A scheduler that has failed ends the server.
    """

    def __init__(self, app, admission: Admission, scheduler: Scheduler):
        http = partial(Protocol, admission=admission)
        limits = {"h11_max_incomplete_event_size": HEADER_BYTES, "timeout_graceful_shutdown": GRACE}
        # Its warnings are of malformed requests: whoever sends them could fill the disk under the log.
        quiet = {"log_config": None, "log_level": "error", "access_log": False}
        super().__init__(uvicorn.Config(app, http=http, ws="none", lifespan="off", **limits, **quiet))
        self.scheduler = scheduler

    async def on_tick(self, counter: int) -> bool:
        """Whether to leave, asked ten times a second."""
        return await super().on_tick(counter) or self.scheduler.state == "failed"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled here and not raised again at the end."""
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number, frame) -> None:
        if self.should_exit:
            os._exit(0)  # nothing is kept that an orderly end would save
        self.should_exit = True
        self.scheduler.drain()
        last = threading.Timer(GRACE - TELLING, self.scheduler.give_up)
        last.daemon = True
        last.start()


def many_files() -> None:
    """As many connections as the system allows this process, up to 65,536; often it begins with 1,024."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
    if few != resource.RLIM_INFINITY and few < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def header_too_large() -> ApiError:
    """The answer to a header of more than `HEADER_BYTES`."""
    return ApiError(431, f"the header has more than {HEADER_BYTES} bytes")


def check_headers(scope: Scope) -> None:
    """Raise `ApiError` for more than `HEADER_BYTES`; h11 bounds a header that is still coming, not one that is here."""
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > HEADER_BYTES:
        raise header_too_large()


async def read_body(request: Request) -> bytes:
    """The body of a request. Raises `ApiError` for one too large or too slow.

    Of one too large as much again is read and dropped: a client that is still sending would not see the answer.
    """
    large = int(request.headers.get("content-length", 0)) > BODY_BYTES  # h11 lets nothing else than a number pass
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                large = large or size > BODY_BYTES
                body += b"" if large else part
                if size >= 2 * BODY_BYTES:
                    break
    except ClientDisconnect:
        raise ApiError(400, "the body was cut") from None
    except TimeoutError:
        raise ApiError(413 if large else 408, f"the body took more than {SECONDS:g} seconds") from None
    if large:
        raise ApiError(413, f"the body has more than {BODY_BYTES} bytes")
    return bytes(body)


def check_key(headers, key: str | None) -> None:
    """Raise `ApiError` unless the request carries the key, compared in constant time."""
    if key is None:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode()) or scheme.lower() != "bearer":
        raise ApiError(401, "wrong or missing API key", code="invalid_api_key")


def check_origin(headers) -> None:
    """Raise `ApiError` for a request that a browser sends from another site's page, which anyone may have written.

    Also from one whose name leads to this machine: without a key, the server's own pages come from loopback alone.
    """
    origin = headers.get("origin")
    if origin and not (LOCAL.fullmatch(origin) and origin.partition("://")[2] == headers.get("host")):
        raise ApiError(403, f"pages of {origin[:100]} may use this server only if it has an --api-key-file")
