"""manifest.json: what a token store says of itself, and whether its files are those."""

import hashlib
import json
import shlex
from pathlib import Path

from chinchilla_jax.config import DataConfig, differences, flag, to_dict
from chinchilla_jax.data.naming import with_store
from chinchilla_jax.data.tokenizers import NAMES
from chinchilla_jax.disk import checksum
from chinchilla_jax.errors import UserError

VERSION, VERSIONS = 2, (1, 2)  # what is written, and what is read
SPLITS = ("train", "valid")
MANIFEST = "manifest.json"
VALID_TEXT = "valid.txt"
DAMAGED = "damaged, its checksum is not the manifest's"
AGAIN = "make it again from its text: `python -m chinchilla_jax prepare --data.sources TEXT --data.store STORE --force`"


def again(folder: Path, manifest: dict) -> str:
    """The advice for a damaged store: the command that makes the same one, where its manifest tells the settings."""
    if "settings" not in manifest:
        return AGAIN
    told = {"store": str(folder), **manifest["settings"]}
    flags = ["--data.sources", *told.pop("sources")]
    for name, (default, value) in differences(to_dict(DataConfig()), told, "data.").items():
        if None not in (default, value):  # the same settings, of whichever version
            flags += [flag(name), *map(str, value if isinstance(value, list) else [value])]
    return f"make it again: `python -m chinchilla_jax prepare {shlex.join(flags)} --force`"


def read_manifest(folder: Path) -> dict:
    """The manifest of the store in `folder`, or a one-line `UserError`."""
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        seen = "" if folder.is_absolute() else f" (relative to {Path.cwd()})"
        raise UserError(
            f"{folder}{seen}: no token store here; name its folder with --data.store, or make one with "
            f"{making(str(folder))}"
        ) from error


def making(store: str) -> str:
    """The command that makes a token store in `store`."""
    words = [] if store == with_store(DataConfig()).store else ["--data.sources", "TEXT", "--data.store", store]
    return f"`{shlex.join(['python', '-m', 'chinchilla_jax', 'prepare', *words])}`"


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
    return digest({name: value for name, value in manifest.items() if name != "xxh3_128"})


def digest(values: dict) -> str:
    """A hash of plain values."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


def check_files(folder: Path, manifest: dict, checksums: bool) -> None:
    """Compare the files with the manifest's sizes, and with its checksums if asked; `UserError` names the file."""
    for name, entry in manifest["files"].items():
        path, flaw = folder / name, ""
        if not path.is_file():
            flaw = "missing from the token store"
        elif path.stat().st_size != entry["bytes"]:
            flaw = f"{path.stat().st_size:,} bytes, expected {entry['bytes']:,}"
        elif checksums and checksum(path) != entry["xxh3_128"]:
            flaw = DAMAGED
        if flaw:
            raise UserError(f"{path}: {flaw}; {again(folder, manifest)}")


def fingerprint(manifest: dict) -> str:
    """One hash over the checksums of all files and the tokenizer's."""
    parts = [f"{name}:{entry['xxh3_128']}" for name, entry in sorted(manifest["files"].items())]
    return hashlib.sha256("\n".join([*parts, manifest["tokenizer"]["sha256"]]).encode()).hexdigest()


def shards_of(manifest: dict, name: str) -> list[dict]:
    """The shards of a split; a store of version 1 has one without blocks."""
    counts = manifest["splits"][name]
    one = {"file": f"{name}.bin", "index": f"{name}.idx.npy", "tokens": counts["tokens"], "blocks": ""}
    return counts.get("shards") or [one]


def own_weights(manifest: dict) -> tuple[float, ...]:
    """The weights of the sources that the store was prepared with."""
    return tuple(manifest["settings"].get("weights", ()))
