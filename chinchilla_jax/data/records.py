"""Documents from JSON records: one a line (.jsonl, .ndjson, .json), or all in one list (.json)."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from chinchilla_jax.data.documents import Notes
from chinchilla_jax.data.text import BOM, Broken, decode

SURROGATE = re.compile("[\ud800-\udfff]")
PLAIN = ".json files hold no records and are read as plain text"
PLAN = {"law", "config", "asked"}  # of a plan.json, which `plan` writes into the folder that it runs in
Opener = Callable[[Path], BinaryIO]
Failure = Callable[[Broken], None]


def read(
    path: Path,
    open_file: Opener,
    field: str,
    broken: Failure,
    notes: Notes,
    sure: bool,
    part: tuple[int, int] | None = None,
) -> Iterator[tuple[str, str]] | None:
    """(key, text) of each record of a file; None for a .json file that holds something else (unless `sure`).

    Counts in `notes.records` how many there were.
    """
    if sure or is_lines(path, open_file):
        return _counted(_lines(path, open_file, field, broken, part), notes)
    with open_file(path) as file:
        data = file.read()
    try:
        value = json.loads(data.removeprefix(BOM))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list) and value and all(isinstance(record, dict) for record in value):
        return _counted(_listed(path, value, field, broken), notes)
    if isinstance(value, dict) and isinstance(value.get(field), str):
        return _counted(iter([(str(path), _text(value, str(path), field))]), notes)
    if isinstance(value, dict) and value.keys() >= PLAN:
        notes.skipped["plans"] += 1
        return iter(())
    notes.said[PLAIN] += 1
    return None


def _counted(found: Iterator[tuple[str, str]], notes: Notes) -> Iterator[tuple[str, str]]:
    for pair in found:
        notes.records += 1
        yield pair


def is_lines(path: Path, open_file: Opener) -> bool:
    """Whether the first two lines that are not blank are JSON objects."""
    whole = 0
    with open_file(path) as file:
        for line in file:
            if line.strip():
                try:
                    whole += isinstance(json.loads(line.removeprefix(BOM)), dict)
                except (ValueError, RecursionError):
                    return False
                if whole != 1:
                    break
    return whole == 2


def _lines(
    path: Path, open_file: Opener, field: str, broken: Failure, part: tuple[int, int] | None
) -> Iterator[tuple[str, str]]:
    """The records of all lines, or of those that begin at bytes [first, last)."""
    offset, last = part or (0, None)
    with open_file(path) as file:
        if offset:
            file.seek(offset - 1)
            offset += len(file.readline()) - 1
        before = offset
        for number, line in enumerate(file, 1):
            if last is not None and offset >= last:
                return
            start = len(BOM) if offset == 0 and line.startswith(BOM) else 0
            where = f"{path}:{number}" if not before else f"{path}@{offset}"
            try:
                record = _parsed(decode(line[start:], path, offset + start), where)
                text = None if record is None else _text(record, where, field)
            except Broken as error:
                broken(_numbered(error, path, open_file, before, offset))
            else:
                if text is not None:
                    yield where, text
            offset += len(line)


def _numbered(error: Broken, path: Path, open_file: Opener, before: int, offset: int) -> Broken:
    """The error with the number of its line in place of its byte, where reading began `before` in the file."""
    if not before:
        return error
    number = 1
    with open_file(path) as file:
        while offset > 0 and (block := file.read(min(offset, 1 << 20))):
            number += block.count(b"\n")
            offset -= len(block)
    return Broken(str(error).replace(f"{path}@", f"{path}:{number} at byte "))


def _listed(path: Path, found: list[dict], field: str, broken: Failure) -> Iterator[tuple[str, str]]:
    for number, record in enumerate(found):
        where = f"{path}[{number}]"
        try:
            text = _text(record, where, field)
        except Broken as error:
            broken(error)
        else:
            yield where, text


def _parsed(line: str, where: str) -> Any:
    if not line.strip():
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Broken(f"{where}: not JSON ({error}); correct the line") from error


def _text(record: Any, where: str, field: str) -> str:
    if not isinstance(record, dict) or field not in record:
        has = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise Broken(f"{where}: no field {field!r} (the record has: {has}); name the text's with --data.field")
    text = record[field]
    if not isinstance(text, str):
        raise Broken(f"{where}: field {field!r} is not a string; name the text's with --data.field")
    if SURROGATE.search(text):
        raise Broken(f"{where}: a lone surrogate, which UTF-8 cannot hold; correct the record")
    return text
