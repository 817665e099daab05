"""Ctrl-C and SIGTERM end a command as an error does: what it has begun is cleared away. Training listens for itself."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from chinchilla_jax.errors import Preempted, UserError


class Terminated(BaseException):
    """SIGTERM; no `Exception`, so that no handler of those swallows it, as with Ctrl-C."""


class Interrupted(UserError):
    """Stopped by Ctrl-C."""

    exit_code = 128 + signal.SIGINT


AGAIN = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`; what Python cannot raise, as in a callback of the garbage collector, comes
    again a moment later."""
    ignored = sys.unraisablehook

    def stop(number, frame):
        raise Terminated

    def repeat(failure):
        number = AGAIN.get(failure.exc_type)
        if number is None:
            return ignored(failure)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is None:
        yield  # no handler can be set, or the one that is there could not be put back
        return
    sys.unraisablehook, before = repeat, signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if sys.unraisablehook is repeat:  # else somebody has put a hook of theirs around it
            sys.unraisablehook = ignored


def asked_to(error: BaseException | None) -> UserError | None:
    """The one line for an error that a signal is behind, also where a library has made another error of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return Interrupted("stopped by SIGINT")
        if isinstance(error, Terminated):
            return Preempted("stopped by SIGTERM")
        error = error.__cause__ or error.__context__
    return None
