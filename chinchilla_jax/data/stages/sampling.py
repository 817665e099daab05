"""What is read of merged documents beside encoding: the tokenizer's sample, and the tail of a single document."""

import re
from collections.abc import Iterator

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.files import cut
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import FREE, leaders, merged, read_texts, segment_names
from chinchilla_jax.data.stages.splitting import Plan
from chinchilla_jax.errors import UserError

BLOCK = 1 << 14  # bytes of a document that are taken together
WHOLE = 0.25  # share of a partition from which on it is read in one go


def sample(job: Job, plan: Plan, shares: list[float]) -> list[bytes]:
    """Blocks of the training documents, source by source, evenly spread over all of them; of each source its share."""
    seen, found = [0] * len(shares), [[] for _ in shares]
    for partition in range(job.partitions):
        rows = merged(job, partition)
        rows = rows[~plan.held_out(leaders(job, partition))]
        whole = read_texts(job, partition) if max(shares) > WHOLE else None
        for source, share in enumerate(shares):
            offsets, sizes, segments = blocks(rows[rows["source"] == source])
            numbers = seen[source] + np.arange(len(sizes))
            seen[source] += len(sizes)
            taken = np.floor((numbers + 1) * share) > np.floor(numbers * share)
            found[source] += slices(job, offsets[taken], sizes[taken], segments[taken], whole)
    return [block for of in found for block in of]


def blocks(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents cut into blocks of at most `BLOCK` bytes, anywhere, also inside a character: offset, size, segment."""
    sizes = rows["size"].astype(np.int64)
    counts = -(-sizes // BLOCK)
    number = np.repeat(np.arange(len(rows)), counts)
    skipped = (np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)) * BLOCK
    offsets = rows["offset"].astype(np.int64)[number] + skipped
    return offsets, np.minimum(sizes[number] - skipped, BLOCK), rows["segment"][number]


def slices(job: Job, offsets, sizes, segments, whole: dict[int, tuple[int, bytes]] | None) -> Iterator[bytes]:
    """The bytes of each block, from the partition read `whole`, or from the files one by one."""
    names = segment_names(job)
    for offset, size, segment in zip(offsets.tolist(), sizes.tolist(), segments.tolist()):
        if whole is None:
            yield fs.read(job.path("read", f"{names[segment]}.text"), offset, size)
        else:
            start, text = whole[segment]
            yield text[offset - start : offset - start + size]


def tail(job: Job, limit: float, size: float) -> Plan | None:
    """The plan that holds out about the last `size` bytes of the first free document; None where there is none."""
    for partition in range(job.partitions):
        rows = merged(job, partition)
        free = rows[rows["own"] == FREE][:1]
        if len(free):
            row = free[0]
            (text,) = slices(job, row["offset"][None], row["size"][None], row["segment"][None], None)
            head, end = cut_tail(text, max(1, round(size)))
            return Plan(limit, (-1,), (int(row["key"]), int(row["low"]), head, end))
    return None


def cut_tail(text: bytes, size: int) -> tuple[int, int]:
    """Where a tail of about `size` bytes begins (as `files.cut` has it) and ends; a longer blank end is dropped."""
    body = len(text.rstrip())  # a blank end is no text to hold out
    near = max(0, body - max(3 * size, 64))  # so that about twice the share is held out at most
    head = near + cut(text[near : max(near, body - size)])
    if not text[:head].strip() or not text[head:].strip():
        raise UserError(
            f"{len(text.strip())} bytes of text (blank ends apart) are too few for a training and a validation split; "
            "add text"
        )
    end = len(text)
    return head, body + len(re.match(rb"\r?\n?", text[body:])[0]) if end - body > size else end
