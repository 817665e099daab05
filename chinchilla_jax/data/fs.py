"""Whole files and ranges of them on local disks and on what fsspec reaches (gs://, s3://, hdfs://, ...)."""

import contextlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from chinchilla_jax.data.naming import is_pattern
from chinchilla_jax.disk import is_remote


def join(folder: str, *names: str) -> str:
    """A path below `folder`."""
    return "/".join([folder.rstrip("/"), *names])


def read(path: str, start: int = 0, size: int | None = None) -> bytes:
    """The bytes of a file, or `size` of them from `start`; fewer at its end."""
    if is_remote(path):
        found, name = _remote(path)
        return found.cat_file(name, start, None if size is None else start + size)
    with open(path, "rb", buffering=0) as file:
        left = max(0, os.fstat(file.fileno()).st_size - start) if size is None else size
        found = os.pread(file.fileno(), left, start)
        while len(found) < left and (more := os.pread(file.fileno(), left - len(found), start + len(found))):
            found += more  # one call of the kernel's gives 2 GiB at most
    return found


def write(path: str, content: bytes | memoryview, sync: bool = False) -> None:
    """Write a file that is there whole or not at all, and its folder."""
    if is_remote(path):
        found, name = _remote(path)
        found.pipe_file(name, bytes(content))
        return
    with writing(path) as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    if is_remote(path):
        found, name = _remote(path)
        return found.exists(name)
    return os.path.exists(path)


def names(folder: str) -> set[str]:
    """The names of what lies in a folder; none where there is no such folder."""
    try:
        if is_remote(folder):
            found, name = _remote(folder)
            found.invalidate_cache(name)  # others write there
            return {path.rstrip("/").rpartition("/")[2] for path in found.ls(name, detail=False)}
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def remove(path: str) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if is_remote(path):
        found, name = _remote(path)
        if found.exists(name):
            found.rm(name, recursive=True)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


class Url(str):
    """A remote file, with the few attributes of a path that its readers use."""

    @property
    def name(self) -> str:
        """Its last part."""
        return self.rpartition("/")[2]


def located(path: str) -> Path | Url:
    """A path or a URL as what its readers take."""
    return Url(path) if is_remote(path) else Path(path)


def opened(path: str) -> BinaryIO:
    """A file opened for reading its bytes."""
    if not is_remote(path):
        return open(path, "rb")
    found, name = _remote(path)
    return found.open(name, "rb")


def size(path: str) -> int:
    """Bytes of a file."""
    if not is_remote(path):
        return os.stat(path).st_size
    found, name = _remote(path)
    return found.size(name) or 0


def listing(url: str) -> dict[str, str]:
    """The files at or below a URL (which may have a pattern), in order, and what changes when they do.

    Raises `FileNotFoundError` where there is nothing.
    """
    found, name = _remote(url)
    names = sorted(found.glob(name)) if is_pattern(name) else found.find(name)
    if not names:
        raise FileNotFoundError(url)
    infos = {found.unstrip_protocol(one): found.info(one) for one in names}
    kinds = ("size", "etag", "ETag", "md5Hash", "mtime", "updated", "LastModified", "created")
    return {
        url: " ".join(str(info.get(kind, "")) for kind in kinds)
        for url, info in infos.items()
        if info["type"] == "file" and not url.rpartition("/")[2].startswith((".", "_"))
    }


def _remote(path: str):
    import fsspec

    return fsspec.core.url_to_fs(path)


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, there whole or not at all."""
    if is_remote(path):
        found, name = _remote(path)
        with tempfile.NamedTemporaryFile() as file:  # one opened there would be an object once it is closed, however
            yield file
            file.flush()
            found.put_file(file.name, name)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    part = f"{path}.{os.getpid()}.{threading.get_ident()}.part"  # several may write the same file at a time
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def npy(array: np.ndarray) -> bytes:
    """An array as the content of an .npy file."""
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()
