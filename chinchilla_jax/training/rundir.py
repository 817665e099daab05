"""One job at a time in a run directory."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chinchilla_jax.errors import StorageError, UserError

LOCK = ".lock"


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process; a second job gets a `UserError` that names the first.

    The operating system's lock decides, so that a killed holder never blocks the next one; what is written in the file
    is for the message, and decides only on file systems that know no locks.
    """
    path = Path(run_dir, LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"cannot lock {run_dir}: {error.strerror}") from None
    try:
        locks = _take(handle, path)
        holder = _holder(handle)
        if holder:
            if not locks and _may_live(holder):
                raise _refusal(path, holder)
            print(f"took over {run_dir} from {_name(holder)}, which ended without giving it back", file=sys.stderr)
        _write(handle, {"pid": os.getpid(), "host": socket.gethostname(), "start": _start(os.getpid())})
        try:
            yield
        finally:
            _write(handle, {})
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> bool:
    """Take the lock; False where the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            # The holder writes its name just after it has the lock.
            deadline = time.monotonic() + 0.5
            while not (holder := _holder(handle)) and time.monotonic() < deadline:
                time.sleep(0.05)
            raise _refusal(path, holder) from None
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise StorageError(f"cannot lock {path}: {error.strerror}") from None
    return True


def _refusal(path: Path, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"{path.parent} is in use by {_name(holder)}; wait for it, stop it, or choose another --run-dir "
        f"(if that process is gone for certain, delete {path})"
    )


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'this machine')}"


def _may_live(holder: dict[str, Any]) -> bool:
    """False only if the holder was a process of this machine that has ended (its number may live on in another)."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start(holder["pid"]) == holder.get("start")


def _start(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where /proc does not tell."""
    try:
        # The second field, the program's name in brackets, may itself hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _holder(handle: int) -> dict[str, Any]:
    """What the lock file says, or nothing if it is empty or unreadable."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _write(handle: int, holder: dict[str, Any]) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(holder).encode(), 0)
