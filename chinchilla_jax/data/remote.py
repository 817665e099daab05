"""Token stores on remote paths (gs://...): copied to local disk once, verified by their checksums."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.config import expanded
from chinchilla_jax.data import store
from chinchilla_jax.data.workspace import storage_errors
from chinchilla_jax.errors import UserError

CACHE = "~/.cache/chinchilla_jax/stores"
BLOCK = 1 << 23


def copy(url: str, cache: Path | None = None) -> Path:
    """The local copy of the store at `url`, made if there is none of its present version.

    Raises `UserError` for a store that is missing, cannot be reached, or arrives damaged.
    """
    with reaching(url):
        text = _path(url, store.MANIFEST).read_bytes()
    manifest = store.parse_manifest(text, url)
    folder = local(url, text, cache)
    if (folder / store.MANIFEST).is_file():
        try:
            store.check_files(folder, manifest, checksums=False)
            return folder
        except UserError:
            shutil.rmtree(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    with storage_errors(folder):
        try:
            part.mkdir(parents=True)
            for name in manifest["files"]:
                with reaching(url), _path(url, name).open("rb") as source, open(part / name, "wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
            store.check_files(part, manifest, checksums=True)
            (part / store.MANIFEST).write_bytes(text)
            # Of several processes on this machine the first to finish wins; the copies are equal.
            try:
                part.rename(folder)
            except OSError:
                if not (folder / store.MANIFEST).is_file():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def local(url: str, manifest: bytes, cache: Path | None = None) -> Path:
    """Where the copy of the store at `url` with this manifest lies."""
    digest = hashlib.sha256(url.rstrip("/").encode() + b"\0" + manifest).hexdigest()[:24]
    return (cache or Path(expanded(CACHE))) / digest


def exists(url: str) -> bool:
    """Whether there is a finished store at `url`."""
    with reaching(url):
        return _path(url, store.MANIFEST).exists()


def upload(folder: Path, url: str) -> None:
    """Copy the store in `folder` to `url`, its manifest last."""
    names = sorted(path.name for path in folder.iterdir() if path.name != store.MANIFEST)
    with reaching(url):
        _path(url).mkdir(parents=True, exist_ok=True)
        _path(url, store.MANIFEST).unlink(missing_ok=True)
        for name in [*names, store.MANIFEST]:
            with open(folder / name, "rb") as source, _path(url, name).open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK)


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong on the way to `url` into one line."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{url}: reading this needs another package ({error}); such as `pip install gcsfs`") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{url}: no token store here; make one with `python -m chinchilla_jax prepare` or set --data.store"
        ) from error


def _path(url: str, name: str = ""):
    from etils import epath

    return epath.Path(url) / name if name else epath.Path(url)
