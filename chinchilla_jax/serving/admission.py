"""Whether a request for text can be taken, decided by its first bytes: a refusal costs a hundredth of an answer."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from chinchilla_jax.serving.protocol import ApiError, failure

ARRIVING = 1.0  # seconds that a request without an answer counts as one that is about to be queued
ROUTES = {f"POST {route} ".encode(): route for route in ("/v1/completions", "/v1/chat/completions")}


class Admission:
    """`full()` is the scheduler's word, which lags behind what has arrived: so at most `places` may be on their way."""

    def __init__(self, full: Callable[[], bool], places: int, refused: Callable[[str], None]):
        self.full, self.places, self.refused, self.arriving = full, places, refused, set()

    def admit(self, who: asyncio.Protocol, data: bytes, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a request that begins with `data` is read further; `refused` hears the route of one that is not."""
        route = next((route for line, route in ROUTES.items() if data.startswith(line)), None)
        if route is None:
            return True
        if len(self.arriving) >= self.places or self.full():
            self.refused(route)
            return False
        self.arriving.add(who)
        loop.call_later(ARRIVING, self.arriving.discard, who)
        return True


def written(error: ApiError) -> bytes:
    """An answer as it goes over the wire, after which the connection closes."""
    body, status = json.dumps(error.body).encode(), HTTPStatus(error.status)
    lines = [f"HTTP/1.1 {status} {status.phrase}", "content-type: application/json", f"content-length: {len(body)}"]
    lines += ["retry-after: 1"] if error.retried else []
    return "\r\n".join([*lines, "connection: close", "\r\n"]).encode() + body


REFUSAL = written(failure("full"))
