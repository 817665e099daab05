"""The token store: a flat memory-mapped stream of tokens with a document index and a manifest.

    tokenizer.json or tokenizer.model
    train.bin valid.bin          little-endian uint16, or uint32 above 65,536 pieces
    valid.txt         train.idx.npy valid.idx.npy  uint64, where each document's separator stands
    manifest.json     written last, so a folder without it is no store

A document is the separator followed by its tokens; one more separator ends the stream, so that the separator is the
target of every document's last token. `valid.txt` is the validation text, byte for byte.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chinchilla_jax.config import expanded
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import NAMES, open_tokenizer
from chinchilla_jax.errors import UserError

VERSION = 1
SPLITS = ("train", "valid")
MANIFEST = "manifest.json"
VALID_TEXT = "valid.txt"
FILES = {VALID_TEXT, *(f"{name}{end}" for name in SPLITS for end in (".bin", ".idx.npy"))}
AGAIN = "write the store again with `python -m chinchilla_jax prepare --force`"
# Checking the checksums of a larger store on every start would take seconds; its sizes are checked always.
VERIFY_BYTES = 2 << 30


@dataclass(frozen=True)
class Split:
    """A stream of tokens (T,), where its documents start (n,), and how many bytes of text it stands for."""

    tokens: np.ndarray
    starts: np.ndarray
    bytes: int

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

    @classmethod
    def open(cls, path: str | Path, verify: bool | None = None) -> "TokenStore":
        """Open the store at `path`; a remote one (gs://...) is first copied to local disk.

        `verify` compares checksums; None does so up to 2 GiB and compares sizes beyond. Raises `UserError` for a
        store that is missing, damaged or of another version.
        """
        folder = localise(str(path))
        manifest = read_manifest(folder)
        total = sum(entry["bytes"] for entry in manifest["files"].values())
        check_files(folder, manifest, total <= VERIFY_BYTES if verify is None else verify)
        splits = {name: _split(folder, name, manifest) for name in SPLITS}
        return cls(folder, manifest, fingerprint(manifest), **splits)

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


def localise(path: str) -> Path:
    """The local folder of the store at `path`."""
    if "://" not in path:
        return Path(expanded(path))
    from chinchilla_jax.data import remote

    return remote.copy(path)


def read_manifest(folder: Path) -> dict:
    """The manifest of the store in `folder`, or a one-line `UserError`."""
    mend = "make one with `python -m chinchilla_jax prepare`"
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder}: no token store here; {mend} or set --data.store") from error


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
            and set(manifest["files"]) >= FILES
            and bool({*NAMES} & {*manifest["files"]})
            and manifest["tokenizer"]["pieces"] > 0
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: {MANIFEST} is damaged; {AGAIN}") from error
    if version != VERSION:
        raise UserError(f"{where}: token store of version {version}, this program reads {VERSION}; {AGAIN}")
    if not (complete and sealed):
        raise UserError(f"{where}: {MANIFEST} is damaged; {AGAIN}")
    return manifest


def seal(manifest: dict) -> str:
    """The checksum of a manifest's other entries, which stands in the manifest itself."""
    import xxhash

    rest = {name: value for name, value in manifest.items() if name != "xxh3_128"}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True).encode())


def check_files(folder: Path, manifest: dict, checksums: bool) -> None:
    """Compare the files with the manifest's sizes, and with its checksums if asked; `UserError` names the file."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing from the token store; {AGAIN}")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected {entry['bytes']:,}; {AGAIN}")
        if checksums and checksum(path) != entry["xxh3_128"]:
            raise UserError(f"{path}: damaged, its checksum is not the manifest's; {AGAIN}")


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


def token_dtype(pieces: int) -> np.dtype:
    """The smallest type that holds the ids of a tokenizer with `pieces` pieces."""
    return np.dtype("<u2") if pieces <= 1 << 16 else np.dtype("<u4")


def _index(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{path}: damaged; {AGAIN}") from error


def _split(folder: Path, name: str, manifest: dict) -> Split:
    counts = manifest["splits"][name]
    tokens = np.memmap(folder / f"{name}.bin", token_dtype(manifest["tokenizer"]["pieces"]), mode="r")
    starts = _index(folder / f"{name}.idx.npy")
    if len(tokens) != counts["tokens"] or len(starts) != counts["documents"]:
        raise UserError(f"{folder}: {name}.bin and its index disagree with {MANIFEST}; {AGAIN}")
    return Split(tokens, starts, counts["bytes"])
