"""Small files: written whole or not at all, read within bounds or refused in one line; checksums; object storage."""

import contextlib
import json
import math
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chinchilla_jax.errors import StorageError, UserError

JSON_LIMIT = 256 << 20  # bytes of a JSON file that is read
CHUNK = 1 << 20  # bytes that are hashed at a time
PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # scheme of a URL -> what has to be installed to reach it


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Put `text` in the place of what `path` holds, on the disk when this returns; a kill leaves one or the other."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of a value as JSON, null for infinities and not-a-number."""
    write_text(path, json.dumps(finite(value), ensure_ascii=False, indent=1) + "\n")


def finite(value: Any) -> Any:
    """`value` with null for what JSON cannot say: infinities and not-a-number."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(path: Path) -> Path:
    """`path`, which must be a file or a link to one: a device or a pipe would block, a broken link has nothing."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        broken = " (a link to nothing)" if path.is_symlink() else ""
        raise UserError(f"{path}: {error.strerror}{broken}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is no plain file")
    return path


def read_json(path: Path, fix: str = "get it again", missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object; `missing` where that is given and there is no file, else a `UserError` that ends with `fix`."""
    if missing is not None and not path.is_file():
        return missing
    size = plain(path).stat().st_size
    if size > JSON_LIMIT:
        raise UserError(f"{path} has {size} bytes, too many for a file of settings")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {fix}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no table of settings; {fix}")
    return found


def checksum(path: Any) -> str:
    """xxh3_128 of a file, a path or an `epath`, streamed, as hexadecimal."""
    import xxhash

    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    with path.open("rb") if is_remote(path) else open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def is_remote(path: Any) -> bool:
    """Whether a path is on object storage, where nothing is renamed, appended to or locked."""
    return "://" in str(path)


def unreachable(url: str, error: Exception, what: str = "reached") -> UserError:
    """The one line for what went wrong on the way to `url`, where each library below raises its own errors."""
    scheme = str(url).partition("://")[0]
    if isinstance(error, ImportError):
        way = f"; `pip install {PACKAGES[scheme]}`" if scheme in PACKAGES else ""
        return UserError(f"{url}: this needs another package ({error}){way}")
    if str(*error.args[:1]) in (f"{scheme}://", f"Protocol not known: {scheme}"):  # as epath and fsspec say it
        known = ", ".join(f"{name}://" for name in PACKAGES)
        return UserError(f"{url} cannot be {what}: {scheme}:// is not known here; use {known} or a local path")
    kind = UserError if isinstance(error, ValueError) else StorageError  # what was typed, or a failure
    return kind(f"{url} cannot be {what} ({type(error).__name__}: {error})")


def files_below(folder: Any, skip: tuple[str, ...] = ()) -> dict[str, int]:
    """Relative name -> bytes of everything below an `epath`, but for what `skip` names right below it."""
    found: dict[str, int] = {}
    level = [(path, path.name) for path in folder.iterdir() if path.name not in skip] if folder.exists() else []
    with ThreadPoolExecutor(16) as pool:
        while level:
            stats = list(pool.map(lambda entry: entry[0].stat(), level))
            found |= {name: stat.length for (_, name), stat in zip(level, stats) if not stat.is_directory}
            folders = [entry for entry, stat in zip(level, stats) if stat.is_directory]
            below = pool.map(lambda entry: list(entry[0].iterdir()), folders)
            level = [(path, f"{name}/{path.name}") for (_, name), paths in zip(folders, below) for path in paths]
    return found


def remove_tree(folder: Any) -> None:
    """Remove a folder, a path or an `epath`, with all that is in it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        folder.rmtree() if is_remote(folder) else shutil.rmtree(folder)
