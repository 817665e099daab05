"""What a run directory keeps of its task for whoever uses it later: task.json and the template."""

from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.data import text
from chinchilla_jax.disk import read_json
from chinchilla_jax.tasks.kinds.table import kind_of
from chinchilla_jax.tasks.template import JINJA, Template, from_dict, from_jinja

FILE = "task.json"


def own_template(run: Path) -> Template | None:
    """The template that a run was tuned with, or imported with; None where it has none."""
    if (run / FILE).exists():
        told = read_task(run)
        if kind_of(told.get("kind", "")).keeps_template:
            return from_dict(told["template"], str(run / FILE))
    path = run / JINJA
    if not path.exists():
        return None
    found = from_jinja(text.whole(path))
    require(
        found is not None,
        f"{path} is of a kind that is not understood (ChatML is); name one with --task.template",
    )
    return found


def read_task(run: Path) -> dict[str, Any]:
    """task.json of a run; empty where there is none."""
    return read_json(run / FILE, "put the run's own back", missing={})
