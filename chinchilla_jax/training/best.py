"""The best step of a run by a figure of validation: chosen from metrics.jsonl, named in best.json, kept for good."""

import json
import math
from pathlib import Path
from typing import Any

from chinchilla_jax.disk import write_json

FILE = "best.json"


def better(new: float, old: float, lower: bool) -> bool:
    """Whether a figure beats another; what is no number beats nothing."""
    return math.isfinite(new) and (not math.isfinite(old) or (new < old if lower else new > old))


def choose(rows: list[dict[str, Any]], metric: str, lower: bool) -> dict[str, Any]:
    """The first step with the best `metric`, and how many validations there were after it; empty without any figure."""
    seen = [(row["step"], math.nan if row[metric] is None else row[metric]) for row in rows if metric in row]
    step, value, since = None, math.nan, 0
    for at, figure in seen:
        step, value, since = (at, figure, 0) if better(figure, value, lower) else (step, value, since + 1)
    return {} if step is None else {"step": step, "metric": metric, "value": value, "since": since}


def write(run_dir: Path, found: dict[str, Any]) -> None:
    """Name the best step, in one rename; nothing where there is none."""
    if found:
        write_json(run_dir / FILE, found)


def read(run_dir: Path) -> dict[str, Any]:
    """What best.json says; empty where there is none, or half of one."""
    try:
        found = json.loads((run_dir / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else {}
