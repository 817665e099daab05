"""Checkpoints of leaves that are made when their turn comes: one leaf at a time is in memory, not the whole model."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from chinchilla_jax.training import integrity

CHUNK = 16 << 20  # bytes of an array that are compressed and written together
FILE = 64 << 20  # bytes that are gathered before they go to a file
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
        self.print = np.asarray(integrity.fingerprint({"": x}))[0]
        return x


class Handler(type_handlers.ArrayHandler):
    """Orbax's own way to write arrays, one after the other, each given back before the next is made."""

    async def serialize(self, values: Sequence[Deferred], infos, args=None):
        """Write them; nothing is left to be waited for."""
        for value, info, arg in zip(values, infos, args):
            for future in await super().serialize([value.made()], [info], [arg]):
                future.result()
            del future  # it holds the array
        return []


def write(folder, leaves: dict[str, Deferred]) -> None:
    """Write a flat tree as one Orbax checkpoint, and wait for it."""
    handlers = ((jax.Array, type_handlers.ArrayHandler()), (Deferred, Handler()))
    registry = type_handlers.create_type_handler_registry(*handlers)
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, save_concurrent_gb=IN_FLIGHT)
    each = {name: ocp.SaveArgs(chunk_byte_size=CHUNK) for name in leaves}
    with ocp.Checkpointer(handler) as writer:
        writer.save(folder, args=ocp.args.PyTreeSave(leaves, save_args=each, ocdbt_target_data_file_size=FILE))
