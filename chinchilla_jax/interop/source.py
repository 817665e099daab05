"""Weights in somebody else's format, read tensor by tensor straight into sharded arrays."""

import math
from functools import partial
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from chinchilla_jax.config import Config, ModelConfig, TaskConfig, require
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.names import Name, find, their_shapes
from chinchilla_jax.tasks.kinds import table as kinds
from chinchilla_jax.training.one_by_one import Deferred

ALIGNED = 64  # bytes; an aligned array becomes JAX's own on a CPU, without a copy


class Source(Protocol):
    """A model in another format. `shapes` are its tensors under Hugging Face's names, heads in Hugging Face's order.

    `files` are all that was read; `facts` goes into origin.json (format, architecture, license where it is told).
    """

    model: ModelConfig
    task: TaskConfig  # of its head, if it has one
    shapes: dict[str, tuple[int, ...]]
    files: list[Path]
    facts: dict[str, str]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor, as any kind of float."""

    def write_tokenizer(self, folder: Path) -> Path:
        """Put the tokenizer's file, what speaks of it, and the chat template into `folder`; the file."""


def heads_of(source: Source) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves of its head, by NAME/leaf."""
    return kinds.heads(Config(model=source.model, task=source.task))


def check_tensors(where: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise a `UserError` that names the tensors that are missing, not understood, or of another shape."""
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is not understood" for name in found if name not in wanted]
    for name, shape in wanted.items():
        if found.get(name, shape) != shape:
            wrong.append(f"{name} is {list(found[name])} and its config says {list(shape)}")
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    require(not wrong, f"{where}: {'; '.join(wrong[:3])}{more}; nothing was imported")


def leaves(source: Source, where: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Deferred]:
    """Every leaf of `where`, whose shardings it is born on, to be read when its turn comes."""
    check_tensors(str(source.files[0].parent), source.shapes, their_shapes(source.model, heads_of(source)))
    return {path: Deferred(leaf, partial(leaf_of, source, find(path), leaf)) for path, leaf in where.items()}


def leaf_of(source: Source, name: Name, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """A whole leaf. Beside it, no more than a layer's part of one tensor is in memory."""

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        whole = tuple(slice(*part.indices(size)) for part, size in zip(index, leaf.shape))
        out = _empty(tuple(part.stop - part.start for part in whole), leaf.dtype)
        if not name.stacked:
            out[...] = _part(source, name, name.theirs, whole, leaf.shape, out.shape)
            return out
        for row, n in enumerate(range(leaf.shape[0])[whole[0]]):
            out[row] = _part(source, name, name.theirs.format(n=n), whole[1:], leaf.shape[1:], out.shape[1:])
        return out

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, shard)


def _part(source: Source, name: Name, theirs: str, index, shape, part_shape) -> np.ndarray:
    found = source.read(theirs, name.index(index, shape))
    if not np.isfinite(found).all():
        raise UserError(f"{theirs} holds values that are not finite; get the weights again")
    return name.to_ours(found, part_shape)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array whose memory begins at a multiple of `ALIGNED` bytes."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + size].view(dtype).reshape(shape)
