"""Stage `read`: a part of a source to sorted segments of the documents that the filters leave."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from chinchilla_jax.data import fs, sources
from chinchilla_jax.data.documents import Document, Notes
from chinchilla_jax.data.filters import minhash
from chinchilla_jax.data.filters.chain import Account, Chain
from chinchilla_jax.data.hashing import seeded
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import FREE, ROW, TRAIN, VALID, write_segment
from chinchilla_jax.errors import UserError

OWN = {"": FREE, "train": TRAIN, "valid": VALID}
BATCH = 1 << 18  # characters that are filtered, or bytes that are compared, at a time
T = TypeVar("T")


def run(job: Job, unit: dict) -> dict:
    """Read one unit; gives the names of its segments and counts of what was read and left out."""
    segments: list[str] = []
    held, counts = Segment(job, unit["source"]), Counter()
    chain = chain_of(job)
    account = Account(chain.names)
    notes = Notes()

    def flush() -> None:
        segments.append(f"{unit['name']}-{len(segments):04}")
        held.write(segments[-1])

    for batch in batches(sources.read_unit(unit, notes), lambda document: len(document.text)):
        counts["documents"] += len(batch)
        for document in chain(batch, account):
            held.add(document, counts)
        if held.size >= job.segment:
            flush()
    if held.texts:
        flush()
    return {
        "segments": segments,
        "account": account.values,
        "skipped": notes.skipped,
        "said": notes.said,
        "records": notes.records,
        **counts,
    }


@functools.lru_cache(2)
def chain_of(job: Job) -> Chain:
    """The filters of a job."""
    found = None
    if job.config.decontaminate:
        found = np.frombuffer(fs.read(job.path("contamination")), "<u8")
    return Chain(job.config, found)


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Items in lists whose sizes add up to about `BATCH`."""
    held, total = [], 0
    for item in items:
        held.append(item)
        total += size(item)
        if total >= BATCH:
            yield held
            held, total = [], 0
    if held:
        yield held


class Segment:
    """Documents in memory, to be written as a sorted segment."""

    def __init__(self, job: Job, source: int):
        import xxhash

        self._hash, self._job, self._source = xxhash.xxh3_128_digest, job, source
        self._clear()

    def _clear(self) -> None:
        self.texts: list[bytes] = []
        self.size = 0
        self._digests, self._own, self._lines = bytearray(), bytearray(), []

    def add(self, document: Document, counts: Counter) -> None:
        """Take in a document; an empty one is counted and left out."""
        try:
            text = document.text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{document.key}: character {error.start:,} is a lone surrogate, which UTF-8 cannot hold; remove it"
            ) from error
        if not text.strip():
            counts["empty"] += 1
            return
        self.texts.append(text)
        self.size += len(text)
        counts["bytes"] += len(text)
        self._digests += self._hash(text)
        self._own.append(OWN[document.split])
        self._lines.append(text.count(b"\n") + 1)

    def signatures(self) -> dict[str, np.ndarray]:
        """Band keys and sketches of all documents, where near-duplicates are looked for."""
        if self._job.config.near.mode == "off":
            return {}
        keys, sketches = [], []
        for batch in batches(self.texts, len):
            found, there = minhash.signatures([text.decode() for text in batch], self._job.config.near.words)
            keys.append(minhash.bands(found, there))
            sketches.append(minhash.sketch(found))
        return {"bands": np.concatenate(keys), "sketch": np.concatenate(sketches)}

    def write(self, name: str) -> None:
        """Write what is held, and hold nothing any more."""
        digests = np.frombuffer(bytes(self._digests), "<u8").reshape(-1, 2)
        rows = np.zeros(len(self.texts), ROW)
        rows["key"], rows["low"] = seeded(digests[:, 0], self._job.config.seed), digests[:, 1]
        rows["size"] = np.fromiter(map(len, self.texts), np.uint64, len(self.texts))
        rows["source"], rows["lines"] = self._source, self._lines
        rows["own"] = np.frombuffer(bytes(self._own), np.uint8)
        write_segment(self._job, name, rows, self.texts, self.signatures())
        self._clear()
