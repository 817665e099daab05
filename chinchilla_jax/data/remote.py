"""Token stores on remote paths (gs://...): fetched to local disk as far as they are read, verified by checksums."""

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chinchilla_jax.config import expanded
from chinchilla_jax.data import fs
from chinchilla_jax.data.manifest import AGAIN, DAMAGED, MANIFEST, check_files, making, parse_manifest, shards_of
from chinchilla_jax.data.own_output import UNFINISHED
from chinchilla_jax.data.split import Split, sources_of, split_in, token_dtype
from chinchilla_jax.data.streams import Remote, Separators, Shard
from chinchilla_jax.data.workspace import KEY, storage_errors
from chinchilla_jax.disk import checksum, unreachable
from chinchilla_jax.errors import UserError

CACHE = "~/.cache/chinchilla_jax/stores"
BLOCK = 1 << 23
CACHE_BYTES = 32 << 30  # most bytes of training text that are kept of a store


def open_parts(url: str, cache: Path | None = None, limit: int = CACHE_BYTES) -> tuple[Path, dict, dict[str, Split]]:
    """Folder, manifest and splits of the store at `url`: all but the training text is copied, once; that is fetched by
    block when it is read.

    A store without checksums of blocks (version 1) is copied whole. Raises `UserError` for a store that is missing,
    cannot be reached, or arrives damaged.
    """
    with reaching(url):
        text = _path(url, MANIFEST).read_bytes()
    manifest = parse_manifest(text, url)
    shards = shards_of(manifest, "train")
    later = {shard[kind] for shard in shards for kind in ("file", "index", "blocks")} if shards[0]["blocks"] else set()
    folder = copy(url, text, {name: e for name, e in manifest["files"].items() if name not in later}, cache)
    train = fetched_split(url, manifest, folder, limit) if later else split_in(folder, "train", manifest)
    return folder, manifest, {"train": train, "valid": split_in(folder, "valid", manifest)}


def fetched_split(url: str, manifest: dict, folder: Path, limit: int) -> Split:
    """The training split of a remote store, whose blocks are kept in `folder`."""
    counts, found, start = manifest["splits"]["train"], [], 0
    for shard in shards_of(manifest, "train"):
        sums = functools.lru_cache(lambda name=shard["blocks"]: block_sums(url, name, manifest, folder))
        found.append(Shard(fs.join(url, shard["file"]), sums, shard["block"], start, shard["tokens"]))
        start += shard["tokens"]
    blocks = folder / "blocks"
    blocks.mkdir(exist_ok=True)
    dtype = token_dtype(manifest["tokenizer"]["pieces"])
    tokens = Remote(found, dtype, blocks, limit)
    starts = Separators(tokens, manifest["tokenizer"]["separator"], counts["documents"])
    return Split(tokens, starts, counts["bytes"], sources_of(counts), sharded=len(found) > 1)


def block_sums(url: str, name: str, manifest: dict, folder: Path) -> np.ndarray:
    """The checksums of a shard's blocks, fetched once."""
    path = folder / name
    if not path.is_file():
        with reaching(url):
            fs.write(str(path), _path(url, name).read_bytes())
    if checksum(path) != manifest["files"][name]["xxh3_128"]:
        path.unlink()
        raise UserError(f"{url}/{name}: {DAMAGED}; {AGAIN}")
    return np.load(path)


def copy(url: str, text: bytes, files: dict, cache: Path | None = None) -> Path:
    """The local copy of the store at `url` with the manifest `text`, or of those `files` of it, made if there is none.

    Raises `UserError` for files that are missing, cannot be reached, or arrive damaged.
    """
    folder, manifest = local(url, text, cache), {"files": files}
    if (folder / MANIFEST).is_file():
        try:
            check_files(folder, manifest, checksums=False)
            return folder
        except UserError:
            shutil.rmtree(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    with storage_errors(folder):
        try:
            part.mkdir(parents=True)
            for name in files:
                with reaching(url), _path(url, name).open("rb") as source, open(part / name, "wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
            check_files(part, manifest, checksums=True)
            (part / MANIFEST).write_bytes(text)
            # Of several processes on this machine the first to finish wins; the copies are equal.
            try:
                part.rename(folder)
            except OSError:
                if not (folder / MANIFEST).is_file():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def local(url: str, manifest: bytes, cache: Path | None = None) -> Path:
    """Where the copy of the store at `url` with this manifest lies."""
    digest = hashlib.sha256(url.rstrip("/").encode() + b"\0" + manifest).hexdigest()[:24]
    return (cache or Path(expanded(CACHE))) / digest


def exists(url: str) -> bool:
    """Whether there is a finished store at `url`."""
    with reaching(url):
        return _path(url, MANIFEST).exists()


def manifest(url: str) -> dict:
    """What the manifest of the store at `url` says; nothing where there is no store."""
    with reaching(url):
        path = _path(url, MANIFEST)
        return parse_manifest(path.read_bytes(), url) if path.exists() else {}


def upload(folder: Path, url: str) -> None:
    """Copy the store in `folder` to `url`, its manifest last."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    with reaching(url):
        _path(url).mkdir(parents=True, exist_ok=True)
        _path(url, MANIFEST).unlink(missing_ok=True)
        for name in [*names, MANIFEST]:
            with open(folder / name, "rb") as source, _path(url, name).open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK)


@contextlib.contextmanager
def workspace(url: str, key: str) -> Iterator[str]:
    """A folder beside the store at `url` to prepare in, removed in the end; with the same key it is gone on with.

    A store that is there is replaced file by file: its manifest goes first.
    """
    folder = f"{url.rstrip('/')}{UNFINISHED}"
    with reaching(url):
        if not fs.exists(fs.join(folder, KEY)) or fs.read(fs.join(folder, KEY)).decode() != key:
            fs.remove(folder)
            fs.write(fs.join(folder, KEY), key.encode())
        fs.remove(fs.join(url, MANIFEST))
    try:
        yield folder
    except Exception:
        fs.remove(folder)
        raise
    fs.remove(folder)


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong on the way to `url` into one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{url}: no token store here; make one with {making(url)} or set --data.store") from error
    except (UserError, OSError):  # such as a full disk here
        raise
    except Exception as error:
        raise unreachable(url, error) from error


def _path(url: str, name: str = ""):
    from etils import epath

    return epath.Path(url) / name if name else epath.Path(url)
