"""Files of examples as rows of named fields: JSON lines, JSON, CSV, TSV, text, fastText, CoNLL, RecBole; any `.gz`."""

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.records import Where

LABEL = "__label__"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes half of a character


@dataclass(frozen=True)
class Raw:
    """A row before anyone has made sense of it."""

    where: Where
    fields: dict[str, Any]
    headless: bool = False  # whether its file has two columns without a known header


@dataclass(frozen=True)
class Columns:
    """What is known of a table's columns: names that mean something, those that the user gave, and two bare ones'."""

    known: frozenset[str] = frozenset()
    given: tuple[str, ...] = ()
    bare: tuple[str, str] = ("text", "label")


def rows(path: str | Path, columns: Columns = Columns()) -> Iterator[Raw]:
    """The rows of a file, or of two aligned ones that are written A+B.

    Raises `UserError`, which names file and line, for what cannot be read.
    """
    first, plus, second = str(path).partition("+")
    if plus and not os.path.exists(Path(path).expanduser()):  # false too where a name is too long
        return aligned(first, second)
    text = decoded(Path(path).expanduser())
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    reader = READERS.get(suffixes[-1] if suffixes else "") or sniffed(text)
    require(
        reader is not None,
        f"{path}: cannot tell its format; known are {', '.join(sorted({*READERS}))}, each also with .gz",
    )
    return reader(str(path), text, columns)


def decoded(path: Path) -> str:
    """The text of a file: unpacked, UTF-8, without a byte order mark."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start:,} is not UTF-8; convert the file to UTF-8") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; name the files of examples in it, as in {path}/*.jsonl") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name a file of examples") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip ({error}); copy the file again") from error
    except OSError as error:  # a path below a file, a name that is too long, no right to read
        raise UserError(f"{path}: {error.strerror or error}; name a file of examples that can be read") from error


def aligned(first: str, second: str) -> Iterator[Raw]:
    """The lines of two files as source and target; lines that are empty in both are none."""
    sides = [decoded(Path(path).expanduser()).removesuffix("\n").split("\n") for path in (first, second)]
    counts = [len(lines) for lines in sides]
    require(
        counts[0] == counts[1],
        f"{first} and {second}: {counts[0]:,} lines and {counts[1]:,}; aligned files have as many",
    )
    for line, (source, target) in enumerate(zip(*sides), 1):
        if source.strip() or target.strip():
            yield Raw(Where(first, line, line), {"source": source.rstrip("\r"), "target": target.rstrip("\r")})


def sniffed(text: str) -> Callable | None:
    """A reader for a file whose name says nothing, by its first characters."""
    first = text.lstrip()[:1]
    if first in ("{", "["):
        return READERS[".jsonl" if first == "{" else ".json"]
    line = text.split("\n", 1)[0]
    return READERS[".txt"] if line.startswith(LABEL) else READERS[".tsv"] if "\t" in line else None


def json_lines(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """An object a line."""
    number = 0
    for line, written in enumerate(text.split("\n"), 1):
        if not written.strip():
            continue
        number += 1
        where = Where(path, number, line)
        try:
            found = json.loads(written)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); one object a line is expected") from error
        require(isinstance(found, dict), f"{where}: expected an object with named fields, found {written[:40]!r}")
        if SURROGATE.search(written):
            check_characters(where, found)
        yield Raw(where, found)


def json_whole(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """A list of objects, or an object that holds one list of them; SQuAD's nested form comes question by question."""
    if text.lstrip().startswith("{") and "\n{" in text.strip():
        try:
            json.loads(text)
        except ValueError:
            return (yield from json_lines(path, text, columns))
    require(bool(text.strip()), f"{path}: an empty file; write a list of records into it, or name another file")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); correct the file, or name one of JSON lines .jsonl") from error
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else [found]
    require(len(lists) == 1, f"{path}: expected a list of records, or an object that holds one such list")
    halves = SURROGATE.search(text)
    for number, (entry, fields) in enumerate(flattened(path, lists[0]), 1):
        where = Where(path, number, entry)
        require(isinstance(fields, dict), f"{where}: expected an object with named fields, found {fields!r:.40}")
        if halves:
            check_characters(where, fields)
        yield Raw(where, fields)


def check_characters(where: Where, fields: dict) -> None:
    """Refuse a record with half of a character, which no tokenizer can encode."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: a lone surrogate (\\u{ord(error.object[error.start]):04x}), which is half of a character; "
            "write the whole character, or leave the record out"
        ) from error


def flattened(path: str, entries: list) -> Iterator[tuple[int, Any]]:
    """(number of the entry, record) for every record, SQuAD's questions with their paragraph's context."""
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict) and isinstance(entry.get("paragraphs"), list):
            for paragraph in entry["paragraphs"]:
                for asked in questions(f"{path}: entry {number}", paragraph):
                    yield number, {"context": paragraph.get("context"), **asked}
        else:
            yield number, entry


def questions(where: str, paragraph: Any) -> list[dict]:
    """The questions of SQuAD's paragraph; it may have none."""
    require(isinstance(paragraph, dict), f"{where}: paragraph {paragraph!r:.40} is no object with context and qas")
    asked = paragraph.get("qas", [])
    objects = isinstance(asked, list) and all(isinstance(one, dict) for one in asked)
    require(objects, f"{where}: qas {asked!r:.40} is no list of objects with a question and its answers")
    return asked


def comma(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """Quoted columns; the first line decides among comma, semicolon, tab and bar."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator(text), strict=True)

    def lines() -> Iterator[tuple[int, list[str]]]:
        start = 1
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1

    try:
        yield from named(path, lines(), columns)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}; quote fields that hold quotes or newlines") from error


def tabs(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """Unquoted columns: a quote or a carriage return in a field is its own.

    But a line that is too short and whose last field opens a quote goes on in the next one, up to the closing quote.
    """

    def lines() -> Iterator[tuple[int, list[str]]]:
        width, open_cells, start = 0, None, 0
        for line, written in enumerate(text.split("\n"), 1):
            cells = written.rstrip("\r").split("\t")
            if open_cells is not None:
                head, first, rest = open_cells[:-1], f"{open_cells[-1]}\n{cells[0]}", cells[1:]
                closed = cells[0].endswith('"') and len(head) + 1 + len(rest) == width
                cells = [*head, first[1:-1].replace('""', '"') if closed else first, *rest]
            else:
                start, width = line, width or len(cells)
                closed = len(cells) >= width or not cells[-1].startswith('"')
            open_cells = None if closed else cells
            if closed:
                yield start, cells
        if open_cells is not None:
            yield start, open_cells

    return named(path, lines(), columns)


def named(path: str, lines: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[Raw]:
    """(number of the line, cells) with the names of the columns; empty lines are none."""
    names, header, number = None, False, 0
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names, header = header_of(path, cells, columns)
            if header:
                continue
        number += 1
        where = Where(path, number, line)
        require(
            len(cells) == len(names),
            f"{where}: {len(cells)} fields where there are {len(names)} columns ({', '.join(names)})",
        )
        yield Raw(where, dict(zip(names, cells)), not header and not numbered(columns))


def numbered(columns: Columns) -> bool:
    """Whether the user names columns by their numbers, from 0, as of a file without a header."""
    return bool(columns.given) and all(name.isdecimal() for name in columns.given)


def separator(text: str) -> str:
    """What separates the columns of a .csv file, by its first line."""
    line = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    return max(",;\t|", key=line.count)


def header_of(path: str, cells: list[str], columns: Columns) -> tuple[list[str], bool]:
    """Names of the columns, and whether the first line is a header."""
    names = [cell.strip() for cell in cells]
    lower = [name.lower() if name.lower() in columns.known and name not in columns.given else name for name in names]
    if numbered(columns):
        return [str(i) for i in range(len(cells))], False
    if any(name in columns.known or name in columns.given for name in lower):
        require(len(set(lower)) == len(lower), f"{path}: two columns have the same name: {', '.join(lower)}")
        return lower, True
    if len(cells) == 2 and not columns.given:
        return list(columns.bare), False
    raise UserError(
        f"{path}: no column is known among {', '.join(names)!r:.200}; name yours with --task.text and --task.label "
        "(numbers from 0 for a file without a header)"
    )


def plain_text(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """fastText lines where the first one has a label, else the whole file as one document."""
    if not text.lstrip().startswith(LABEL):
        if text.strip():
            yield Raw(Where(path, 1, 1), {"text": text})
        return
    number = 0
    for line, written in enumerate(text.split("\n"), 1):
        words = written.split()
        labels = [word.removeprefix(LABEL) for word in words if word.startswith(LABEL)]
        if not words:
            continue
        number += 1
        where = Where(path, number, line)
        require(bool(labels), f"{where}: no {LABEL} in this line")
        yield Raw(where, {"text": " ".join(w for w in words if not w.startswith(LABEL)), "label": labels})


def conll(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """Sentences of a word a line, parted by blank lines; the last column is the tag."""
    tabbed, number, words, tags, start = "\t" in text, 0, [], [], 1
    for line, written in enumerate([*text.split("\n"), ""], 1):
        cells = written.strip().split("\t") if tabbed else written.split()
        cells = [cell.strip() for cell in cells]
        comment = written.startswith("#") and ("\t" not in written if tabbed else len(cells) != 2)
        if comment or cells[:1] == ["-DOCSTART-"]:
            continue
        if cells and any(cells):
            where = Where(path, number + 1, line)
            require(len(cells) > 1, f"{where}: a word without a tag: {written!r:.60}")
            start = start if words else line
            words.append(cells[0])
            tags.append(cells[-1])
        elif words:
            number += 1
            yield Raw(Where(path, number, start), {"tokens": words, "tags": tags})
            words, tags = [], []


def recbole(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """Tab-separated, with a type behind each name of the header: `user_id:token`."""
    lines = text.split("\n")
    names = [cell.split(":")[0].strip() for cell in lines[0].split("\t")]
    number = 0
    for line, written in enumerate(lines[1:], 2):
        if not written.strip():
            continue
        number += 1
        cells, where = written.rstrip("\r").split("\t"), Where(path, number, line)
        require(len(cells) == len(names), f"{where}: {len(cells)} fields where there are {len(names)} columns")
        yield Raw(where, dict(zip(names, cells)))


READERS = {
    ".jsonl": json_lines, ".ndjson": json_lines, ".json": json_whole, ".csv": comma, ".tsv": tabs, ".tab": tabs,
    ".txt": plain_text, ".conll": conll, ".bio": conll, ".inter": recbole,
}  # fmt: skip
