"""A job of a few documents, read and merged."""

from collections import Counter
from pathlib import Path

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import fs
from chinchilla_jax.data.documents import Document
from chinchilla_jax.data.stages import merging, rows
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.reading import Segment


def job(folder: Path, bits: int = 2, **settings) -> Job:
    """One of a few partitions."""
    return Job(str(folder), str(folder / "store"), DataConfig(**settings), bits, 1 << 20)


def segments(job: Job, *held: list[tuple[int, str, str]]) -> None:
    """A segment for each list of documents (source, split, text), each of one source."""
    names = []
    for number, documents in enumerate(held):
        names.append(f"{number:06}-0000")
        segment = Segment(job, documents[0][0])
        for _, split, text in documents:
            segment.add(Document(text, "s", text, split), Counter())
        segment.write(names[-1])
    rows.collect_cuts(job, names)


def merge(job: Job, sources: int = 1) -> list[dict]:
    """Merge all partitions."""
    tasks = [{"name": f"{n:04}", "partition": n, "sources": sources} for n in range(job.partitions)]
    return [merging.run(job, task) for task in tasks]


def texts_in(job: Job, found) -> list[str]:
    """The texts of some rows, read from their segments."""
    names = rows.segment_names(job)
    places = zip(found["segment"].tolist(), found["offset"].tolist(), found["size"].tolist())
    return [fs.read(job.path("read", f"{names[segment]}.text"), at, size).decode() for segment, at, size in places]
