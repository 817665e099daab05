"""Reading all sources: what is kept, and which of it is held out."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data.files import cut
from chinchilla_jax.data.progress import progress
from chinchilla_jax.data.sources import Say, Source
from chinchilla_jax.data.split import DROPPED, TRAIN, VALID, Plan, plan
from chinchilla_jax.data.spool import Extents, Spool, texts
from chinchilla_jax.errors import UserError


@dataclass(frozen=True)
class Corpus:
    """What the sources held: the documents of both splits in the spool, all lines, and counts for the manifest."""

    spool: Path
    train: Extents
    valid: Extents
    lines: int
    sources: list[dict]


def gather(config: DataConfig, sources: list[Source], path: Path, say: Say, show: bool) -> Corpus:
    """Read all documents into the spool, then drop duplicates and split."""
    spool, empty = Spool(path), Counter()
    with progress("reading", 0, show) as advance:
        for number, source in enumerate(sources):
            for document in source.documents():
                size = spool.add(document, number)
                empty[number] += not size
                advance(size)
    spool.close()
    check_used(config, sources, spool, say)
    extents = spool.extents
    if not len(extents):
        raise UserError(
            f"--data.sources {' '.join(s.name for s in sources)}: no text in {sum(empty.values())} documents"
        )
    fates = plan(spool.digests, extents.sizes, spool.own, config.valid_fraction, config.seed, config.deduplicate)
    train, valid = extents[fates.fate == TRAIN], extents[fates.fate == VALID]
    if fates.cut is not None:
        train, valid = hold_out_tail(path, extents, fates)
    if not len(train) or not len(valid):
        raise UserError(
            "after leaving out empty documents and duplicates one split has no text; add text to "
            f"--data.sources {' '.join(s.name for s in sources)}"
        )
    counts = []
    for number, source in enumerate(sources):
        mine = spool.sources == number
        counts.append(count(source, extents[mine], fates.fate[mine] != DROPPED, empty[number]))
        for kind, number_skipped in counts[-1]["skipped"].items():
            say(f"{source.name}: skipped {number_skipped:,} {kind}")
    return Corpus(path, train, valid, spool.lines, counts)


def check_used(config: DataConfig, sources: list[Source], spool: Spool, say: Say) -> None:
    """Say what the sources have to say, and which setting none of them looked at; --data.field is then an error."""
    for source in sources:
        for text, number in source.said.items():
            say(f"{source.name}: {number:,} {text}")
    default = DataConfig()
    if config.field != default.field and not any(source.records for source in sources):
        raise UserError(
            f"--data.field {config.field}: no source has records (.jsonl, .ndjson, .json or TFDS); leave it out"
        )
    if config.valid_fraction != default.valid_fraction and len(spool.own) and spool.own.all():
        say("WARNING: --data.valid-fraction is not followed: the sources come with a validation split of their own")


def count(source: Source, extents: Extents, kept: np.ndarray, empty: int) -> dict:
    """A source's entry in the manifest: what it is, and what became of its documents."""
    return {
        "name": source.name,
        "licence": source.licence,
        "documents": int(kept.sum()),
        "bytes": extents[kept].bytes,
        "duplicates": int((~kept).sum()),
        "empty": empty,
        "skipped": {kind: number for kind, number in source.skipped.items() if number},
    }


def hold_out_tail(path: Path, extents: Extents, fates: Plan) -> tuple[Extents, Extents]:
    """Both splits when about the last `fates.tail` bytes of one document are held out, cut as `files.cut` does; a
    longer blank end is dropped."""
    number = fates.cut
    offset, size = int(extents.offsets[number]), int(extents.sizes[number])
    (text,) = texts(path, extents[number : number + 1])
    body = len(text.rstrip())  # a blank end is no text to hold out
    near = max(0, body - max(3 * fates.tail, 64))  # so that about twice the share is held out at most
    head = near + cut(text[near : max(near, body - fates.tail)])
    if not text[:head].strip() or not text[head:].strip():
        raise UserError(
            f"{len(text.strip())} bytes of text (blank ends apart) are too few for a training and a validation split; "
            "add text"
        )
    if size - body > fates.tail:
        size = body + len(re.match(rb"\r?\n?", text[body:])[0])
    train, valid = fates.fate == TRAIN, np.append(np.flatnonzero(fates.fate == VALID), number)
    offsets, sizes = extents.offsets.copy(), extents.sizes.copy()
    sizes[number] = head
    held = extents[valid]
    held.offsets[-1], held.sizes[-1] = offset + head, size - head
    return Extents(offsets[train], sizes[train]), held
