"""The token store: a flat memory-mapped stream of tokens with a document index and a manifest.

    tokenizer.json or tokenizer.model
    train.bin valid.bin                   little-endian uint16, or uint32 above 65,536 pieces
    train.idx.npy valid.idx.npy           uint64, where each document's separator stands
    train.blocks.npy valid.blocks.npy     uint64, xxh3_64 of every block (from version 2 on)
    valid.txt
    manifest.json     written last, so a folder without it is no store

A long stream is cut into shards, train-00000-of-00008.bin and so on; the manifest has the tokens of each. Documents
stand by source, in the order of `--data.sources`, and within a source in the order of a hash.

A document is the separator followed by its tokens; one more separator ends the stream, so that the separator is the
target of every document's last token. `valid.txt` is the validation text, byte for byte.
"""

import dataclasses
import functools
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.config import DataConfig, expanded, to_dict
from chinchilla_jax.data.streams import Index, Remote, Separators, Shards
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import NAMES, open_tokenizer
from chinchilla_jax.errors import UserError

VERSION, VERSIONS = 2, (1, 2)  # what is written, and what is read
SPLITS = ("train", "valid")
MANIFEST = "manifest.json"
VALID_TEXT = "valid.txt"
AGAIN = "make it again from its text: `python -m chinchilla_jax prepare --data.sources TEXT --data.store STORE --force`"
# Checking the checksums of a larger store on every start would take seconds; its sizes are checked always.
VERIFY_BYTES = 2 << 30


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


@dataclass(frozen=True)
class TokenStore:
    """An opened store; see `TokenStore.open`."""

    path: Path
    manifest: dict
    fingerprint: str
    train: Split
    valid: Split
    weights: tuple[float, ...] = ()

    def mixed(self, weights: tuple[float, ...]) -> "TokenStore":
        """This store with other weights of its sources, or with its own for none; other weights are other data."""
        if not weights or tuple(weights) == self.weights:
            return self
        parts = self.train.sources
        if len(weights) != len(parts):
            names = ", ".join(part.name for part in parts) or "of which it keeps no account; prepare it again"
            raise UserError(f"--data.weights has {len(weights)} weights for {len(parts)} sources in the store: {names}")
        for part, weight in zip(parts, weights):
            if weight and part.start == part.stop:
                raise UserError(f"--data.weights gives {weight:g} to {part.name}, which has no training text left")
        mark = hashlib.sha256(f"{self.fingerprint} {list(weights)}".encode()).hexdigest()
        return dataclasses.replace(self, weights=tuple(weights), fingerprint=mark)

    @classmethod
    def open(cls, path: str | Path, verify: bool | None = None) -> "TokenStore":
        """Open the store at `path`; of a remote one (gs://...) blocks of the training text are fetched when needed.

        `verify` compares checksums; None does so up to 2 GiB and compares sizes beyond. Raises `UserError` for a
        store that is missing, damaged or of another version.
        """
        if "://" in str(path):
            from chinchilla_jax.data import remote

            return remote.open_store(str(path))
        folder = Path(expanded(str(path)))
        manifest = read_manifest(folder)
        total = sum(entry["bytes"] for entry in manifest["files"].values())
        check_files(folder, manifest, total <= VERIFY_BYTES if verify is None else verify)
        splits = {name: split_in(folder, name, manifest) for name in SPLITS}
        return cls(folder, manifest, fingerprint(manifest), **splits).mixed(own_weights(manifest))

    @property
    def tokenizer_sha256(self) -> str:
        """The tokenizer's hash, known without loading it."""
        return self.manifest["tokenizer"]["sha256"]

    @functools.cached_property
    def tokenizer(self) -> BaseTokenizer:
        """The store's tokenizer, loaded on first use."""
        return open_tokenizer(self.path)

    @property
    def valid_text(self) -> Path:
        """The file with the validation text."""
        return self.path / VALID_TEXT


def again(folder: Path, manifest: dict) -> str:
    """The advice for a damaged store: the command that makes the same one, where its manifest tells the settings."""
    if "settings" not in manifest:
        return AGAIN
    told, default = {"store": str(folder), **manifest["settings"]}, to_dict(DataConfig())
    flags = ["--data.sources", *told.pop("sources")]
    for name, value in told.items():
        if name in default and value != default[name]:
            flags += [f"--data.{name.replace('_', '-')}", str(value)]
    return f"make it again: `python -m chinchilla_jax prepare {shlex.join(flags)} --force`"


def read_manifest(folder: Path) -> dict:
    """The manifest of the store in `folder`, or a one-line `UserError`."""
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        seen = "" if folder.is_absolute() else f" (relative to {Path.cwd()})"
        raise UserError(
            f"{folder}{seen}: no token store here; name its folder with --data.store, or make one with "
            "`python -m chinchilla_jax prepare`"
        ) from error


def parse_manifest(text: bytes, where: str) -> dict:
    """The checked contents of a manifest."""
    try:
        manifest = json.loads(text)
        sealed = manifest["xxh3_128"] == seal(manifest)
        version = manifest["version"]
        counted = all(manifest["splits"][name][key] > 0 for name in SPLITS for key in ("tokens", "documents", "bytes"))
        named = all(Path(name).name == name and entry["bytes"] >= 0 for name, entry in manifest["files"].items())
        complete = (
            counted
            and named
            and set(manifest["files"]) >= {VALID_TEXT, *stream_files(manifest)}
            and bool({*NAMES} & {*manifest["files"]})
            and manifest["tokenizer"]["pieces"] > 0
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: {MANIFEST} is damaged; {AGAIN}") from error
    if version not in VERSIONS:
        raise UserError(f"{where}: token store of version {version}, this program reads {VERSION}; {AGAIN}")
    if not (complete and sealed):
        raise UserError(f"{where}: {MANIFEST} is damaged; {AGAIN}")
    return manifest


def stream_files(manifest: dict) -> list[str]:
    """The files that hold the tokens of both splits and where documents start in them."""
    of = [shard for name in SPLITS for shard in shards_of(manifest, name)]
    return [shard[kind] for shard in of for kind in ("file", "index", "blocks") if shard[kind]]


def seal(manifest: dict) -> str:
    """The checksum of a manifest's other entries, which stands in the manifest itself."""
    import xxhash

    rest = {name: value for name, value in manifest.items() if name != "xxh3_128"}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True).encode())


def check_files(folder: Path, manifest: dict, checksums: bool) -> None:
    """Compare the files with the manifest's sizes, and with its checksums if asked; `UserError` names the file."""
    for name, entry in manifest["files"].items():
        path, flaw = folder / name, ""
        if not path.is_file():
            flaw = "missing from the token store"
        elif path.stat().st_size != entry["bytes"]:
            flaw = f"{path.stat().st_size:,} bytes, expected {entry['bytes']:,}"
        elif checksums and checksum(path) != entry["xxh3_128"]:
            flaw = "damaged, its checksum is not the manifest's"
        if flaw:
            raise UserError(f"{path}: {flaw}; {again(folder, manifest)}")


CHUNK = 1 << 20  # bytes that are hashed at a time


def checksum(path: Path) -> str:
    """xxh3_128 of a file, streamed, as hexadecimal."""
    import xxhash

    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def fingerprint(manifest: dict) -> str:
    """One hash over the checksums of all files and the tokenizer's."""
    parts = [f"{name}:{entry['xxh3_128']}" for name, entry in sorted(manifest["files"].items())]
    return hashlib.sha256("\n".join([*parts, manifest["tokenizer"]["sha256"]]).encode()).hexdigest()


def block_bytes(size: int) -> int:
    """Bytes of a stream of `size` bytes that have a checksum of their own and are fetched together: a power of two."""
    return 1 << min(22, max(12, (size >> 10).bit_length()))


def token_dtype(pieces: int) -> np.dtype:
    """The smallest type that holds the ids of a tokenizer with `pieces` pieces."""
    return np.dtype("<u2") if pieces <= 1 << 16 else np.dtype("<u4")


def _index(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{path}: damaged; {AGAIN}") from error


def shards_of(manifest: dict, name: str) -> list[dict]:
    """The shards of a split; a store of version 1 has one without blocks."""
    counts = manifest["splits"][name]
    one = {"file": f"{name}.bin", "index": f"{name}.idx.npy", "tokens": counts["tokens"], "blocks": ""}
    return counts.get("shards") or [one]


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


def own_weights(manifest: dict) -> tuple[float, ...]:
    """The weights of the sources that the store was prepared with."""
    return tuple(manifest["settings"].get("weights", ()))


def sources_of(counts: dict) -> tuple[Part, ...]:
    """Where the text of each source stands in a split; nothing is known of it in a store of version 1."""
    found, start = [], 0
    for source in counts.get("sources", ()):
        found.append(Part(source["name"], start, start + source["tokens"], source["bytes"]))
        start += source["tokens"]
    return tuple(found)
