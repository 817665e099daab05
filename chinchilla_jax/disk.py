"""Small files: written whole or not at all, read within bounds or refused in one line; and the checksum of any."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from chinchilla_jax.errors import UserError

JSON_LIMIT = 256 << 20  # bytes of a JSON file that is read
CHUNK = 1 << 20  # bytes that are hashed at a time


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


def checksum(path: Path) -> str:
    """xxh3_128 of a file, streamed, as hexadecimal."""
    import xxhash

    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()
