"""Token streams in one array, in several files, or far away; all are read by ranges of tokens."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.manifest import AGAIN, DAMAGED
from chinchilla_jax.errors import UserError

MEMORY = 1 << 30  # bytes of blocks of a remote stream that are kept in memory
FETCHERS = 16  # blocks that are fetched at the same time


def ranges(tokens, starts: np.ndarray, stops: np.ndarray) -> Iterator[np.ndarray]:
    """The tokens of each range [start, stop)."""
    pairs = list(zip(starts.tolist(), stops.tolist()))
    if isinstance(tokens, Remote):
        tokens.fetch(pairs)
    read = np.asarray(tokens) if isinstance(tokens, np.ndarray) else tokens  # slices of a memmap are slow
    return (read[start:stop] for start, stop in pairs)


def boundaries(starts, rows_B: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows [row, row + length) a document starts in, but for their first place, and in which column."""
    if not isinstance(starts, np.ndarray):
        found = [starts.between(start + 1, start + length) for start in rows_B.tolist()]
        row = np.repeat(np.arange(len(rows_B)), [len(places) for places in found])
        return row, (np.concatenate(found) if found else np.empty(0, np.int64)) - rows_B[row]
    starts = starts.view(np.int64)  # searching uint64 with int64 would turn the whole index into floats
    first_B = np.searchsorted(starts, rows_B, side="right")
    count_B = np.searchsorted(starts, rows_B + length, side="left") - first_B
    row = np.repeat(np.arange(len(rows_B)), count_B)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count_B) - count_B, count_B) + first_B[row]
    return row, starts[number] - rows_B[row]


class Shards:
    """Arrays one behind the other, as one array."""

    def __init__(self, parts: list[np.ndarray]):
        self.parts, self.dtype = parts, parts[0].dtype
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, which: slice | int) -> np.ndarray:
        if not isinstance(which, slice):
            return self[which : which + 1][0] if which >= 0 else self[len(self) + which]
        start, stop, step = which.indices(len(self))
        found, at = [], int(np.searchsorted(self._ends, start, "right"))
        while start < stop and at < len(self.parts):
            begin = int(self._ends[at]) - len(self.parts[at])
            found.append(np.asarray(self.parts[at])[start - begin : stop - begin])
            start, at = int(self._ends[at]), at + 1
        joined = found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty(0, self.dtype)
        return joined[::step]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class Index(Shards):
    """Places where documents start, uint64 in rising order, in several files."""

    def between(self, start: int, stop: int) -> np.ndarray:
        """The places in [start, stop), int64."""
        found = []
        for part in self.parts:
            if len(part) and part[-1] >= start and part[0] < stop:
                places = part.view(np.int64)
                first, last = np.searchsorted(places, [start, stop])
                found.append(np.asarray(places[first:last]))
        return np.concatenate(found) if found else np.empty(0, np.int64)


@dataclass(frozen=True)
class Shard:
    """A remote file of tokens, the checksums of its blocks of `block` bytes, and where its first token stands."""

    url: str
    sums: Callable[[], np.ndarray]
    block: int
    start: int
    tokens: int


class Remote:
    """A stream in remote shards: blocks are fetched when they are first read, verified, and kept in `folder`.

    The folder holds about `limit` bytes at most; `fetched` counts the bytes that came over the network.
    """

    def __init__(self, shards: list[Shard], dtype: np.dtype, folder: Path, limit: int):
        self.dtype, self.fetched = dtype, 0
        self._shards, self._folder, self._limit = shards, folder, limit
        self._firsts = np.array([shard.start for shard in shards])
        self._open: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept: OrderedDict[Path, int] = OrderedDict(
            (path, path.stat().st_size) for path in sorted(folder.glob("*.block"))
        )
        self._on_disk, self._in_memory = sum(self._kept.values()), 0
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(FETCHERS)

    def __len__(self) -> int:
        return self._shards[-1].start + self._shards[-1].tokens

    def __getitem__(self, which: slice) -> np.ndarray:
        start, stop, step = which.indices(len(self))
        parts = [self._block(shard, number)[first:last] for shard, number, first, last in self._cover(start, stop)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, self.dtype)
        return joined[::step]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _cover(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Shard, block, and tokens [first, last) of that block, of everything in [start, stop)."""
        while start < stop:
            at = int(np.searchsorted(self._firsts, start, "right")) - 1
            shard = self._shards[at]
            size, inside = shard.block // self.dtype.itemsize, start - shard.start
            number = inside // size
            last = min((number + 1) * size, shard.tokens, stop - shard.start)
            yield at, number, inside - number * size, last - number * size
            start = shard.start + last

    def fetch(self, pairs: list[tuple[int, int]]) -> None:
        """Have the blocks of all these ranges at hand, those that are missing fetched at the same time."""
        blocks = {(at, number) for start, stop in pairs for at, number, _, _ in self._cover(start, stop)}
        missing = [block for block in blocks if block not in self._open]
        for future in [self._pool.submit(self._block, *block) for block in missing]:
            future.result()

    def _block(self, at: int, number: int) -> np.ndarray:
        with self._lock:
            if (at, number) in self._open:
                self._open.move_to_end((at, number))
                return self._open[at, number]
        shard = self._shards[at]
        path = self._folder / f"{Path(shard.url).name}.{number}.block"
        expected = int(shard.sums()[number])
        found = self._cached(path, expected)
        if found is None:
            content = self._verified(shard, number, expected)
            fs.write(str(path), content)
            found = np.frombuffer(content, self.dtype)
        with self._lock:
            self._in_memory += found.nbytes - (self._open[at, number].nbytes if (at, number) in self._open else 0)
            self._open[at, number] = found
            self._on_disk += found.nbytes - self._kept.get(path, 0)
            self._kept[path] = found.nbytes
            self._kept.move_to_end(path)
            self._shrink()
        return found

    def _cached(self, path: Path, expected: int) -> np.ndarray | None:
        import xxhash

        try:
            found = np.fromfile(path, self.dtype)
        except FileNotFoundError:
            return None
        return found if xxhash.xxh3_64_intdigest(found.tobytes()) == expected else None

    def _verified(self, shard: Shard, number: int, expected: int) -> bytes:
        import xxhash

        total = shard.tokens * self.dtype.itemsize
        try:
            content = fs.read(shard.url, number * shard.block, min(shard.block, total - number * shard.block))
        except OSError as error:
            raise UserError(f"{shard.url}: cannot be read from the token store ({error}); {AGAIN}") from error
        with self._lock:
            self.fetched += len(content)
        if xxhash.xxh3_64_intdigest(content) != expected:
            raise UserError(f"{shard.url}: {DAMAGED}; {AGAIN}")
        return content

    def _shrink(self) -> None:
        """Forget what was not used for the longest time."""
        while self._on_disk > self._limit and len(self._kept) > 1:
            path, size = self._kept.popitem(last=False)
            self._on_disk -= size
            path.unlink(missing_ok=True)
        while self._in_memory > MEMORY and len(self._open) > 1:
            self._in_memory -= self._open.popitem(last=False)[1].nbytes


class Separators:
    """Places where documents start in a stream that has a `separator` there and nowhere else, `count` in all."""

    def __init__(self, tokens: Remote, separator: int, count: int):
        self._tokens, self._separator, self._count = tokens, separator, count

    def __len__(self) -> int:
        return self._count

    def between(self, start: int, stop: int) -> np.ndarray:
        """The places in [start, stop), int64; the separator that ends the stream is none."""
        stop = min(stop, len(self._tokens) - 1)
        return np.flatnonzero(self._tokens[start:stop] == self._separator) + start
