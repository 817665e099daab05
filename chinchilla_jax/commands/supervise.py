"""Run another command and start it again after a crash or a lost peer; say in the end where the time went."""

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from chinchilla_jax.config import require
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import PeerLost, Preempted, StorageError

SECTIONS = ()
# Exit codes that are worth another attempt: a traceback, a lost peer, a hang or a preemption, and what shells and
# schedulers make of SIGABRT, SIGKILL, SIGSEGV and SIGTERM. A death by a signal is negative here. Never a user's error.
AGAIN = {1, PeerLost.exit_code, Preempted.exit_code, 134, 137, 139, 143}
HOUR = 3600.0
LONGEST, TICK = 300.0, 0.5  # seconds between two attempts, and in which a signal between them is heard


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--restarts", type=int, default=10, metavar="N", help="most of them within an hour [10]")
    parser.add_argument(
        "--wait", type=float, default=2.0, metavar="S", help="seconds before the first, then doubled [2]"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the command with its options")


def run(config, args) -> dict:
    """Attempt after attempt; the report ends with the last exit code of the command."""
    del config
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    require(bool(words), "supervise needs a command, as in: supervise pretrain --run-dir runs/mine")
    require(args.restarts >= 0 and args.wait >= 0, "--restarts and --wait must not be negative")
    run_dir = named(words, "--run-dir")
    with forwarding() as child:

        def attempt() -> int:
            return child([sys.executable, "-m", "chinchilla_jax", *words])

        code, attempts = supervised(attempt, args.restarts, args.wait, lambda: child.asked, child.rest)
    report = {"command": words, "attempts": attempts, "exit_code": code if code >= 0 else 128 - code}
    try:
        report |= spent(run_dir)
    except StorageError as error:  # the command's own exit code is what counts
        print(f"warning: {error}; where the time went is not known", file=sys.stderr)
    return report


def spent(run_dir: str) -> dict:
    """Where the time of a run went, printed too; nothing without a run."""
    from chinchilla_jax.training import mirror
    from chinchilla_jax.training.goodput import goodput, table
    from chinchilla_jax.training.metrics import read

    folder = mirror.fetched(run_dir) if is_remote(run_dir) else Path(run_dir)
    if not run_dir or not (folder / "events.jsonl").exists():
        return {}
    found = goodput(read(folder / "events.jsonl"))
    print(table(found))
    return {"goodput": found}


def named(words: list[str], flag: str) -> str:
    """The value of a flag on the command line of another command, or ""."""
    found = ""
    for word, following in zip(words, [*words[1:], ""]):
        found = following if word == flag else word.partition("=")[2] if word.startswith(flag + "=") else found
    return found


def supervised(
    attempt: Callable[[], int],
    restarts: int,
    wait: float,
    asked: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> tuple[int, int]:
    """The last exit code and the number of attempts. An attempt that lasted an hour starts the waits anew."""
    recent: deque[float] = deque()
    pause, attempts = wait, 0
    while True:
        began, attempts = now(), attempts + 1
        code = attempt()
        if asked() or not (code in AGAIN or code < 0):
            return code, attempts
        recent.append(now())
        while recent and recent[0] < now() - HOUR:
            recent.popleft()
        if len(recent) > restarts:
            print(f"supervise: exit code {code} and {restarts} restarts within the hour; giving up", file=sys.stderr)
            return code, attempts
        pause = wait if now() - began > HOUR else pause
        print(f"supervise: exit code {code}; attempt {attempts + 1} in {pause:g} s", file=sys.stderr, flush=True)
        sleep(pause)
        if asked():
            return code, attempts
        pause = min(2 * pause, LONGEST)


class Child:
    """The running command; `asked` says that a signal asked this process to stop, which the command was told."""

    def __init__(self):
        self.asked, self.process = False, None

    def __call__(self, command: list[str]) -> int:
        self.process = subprocess.Popen(command)
        if self.asked:  # while it was being started, so that it was not told
            self.process.terminate()
        return self.process.wait()

    def rest(self, seconds: float) -> None:
        """Wait, or until a signal asks to stop: Python goes back to sleep after a handler."""
        deadline = time.monotonic() + seconds
        while not self.asked and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, TICK))

    def signalled(self, number: int, frame) -> None:
        """Hand a signal on. A terminal sends Ctrl-C to both."""
        self.asked = True
        if number != signal.SIGINT and self.process and self.process.poll() is None:
            self.process.send_signal(number)


@contextlib.contextmanager
def forwarding() -> Iterator[Child]:
    """Inside, signals that ask to stop go to the child and are obeyed once it has ended."""
    child = Child()
    before = {n: signal.signal(n, child.signalled) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
