"""Checkpoints of leaves that are made when their turn comes: one leaf at a time is in memory, not the whole model."""

import gc
from collections.abc import Callable, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from chinchilla_jax.training import integrity

CHUNK = 16 << 20  # bytes of an array that are compressed and written together
FILE = 64 << 20  # bytes that are gathered before they go to a file
SHARED = 1 << 20  # bytes that each replica must have to write; one writes a smaller leaf alone, which takes less time
IN_FLIGHT = 4  # 1e9 bytes; any bound keeps Orbax from holding a whole leaf once more until the end


class Deferred:
    """A leaf of known shape, type and sharding; `make` gives the array, `print` is its fingerprint once made."""

    def __init__(self, leaf: jax.ShapeDtypeStruct, make: Callable[[], jax.Array]):
        self.shape, self.dtype, self.sharding = leaf.shape, np.dtype(leaf.dtype), leaf.sharding
        self.ndim, self.size = len(leaf.shape), leaf.size
        self.nbytes = self.size * self.dtype.itemsize
        self.print: np.ndarray | None = None
        self._make = make

    def made(self) -> jax.Array:
        """The array itself."""
        x = self._make()
        self.print = fingerprint(x)
        return x


def fingerprint(x: jax.Array) -> np.ndarray:
    """`integrity.fingerprint` of one leaf, (2,) uint32, of some rows after the other: it takes twice what it reads.

    With plain and weighted sums p and w of rows that begin at element s, the whole has sum p and sum w + s p.
    """
    if not x.ndim:
        return np.asarray(integrity.fingerprint({"": x}))[0]
    row = x.size // x.shape[0]
    count = max(1, CHUNK // (row * x.dtype.itemsize))
    plain, weighted = 0, 0
    for start in range(0, x.shape[0], count):
        p, w = np.asarray(integrity.fingerprint({"": x[start : start + count]}))[0].tolist()
        plain, weighted = plain + p, weighted + w + start * row * p
    return np.array([plain % 2**32, weighted % 2**32], np.uint32)


class Handler(type_handlers.ArrayHandler):
    """Orbax's own way to write arrays, one after the other, each given back before the next is made."""

    async def serialize(self, values: Sequence[Deferred], infos, args=None):
        """Write them; nothing is left to be waited for."""
        held = 0
        for value, info, arg in zip(values, infos, args):
            for future in await super().serialize([value.made()], [info], [arg]):
                future.result()
            del future
            held += value.nbytes
            if held >= FILE:  # futures and tasks in a circle hold the arrays
                gc.collect()
                held = 0
        return []


def write(folder, leaves: dict[str, Deferred]) -> None:
    """Write a flat tree as one Orbax checkpoint, and wait for it."""
    kinds = ((jax.Array, type_handlers.ArrayHandler), (Deferred, Handler))
    handlers = ((kind, made(min_slice_bytes_for_replica_parallel=SHARED)) for kind, made in kinds)
    registry = type_handlers.create_type_handler_registry(*handlers)
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, save_concurrent_gb=IN_FLIGHT)
    each = {name: ocp.SaveArgs(chunk_byte_size=CHUNK) for name in leaves}
    with ocp.Checkpointer(handler) as writer:
        writer.save(folder, args=ocp.args.PyTreeSave(leaves, save_args=each, ocdbt_target_data_file_size=FILE))
