"""Small files that are there whole or not at all, and the checksum of any."""

import json
import math
import os
from pathlib import Path
from typing import Any

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


def checksum(path: Path) -> str:
    """xxh3_128 of a file, streamed, as hexadecimal."""
    import xxhash

    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()
