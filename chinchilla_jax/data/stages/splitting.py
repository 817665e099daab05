"""Which documents are trained on and which are held out: a function of their hashes, sizes and sources alone."""

import json
from dataclasses import asdict, dataclass

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import FREE, VALID, leaders, merged

# A document this many times larger than the share to hold out is not held out whole.
TOO_LARGE = 2


@dataclass(frozen=True)
class Totals:
    """Documents, bytes and lines of each source (S,), and of those documents that no source has put
    into a split (near-duplicates that stay together count as one)."""

    documents: list[int]
    bytes: list[int]
    lines: list[int]
    free_documents: list[int]
    free_bytes: list[int]
    held_out: int = 0

    @classmethod
    def of(cls, job: Job, sources: int) -> "Totals":
        """Added up over all partitions."""
        sums = np.zeros((5, sources), np.int64)
        held_out = 0
        for partition in range(job.partitions):
            rows, lead = merged(job, partition), leaders(job, partition)
            free = lead[(lead["own"] == FREE) & (lead["follows"] == 0)]
            sums += np.array(
                [count(rows, sources), count(rows, sources, "size"), count(rows, sources, "lines"),
                 count(free, sources), count(free, sources, "size")]
            )  # fmt: skip
            held_out += int((rows["own"] == VALID).sum())
        return cls(*sums.tolist(), held_out)


def count(rows: np.ndarray, sources: int, field: str = "") -> np.ndarray:
    """Documents of each source, or the sum of a field over them, (S,); exact up to 2**53."""
    weights = rows[field].astype(np.float64) if field else None
    return np.bincount(rows["source"].astype(np.int64), weights, sources).astype(np.int64)


@dataclass(frozen=True)
class Plan:
    """Free documents of at most `limit` bytes with a key up to that of their source are held out (-1: none).

    Where that leaves nothing, bytes [head, end) of the document with the key and low part of `cut` are.
    """

    limit: float
    keys: tuple[int, ...]
    cut: tuple[int, int, int, int] | None = None

    def save(self, job: Job) -> None:
        """Write the plan for all tasks to read."""
        fs.write(job.path("split.json"), json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, job: Job) -> "Plan":
        """The plan that was written."""
        found = json.loads(fs.read(job.path("split.json")))
        return cls(found["limit"], tuple(found["keys"]), tuple(found["cut"]) if found["cut"] else None)

    def held_out(self, rows: np.ndarray) -> np.ndarray:
        """Which rows belong to the validation split."""
        keys = np.array([max(0, key) for key in self.keys], np.uint64)[rows["source"]]
        some = np.array([key >= 0 for key in self.keys])[rows["source"]]
        free = (rows["own"] == FREE) & (rows["size"].astype(np.float64) <= self.limit)
        return (rows["own"] == VALID) | (free & some & (rows["key"] <= keys))


def plan(job: Job, totals: Totals) -> Plan:
    """Hold out `valid_fraction` of the bytes of every source, in the order of the hash.

    A source gives at least one document and keeps at least one; it gives none where all of them exceed twice the whole
    share to hold out.
    """
    fraction = job.config.valid_fraction
    targets = fraction * np.array(totals.free_bytes, np.float64)
    limit = TOO_LARGE * float(targets.sum())
    walks = [Walk(target, most - 1) for target, most in zip(targets, totals.free_documents)]
    for partition in range(job.partitions):
        if all(walk.ended for walk in walks):
            break
        rows = leaders(job, partition)
        rows = rows[(rows["follows"] == 0) & (rows["own"] == FREE) & (rows["size"].astype(np.float64) <= limit)]
        for source, walk in enumerate(walks):
            walk.take(rows[rows["source"] == source])
    return Plan(limit, tuple(walk.key for walk in walks))


class Walk:
    """Goes through the documents of a source in order and takes them until `target` bytes are reached."""

    def __init__(self, target: float, most: int):
        self.target, self.left = target, most
        self.bytes, self.key, self.ended = 0.0, -1, most < 1

    def take(self, rows: np.ndarray) -> None:
        """Go on with the next rows; a document is taken when more than half of it fits."""
        if self.ended or not len(rows):
            return
        sizes = rows["size"].astype(np.float64)
        middles = self.bytes + np.cumsum(sizes) - sizes / 2
        fit = int(np.searchsorted(middles, self.target, side="right"))
        taken = min(max(fit, int(self.key < 0)), self.left)
        self.ended = taken < len(rows) or taken == self.left
        if taken:
            self.key = int(rows["key"][taken - 1])
            self.left -= taken
            self.bytes += float(sizes[:taken].sum())
