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
from dataclasses import dataclass
from pathlib import Path

from chinchilla_jax.config import expanded
from chinchilla_jax.data import remote
from chinchilla_jax.data.manifest import SPLITS, VALID_TEXT, check_files, fingerprint, own_weights, read_manifest
from chinchilla_jax.data.split import Split, split_in
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError

# Checking the checksums of a larger store on every start would take seconds; its sizes are checked always.
VERIFY_BYTES = 2 << 30


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
        if is_remote(path):
            folder, manifest, splits = remote.open_parts(str(path))
        else:
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
