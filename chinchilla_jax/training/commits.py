"""How what a save has written becomes the checkpoint `STEP`: at one moment, whatever is killed when.

Renamed  a save writes into the folder `STEP.partial`, and one rename makes it `STEP`.
Marked   object storage renames nothing: a save writes into `STEP` beside an object `STEP.partial` that says so, and the
         manifest, written last and in one piece, makes it a checkpoint. What is deleted loses its manifest first.

Either way nothing was promised of what `STEP.partial` stands for.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chinchilla_jax.disk import is_remote, remove_tree, sync
from chinchilla_jax.training import integrity

PARTIAL = ".partial"


def renames(folder: Any) -> bool:
    """Whether folders can be renamed below this one, which exists; on a mounted bucket they cannot either."""
    if is_remote(folder):
        return False
    before, after = (folder / f"{name}{PARTIAL}" for name in ("probe", "probed"))
    try:
        before.mkdir(exist_ok=True)
        os.rename(before, after)
        return True
    except OSError:
        return False
    finally:
        for path in (before, after):
            shutil.rmtree(path, ignore_errors=True)


def leftovers(folder: Any) -> list[Any]:
    """What unfinished saves and deletions left."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.name.endswith(PARTIAL)), key=lambda path: path.name)


class Renamed:
    """Commits by renaming."""

    def __init__(self, folder: Path):
        self.folder = folder

    def place(self, step: int) -> Path:
        """Where a save of `step` is written."""
        return self.folder / f"{step}{PARTIAL}"

    def begin(self, step: int) -> None:
        """Make that place."""
        self.place(step).mkdir(exist_ok=True)

    def commit(self, step: int) -> None:
        """Make a complete save the checkpoint of its step, in the place of an older one."""
        final = self.folder / str(step)
        doomed = self._set_aside(final) if final.exists() else None
        os.rename(self.place(step), final)
        sync(self.folder)
        if doomed:
            shutil.rmtree(doomed, ignore_errors=True)

    def discard(self, step: int) -> None:
        """Delete a checkpoint."""
        shutil.rmtree(self._set_aside(self.folder / str(step)))

    def clear(self, *, at_start: bool) -> None:
        """Remove what unfinished saves left, while none is in flight.

        Of a save's many files one fails first, and the others may still be written when that is known: what is removed
        at once can come back, and goes with the next save, at the close or with the next start.
        """
        for leftover in leftovers(self.folder):
            shutil.rmtree(leftover, ignore_errors=True)

    def _set_aside(self, path: Path) -> Path:
        """Rename a step folder for deletion: a kill halfway leaves a leftover, never half a checkpoint."""
        doomed = path.with_name(f"{path.name}.old{PARTIAL}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        return doomed


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what remote file systems raise, each its own kind of error, into an `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


class Marked:
    """Commits by the manifest's presence."""

    def __init__(self, folder: Any):
        self.folder = folder

    def place(self, step: int) -> Any:
        """Where a save of `step` is written."""
        return self.folder / str(step)

    def begin(self, step: int) -> None:
        """Make that place, empty; an older checkpoint of the step goes."""
        with _told():
            self._mark(step)
            self._empty(step)
            self.place(step).mkdir(parents=True, exist_ok=True)

    def commit(self, step: int) -> None:
        """The manifest has made it a checkpoint: take the mark away."""
        self._marker(step).unlink(missing_ok=True)

    def discard(self, step: int) -> None:
        """Delete a checkpoint."""
        with _told():
            self._mark(step)
            self._empty(step)
            self._marker(step).unlink(missing_ok=True)

    def clear(self, *, at_start: bool) -> None:
        """Remove what unfinished saves left, while none is in flight.

        Writes of a failed save may still arrive until the process ends, so its mark stays until the next start.
        """
        for marker in leftovers(self.folder):
            step = marker.name.removesuffix(PARTIAL)
            if marker.is_dir():
                remove_tree(marker)  # left where folders could be renamed
                continue
            if not integrity.complete(self.folder / step):
                with contextlib.suppress(OSError):
                    remove_tree(self.folder / step)
            if at_start:
                marker.unlink(missing_ok=True)

    def _marker(self, step: int) -> Any:
        return self.folder / f"{step}{PARTIAL}"

    def _mark(self, step: int) -> None:
        self._marker(step).write_text("being written or deleted\n")

    def _empty(self, step: int) -> None:
        (self.place(step) / integrity.MANIFEST).unlink(missing_ok=True)
        remove_tree(self.place(step))
