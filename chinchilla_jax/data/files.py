"""Documents from text files, JSON records, parquet, web archives and folders of them, also remote ones.

Text and records may be compressed with gzip or zstd.

A text file is one document. A file above `PIECE` bytes is cut into documents of at most that size, at the last blank
line of each piece, or its last line end, or its last whole character, whichever comes first.
"""

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from chinchilla_jax.config import expanded
from chinchilla_jax.data import cards, containers, fs, own_output, records
from chinchilla_jax.data.documents import Document, Notes, Source
from chinchilla_jax.data.naming import is_pattern
from chinchilla_jax.data.text import BOM, Broken, decode, wide
from chinchilla_jax.disk import is_remote, unreachable
from chinchilla_jax.errors import UserError

PIECE = 1 << 20
GROUP = 8 << 20  # bytes of small files that are read as one unit
RANGE = 32 << 20  # bytes of a large file that are read as one unit, where it can be cut
SNIFFED = 8192
HERE = "file://"  # in front of a path of this machine, where a URL is asked for
CONTROLS = re.compile(rb"[\x01-\x07\x0e-\x1a\x1c-\x1f]")
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
LICENCE = "your own files; prepare does not know their licence"
# Endings that are never text, told without opening the file.
BINARY = re.compile(
    r"\.(png|jpe?g|gif|bmp|ico|webp|pdf|zip|tar|tgz|bz2|xz|7z|whl|egg|so|o|a|dll|exe|class|jar|py[co]|np[yz]|bin"
    r"|model|safetensors|pt|pth|h5|arrow|sqlite|db|mp[34]|wav|ogg|avi|woff2?|ttf|otf|eot)",
    re.IGNORECASE,
)


def open_path(name: str, field: str, skip_broken: bool = False, left_out: tuple[Path, ...] = ()) -> Source:
    """The source of one file, of all text files below a folder, or of all files that a pattern matches.

    Hidden files, folders of `left_out`, and what this program writes (token stores, runs, data sets) are no text.
    """
    top = Path(expanded(name))
    if is_remote(name) or _is_pattern(top):
        return _open_url(name, field, skip_broken)
    skipped: Counter = Counter()
    own_output.refuse(name, top)
    paths = [top] if not top.is_dir() else cards.without(list(text_files(top, skipped, left_out)), skipped)
    _refuse_none(name, paths, skipped)
    parts = units(name, [str(path) for path in paths], field, skip_broken)
    return Source(name=name, licence=LICENCE, units=parts, state=_state(paths), skipped=skipped)


def is_there(name: str) -> bool:
    """Whether `open_path` is to look for this: a URL, a pattern, or a file or folder of this machine."""
    top = Path(expanded(name))
    return is_remote(name) or _is_pattern(top) or top.exists()


def _is_pattern(path: Path) -> bool:
    """Whether a path here stands for all that it matches; a file whose own name has such a character does not."""
    return is_pattern(str(path)) and not path.exists()


def _open_url(name: str, field: str, skip_broken: bool) -> Source:
    """The source of a remote file, folder or pattern, or of a pattern on this machine."""
    url = name if is_remote(name) else HERE + os.path.abspath(expanded(name))
    try:
        found = fs.listing(url)
        own = own_output.remote(found, whole=url not in found and not is_pattern(url))
    except FileNotFoundError as error:
        raise UserError(f"--data.sources {name}: nothing is there; see what it names") from error
    except OSError:
        raise
    except Exception as error:
        raise unreachable(url, error) from error
    found = {path: state for path, state in found.items() if path not in own}
    paths = [path for path in found if not BINARY.fullmatch(Path(path).suffix)]
    skipped = Counter({"binary": len(found) - len(paths)}) + Counter(f"files of {kind}" for kind in own.values())
    paths = paths if url in found else cards.without(paths, skipped)
    paths = [path.removeprefix(HERE) for path in paths]
    _refuse_none(name, paths, skipped)
    parts = units(name, paths, field, skip_broken)
    state = str(found) if is_remote(name) else _state([Path(path) for path in paths])
    return Source(name=name, licence=LICENCE, units=parts, state=state, skipped=skipped)


def _refuse_none(name: str, paths: list, skipped: Counter) -> None:
    """A `UserError` that says what was passed over, where that was all."""
    seen = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common() if count)
    if not paths:
        raise UserError(f"{name}: no text files in this folder{f' (skipped {seen})' if seen else ''}")


def units(name: str, paths: list[str], field: str, skip_broken: bool) -> list[dict]:
    """Files in groups of about `GROUP` bytes, a larger one by itself; where it can be cut, in parts."""
    found: list[dict] = []
    about = {"kind": "files", "name": name, "field": field, "skip_broken": skip_broken}
    for path in paths:
        size, parts = fs.size(path), cuts(path)
        if parts:
            found += [{**about, "paths": [path], "part": [a, b], "bytes": part_size} for a, b, part_size in parts]
        elif not found or "part" in found[-1] or found[-1]["bytes"] + size > GROUP:
            found.append({**about, "paths": [path], "bytes": size})
        else:
            found[-1]["paths"].append(path)
            found[-1]["bytes"] += size
    return found


def cuts(path: str) -> list[tuple[int, int, int]]:
    """Parts [first, last) of a large file and their bytes: of row groups in parquet, of bytes in lines of JSON."""
    name, size = path.lower(), fs.size(path)
    if size <= RANGE:
        return []
    if name.endswith(".parquet"):
        return [(group, group + 1, size) for group, size in enumerate(containers.row_groups(path))]
    if name.endswith((".jsonl", ".ndjson")):
        return [(at, min(size, at + RANGE), min(size - at, RANGE)) for at in range(0, size, RANGE)]
    return []


def read_unit(unit: dict, notes: Notes) -> Iterator[Document]:
    """The documents of the files of a unit."""

    def pass_over(broken: Broken) -> None:
        if not unit["skip_broken"]:
            raise broken
        notes.skipped["broken"] += 1

    for path in unit["paths"]:
        part = tuple(unit["part"]) if "part" in unit else None
        for key, text in read(fs.located(path), unit["field"], pass_over, notes, part):
            yield Document(text, unit["name"], key)


def _state(paths: list[Path]) -> str:
    import xxhash

    digest = xxhash.xxh3_128()
    for path in paths:
        found = path.stat()
        digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def text_files(top: Path, skipped: Counter, left_out: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The text files below `top` in sorted order; what is passed over is counted in `skipped` by kind.

    Links to folders are followed, each folder once.
    """
    seen, above = set(), set(top.resolve().parents)
    apart = {folder.resolve() for folder in left_out}

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change that or move the folder away")

    for folder, folders, names in os.walk(top, onerror=unreadable, followlinks=True):
        real = Path(folder).resolve()
        kind = "folders of downloads" if real in apart else own_output.kind(real)
        kind = "links to a folder above" if real in above else "folders seen before" if real in seen else kind
        seen.add(real)
        if kind:
            skipped[kind] += 1
            folders.clear()
            continue
        hidden = [n for n in [*folders, *names] if n.startswith(".")]
        skipped["hidden"] += sum(not n.endswith(own_output.UNFINISHED) for n in hidden)
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            path = Path(folder, name)
            if not path.is_file():
                skipped["not a file"] += 1
            elif path.suffix.lower() == ".arrow":
                skipped[cards.ARROW] += 1
            elif BINARY.fullmatch(path.suffix) or (path.suffix.lower() != ".parquet" and _looks_binary(path)):
                skipped["binary"] += 1
            else:
                yield path


def _looks_binary(path: Path) -> bool:
    """NUL, or many other control characters, near the beginning; text in another encoding is not taken for binary."""
    try:
        with open_file(path) as file:
            head = file.read(SNIFFED)
    except (*DAMAGED, PermissionError):
        return False  # reading it will say what is wrong
    return not wide(head) and (b"\0" in head or len(CONTROLS.findall(head)) > len(head) / 100)


def uncompressed(name: str) -> str:
    """The name of a file in lower case, without the ending of what compressed it."""
    return name.lower().removesuffix(".gz").removesuffix(".zst")


def open_file(path: Path | fs.Url) -> BinaryIO:
    """A file opened for reading bytes, decompressed if its name ends in .gz or .zst."""
    name, opened = path.name.lower(), fs.opened(str(path))
    if name.endswith(".zst"):
        return containers.zstd(opened)
    return gzip.open(opened, "rb") if name.endswith(".gz") else opened


def read(
    path: Path | fs.Url,
    field: str,
    broken: Callable[[Broken], None],
    notes: Notes | None = None,
    part: tuple[int, int] | None = None,
) -> Iterator[tuple[str, str]]:
    """(key, text) of each document of a file, or of a `part` of it as `cuts` has them.

    `broken` is called with what cannot be read, and may raise it.
    When it does not, a broken record is left out, or the rest of any other file. What is worth telling goes into
    `notes`.
    """
    notes = notes or Notes()
    name = uncompressed(path.name)

    def with_ways_out(error: Broken) -> None:
        ways = "; or leave it out, or pass --skip-broken"
        broken(error if str(error).endswith(ways) else Broken(f"{error}{ways}"))

    try:
        if name.endswith(".parquet"):
            yield from containers.parquet(str(path), field, part, notes)
            return
        if name.endswith(containers.ARCHIVES):
            with open_file(path) as file:
                yield from containers.archive(str(path), file)
            return
        sure = not name.endswith(".json")
        if name.endswith((".jsonl", ".ndjson", ".json")) and (
            found := records.read(path, open_file, field, with_ways_out, notes, sure, part)
        ):
            yield from found
            return
        with open_file(path) as file:
            yield from _pieces(file, path)
    except Broken as error:
        with_ways_out(error)
    except DAMAGED as error:
        kind = "zstd" if path.name.lower().endswith(".zst") else "gzip"
        broken(Broken(f"{path}: damaged {kind} file ({error}); replace it or pass --skip-broken"))
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        broken(Broken(f"{path}: cannot be read ({error.strerror or repr(error)}); change that or pass --skip-broken"))


def _pieces(file: BinaryIO, path: Path) -> Iterator[tuple[str, str]]:
    offset, held, number = 0, b"", 0
    while True:
        block = file.read(PIECE - len(held))
        held += block
        if offset == 0 and held.startswith(BOM):
            held, offset = held[len(BOM) :], len(BOM)
        end = len(held) if not block else 0 if len(held) < PIECE else cut(held)
        if end:
            more = bool(block)
            key = f"{path}#{number}" if number or more else str(path)
            yield key, decode(held[:end], path, offset)
            held, offset, number = held[end:], offset + end, number + 1
        if not block:
            return


def cut(text: bytes) -> int:
    """Where to end a piece: behind the last blank line of its second half, a line end, or a whole character."""
    for mark in (b"\n\n", b"\r\n\r\n", b"\n"):
        found = text.rfind(mark, len(text) // 2)
        if found >= 0:
            return found + len(mark)
    end = len(text)
    while end and text[end - 1] & 0xC0 == 0x80:
        end -= 1
    return max(0, end - 1) if end < len(text) or text[-1:] >= b"\xc0" else end
