"""Files of examples as rows of named fields: JSON lines, JSON, CSV, TSV, text, fastText, CoNLL, RecBole.

Any of them may be packed with gzip or zstd.
"""

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.data import containers
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.quoted import cells_at
from chinchilla_jax.tasks.records import Where

LABEL = "__label__"
PACKED = (".gz", ".zst")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes half of a character


@dataclass(frozen=True)
class Raw:
    """A row before anyone has made sense of it."""

    where: Where
    fields: dict[str, Any]
    headless: bool = False  # whether its file has two columns without a known header


@dataclass(frozen=True)
class Columns:
    """What is known of a table's columns: names that mean something, those that the user gave, and two bare ones'.

    `kind` of format is asked for, if any; `part` is the list that is meant of several in a JSON file.
    """

    known: frozenset[str] = frozenset()
    given: tuple[str, ...] = ()
    bare: tuple[str, str] = ("text", "label")
    kind: str = ""
    part: str = ""


def rows(path: str | Path, columns: Columns = Columns()) -> Iterator[Raw]:
    """The rows of a file, of the list NAME of a JSON file that is written FILE:NAME, or of two aligned files A+B.

    Raises `UserError`, which names file and line, for what cannot be read.
    """
    first, plus, second = str(path).partition("+")
    if plus and not there(path):
        return aligned(first, second)
    file, colon, part = str(path).rpartition(":")
    if not colon or there(path) or not there(file):
        file, part = str(path), ""
    text = decoded(Path(file).expanduser())
    reader = READERS.get(suffix(file)) or sniffed(text)
    if columns.kind == "tags" and reader not in (json_lines, json_whole, comma):
        reader = conll  # whatever the suffix: no other text holds a tag for every word
    require(
        reader is not None,
        f"{path}: cannot tell its format; known are {', '.join(sorted({*READERS}))}, each also with .gz or .zst",
    )
    require(not part or reader is json_whole, f"{path}: only a .json file holds lists with names; name {file} alone")
    return reader(str(path), text, replace(columns, part=part))


def suffix(path: str | Path) -> str:
    """The ending of a file that tells its format, in lower case, behind which it may be packed."""
    found = [ending.lower() for ending in Path(path).suffixes if ending.lower() not in PACKED]
    return found[-1] if found else ""


def there(path: str | Path) -> bool:
    """Whether there is such a file; none where a name is too long."""
    return os.path.exists(Path(path).expanduser())


FOREIGN = {
    b"PK\x03\x04": "a zip archive (.xlsx is one)", b"PAR1": "parquet", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
}  # fmt: skip


def decoded(path: Path) -> str:
    """The text of a file: unpacked, UTF-8, without a byte order mark."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        data = containers.zstd(io.BytesIO(data)).read() if data[:4] == b"\x28\xb5\x2f\xfd" else data
        foreign = next((name for magic, name in FOREIGN.items() if data.startswith(magic)), "")
        require(not foreign, f"{path}: {foreign}, which is not read here; write it as text, perhaps with .gz or .zst")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start:,} is not UTF-8; convert the file to UTF-8") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; name the files of examples in it, as in {path}/*.jsonl") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name a file of examples") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip or zstd ({error}); copy the file again") from error
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
            found = fields_of(where, json.loads(written), columns)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); one object a line is expected") from error
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
    entries = the_list(path, found, columns.part)
    halves = SURROGATE.search(text)
    for number, (entry, fields) in enumerate(flattened(path, entries), 1):
        where = Where(path, number, entry)
        fields = fields_of(where, fields, columns)
        if halves:
            check_characters(where, fields)
        yield Raw(where, fields)


def the_list(path: str, found: Any, part: str) -> list:
    """The records of a JSON file: the list that it is, or the one that it holds, or of several the one named `part`."""
    if not isinstance(found, dict):
        require(isinstance(found, list) and not part, f"{path}: expected a list of records, or an object that holds it")
        return found
    lists = {name: value for name, value in found.items() if isinstance(value, list)}
    if not part and len(lists) == 1:
        return next(iter(lists.values()))
    shown = ", ".join(lists) or "none"
    require(
        part in lists,
        f"{path}: expected a list of records, or an object that holds one; of several lists, here {shown:.200}, name "
        "the one that is meant as in FILE.json:NAME",
    )
    return lists[part]


def fields_of(where: Where, found: Any, columns: Columns) -> dict[str, Any]:
    """A record's fields by name; those of a list are named by number, or as two bare columns."""
    if isinstance(found, list) and (numbered(columns) or (len(found) == 2 and not columns.given)):
        return dict(zip(columns.bare if not columns.given else map(str, range(len(found))), found))
    require(
        isinstance(found, dict),
        f"{where}: expected an object with named fields, or a list whose fields --task.text 0 --task.label 1 name by "
        f"number; found {found!r:.40}",
    )
    return found


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

    But a field that opens with a quote holds the tabs and newlines up to the closing quote where the line has too many
    fields without that, or too few, or where its last field has no closing quote and the next line is no line.
    """

    def lines() -> Iterator[tuple[int, list[str]]]:
        written = [line.rstrip("\r") for line in text.split("\n")]
        width = start = 0
        while start < len(written):
            cells, count = cells_at(written, start, width)
            yield start + 1, cells
            width, start = width or len(cells), start + count

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
            f"{where}: {len(cells)} fields where there are {len(names)} columns ({', '.join(names)}); "
            "correct the line, or put a field with a separator or a newline into quotes",
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
    mend = "name yours with --task.text and --task.label (numbers from 0 for a file without a header)"
    mend = "write a first line that names user, item and timestamp" if columns.kind == "items" else mend
    raise UserError(f"{path}: no column is known among {', '.join(names)!r:.200}; {mend}")


def plain_text(path: str, text: str, columns: Columns) -> Iterator[Raw]:
    """fastText lines where the first one has a label, columns where tabs part them, else the file as one document.

    Tabs part columns where every line has one of them, or another kind is asked for than text.
    """
    if not text.lstrip().startswith(LABEL):
        counts = [line.count("\t") for line in text.split("\n") if line.strip()]
        if counts and counts[0] and columns.kind != "text" and (columns.kind or {*counts} == {1}):
            return (yield from tabs(path, text, columns))
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
    """Sentences of a word a line, parted by blank lines; the last column is the tag, or all are named by number."""
    tabbed, number, held, start = "\t" in text, 0, [], 1
    for line, written in enumerate([*text.split("\n"), ""], 1):
        cells = written.strip().split("\t") if tabbed else written.split()
        cells = [cell.strip() for cell in cells]
        word = "\t" in written if tabbed else len(cells) in (2, *map(len, held[:1]))
        comment = written.startswith("#") and not word
        if comment or cells[:1] == ["-DOCSTART-"]:
            continue
        if cells and any(cells):
            where = Where(path, number + 1, line)
            require(len(cells) > 1, f"{where}: a word without a tag: {written!r:.60}")
            start = start if held else line
            even = not held or not numbered(columns) or len(cells) == len(held[0])
            require(even, f"{where}: {len(cells)} columns, and the line before has others; write as many in every line")
            held.append(cells)
        elif held:
            number += 1
            byname = {"tokens": [cells[0] for cells in held], "tags": [cells[-1] for cells in held]}
            fields = {str(i): list(column) for i, column in enumerate(zip(*held))} if numbered(columns) else byname
            yield Raw(Where(path, number, start), fields)
            held = []


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
