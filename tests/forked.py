"""Processes that have imported JAX before they start; importing is half of the time of a tiny run.

`python -m tests.forked` imports what training does, but starts no backend of JAX, and forks for every request.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import NoReturn


class Forked:
    """As much of `subprocess.Popen` as tests want; what the process writes to either stream is kept in a file."""

    def __init__(self, wrap: str, words: list[str], env: dict[str, str]):
        self.folder = tempfile.TemporaryDirectory(prefix="forked-")
        self.returncode = None
        request = {"wrap": wrap, "words": words, "env": env, "folder": self.folder.name}
        server().stdin.write(json.dumps(request) + "\n")
        self.pid = int(server().stdout.readline())

    def poll(self) -> int | None:
        """The exit code, or minus the signal, once the process has ended."""
        ended = Path(self.folder.name, "ended")
        if self.returncode is None and ended.exists():
            self.returncode = int(ended.read_text())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To a process that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        """What was written, once the process has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return Path(self.folder.name, "said").read_text(errors="replace"), None


@cache
def server() -> subprocess.Popen:
    """The server of this process; it ends when this process does, since its standard input is closed then."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    return subprocess.Popen([sys.executable, "-m", "tests.forked"], cwd=Path(__file__).parent.parent, **pipes)


def serve() -> None:
    """Fork for every line of standard input, and say the number of the process that was forked."""
    import orbax.checkpoint  # noqa: F401
    import sentencepiece  # noqa: F401
    import tensorboardX  # noqa: F401
    from jaxlib.mlir.dialects import mhlo  # noqa: F401

    from chinchilla_jax.commands import cli, finetune, generate, pretrain  # noqa: F401
    from chinchilla_jax.inference import engine  # noqa: F401
    from chinchilla_jax.training import loop  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        if os.fork() == 0:
            watch(**json.loads(line))


def watch(wrap: str, words: list[str], env: dict[str, str], folder: str) -> NoReturn:
    """Fork once more, and write down how that process ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        become(Path(folder, "said"), env)
        run(wrap, words)
    print(pid, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    Path(folder, "ending").write_text(str(code))
    os.rename(Path(folder, "ending"), Path(folder, "ended"))
    os._exit(0)


def become(said: Path, env: dict[str, str]) -> None:
    """Streams and variables of its own."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(env)


def run(wrap: str, words: list[str]) -> NoReturn:
    """A command after some Python, and the end of the process as Python ends."""
    from chinchilla_jax.__main__ import main

    exec(wrap, {})  # noqa: S102
    sys.exit(main(words))


if __name__ == "__main__":
    serve()
