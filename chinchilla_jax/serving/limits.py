"""What a client may not do: stay silent, send too much, come without the key."""

import asyncio
import contextlib
import hmac
import signal
from collections.abc import Iterable, Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from chinchilla_jax.serving.protocol import ApiError

BODY_BYTES, HEADER_BYTES, SECONDS = 2**20, 2**14, 10.0
GRACE = 30  # seconds that running answers have after SIGTERM


class Protocol(H11Protocol):
    """uvicorn's protocol with a limit on the time that a request's header takes."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        """A connection that sends no header is closed after `SECONDS`."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """The clock stops when a header is whole and starts again with the next one's first byte."""
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        waits = self.conn.their_state is h11.IDLE
        if waits and self.deadline is None:
            self.deadline = self.loop.call_later(SECONDS, self.transport.close)
        elif not waits and self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def connection_lost(self, exc) -> None:
        """Nothing is left to watch."""
        super().connection_lost(exc)
        if self.deadline is not None:
            self.deadline.cancel()


class Server(uvicorn.Server):
    """uvicorn that drains at the first SIGTERM or Ctrl-C, leaves at the second, and ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, drain):
        super().__init__(config)
        self.drain = drain

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
            self.force_exit = True
        self.should_exit = True
        self.drain()


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise `ApiError` for more than `HEADER_BYTES`; h11 bounds a header that is still coming, not one that is here."""
    if sum(len(name) + len(value) + 4 for name, value in headers) > HEADER_BYTES:
        raise ApiError(431, f"the header has more than {HEADER_BYTES} bytes")


async def read_body(receive, headers) -> bytes:
    """The body of a request. Raises `ApiError` for one too large or too slow.

    Of one too large as much again is read and dropped: a client that is still sending would not see the answer.
    """
    declared = headers.get("content-length", "0")
    large = not declared.isdecimal() or int(declared[:20]) > BODY_BYTES
    parts, size = [], 0
    try:
        async with asyncio.timeout(SECONDS):
            while size < 2 * BODY_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(400, "the body was cut")
                size += len(message.get("body", b""))
                large = large or size > BODY_BYTES
                parts = [] if large else [*parts, message.get("body", b"")]
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise ApiError(413 if large else 408, f"the body took more than {SECONDS:g} seconds") from None
    if large:
        raise ApiError(413, f"the body has more than {BODY_BYTES} bytes")
    return b"".join(parts)


def check_key(headers, key: str | None) -> None:
    """Raise `ApiError` unless the request carries the key, compared in constant time."""
    if key is None:
        return
    given = headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode()):
        raise ApiError(401, "wrong or missing API key", kind="authentication_error", code="invalid_api_key")
