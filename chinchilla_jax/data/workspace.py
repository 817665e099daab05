"""A temporary folder beside the store: no half-written store is left behind, and a killed run can be gone on with."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock

from chinchilla_jax import locks
from chinchilla_jax.data.own_output import UNFINISHED
from chinchilla_jax.disk import sync
from chinchilla_jax.errors import UserError

LOCK, KEY = "lock", "key"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def workspace(
    store: Path, flag: str = "--data.store", key: str = "", say: Callable[[str], None] = lambda line: None
) -> Iterator[Path]:
    """A folder beside `store`, empty at first and removed in the end.

    With a `key` an interrupt or a kill leaves it, and the next one with the same key goes on with what is there. `flag`
    is the one that names `store`. Raises `UserError` while another process prepares the same store and when the disk is
    full.
    """
    folder = store.parent / f".{store.name}{UNFINISHED}"
    lock, keep = _locked(folder, store, flag), False
    try:
        if key and (folder / KEY).is_file() and (folder / KEY).read_text() == key:
            say(f"going on with what an earlier run left in {folder}")
        else:
            clear(folder)
        with storage_errors(store, flag):
            if key:
                (folder / KEY).write_text(key)
            yield folder
    except BaseException as error:
        keep = bool(key) and not isinstance(error, Exception)
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _locked(folder: Path, store: Path, flag: str) -> BaseFileLock:
    """The lock of `folder`, which it makes; again where a holder that has just ended took both away meanwhile."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileExistsError) as error:
            way = next((path for path in (folder, *folder.parents) if path.is_file()), folder)
            raise UserError(f"{store}: {way} is a file and lies in the way; choose another {flag}") from error
        try:
            if lock := locks.take(folder / LOCK):
                return lock
        except FileNotFoundError:
            continue
        if (folder / LOCK).exists():
            raise UserError(f"another process is preparing {store}; wait for it or choose another {flag}")


@contextlib.contextmanager
def storage_errors(target: Path, flag: str = "--data.store") -> Iterator[None]:
    """Turns a full disk into a `UserError`: freeing space or another folder is the fix."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"the disk is full while writing {target} ({error.strerror}); nothing was left behind; free some space or "
            f"choose another {flag}"
        ) from error


def clear(folder: Path) -> None:
    """Remove all of `folder` but its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(LOCK):
            path.unlink()


def publish(made: Path, store: Path) -> None:
    """Put the finished folder, or file, `made` in the place of `store`."""
    for path in made.iterdir() if made.is_dir() else ():
        sync(path)
    sync(made)
    old = made.parent / "old"
    if store.exists():
        store.rename(old)
    made.rename(store)
    sync(store.parent)
