"""One schema and one writer for what a run reports.

metrics.jsonl   rows {"step", "loss", ...}: only what (config, data, seed) decide, so a resumed run repeats it exactly
timing.jsonl    rows {"step", "tokens_per_s", ...}: what the clock decides
events.jsonl    what happened and when: start, resume, checkpoint, signal, end
tensorboard/    the numbers of the first two
"""

import json
import math
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from chinchilla_jax.disk import finite, read_json, write_json, write_text
from chinchilla_jax.errors import UserError

STEPPED = ("metrics.jsonl", "timing.jsonl")  # files whose every row has a step


class Writer:
    """Appends rows to the files of a run directory; rows behind the resumed step are taken back first."""

    def __init__(
        self, run_dir: Path, resumed: int, *, wandb: str = "", active: bool = True, config: dict[str, Any] | None = None
    ):
        self.run_dir, self.active, self.others = run_dir, active, []
        if not active:
            return
        for name in STEPPED:
            take_back(run_dir / name, resumed)
        take_back(run_dir / "events.jsonl", math.inf)  # but for a torn line, which a full disk leaves
        from tensorboardX import SummaryWriter

        board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resumed + 1, write_to_disk=True)
        self.others.append(board.add_scalar)
        self._board = board
        self._wandb = _wandb(wandb, run_dir, config or {}) if wandb else None
        if self._wandb:
            self.others.append(lambda key, value, step: self._wandb.log({key: value}, step=step))

    def metrics(self, row: dict[str, Any]) -> None:
        """Append a row of metrics.jsonl."""
        self._append("metrics.jsonl", row)

    def timing(self, row: dict[str, Any]) -> None:
        """Append a row of timing.jsonl."""
        self._append("timing.jsonl", row)

    def event(self, name: str, **facts: Any) -> None:
        """Append a row of events.jsonl."""
        if self.active:
            append(self.run_dir / "events.jsonl", {"time": round(time.time(), 3), "event": name, **facts})

    def close(self) -> None:
        """Flush what is buffered."""
        if self.active:
            self._board.close()
            if self._wandb:
                self._wandb.finish()

    def _append(self, name: str, row: dict[str, Any]) -> None:
        if not self.active:
            return
        append(self.run_dir / name, row)
        for key, value in row.items():
            if key != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                for write in self.others:
                    write(key, value, row["step"])


def append(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON, on disk when this returns to the operating system."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(row)) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; a torn last line, which a kill leaves, is not one.

    `UserError` for any other line that is no row, and for a row without the step that every row of its file has.
    """
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n")[:-1], 1)
    return [_row(line, f"{path}:{number}", path.name in STEPPED) for number, line in lines]


def _row(line: bytes, where: str, stepped: bool) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=lambda name: None)
    except ValueError as error:
        raise UserError(f"{where}: no row of JSON ({error}); remove this line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: no row of named figures; remove this line")
    if stepped and not isinstance(row.get("step"), int | float):
        raise UserError(f"{where}: a row without the number of its step; remove this line")
    return row


def take_back(path: Path, step: float) -> None:
    """Drop the rows after `step`, which the resumed run writes again, and what a kill left of a line."""
    if not path.exists():
        return
    rows = [row for row in read(path) if row.get("step", 0) <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _wandb(project: str, run_dir: Path, config: dict[str, Any]):
    """A run of Weights & Biases: the one that this run directory began, whatever its folder is called."""
    import wandb

    path = run_dir / "wandb.json"
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(8)})
    own = read_json(path, "delete it to begin another run there")["id"]
    try:
        return wandb.init(project=project, name=run_dir.name, dir=str(run_dir), resume="allow", id=own, config=config)
    except wandb.errors.Error as error:  # no key, no network, no such project
        fix = "`wandb login` first, WANDB_MODE=offline, or no --train.wandb"
        raise UserError(f"--train.wandb {project}: Weights & Biases does not begin a run ({error}); {fix}") from error


class Terminal:
    """The live line: rewritten in place on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, *, active: bool = True, every_s: float = 5.0):
        self.active, self.every_s = active, every_s
        self._last, self._open = -math.inf, False

    def show(self, line: str, *, force: bool = False) -> None:
        """Show the newest state of the run."""
        now = time.monotonic()
        if not self.active or (now - self._last < (0.1 if sys.stdout.isatty() else self.every_s) and not force):
            return
        self._last = now
        if sys.stdout.isatty():
            room = shutil.get_terminal_size().columns - 1  # of a line that wraps only the last row would be rewritten
            print(f"\r\x1b[K{line[:room]}", end="", flush=True)
            self._open = True
        else:
            print(line, flush=True)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if not self.active:
            return
        print(("\n" if self._open else "") + text, flush=True)
        self._open = False


LOSSES = (("loss", "loss", ".3f"), ("bpb", "bits_per_byte", ".3f"), ("gnorm", "grad_norm", ".2f"))
RATES = (("tokens_per_s", "tok"), ("records_per_s", "records"))


def live_line(metrics: dict, timing: dict, steps: int) -> str:
    """`step 120/2000 | eta 0:04:02 | loss 3.214 | ...`, what matters most first; an unknown figure is left out."""
    mfu = timing.get("mfu_causal")
    parts = [
        f"step {metrics['step']}/{steps}",
        f"eta {duration(timing['seconds_left'])}",
        *(f"{label} {metrics[name]:{form}}" for label, name, form in LOSSES if metrics.get(name) is not None),
        f"lr {metrics['lr']:.1e}",
        *(f"{si(timing[name])} {unit}/s" for name, unit in RATES if name in timing),
        f"{100 * mfu:.1f}% MFU" if mfu is not None else "",
        f"data {100 * timing['data_wait']:.1f}%",
        f"skipped {metrics['skipped']}",
    ]
    return " | ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 0:04:02."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def si(value: float) -> str:
    """1234567 -> 1.23M."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
