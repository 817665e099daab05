"""Stage `shard`: a stretch of the token stream of a split, put together from encoded partitions."""

import itertools
from collections.abc import Iterator

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.manifest import SPLITS
from chinchilla_jax.data.stages.job import Job

PIECE = np.dtype([("start", "<i8"), ("tokens", "<i8"), ("offset", "<i8"), ("document", "<i8"), ("documents", "<i8")])


def pieces(groups: list[dict], split: str) -> np.ndarray:
    """Where the group of each (source, partition) begins in the stream, in its file of tokens and in that of lengths.

    `groups` are the results of `encode` by partition; the stream goes source by source. PIECE (S * P,).
    """
    table = np.array([[group[name] for name in SPLITS] for group in groups], np.int64)  # P, split, S, 3
    flat = table.reshape(len(groups), -1, 3)
    before = np.cumsum(flat, axis=1) - flat
    at, sources = SPLITS.index(split), table.shape[2]
    own, own_before = table[:, at], before[:, at * sources : (at + 1) * sources]
    found = np.zeros((sources, len(groups)), PIECE)
    found["documents"], found["tokens"] = own[:, :, 0].T, own[:, :, 1].T
    found["document"], found["offset"] = own_before[:, :, 0].T, own_before[:, :, 1].T
    found = found.reshape(-1)
    found["start"] = np.cumsum(found["tokens"]) - found["tokens"]
    return found


def run(job: Job, task: dict) -> dict:
    """Write tokens [first, last) of a split and where documents start there; gives size and checksum of the files.

    The last shard ends with one more separator.
    """
    import xxhash

    table = np.frombuffer(fs.read(job.path(f"{task['split']}.pieces")), PIECE)
    dtype = np.dtype(task["dtype"])
    ending = np.array([task["separator"]], dtype).tobytes() if task["end"] else b""
    digest, blocks, size = xxhash.xxh3_128(), BlockSums(task["block"]), 0
    with fs.writing(fs.join(job.store, task["file"])) as file:
        for part in itertools.chain(tokens(job, table, task, dtype), [ending]):
            file.write(part)
            digest.update(part)
            blocks.update(part)
            size += len(part)
    starts = np.concatenate([np.empty(0, np.uint64), *document_starts(job, table, task)])
    files = {task["file"]: {"bytes": size, "xxh3_128": digest.hexdigest()}}
    for name, array in ((task["index"], starts), (task["blocks"], blocks.end())):
        content = fs.npy(array)
        fs.write(fs.join(job.store, name), content)
        files[name] = {"bytes": len(content), "xxh3_128": xxhash.xxh3_128_hexdigest(content)}
    return {"files": files, "documents": len(starts)}


def overlapping(table: np.ndarray, task: dict, partitions: int) -> Iterator[tuple[np.void, int, int, int]]:
    """Pieces with tokens in [first, last): the piece, its partition, and which of its tokens."""
    ends = table["start"] + table["tokens"]
    for number in range(int(np.searchsorted(ends, task["first"], "right")), len(table)):
        piece = table[number]
        if piece["start"] >= task["last"]:
            return
        first, last = max(task["first"] - piece["start"], 0), min(task["last"] - piece["start"], piece["tokens"])
        if last > first:
            yield piece, number % partitions, int(first), int(last)


def tokens(job: Job, table: np.ndarray, task: dict, dtype: np.dtype) -> Iterator[bytes]:
    """The bytes of tokens [first, last)."""
    for piece, partition, first, last in overlapping(table, task, job.partitions):
        path, start = job.path("encode", f"{partition:04}.bin"), int(piece["offset"]) + first
        yield fs.read(path, start * dtype.itemsize, (last - first) * dtype.itemsize)


def document_starts(job: Job, table: np.ndarray, task: dict) -> Iterator[np.ndarray]:
    """Places in [first, last) where a document starts, uint64."""
    for piece, partition, first, last in overlapping(table, task, job.partitions):
        path = job.path("encode", f"{partition:04}.lengths")
        found = fs.read(path, int(piece["document"]) * 8, int(piece["documents"]) * 8)
        lengths = np.frombuffer(found, "<u8").astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        yield (starts[(starts >= first) & (starts < last)] + piece["start"]).astype(np.uint64)


class BlockSums:
    """xxh3_64 of every block of `size` bytes of a stream."""

    def __init__(self, size: int):
        import xxhash

        self._new, self._size = xxhash.xxh3_64, size
        self._digest, self._in, self._sums = self._new(), 0, []

    def update(self, content: bytes) -> None:
        """Take in the next bytes."""
        view = memoryview(content)
        while len(view):
            part = view[: self._size - self._in]
            self._digest.update(part)
            self._in += len(part)
            view = view[len(part) :]
            if self._in == self._size:
                self._finish()

    def _finish(self) -> None:
        self._sums.append(self._digest.intdigest())
        self._digest, self._in = self._new(), 0

    def end(self) -> np.ndarray:
        """The sums, uint64 (blocks,)."""
        if self._in:
            self._finish()
        return np.array(self._sums, np.uint64)
