"""Signals end a command as an error does, also where a library has caught them."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from chinchilla_jax.commands.stopping import Interrupted, Terminated, asked_to, terminable
from chinchilla_jax.errors import Preempted


def test_sigterm_raises_inside_and_what_was_there_comes_back():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
        with pytest.raises(Terminated), terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert signal.getsignal(signal.SIGTERM) is handler and sys.unraisablehook is hook and not seen
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind, raised", [(Terminated, Terminated), (KeyboardInterrupt, KeyboardInterrupt)])
def test_a_signal_that_python_swallowed_comes_again(kind, raised):
    """As in a callback of the garbage collector, where nothing can be raised."""
    with pytest.raises(raised), terminable():
        sys.unraisablehook(SimpleNamespace(exc_type=kind))
        time.sleep(5)


def test_other_errors_that_cannot_be_raised_go_where_they_went(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    failure = SimpleNamespace(exc_type=ValueError)
    with terminable():
        sys.unraisablehook(failure)
    assert seen == [failure]


def test_a_hook_that_somebody_put_around_stays():
    before = sys.unraisablehook
    try:
        with terminable():
            sys.unraisablehook = theirs = lambda failure: None
        assert sys.unraisablehook is theirs
    finally:
        sys.unraisablehook = before


def test_in_another_thread_nothing_is_touched():
    found = []

    def work():
        with terminable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_signal_is_found_behind_what_a_library_made_of_it():
    def wrapped(first):
        try:
            try:
                raise first
            except BaseException as error:
                raise RuntimeError("callback failed") from error
        except RuntimeError as error:
            return error

    found = asked_to(wrapped(KeyboardInterrupt()))
    assert isinstance(found, Interrupted) and found.exit_code == 130 and str(found) == "stopped by SIGINT"
    found = asked_to(wrapped(Terminated()))
    assert isinstance(found, Preempted) and found.exit_code == 75
    assert asked_to(wrapped(ValueError())) is None and asked_to(None) is None
