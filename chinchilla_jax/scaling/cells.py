"""A CSV or JSONL file as rows of named cells, its own or another code base's; every refusal names row and column."""

import csv
import io
import json
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.errors import UserError

# Longest first, so that "<=" is not read as "<".
OPERATORS = {
    "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Another code base's columns: by the schema's name the file's, the first that is there; factors; what it means;
    as `steps` the columns of a step, the first being 0, and of its tokens, where no column counts the run's tokens.
    """

    columns: dict[str, tuple[str, ...]]
    factors: dict[str, float] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)
    steps: tuple[str, ...] = ()


RUN = ("run_id", "Name", "name", "run", "run_name", "model_tag")  # a run, of which the last row with a loss counts
STATE, DONE = ("State", "state"), "finished"  # of a run, in exports of Weights & Biases
PRESETS = {  # docs/planning.md says which file of each project writes these
    "nanochat": Preset(
        {
            "n_total": ("params_total", "num_params", "base.num_params"),
            "n_matmul": ("num_scaling_params", "base.num_scaling_params"),
            "tokens": ("tokens_trained", "base.tokens_trained"), "flops": ("flops_budget", "base.target_flops"),
            "loss": ("val_bpb", "base.val_bpb"),
        }, common={"unit": "bpb"},
    ),
    "levanter": Preset(
        {
            "n_total": ("parameter_count",), "tokens": ("throughput/total_tokens",),
            "flops": ("throughput/total_gflops",), "loss": ("eval/loss", "eval/macro_loss", "eval/paloma/macro_loss"),
        }, factors={"flops": 1e9}, common={"unit": "nats_token"},
    ),
    "maxtext": Preset(
        {
            "n_total": ("num_model_parameters", "num_params"), "tokens": ("tokens", "total_tokens"),
            "loss": ("eval/avg_loss", "learning/lm_loss", "learning/loss"),
        }, common={"unit": "nats_token"}, steps=("step", "learning/total_weights"),
    ),
    "torchtitan": Preset(
        {
            "n_total": ("num_params", "model_param_count"), "tokens": ("n_tokens_seen", "ntokens_seen"),
            "loss": ("validation_metrics/loss", "loss_metrics/global_avg_loss"),
        }, common={"unit": "nats_token"},
    ),
    "wandb": Preset(
        {
            "n_total": ("n_total", "model/num_parameters", "parameter_count", "num_params", "params", "n_params"),
            "tokens": ("tokens", "train/num_input_tokens_seen", "total_tokens", "tokens_seen", "train/tokens"),
            "flops": ("flops", "total_flops", "train/total_flos"),
            "loss": ("eval/loss", "eval_loss", "val_loss", "valid_loss", "validation/loss", "val/loss", "loss",
                     "train/loss", "train_loss"),
        },
    ),
}  # fmt: skip


class Cells:
    """Cells of the kept rows by the schema's names."""

    def __init__(self, path: Path, rows: list, header: list[str], columns: Mapping[str, str], preset: Preset):
        self.path, self.rows, self.header, self.columns, self.preset = path, rows, header, columns, preset

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
            fix = f"name the file's own with --columns {name}=NAME"
            raise UserError(f"{self.path}: row 1 has no column {own!r}{closest(own, self.header)}; {fix}")
        factor = self.preset.factors.get(name, 1.0)
        return factor * np.array([self._number(at, row.get(own), own) for at, row in self.rows])

    def _number(self, at: int, cell: Any, own: str) -> float:
        value = number(cell)
        if not (math.isfinite(value) and value > 0):
            told = "nothing" if cell in (None, "") else repr(cell)
            raise UserError(f"{self.path} row {at}, column {own}: {told} is no positive finite number")
        return value

    def texts(self, name: str) -> list[str]:
        """A column as text, '' where a cell or the column is missing."""
        return ["" if row.get(self.named(name)) is None else str(row[self.named(name)]) for _, row in self.rows]

    def only(self, name: str) -> str:
        """The one value of a column; '' where there is none."""
        values = self.texts(name) if self.has(name) else [self.preset.common.get(name, "")] * len(self.rows)
        for (at, _), value in zip(self.rows, values):
            require(
                value == values[0],
                f"{self.path} row {at}, column {self.named(name)}: {value or 'nothing'!r} beside {values[0]!r} in row "
                f"{self.rows[0][0]}; fit one at a time with --where {name}={values[0]}",
            )
        return values[0]


def number(cell: Any) -> float:
    """A cell as a number, nan where it is none."""
    try:
        return math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def condition(text: str) -> tuple[str, str, str]:
    """(column, operator, value) of NAME=VALUE, NAME!=VALUE, NAME<VALUE and so on."""
    found = re.match(r"([^=!<>]+)(!=|<=|>=|<|>|=)(.*)$", text)
    require(found is not None, f"--where {text}: write NAME=VALUE, or !=, <, >, <=, >= between them")
    return found[1].strip(), found[2], found[3].strip()


def holds(path: Path, at: int, own: str, cell: Any, sign: str, value: str) -> bool:
    """Whether a cell satisfies a condition: as numbers where both are numbers, which < and > need, else as texts."""
    pair = number(cell), number(value)
    if not any(math.isnan(one) for one in pair):
        return OPERATORS[sign](*pair)
    shown = "" if cell is None else str(cell)
    require(sign in ("=", "!="), f"{path} row {at}, column {own}: {shown!r} {sign} {value} compares what is no number")
    return OPERATORS[sign](shown, value)


def rows_of(path: Path) -> tuple[list[tuple[int, dict]], list[str]]:
    """(line number, cells) of every row, and the columns."""
    require(path.is_file(), f"{path}: no such table of runs")
    require(path.suffix != ".json", f"{path}: write the runs as .jsonl, an object a line, or as .csv")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error
    if path.suffix in (".jsonl", ".ndjson"):
        rows = [(at, _object(path, at, line)) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
        return rows, list(dict.fromkeys(name for _, row in rows for name in row))
    reader = csv.reader(io.StringIO(text, newline=None))
    try:
        (_, header), *found = [(reader.line_num, cells) for cells in reader if any(cells)] or [(1, [])]
    except csv.Error as error:
        raise UserError(f"{path} row {reader.line_num} is not CSV ({error}); correct it") from error
    require(bool(header), f"{path} is empty; its first row names the columns")
    require(len(set(header)) == len(header), f"{path}: row 1 names a column twice; rename one")
    for at, cells in found:
        last, counts = header[min(len(cells), len(header)) - 1], f"{len(cells)} cells under {len(header)} columns"
        require(len(cells) == len(header), f"{path} row {at}, column {last}: {counts}")
    return [(at, dict(zip(header, cells))) for at, cells in found], header


def _object(path: Path, at: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} row {at} is not JSON ({error})") from error
    require(isinstance(row, dict), f"{path} row {at} is not a JSON object")
    return row
