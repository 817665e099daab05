"""Whether a request for text can be taken, decided by its first bytes: a refusal costs a hundredth of an answer."""

import asyncio
from collections.abc import Callable

from chinchilla_jax.serving.protocol import failure, written

ARRIVING = 1.0  # seconds that a request without an answer counts as one that is about to be queued
REFUSAL = written(failure("full"))
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
