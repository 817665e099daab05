"""A CSV or JSONL file as rows of named cells; every refusal names row and column."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.errors import UserError


class Cells:
    """Cells of the kept rows by the schema's names."""

    def __init__(self, path: Path, rows: list[tuple[int, dict]], header: list[str], columns: Mapping[str, str]):
        self.path, self.rows, self.header, self.columns = path, rows, header, columns

    def named(self, name: str) -> str:
        """The file's own name of a column."""
        return self.columns.get(name, name)

    def has(self, name: str) -> bool:
        """Whether the file has a column."""
        return self.named(name) in self.header

    def numbers(self, name: str) -> np.ndarray:
        """A column (n,) of positive finite numbers; anything else is refused."""
        own = self.named(name)
        if own not in self.header:
            mend = f"name the file's own with --columns {name}=NAME"
            raise UserError(f"{self.path}: row 1 has no column {own!r}{closest(own, self.header)}; {mend}")
        return np.array([self._number(at, row.get(own), own) for at, row in self.rows])

    def _number(self, at: int, cell: Any, own: str) -> float:
        try:
            value = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            told = "nothing" if cell in (None, "") else repr(cell)
            raise UserError(f"{self.path} row {at}, column {own}: {told} is no positive finite number")
        return value

    def texts(self, name: str) -> list[str]:
        """A column as text, '' where a cell or the column is missing."""
        return ["" if row.get(self.named(name)) is None else str(row[self.named(name)]) for _, row in self.rows]

    def only(self, name: str) -> str:
        """The one value of a column; '' where there is none."""
        values = self.texts(name)
        for (at, _), value in zip(self.rows, values):
            require(
                value == values[0],
                f"{self.path} row {at}, column {self.named(name)}: {value or 'nothing'!r} beside {values[0]!r} in row "
                f"{self.rows[0][0]}; fit one at a time with --where {name}={values[0]}",
            )
        return values[0]


def rows_of(path: Path) -> tuple[list[tuple[int, dict]], list[str]]:
    """(line number, cells) of every row, and the columns."""
    require(path.is_file(), f"{path}: no such table of runs")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error
    if path.suffix in (".jsonl", ".ndjson"):
        rows = [(at, _object(path, at, line)) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
        return rows, list(dict.fromkeys(name for _, row in rows for name in row))
    reader = csv.reader(text.splitlines())
    header = next(reader, [])
    require(bool(header), f"{path} is empty; its first row names the columns")
    require(len(set(header)) == len(header), f"{path}: row 1 names a column twice; rename one")
    rows = []
    for cells in reader:
        if not any(cells):
            continue
        require(
            len(cells) == len(header),
            f"{path} row {reader.line_num}, column {header[min(len(cells), len(header)) - 1]}: "
            f"{len(cells)} cells under {len(header)} columns",
        )
        rows.append((reader.line_num, dict(zip(header, cells))))
    return rows, header


def _object(path: Path, at: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path} row {at} is not JSON ({error})") from error
    require(isinstance(row, dict), f"{path} row {at} is not a JSON object")
    return row
