"""Stopping in order when asked to, and at once when stuck."""

import contextlib
import faulthandler
import os
import signal
import statistics
import threading
import time
from collections import deque

from chinchilla_jax.errors import Preempted
from chinchilla_jax.parallel import peers

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupts:
    """While entered, SIGTERM, SIGINT and SIGUSR1 set `requested` for the loop to poll; a second SIGINT exits at once.

    A thread listens to the file descriptor that the C-level handler writes to: Python's own handlers wait until the
    main thread returns from native code, which in a compilation takes minutes. Outside the main thread, where handlers
    cannot be set, it does nothing.
    """

    def __init__(self):
        self.requested: str | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        listener = threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True)
        listener.start()
        self._stack.callback(listener.join)
        self._stack.callback(os.close, writer)  # ends the listener
        self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
        for number in SIGNALS:
            # None stands for a handler that was not set from Python, and cannot be put back from Python.
            before = signal.signal(number, self._note)
            self._stack.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def stop(self) -> str | None:
        """The signal that asks to stop now. Several processes obey it at the same call, so all must make the same."""
        others = peers.current()
        return (others.agreed(self.requested is not None) or None) if others else self.requested

    def _note(self, number: int, frame=None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number).name

    def _listen(self, reader: int) -> None:
        asked = False
        while numbers := os.read(reader, 64):
            for number in numbers:
                if number not in SIGNALS:
                    continue
                if asked and number == signal.SIGINT:
                    os.write(2, b"\nleft at once; the newest complete checkpoint is intact\n")
                    os._exit(130)
                if not asked:
                    name = signal.Signals(number).name.encode()
                    os.write(
                        2, b"\n" + name + b": stopping after this step, with a checkpoint (Ctrl-C leaves at once)\n"
                    )
                asked = True
                self._note(number)
                if others := peers.current():
                    others.ask(signal.Signals(number).name)
        os.close(reader)


class Watchdog:
    """While entered, and from the first `beat` on, ends the process with code 75 when beats stay out.

    Patience is max(floor, factor * median time between the last beats) seconds, and `longer` times as much after
    `beat(long=True)`. Every thread's stack goes to standard error first, which names the line that hangs.
    """

    def __init__(self, floor: float = 300.0, factor: float = 10.0, longer: float = 6.0):
        self.floor, self.factor, self.longer = floor, factor, longer
        self._gaps: deque[float] = deque(maxlen=33)
        self._last: float | None = None
        self._long = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, *, long: bool = False) -> None:
        """Say that work goes on; `long` where a save, a compilation or the like follows."""
        now = time.monotonic()
        if self._last is not None and not self._long:
            self._gaps.append(now - self._last)
        self._last, self._long = now, long

    @property
    def patience(self) -> float:
        """Seconds without a beat that are taken for a hang."""
        gaps = tuple(self._gaps)
        usual = max(self.floor, self.factor * statistics.median(gaps)) if gaps else self.floor
        return usual * (self.longer if self._long else 1.0)

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.floor / 4)):
            last = self._last
            if last is not None and time.monotonic() - last > self.patience:
                message = f"\nno progress for {self.patience:.0f} s; the stacks below show where it hangs\n"
                os.write(2, message.encode())
                faulthandler.dump_traceback(file=2, all_threads=True)
                if others := peers.current():
                    others.failed(TimeoutError(message.strip()))
                    others.leave(Preempted.exit_code)
                os._exit(Preempted.exit_code)
