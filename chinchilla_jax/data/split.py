"""A split of a token store: its stream of tokens, where documents start, and which part is of which source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.data.manifest import AGAIN, MANIFEST, again, shards_of
from chinchilla_jax.data.streams import Index, Remote, Separators, Shards
from chinchilla_jax.errors import UserError


@dataclass(frozen=True)
class Part:
    """Tokens [start, stop) of a stream, all of one source, and how many bytes of text they stand for."""

    name: str
    start: int
    stop: int
    bytes: int


@dataclass(frozen=True)
class Split:
    """A stream of tokens (T,), where its documents start (n,), and how many bytes of text it stands for.

    `sources` are its parts in order, one a source. Tokens and starts are arrays or read like arrays (`streams`).
    """

    tokens: np.ndarray | Shards | Remote
    starts: np.ndarray | Index | Separators
    bytes: int
    sources: tuple[Part, ...] = ()
    sharded: bool = False

    def of(self, part: Part) -> "Split":
        """The part of one source as a stream of its own."""
        tokens, starts = self.tokens[part.start : part.stop + 1], np.asarray(self.starts)
        first, last = np.searchsorted(starts.view(np.int64), [part.start, part.stop])
        return Split(tokens, starts[first:last] - np.uint64(part.start), part.bytes)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text for each target, the separators among them counted."""
        return self.bytes / (len(self.tokens) - 1)


def split_in(folder: Path, name: str, manifest: dict) -> Split:
    """A split whose files are all in `folder`."""
    counts, shards = manifest["splits"][name], shards_of(manifest, name)
    dtype = token_dtype(manifest["tokenizer"]["pieces"])
    tokens = [np.memmap(folder / shard["file"], dtype, mode="r") for shard in shards]
    starts = [_index(folder / shard["index"]) for shard in shards]
    if sum(map(len, tokens)) != counts["tokens"] or sum(map(len, starts)) != counts["documents"]:
        raise UserError(f"{folder}: {name}.bin and its index disagree with {MANIFEST}; {again(folder, manifest)}")
    if len(shards) == 1:
        return Split(tokens[0], starts[0], counts["bytes"], sources_of(counts))
    return Split(Shards(tokens), Index(starts), counts["bytes"], sources_of(counts), sharded=True)


def _index(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{path}: damaged; {AGAIN}") from error


def sources_of(counts: dict) -> tuple[Part, ...]:
    """Where the text of each source stands in a split; nothing is known of it in a store of version 1."""
    found, start = [], 0
    for source in counts.get("sources", ()):
        found.append(Part(source["name"], start, start + source["tokens"], source["bytes"]))
        start += source["tokens"]
    return tuple(found)


def block_bytes(size: int) -> int:
    """Bytes of a stream of `size` bytes that have a checksum of their own and are fetched together: a power of two."""
    return 1 << min(22, max(12, (size >> 10).bit_length()))


def token_dtype(pieces: int) -> np.dtype:
    """The smallest type that holds the ids of a tokenizer with `pieces` pieces."""
    return np.dtype("<u2") if pieces <= 1 << 16 else np.dtype("<u4")
