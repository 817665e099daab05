"""One process at a time: the operating system's lock through `filelock`, or a lease where files cannot be locked.

A lock of the system ends with its holder, however that ends. A lease (on object storage) is a small file that its
holder writes again every `BEAT` seconds: one that has not changed for `EXPIRY` seconds belongs to nobody any more.
"""

import contextlib
import errno
import itertools
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from chinchilla_jax.errors import StorageError, UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # from file systems that have none
BEAT, EXPIRY, SETTLE = 10.0, 60.0, 2.0  # seconds; SETTLE is longer than another's write takes


def take(path: Path) -> BaseFileLock | None:
    """The lock at `path`, to be released; None while another process has it.

    Where the file system has no locks, a file `path`.soft names the holder, and counts until that process has ended.
    """
    try:
        return _acquired(FileLock(path, timeout=0))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _acquired(SoftFileLock(f"{path}.soft", timeout=0))


def _acquired(lock: BaseFileLock) -> BaseFileLock | None:
    try:
        lock.acquire()
        return lock
    except Timeout:
        return None


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for what its folder holds; a second process gets a `UserError` that names the first."""
    folder, note = path.parent, path.with_name(f"{path.name}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take(path)
        holder = _read(note, patience=0.0 if lock else 0.5)  # who has the lock writes the note just after
        if lock:
            note.write_text(json.dumps(_me()))
    except OSError as error:
        raise StorageError(f"cannot lock {folder}: {error.strerror}") from None
    if lock is None:
        raise _refusal(folder, holder)
    with lock:
        if holder:
            print(f"took over {folder} from {_name(holder)}, which ended without giving it back", file=sys.stderr)
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


@contextlib.contextmanager
def repeated(seconds: float, do: Callable[[], Any], name: str) -> Iterator[None]:
    """Call `do` every so many seconds, in a thread, until this is left or `do` returns something true."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(seconds) and not do():
            pass

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def lease(note: Any, lost: Callable[[], None]) -> Iterator[None]:
    """Hold a folder of object storage by the file `note` in it, an `epath`; `UserError` where another process does.

    A holder that was not heard of for too long and finds another one in its place calls `lost`, from a thread.
    """
    folder, me, beats = note.parent, _me() | {"token": secrets.token_hex(8)}, itertools.count(1)
    if (holder := _read(note)) and not _silent(note, holder):
        raise _refusal(folder, holder)
    note.write_text(json.dumps(me))
    time.sleep(SETTLE)
    if (found := _read(note)).get("token") != me["token"]:  # of several that came at once the last one stays
        raise _refusal(folder, found)
    if holder:
        print(f"took over {folder} from {_name(holder)}, which gave no sign of life any more", file=sys.stderr)

    def beat() -> bool:
        with contextlib.suppress(Exception):  # the network may be away for a moment
            if _read(note).get("token") not in (None, me["token"]):
                lost()
                return True
            note.write_text(json.dumps(me | {"beat": next(beats)}))
        return False

    try:
        with repeated(BEAT, beat, "lease"):
            yield
    finally:
        with contextlib.suppress(Exception):  # it expires in any case
            if _read(note).get("token") == me["token"]:
                note.unlink(missing_ok=True)


def _silent(note: Any, holder: dict[str, Any]) -> bool:
    """Whether a lease stays as it is for `EXPIRY` seconds; clocks of two machines are not compared."""
    print(f"{note.parent} is held by {_name(holder)}; waiting up to {EXPIRY:.0f} s for a sign of life", file=sys.stderr)
    deadline = time.monotonic() + EXPIRY
    while time.monotonic() < deadline:
        time.sleep(BEAT / 4)
        if (found := _read(note)) != holder:
            return not found
    return True


def _refusal(folder: Any, holder: dict[str, Any]) -> UserError:
    return UserError(f"{folder} is in use by {_name(holder)}; wait for it, stop it, or choose another folder")


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'this machine')}"


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _read(note: Any, patience: float = 0.0) -> dict[str, Any]:
    """What a note says; nothing where it is missing or unreadable, after so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = json.loads(note.read_text())
            if isinstance(found, dict) and isinstance(found.get("pid"), int):
                return found
        if time.monotonic() >= deadline:
            return {}
        time.sleep(0.05)
