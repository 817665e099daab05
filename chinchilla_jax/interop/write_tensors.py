"""safetensors written a tensor at a time: the header is known before the first one, so no shard is held in memory."""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ALIGNED = 8  # bytes; the data begin at a multiple, as in the library's own files


class Tensor(NamedTuple):
    """A tensor to be written: `make` gives it when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_file(path: Path, tensors: list[Tensor]) -> None:
    """One file: length of the header in 8 bytes, the header as JSON padded with spaces, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for x in tensors:
        header[x.name] = {
            "dtype": DTYPES[x.dtype.name],
            "shape": list(x.shape),
            "data_offsets": [end, end + x.nbytes],
        }
        end += x.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNED)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for x in tensors:
            made = np.asarray(x.make(), order="C")
            if made.shape != x.shape or made.dtype != x.dtype:
                raise ValueError(f"{x.name} is {made.dtype}{list(made.shape)}, not {x.dtype}{list(x.shape)}")
            file.write(made.reshape(-1).view(np.uint8).data)


def split(tensors: Iterable[Tensor], limit: int) -> list[list[Tensor]]:
    """Shards of at most `limit` bytes, in order; a tensor beyond that has one of its own."""
    shards: list[list[Tensor]] = [[]]
    for x in tensors:
        if shards[-1] and sum(y.nbytes for y in shards[-1]) + x.nbytes > limit:
            shards.append([])
        shards[-1].append(x)
    return shards


def write_folder(folder: Path, tensors: list[Tensor], limit: int) -> None:
    """model.safetensors, or shards of at most `limit` bytes and their index."""
    shards = split(tensors, limit)
    if len(shards) == 1:
        write_file(folder / "model.safetensors", tensors)
        return
    table = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(folder / name, shard)
        table |= {x.name: name for x in shard}
    index = {"metadata": {"total_size": sum(x.nbytes for x in tensors)}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
