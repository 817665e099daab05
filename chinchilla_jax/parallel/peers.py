"""What the processes of one run tell one another without their devices, over JAX's coordination service.

A failure   one process fails and writes why; the others say so and leave with `PeerLost`. No collective is involved,
            so nobody waits for a process that will not come.
A silence   each process watches the next one's sign of life, so a killed or stopped process is noticed in `patience`
            seconds whatever its peers are waiting for.
A request   a signal that reaches one process stops all of them after the same call of `agreed`. The protocol is that
            of JAX's `reached_preemption_sync_point` (the largest count of calls, plus one), for any signal, without its
            second of delay, and in validation too.

A process alone pays nothing: `current()` is then None.
"""

import atexit
import contextlib
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax._src import distributed  # the client of the coordination service has no public name (JAX 0.10 to 0.12)

from chinchilla_jax.errors import Diverged, PeerLost, Preempted

ROOT = "chinchilla_jax"
BEAT = 2.0  # seconds between two signs of life
PATIENCE = 30.0  # seconds without one that are taken for an end
GRACE = 5.0  # in which a process that hears of a failure may come to the same one by itself
DRAIN = 15.0  # for what is still being written
# What collectives say on a process whose peer is gone: gloo, NCCL, and the coordination service itself.
GONE = re.compile(r"gloo|nccl|connection (reset|closed|refused)|socket closed|coordination service", re.IGNORECASE)

_current: "Peers | None" = None


def current() -> "Peers | None":
    """The other processes of this run; None for a process alone."""
    return _current


class Peers:
    """Started once the processes have found one another; two threads listen from then on."""

    def __init__(self, client: Any, process: int, count: int, patience: float = PATIENCE):
        self.client, self.process, self.count, self.patience = client, process, count, patience
        self.drain: Callable[[], None] = lambda: None  # waits for what is being written, for some seconds
        self.told = False  # whether the terminal knows why this process ends
        self._calls, self._target, self._requested = 0, None, ""
        self._changed, self._beats = threading.Condition(), itertools.count()
        self._failing = self._ended = False

    def start(self) -> None:
        """Listen, until Python ends: a thread that is inside the service by then would abort the process."""
        works = self._watch, self._hear
        threads = [threading.Thread(target=work, name=f"peers{work.__name__}", daemon=True) for work in works]
        for thread in threads:
            thread.start()
        atexit.register(self._end, threads)

    def _end(self, threads: list[threading.Thread]) -> None:
        self._ended = True
        for thread in threads:
            thread.join(3 * BEAT)

    # A failure

    def failed(self, error: BaseException) -> None:
        """Tell the terminal and the other processes why this one is going to end: once, and without waiting for them.

        What all processes come to alike is no failure. A collective that failed because a peer is gone ends this
        process as a lost peer does.
        """
        if self._failing or isinstance(error, (Preempted, Diverged)):
            return
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        if isinstance(error, (RuntimeError, ValueError)) and GONE.search(str(error)):
            known = self._read("failed", GRACE)
            self._lost(json.loads(known) if known else {"process": "?", "why": why})
        self._failing = self.told = True
        print(f"error: process {self.process} of {self.count} fails: {why}", file=sys.stderr, flush=True)
        self._write("failed", json.dumps({"process": self.process, "why": why}))

    def leave(self, code: int) -> None:
        """End this process with `code`, without JAX's own shutdown, which would wait for the others.

        The first process goes last: it holds the service, and its end is the end of all that still listen.
        """
        self._failing = True
        self._write(f"left/{self.process}", str(code))
        if self.process == 0:
            self._wait_for_the_others(forever=code == 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _wait_for_the_others(self, forever: bool) -> None:
        """Until each has left, or gives no sign of life any more."""
        seen, deadline = {}, time.monotonic() + GRACE + DRAIN + 3 * BEAT
        while forever or time.monotonic() < deadline:
            now = time.monotonic()
            for peer in range(1, self.count):
                word = self._read(f"alive/{peer}", 0)
                if peer not in seen or seen[peer][0] != word:
                    seen[peer] = word, now
            living = [peer for peer, (_, since) in seen.items() if now - since < 3 * BEAT]
            if all(self._read(f"left/{peer}", 0) for peer in living):
                break
            time.sleep(0.2)
        time.sleep(0.3)  # from their word to their end

    def _watch(self) -> None:
        neighbour, seen, since = (self.process + 1) % self.count, None, time.monotonic() + self.patience
        while not self._ended:
            self._beat()
            found = self._read("failed", BEAT)
            if found and not self._failing:
                return self._lost(json.loads(found))
            word = self._read(f"alive/{neighbour}", 0)
            if word != seen:
                seen, since = word, time.monotonic()
            if time.monotonic() - since > self.patience and not self._failing:
                note = {"process": neighbour, "why": f"no sign of life for {self.patience:.0f} s"}
                self._write("failed", json.dumps(note))
                return self._lost(note)

    def _beat(self) -> None:
        self._write(f"alive/{self.process}", str(next(self._beats)))

    def _lost(self, note: dict[str, Any]) -> None:
        """Say it, wait for the checkpoint in flight, and end; a thread does it, since the main one may hang."""
        deadline = time.monotonic() + GRACE
        while threading.current_thread() is not threading.main_thread() and time.monotonic() < deadline:
            self._beat()
            time.sleep(0.2)
            if self._failing:
                return  # with an error of its own
        self._failing = True
        why = f"error: a peer was lost: process {note['process']} ({note['why']}); start all processes again"
        print(why, file=sys.stderr, flush=True)
        drained = threading.Thread(target=self.drain, daemon=True)
        drained.start()
        deadline = time.monotonic() + DRAIN
        while drained.is_alive() and time.monotonic() < deadline:
            self._beat()
            drained.join(0.2)
        self.leave(PeerLost.exit_code)

    # A request

    def ask(self, name: str) -> None:
        """Have all processes stop, by the name of a signal; returns at once."""
        self._write("stop", name)

    def agreed(self, asked_here: bool) -> str:
        """The name of the signal that all processes obey at this call, or "".

        All processes make the same calls. One that was asked itself waits here until the others have heard of it.
        """
        with self._changed:
            self._calls += 1
            if asked_here and self._target is None:
                self._changed.wait_for(lambda: self._target is not None, timeout=2 * self.patience)
            reached = self._target is not None and self._calls >= self._target
            return self._requested if reached else ""

    def _hear(self) -> None:
        name = None
        while name is None and not self._ended:
            name = self._read("stop", BEAT)
        if name is None:
            return
        with self._changed:
            self._write(f"calls/{self.process}", str(self._calls))
            calls = [self._read(f"calls/{peer}", 2 * self.patience) for peer in range(self.count)]
            if None not in calls:
                self._target, self._requested = max(map(int, calls)) + 1, name
            self._changed.notify_all()

    # What all processes contribute to

    def give(self, key: str, value: str) -> None:
        """Let the first process have a word of this one; from any thread."""
        self._write(f"{key}/{self.process}", value)

    def take(self, key: str, seconds: float) -> list[str]:
        """The words that the other processes gave, waited for; one that gives none in time is left out."""
        words = (self._read(f"{key}/{peer}", seconds) for peer in range(self.count) if peer != self.process)
        return [word for word in words if word is not None]

    # The service. Where it does not answer, JAX itself ends the process.

    def _write(self, key: str, value: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # somebody else was first
            self.client.key_value_set(f"{ROOT}/{key}", value, allow_overwrite=key.startswith("alive"))

    def _read(self, key: str, seconds: float) -> str | None:
        try:
            if seconds:
                return self.client.blocking_key_value_get(f"{ROOT}/{key}", int(1000 * seconds))
            return self.client.key_value_try_get(f"{ROOT}/{key}")
        except jax.errors.JaxRuntimeError:
            return None


def start(patience: float = PATIENCE) -> None:
    """Listen to the other processes of JAX's runtime, if there are any; starts no backend."""
    global _current
    state = distributed.global_state
    if state.client is not None and state.num_processes > 1 and _current is None:
        _current = Peers(state.client, state.process_id, state.num_processes, patience)
        _current.start()
