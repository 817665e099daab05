"""All documents in one temporary file, with 29 bytes each in memory, so that a corpus of any size fits."""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.data.sources import Document
from chinchilla_jax.errors import UserError

OWN = {"": 0, "train": 1, "valid": 2}


@dataclass(frozen=True)
class Extents:
    """Where documents lie in the spool: first byte and number of bytes of each, uint64 (n,)."""

    offsets: np.ndarray
    sizes: np.ndarray

    def __getitem__(self, which) -> "Extents":
        return Extents(self.offsets[which], self.sizes[which])

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes of text in all."""
        return int(self.sizes.sum())


class Spool:
    """Writes documents one behind the other; keeps size, 128-bit hash, source and own split of each."""

    def __init__(self, path: Path):
        import xxhash

        self.path, self.lines = path, 0
        self._hash = xxhash.xxh3_128
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by `close`
        self._digests, self._sizes = bytearray(), array("Q")
        self._sources, self._own = array("I"), array("B")

    def add(self, document: Document, source: int) -> int:
        """Append a document of source number `source`; gives its bytes of UTF-8. An empty one is not kept."""
        try:
            text = document.text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{document.key}: character {error.start:,} is a lone surrogate, which UTF-8 cannot hold; remove it"
            ) from error
        if text.strip():
            self._file.write(text)
            self._digests += self._hash(text).digest()
            self._sizes.append(len(text))
            self._sources.append(source)
            self._own.append(OWN[document.split])
            self.lines += text.count(b"\n") + 1
            return len(text)
        return 0

    def close(self) -> None:
        """Finish writing; the arrays below are complete from here on."""
        self._file.close()

    @property
    def digests(self) -> np.ndarray:
        """Hashes, uint64 (n, 2)."""
        return np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)

    @property
    def sources(self) -> np.ndarray:
        """Number of each document's source, (n,)."""
        return np.array(self._sources, np.uint32)

    @property
    def own(self) -> np.ndarray:
        """The split that the source gave each document, as in `OWN`, (n,)."""
        return np.array(self._own, np.uint8)

    @property
    def extents(self) -> Extents:
        """Where every document lies."""
        sizes = np.array(self._sizes, np.uint64)
        return Extents(np.cumsum(sizes, dtype=np.uint64) - sizes, sizes)


def blocks(extents: Extents, size: int) -> Extents:
    """`extents` cut into blocks of at most `size` bytes, anywhere, also inside a character."""
    counts = (extents.sizes.astype(np.int64) + size - 1) // size
    number = np.repeat(np.arange(len(extents)), counts)
    skipped = ((np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)) * size).astype(np.uint64)
    whole = extents[number]
    return Extents(whole.offsets + skipped, np.minimum(whole.sizes - skipped, np.uint64(size)))


def sample(extents: Extents, share: float) -> Extents:
    """Every 1/share-th of `extents`, evenly spread, so that no more of a corpus is read than is used."""
    numbers = np.arange(len(extents))
    return extents[np.floor((numbers + 1) * share) > np.floor(numbers * share)]


def texts(path: Path, extents: Extents) -> Iterator[bytes]:
    """The bytes of each of `extents`."""
    with open(path, "rb") as file:
        for offset, size in zip(extents.offsets.tolist(), extents.sizes.tolist()):
            yield os.pread(file.fileno(), size, offset)
