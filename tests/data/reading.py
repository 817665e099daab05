"""A source, read as `prepare` does."""

from collections.abc import Iterator

from chinchilla_jax.data import sources
from chinchilla_jax.data.documents import Document, Source


def documents(source: Source) -> Iterator[Document]:
    """All documents of a source, in order."""
    for unit in source.units:
        yield from sources.read_unit(unit, source)
