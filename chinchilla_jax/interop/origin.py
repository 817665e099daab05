"""Where a run's weights came from, as `import` wrote it down."""

import json
from pathlib import Path
from typing import Any

from chinchilla_jax.interop.files import read_json

ORIGIN = "origin.json"


def read_origin(run_dir: Path) -> dict[str, Any]:
    """{source, format, architecture, license, files, version}; empty for a run that was trained from nothing."""
    return read_json(run_dir / ORIGIN) if (run_dir / ORIGIN).exists() else {}


def write_origin(run_dir: Path, origin: dict[str, Any]) -> None:
    """Write it down."""
    (run_dir / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n")
