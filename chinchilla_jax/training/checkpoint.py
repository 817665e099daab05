"""Checkpoints that are written behind the training's back and believed only after a check.

A step is saved by Orbax into `STEP.partial/default`, where parameters, their average, the optimizer and the carry are
items of their own; then our manifest is written into `STEP.partial`, with checksums that each process made of what it
wrote, and one rename to `STEP` commits both (`commits`: on object storage, which has none, the manifest does). So a
folder named by a number was complete once: if it is not now, that is damage and is said so, never taken for the
leftover of a killed run.
"""

import hashlib
import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint import handlers, type_handlers
from orbax.checkpoint._src.metadata.array_metadata_store import Store  # what ArrayHandler wants has no public name
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from chinchilla_jax import __version__
from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import StorageError
from chinchilla_jax.parallel import peers
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.training import best, commits, integrity, one_by_one, packing, restore
from chinchilla_jax.training.one_by_one import SHARED
from chinchilla_jax.training.orbax_logs import quiet_orbax
from chinchilla_jax.training.restore import ITEM, Restored

PATIENCE = 600.0  # seconds for another process's checksums; then the first one reads the files itself
HEADROOM = 1.2  # free space asked for, over the size of the last checkpoint


class Checkpoints:
    """The checkpoints of one run. Use it in a `with` block: leaving it, however, finishes the save in flight."""

    def __init__(
        self,
        folder: Any,
        config: CheckpointConfig,
        *,
        meta: dict[str, Any],
        before: Callable[[], None] = lambda: None,
    ):
        """`folder` is a path or an `epath`; `before()` runs before a save is committed, in another thread."""
        self.folder, self.config, self.meta, self.before = restore.absolute(folder), config, meta, before
        self.first = jax.process_index() == 0
        quiet_orbax()
        renames = False
        if self.first:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot create {self.folder}: {error.strerror}") from None
            renames = commits.renames(self.folder)
        renames = from_first(renames)
        self._commits = (commits.Renamed if renames else commits.Marked)(self.folder)
        self._clear(at_start=True)
        from_first(None)  # nobody goes on before the leftovers are gone
        mode = AtomicityMode.ATOMIC_RENAME if renames else AtomicityMode.COMMIT_FILE
        self._writer = ocp.AsyncCheckpointer(_items(), atomicity_options=AtomicityOptions(mode=mode))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, int, Future] | None = None
        self._last_bytes = self._saves = 0
        self._others = peers.current()
        if self._others:
            self._others.drain = self._drain

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None and self._others:
            return self._drain()  # what else there is to do needs processes that may not be there
        try:
            self.close()
        except StorageError as failure:
            if error is None:
                raise
            print(failure, file=sys.stderr)  # the error that ends the run is the one to raise

    def _drain(self) -> None:
        """Wait a while for the save in flight, however it ends, and for no other process."""
        if self._pending:
            futures.wait([self._pending[2]], peers.DRAIN)

    def close(self) -> None:
        """Wait for the save in flight and stop the threads."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._writer.close()
            self._clear()

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Save `state` as `step`; the caller may donate it as soon as this returns.

        An earlier save that failed in the background is said, and this one waited for: what failed once may not fail
        again. `StorageError` where it does.
        """
        try:
            self.wait()
        except StorageError as failure:
            if self._others:
                raise  # theirs waits for ours
            print(f"warning: {failure}; saving step {step} in its place", file=sys.stderr)
            wait = True
        leaves = restore.named_leaves(state)
        for name, x in leaves.items():
            if not isinstance(x, jax.Array):
                raise TypeError(f"{name} is a {type(x).__name__}; the state must be made of jax.Arrays")
        packed = {name: packing.pack(x) for name, x in leaves.items()}
        need = sum(x.nbytes for x in packed.values())
        self._saves += 1
        self._make_room(step, need)
        prints = integrity.fingerprint(leaves)
        try:
            items = {item: ocp.args.PyTreeSave(those) for item, those in restore.by_item(packed).items()}
            self._writer.save(self._commits.place(step) / ITEM, args=ocp.args.Composite(**items))
            future = self._thread.submit(self._commit, step, leaves_facts(leaves), prints)
        except (OSError, ValueError) as error:
            future = Future()
            future.set_exception(error)  # told as what fails in the background is
        self._pending = step, need, future
        if wait or not self.config.asynchronous:
            self.wait()
        self.check()

    def save_one_by_one(self, step: int, leaves: dict[str, one_by_one.Deferred]) -> None:
        """Save a flat tree of leaves that are made in their turn, and wait for it; one process or all."""
        self.wait()
        need = sum(x.nbytes for x in leaves.values())
        self._saves += 1
        self._make_room(step, need)
        try:
            for item, those in restore.by_item(leaves).items():
                one_by_one.write(self._commits.place(step) / ITEM / item, those)
        except OSError as error:
            self._give_up(step, need, error)
        self._commit(step, leaves_facts(leaves), [x.print for x in leaves.values()])

    def check(self) -> None:
        """Raise `StorageError` for a save that has failed where other processes wait for it; never waits itself."""
        if self._others and self._pending and self._pending[2].done():
            self.wait()

    def wait(self) -> None:
        """Return when the newest save is committed; raise `StorageError` if it failed here.

        Of several processes one that fails ends the run, and the others hear of it.
        """
        if self._pending is None:
            return
        step, need, future = self._pending
        error = future.exception()
        self._pending = None
        if error is not None:
            self._give_up(step, need, error)

    def steps(self) -> list[int]:
        """Committed steps, read from disk."""
        return [n for n in restore.step_folders(self.folder) if (self.folder / str(n) / integrity.MANIFEST).exists()]

    def restore(self, abstract_state: Any, step: int | None = None) -> Restored | None:
        """The newest step that verifies (or `step`), on the shardings of `abstract_state`; None if there is none."""
        self.wait()
        return restore.newest(self.folder, abstract_state, level=self.config.verify, step=step)

    def _clear(self, *, at_start: bool = False) -> None:
        if self.first:
            self._commits.clear(at_start=at_start)

    def _make_room(self, step: int, need: int) -> None:
        """Refuse to start a save for which there is no space, and make its folder."""
        problem = None
        if self.first:
            need = int(HEADROOM * (self._last_bytes or need))
            try:
                free = need if is_remote(self.folder) else shutil.disk_usage(self.folder).free
                if free < need:
                    problem = f"it needs {need} bytes and {free} are free in {self.folder}"
                else:
                    self._clear()
                    self._commits.begin(step)
            except OSError as error:
                problem = f"cannot write in {self.folder}: {error.strerror}"
        if problem := from_first(problem):
            raise StorageError(
                f"checkpoint {step} was not written: {problem}; free some space or lower --checkpoint.keep"
            )

    def _give_up(self, step: int, need: int, error: BaseException) -> None:
        """Remove what a failed save left and say what it would have needed."""
        self._clear()
        raise StorageError(
            f"checkpoint {step} was not written ({why(error)}); it needs {need} bytes in {self.folder}"
        ) from error

    def _commit(self, step: int, facts: dict[str, Any], prints: Any) -> None:
        """In the background: wait for Orbax, write the manifest, rename, delete what is no longer kept."""
        self._writer.wait_until_finished()
        partial = self._commits.place(step)
        key = f"checksums/{step}/{self._saves}"
        if not self.first:
            if self._others:
                self._others.give(key, json.dumps(integrity.own_checksums(partial, jax.process_index())))
            return
        for entry, words in zip(facts["leaves"].values(), np.asarray(prints)):
            entry["fingerprint"] = [int(word) for word in words]
        known = {}
        for word in self._others.take(key, PATIENCE) if self._others else ():
            known |= json.loads(word)
        self.before()
        about = {"step": step, "meta": self.meta, **versions(self.meta), **facts}
        self._last_bytes = integrity.write_manifest(partial, about, known)
        self._commits.commit(step)
        self._retain(step)

    def _retain(self, newest: int) -> None:
        """Delete what is neither among the newest `keep` nor a multiple of `keep_every` nor the run's best.

        A step beyond `newest` belongs to a course that training has left (it went back to an older step), and a
        number without a manifest is damage that a good checkpoint now follows: both go.
        """
        committed = self.steps()
        older = [n for n in committed if n <= newest]
        kept = set(older[-self.config.keep :])
        if self.config.keep_every:
            kept |= {n for n in older if n % self.config.keep_every == 0}
        kept.add(best.read(self.folder.parent).get("step"))
        for n in restore.step_folders(self.folder):
            if n in kept:
                continue
            try:
                self._commits.discard(n)
            except OSError as error:
                warnings.warn(f"could not delete {self.folder / str(n)}: {error.strerror}", stacklevel=2)


def _items() -> ocp.CompositeCheckpointHandler:
    """Orbax's own way to write trees of arrays by name, but for `SHARED`."""
    arrays = type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SHARED, array_metadata_store=Store())
    types = type_handlers.create_type_handler_registry((jax.Array, arrays))
    items = handlers.DefaultCheckpointHandlerRegistry()
    items.add(None, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=types))
    return ocp.CompositeCheckpointHandler(handler_registry=items)


def why(error: BaseException) -> str:
    """An error in a few words; TensorStore's own run over half a screen and end with the system's."""
    found = re.search(r"([^:]+) \[os_error_code", str(error))
    if found:
        return found.group(1).strip()
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def leaves_facts(leaves: dict[str, jax.Array]) -> dict[str, Any]:
    """What a manifest says of the leaves before their fingerprints are there, and of their mesh."""
    mesh = next((x.sharding.mesh for x in leaves.values() if isinstance(x.sharding, NamedSharding)), None)
    return {
        "mesh": {str(axis): size for axis, size in mesh.shape.items()} if mesh is not None else {},
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "leaves": {name: leaf_facts(x) for name, x in leaves.items()},
    }


def leaf_facts(x: jax.Array) -> dict[str, Any]:
    """A leaf as the model knows it, and whether it is stored otherwise."""
    return {"shape": list(x.shape), "dtype": str(x.dtype), **({"packed": True} if packing.packs(x) else {})}


def versions(meta: dict[str, Any]) -> dict[str, Any]:
    """What wrote the checkpoint, and a short name for its settings."""
    packages = ("jax", "orbax-checkpoint", "flax")
    settings = json.dumps(meta.get("config"), sort_keys=True).encode()
    return {
        "format": 2,
        "version": __version__,
        "versions": {name: metadata.version(name) for name in packages},
        "config_sha256": hashlib.sha256(settings).hexdigest(),
    }
