"""Files that a stranger wrote: hashed and refused in one line."""

import hashlib
from pathlib import Path

from chinchilla_jax.config import require
from chinchilla_jax.disk import plain
from chinchilla_jax.errors import UserError

SUMS = "SHA256SUMS"  # as `sha256sum` writes and checks it


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path, files: list[Path]) -> dict[str, str]:
    """The hash of every file by its name in `folder`, held to the `SHA256SUMS` there where there is one."""
    told = read_sums(folder / SUMS) if (folder / SUMS).exists() else {}
    found = {}
    for path in files:
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        found[name] = sha256(path)
        require(
            told.get(name, found[name]) == found[name],
            f"{path} is damaged: its sha256 is not that of {SUMS}; get it again",
        )
    return found


def read_sums(path: Path) -> dict[str, str]:
    """Name -> hash of a file that `sha256sum` wrote."""
    try:
        lines = plain(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no list of checksums; get it again or delete it") from error
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    require(
        all(len(pair) == 2 and len(pair[0]) == 64 for pair in pairs),
        f"{path} is no list of checksums; get it again or delete it",
    )
    return {name.removeprefix("*").removeprefix("./"): digest.lower() for digest, name in pairs}


def write_sums(folder: Path) -> None:
    """Write the checksums of every file below `folder`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names if name != SUMS))
