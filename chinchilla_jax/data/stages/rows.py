"""Tables of documents on disk: sorted segments of text, and the rows that say where each document lies."""

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.filters import minhash
from chinchilla_jax.data.filters.chain import SHOWN
from chinchilla_jax.data.stages.job import Job

FREE, TRAIN, VALID = range(3)  # the split that a source gave a document, none being free
# `key` and `low` are the seeded hash, which orders the documents; `segment` and `offset` say where the text lies.
ROW = np.dtype(
    [("key", "<u8"), ("low", "<u8"), ("size", "<u8"), ("offset", "<u8"), ("segment", "<u4"), ("source", "<u4"),
     ("lines", "<u4"), ("own", "u1"), ("follows", "u1"), ("pad", "u1", 2)]
)  # fmt: skip

BANDS, SKETCH = np.dtype(("<u8", (minhash.BANDS,))), np.dtype(("u1", (minhash.HASHES,)))


def boundaries(bits: int) -> np.ndarray:
    """The first key of every partition, (2**bits,)."""
    return np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits) if bits else np.zeros(1, np.uint64)


def final_order(rows: np.ndarray) -> np.ndarray:
    """The indices that put rows in the order of their hash.

    Of equal documents one that its source holds out comes first, then the one of the first source.
    """
    return np.lexsort((rows["source"], rows["own"] != VALID, rows["low"], rows["key"]))


def write_segment(job: Job, name: str, rows: np.ndarray, texts: list[bytes], extra: dict[str, np.ndarray]) -> None:
    """Write documents in the order of their hash, and where each partition of them begins (rows, bytes).

    `extra` are further arrays with a row a document, in files of their own.
    """
    order = final_order(rows)
    rows = rows[order]
    ends = np.cumsum(rows["size"], dtype=np.uint64)
    rows["offset"] = ends - rows["size"]
    first = np.append(np.searchsorted(rows["key"], boundaries(job.bits)), len(rows))
    cuts = np.stack([first, np.append(0, ends).astype(np.int64)[first]], axis=1).astype("<u8")
    fs.write(job.path("read", f"{name}.text"), b"".join([texts[i] for i in order.tolist()]))
    fs.write(job.path("read", f"{name}.rows"), rows.tobytes())
    fs.write(job.path("read", f"{name}.cuts"), cuts.tobytes())
    for kind, array in extra.items():
        fs.write(job.path("read", f"{name}.{kind}"), np.ascontiguousarray(array[order]).tobytes())


def cuts(job: Job, partition: int, segments: int) -> np.ndarray:
    """First and last (rows, bytes) of a partition in each segment, int64 (2, segments, 2)."""
    width = segments * 16
    found = fs.read(job.path("cuts"), partition * width, 2 * width)
    return np.frombuffer(found, "<u8").astype(np.int64).reshape(2, segments, 2)


def collect_cuts(job: Job, names: list[str]) -> None:
    """Put the cuts of all segments into one table, partition by partition."""
    tables = [np.frombuffer(fs.read(job.path("read", f"{name}.cuts")), "<u8").reshape(-1, 2) for name in names]
    fs.write(job.path("cuts"), np.stack(tables, axis=1).tobytes())
    fs.write(job.path("segments"), "\n".join(names).encode())


def segment_names(job: Job) -> list[str]:
    """The segments in order."""
    return fs.read(job.path("segments")).decode().split("\n")


def read_partition(job: Job, partition: int, kind: str = "rows", dtype: np.dtype = ROW) -> np.ndarray:
    """The rows of a partition (or another array with a row a document) in all segments, one behind the other."""
    names = segment_names(job)
    first, last = cuts(job, partition, len(names))[:, :, 0]
    parts = []
    for number in np.flatnonzero(last > first).tolist():
        path = job.path("read", f"{names[number]}.{kind}")
        start, stop = first[number] * dtype.itemsize, last[number] * dtype.itemsize
        found = np.frombuffer(fs.read(path, int(start), int(stop - start)), dtype)
        if kind == "rows":
            found = found.copy()
            found["segment"] = number
        parts.append(found)
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def read_texts(job: Job, partition: int) -> dict[int, tuple[int, bytes]]:
    """For each segment with text of the partition: its first byte there, and the text."""
    names = segment_names(job)
    first, last = cuts(job, partition, len(names))[:, :, 1]
    return {
        number: (int(first[number]), fs.read(job.path("read", f"{names[number]}.text"), int(first[number]),
                                             int(last[number] - first[number])))
        for number in np.flatnonzero(last > first).tolist()
    }  # fmt: skip


def heads(job: Job, rows: np.ndarray) -> list[str]:
    """The beginning of each document."""
    names = segment_names(job)
    places = zip(rows["segment"].tolist(), rows["offset"].tolist(), np.minimum(rows["size"], 4 * SHOWN).tolist())
    found = (fs.read(job.path("read", f"{names[segment]}.text"), offset, size) for segment, offset, size in places)
    return [text.decode(errors="ignore")[:SHOWN] for text in found]


def merged(job: Job, partition: int) -> np.ndarray:
    """The documents of a partition that are left, in their final order."""
    stage = "merge" if job.config.near.mode == "off" else "settle"
    return np.frombuffer(fs.read(job.path(stage, f"{partition:04}.rows")), ROW)


def leaders(job: Job, partition: int) -> np.ndarray:
    """For each of these the document whose fate it shares: the leader of its near-duplicates, or itself.

    The size of a leader is that of all documents that share its fate; `follows` marks documents that have another one.
    """
    if job.config.near.mode != "group":
        return merged(job, partition)
    return np.frombuffer(fs.read(job.path("settle", f"{partition:04}.leaders")), ROW)
