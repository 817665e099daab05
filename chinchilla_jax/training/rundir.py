"""Where a run lives: a local folder, or a local copy that stands for one on object storage; one job at a time in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax import locks
from chinchilla_jax.training import mirror

LOCK = ".lock"


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process; a second job gets a `UserError` that names the first."""
    with mirror.held(run_dir) if mirror.of(run_dir) else locks.hold(Path(run_dir, LOCK)):
        yield
