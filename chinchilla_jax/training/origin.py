"""Where a run's weights came from: a file in the run directory, written by `import` and handed on by runs that start
from one another.
"""

from pathlib import Path
from typing import Any

from chinchilla_jax.disk import read_json, write_json

ORIGIN = "origin.json"
WEIGHTS = (".safetensors", ".gguf")
HANDED_ON = ("architecture", "license")


def read(run_dir: Path) -> dict[str, Any]:
    """{source, format, architecture, license, files, version}, or {source, format: "run", step, fingerprint, from: the
    same of that run}; empty for a run that was trained from nothing.
    """
    return read_json(run_dir / ORIGIN, missing={})


def write(run_dir: Path, origin: dict[str, Any]) -> None:
    """Write it down."""
    write_json(run_dir / ORIGIN, origin)


def inherit(run_dir: Path, base: Path, facts: dict[str, Any]) -> None:
    """Say that the run started from `base`, a run of which `facts` are run, step and fingerprint."""
    before = read(base)
    kept = {name: before[name] for name in HANDED_ON if name in before}
    rest = {name: value for name, value in facts.items() if name != "run"}
    write(run_dir, {"source": facts["run"], "format": "run", **kept, **rest, **({"from": before} if before else {})})


def lines(run_dir: Path) -> list[str]:
    """What a person is told, the nearest source first; nothing of a run that was trained from nothing."""
    found, origin = [], read(run_dir)
    while origin:
        at = f" at step {origin['step']}" if "step" in origin else f", {origin.get('architecture', 'unknown model')}"
        files = sorted(origin.get("files", {}).items(), key=lambda file: not file[0].endswith(WEIGHTS))
        name, digest = files[0] if files else ("", origin.get("fingerprint", ""))
        digest = f", sha256 {digest[:12]}" + (f" of {name}" if name else "")
        digest += f" and {len(files) - 1} more" if files[1:] else ""
        license = f", license {origin['license']}" if origin.get("license") else ""
        found.append(f"{origin.get('source')} ({origin.get('format')}{at}{license}{digest})")
        origin = origin.get("from", {})
    return found
