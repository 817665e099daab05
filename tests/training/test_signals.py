"""Signals that ask, signals that insist, and a watchdog that names the line that hangs."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chinchilla_jax.training.signals import SIGNALS, Interrupts, Watchdog


def start(script: str) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen) -> tuple[str, str]:
    """What a process still says; one that does not end fails and does not stay."""
    try:
        return process.communicate(timeout=30)
    finally:
        process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(number):
    before = [signal.getsignal(n) for n in SIGNALS]
    with Interrupts() as interrupts:
        assert interrupts.stop() is None
        os.kill(os.getpid(), number)
        assert interrupts.requested == signal.Signals(number).name
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.stop() == signal.Signals(number).name  # the first one is the reason
    assert [signal.getsignal(n) for n in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_handlers_come_back_after_an_exception_and_threads_end():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Interrupts():
        assert "signals" in names()
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before and "signals" not in names()


def names() -> set[str]:
    """Of the threads that run."""
    return {thread.name for thread in threading.enumerate()}


def test_outside_the_main_thread_it_does_nothing():
    found = []

    def work():
        with Interrupts() as interrupts:
            found.append(interrupts.stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


# Python's own handlers do not run before a native call returns.
BUSY = {
    "python": "while True: time.sleep(0.01)",
    "native": "ctypes.CDLL(None).sleep(60)",
}


@pytest.mark.parametrize("work", BUSY)
def test_a_second_ctrl_c_leaves_at_once(work):
    process = start(
        "import ctypes, time\n"
        "from chinchilla_jax.training.signals import Interrupts\n"
        "with Interrupts() as interrupts:\n"
        "    print('ready', flush=True)\n"
        f"    {BUSY[work]}\n"
        "    while True: ctypes.CDLL(None).sleep(60)\n"
    )
    process.send_signal(signal.SIGINT)
    assert "SIGINT: stopping after this step" in process.stderr.readline() + process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = ended(process)
    assert time.monotonic() - begun < 20, "and not after a minute, when the call returns"
    assert process.returncode == 130 and "left at once" in errors


def test_a_hang_is_named_and_left_with_75():
    process = start(
        "import threading, time\n"
        "from chinchilla_jax.training.signals import Watchdog\n"
        "def the_line_that_hangs():\n"
        "    threading.Event().wait()\n"
        "with Watchdog(floor=2) as watchdog:\n"
        "    print('ready', flush=True)\n"
        "    print(time.monotonic(), flush=True)\n"
        "    watchdog.beat()\n"
        "    the_line_that_hangs()\n"
    )
    begun = float(process.stdout.readline())  # the same clock in all processes
    _, errors = ended(process)
    assert 2 < time.monotonic() - begun < 20
    assert process.returncode == 75 and "in the_line_that_hangs" in errors


def test_the_watchdog_sleeps_until_the_first_beat():
    with Watchdog(floor=0.05):
        time.sleep(0.3)


def test_what_may_take_long_is_watched_too():
    watchdog = Watchdog(floor=0.1, longer=6)
    watchdog.beat(long=True)
    assert watchdog.patience == pytest.approx(0.6)
    time.sleep(0.05)
    watchdog.beat()
    assert watchdog.patience == 0.1, "and how long it took says nothing of a step"


def test_the_watchdog_learns_how_long_a_step_takes():
    watchdog = Watchdog(floor=0.1)  # not entered: a busy machine must not end the tests
    assert watchdog.patience == 0.1
    for _ in range(4):
        watchdog.beat()
        time.sleep(0.05)
    assert watchdog.patience >= 0.5
