"""A run directory on object storage (gs://...): a local copy stands for it, and what changes in that is sent back.

Checkpoints are written and read in place. The other files of a run are small, and appended to or renamed, which object
storage cannot do: they live in a temporary folder, and are sent every `TICK` seconds, before each checkpoint's
manifest, and in the end. So what a checkpoint promises of metrics.jsonl is there with it.
"""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chinchilla_jax import disk, locks
from chinchilla_jax.disk import CHUNK
from chinchilla_jax.errors import StorageError, UserError

LEASE = "lease.json"
TICK = 60.0
IN_PLACE = "checkpoints"
UNREAD = (IN_PLACE, "tensorboard", "profile", LEASE)  # of no use to a run that goes on
PRIVATE = (".lock", ".new")  # ends of names that are of this machine alone
PROBE = "probe.new"

_standing: dict[Path, "Mirror"] = {}


def of(run_dir: Path) -> "Mirror | None":
    """What a local copy stands for; None for a folder of its own."""
    return _standing.get(Path(run_dir))


def checkpoints(run_dir: Path) -> Any:
    """Where a run's checkpoints are: a path, or an `epath` on object storage."""
    mirror = of(run_dir)
    return mirror.remote / IN_PLACE if mirror else Path(run_dir) / IN_PLACE


def name(run_dir: Path) -> str:
    """What a run directory is called."""
    mirror = of(run_dir)
    return mirror.url if mirror else str(run_dir)


def named(value: Any) -> Any:
    """`value` with the URLs of runs for their local copies wherever these are named."""
    for mirror in [*_standing.values()]:
        value = mirror.named(value)
    return value


def exists(run_dir: Path) -> bool:
    """Whether there is anything at a path, or at the URL that it stands for."""
    mirror = of(run_dir)
    if mirror is None:
        return Path(run_dir).exists()
    with _reaching(mirror.url):
        return mirror.remote.exists()


def check_writable(run_dir: Path) -> None:
    """Raise `StorageError` where a folder stands for object storage that takes nothing; nothing is left there."""
    if mirror := of(run_dir):
        with _reaching(mirror.url, "written"):
            (mirror.remote / PROBE).write_text("may this be written?\n")
            (mirror.remote / PROBE).unlink()


def deliver(path: Path) -> None:
    """Send a file of a local copy now, not in the end; where that fails it goes, and `StorageError` says why."""
    if mirror := of(path.parent):
        try:
            with _reaching(mirror.url, "written"):
                mirror.send()
        except StorageError:
            path.unlink()
            raise


def beside(run_dir: Path, name: str) -> Path | None:
    """A local copy of the run `name` in the same folder of object storage as the one at `run_dir`, if there is one."""
    if (mirror := of(run_dir)) is None:
        return None
    with _reaching(mirror.url):
        found = mirror.remote.parent / name
        there = (found / "config.json").exists()
    return fetched(f"{mirror.url.rpartition('/')[0]}/{name}") if there else None


def fetched(url: str) -> Path:
    """A local copy of the run at `url` to be read only; it goes when this process ends in order."""
    known = next((mirror for mirror in _standing.values() if mirror.url == url.rstrip("/")), None)
    if known is None:
        ended = contextlib.ExitStack()
        known = ended.enter_context(standing_for(url))
        atexit.register(ended.close)
    return known.folder


def send(run_dir: Path) -> None:
    """Send what has changed in a local copy; nothing to do for other folders."""
    if mirror := of(run_dir):
        mirror.send()


class Mirror:
    """The local copy of the run at `url`."""

    def __init__(self, url: str):
        from etils import epath

        self.url, self.remote = url.rstrip("/"), epath.Path(url.rstrip("/"))
        self.scratch = Path(tempfile.mkdtemp(prefix="chinchilla_jax-")).resolve()
        self.folder = self.scratch / self.remote.name  # what names a run after its folder finds the right name
        self.folder.mkdir()
        self._sent: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()

    def fetch(self) -> None:
        """Copy what a command may read."""
        found = [name for name in disk.files_below(self.remote, skip=UNREAD) if not name.endswith(PRIVATE)]
        with ThreadPoolExecutor(8) as pool:
            for name, content in zip(found, pool.map(lambda name: (self.remote / name).read_bytes(), found)):
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._sent[name] = _state(path)

    def send(self) -> None:
        """Copy back what is new or has changed since.

        In the order of names: of a run that came as a whole (`import`) first a checkpoint's parts, then its manifest,
        then config.json, without which there is no run.
        """
        with self._sending:
            for path in sorted(self.folder.rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if name.endswith(PRIVATE):
                    continue
                try:
                    state = _state(path)
                    content = None if path.is_dir() or self._sent.get(name) == state else path.open("rb")
                except FileNotFoundError:  # renamed meanwhile
                    continue
                if content is not None:
                    (self.remote / name).parent.mkdir(parents=True, exist_ok=True)
                    with content, (self.remote / name).open("wb") as place:
                        shutil.copyfileobj(content, place, CHUNK)
                    self._sent[name] = state

    def named(self, value: Any) -> Any:
        """`value` with the URL for the local copy wherever it is named."""
        if isinstance(value, dict):
            return {key: self.named(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.named(item) for item in value]
        return value.replace(str(self.folder), self.url) if isinstance(value, str) else value


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def standing_for(url: str) -> Iterator[Mirror]:
    """The local copy of the run at `url`, sent back and removed in the end; errors name the URL.

    Raises `UserError` for what cannot be reached.
    """
    if not url.startswith("gs://"):
        raise UserError(f"{url}: run directories are local folders or on gs://; name one")
    mirror = Mirror(url)
    try:
        with _reaching(url):
            mirror.fetch()
        _standing[mirror.folder] = mirror
        try:
            yield mirror
        finally:
            with _reaching(url, "written"):
                mirror.send()
    except UserError as error:
        error.args = tuple(mirror.named(list(error.args)))
        raise
    finally:
        _standing.pop(mirror.folder, None)
        shutil.rmtree(mirror.scratch, ignore_errors=True)


@contextlib.contextmanager
def _reaching(url: str, what: str = "reached") -> Iterator[None]:
    """Turns what goes wrong on the way to `url` into one line; each library below raises its own errors."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise disk.unreachable(url, error, what) from error


@contextlib.contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold a run on object storage for this process, and send what changes as it goes."""
    mirror = _standing[Path(run_dir)]

    def lost() -> None:
        print(f"error: {mirror.url} was taken over by another process; this one must not write there", file=sys.stderr)
        os._exit(StorageError.exit_code)

    def tick() -> None:
        try:
            with _reaching(mirror.url, "written"):
                mirror.send()
        except UserError as error:
            print(f"warning: {error}; trying again", file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        with _reaching(mirror.url, "written"):
            stack.enter_context(locks.lease(mirror.remote / LEASE, lost))
        try:
            with locks.repeated(TICK, tick, "mirror"):
                yield
        finally:
            with _reaching(mirror.url, "written"):
                mirror.send()
