"""Where a run lives: a local folder, or a local copy that stands for one on object storage; one job at a time in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax import locks
from chinchilla_jax.config import require
from chinchilla_jax.training import mirror

LOCK = ".lock"
# What a run has, one that was stopped at its very beginning, a plan for one, or a sweep.
MARKS = (
    "config.json", "plan.json", "checkpoints", "events.jsonl", "task.json", "tokenizer.json", "tokenizer.model",
    "ladder.json", "recipe.json",
)  # fmt: skip
LOGS = (".log", ".out", ".err")  # what schedulers write into a folder before the run begins


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process.

    Raises `UserError` for a second job, which names the first, and for a folder that holds something else than a run.
    """
    check_mine(Path(run_dir))
    with mirror.held(run_dir) if mirror.of(run_dir) else locks.hold(Path(run_dir, LOCK)):
        yield


def check_mine(folder: Path) -> None:
    """Refuse a token store, and a folder with files that are no run's: a run beside them would spoil both."""
    require(
        not is_store(folder),
        f"--run-dir {folder} is a token store; name another folder, and this one by --data.store",
    )
    if not folder.is_dir() or any((folder / name).exists() for name in MARKS):
        return
    files = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    strange = next((name for name in files if not name.endswith(LOGS)), "")
    require(not strange, f"--run-dir {folder} holds no run but other files, such as {strange}; name another")


def is_store(folder: Path) -> bool:
    """Whether a folder holds a token store: a run has its manifests below checkpoints/."""
    return Path(folder, "manifest.json").is_file()
