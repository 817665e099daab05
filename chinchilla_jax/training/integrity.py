"""Proof that a checkpoint is what was saved: a checksum per file, a fingerprint per leaf, one manifest over both."""

import functools
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import xxhash
from jax.sharding import NamedSharding

from chinchilla_jax.disk import checksum, files_below, is_remote, sync
from chinchilla_jax.parallel.sharding import replicated

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 64 << 20  # bytes; a stranger's file is bounded before it is read


class Damaged(Exception):
    """A checkpoint is not what was saved; the message names the file or the leaf."""


def fingerprint(leaves: dict[str, jax.Array]) -> jax.Array:
    """(leaves, 2) uint32, dispatched but not awaited: for each leaf with words w_0 .. w_(n-1), modulo 2^32,

        plain = sum_i w_i        weighted = sum_i (i + 1) w_i

    where the words are the bits of the elements in row-major order, 8 and 16 bits widened to 32, 64 bits as two
    words, low first. Wrapping sums commute, so any sharding of the leaf gives the same figures.
    """
    meshes = [x.sharding.mesh for x in leaves.values() if isinstance(x.sharding, NamedSharding)]
    everywhere = replicated(meshes[0]) if meshes else None
    return _program(everywhere)(list(leaves.values()))


@functools.cache
def _program(sharding: NamedSharding | None):
    return jax.jit(lambda leaves: jnp.stack([_sums(x) for x in leaves]), out_shardings=sharding)


def _sums(x: jax.Array) -> jax.Array:
    words = _words(x)
    # The position comes from an iota per axis: a reshape to one axis would gather a sharded leaf.
    position, stride = jnp.ones(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        iota = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position += iota * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.stack([jnp.sum(words, dtype=jnp.uint32), jnp.sum(words * position, dtype=jnp.uint32)])


def _words(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    width = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)


def list_files(folder: Any) -> dict[str, int]:
    """Relative path -> bytes of everything below `folder` but the manifest; only plain files are allowed."""
    if is_remote(folder):
        return {name: size for name, size in files_below(folder).items() if name != MANIFEST}
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(parent, name)
            info, relative = path.lstat(), path.relative_to(folder).as_posix()
            if stat.S_ISREG(info.st_mode):
                found[relative] = info.st_size
            elif not stat.S_ISDIR(info.st_mode):
                raise Damaged(f"{relative} is neither a file nor a folder")
    found.pop(MANIFEST, None)
    return found


def hash_files(folder: Any, names: list[str]) -> list[str]:
    """Checksums of files below `folder`, a few at a time (xxhash works outside the interpreter lock)."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda name: checksum(folder / name), names))


def own_checksums(folder: Any, process: int) -> dict[str, str]:
    """Checksums of the files that a process wrote: Orbax names a folder in each item after it."""
    names = [name for name in list_files(folder) if f"ocdbt.process_{process}" in name.split("/")]
    return dict(zip(names, hash_files(folder, names)))


def write_manifest(folder: Any, facts: dict[str, Any], known: dict[str, str]) -> int:
    """Write the commit mark of a complete step folder: `facts`, every file, and a checksum of the manifest itself.

    `known` are checksums that are there already, by path; the other files are read. Returns the bytes of all files.
    """
    sizes = list_files(folder)
    left = [name for name in sizes if name not in known]
    hashes = known | dict(zip(left, hash_files(folder, left)))
    files = [{"path": name, "size": size, "xxh3_128": hashes[name]} for name, size in sizes.items()]
    with (folder / MANIFEST).open("wb") as file:
        file.write(_render({**facts, "files": files}))
        if not is_remote(folder):
            file.flush()
            os.fsync(file.fileno())
    if not is_remote(folder):
        sync(folder)
    return sum(sizes.values())


def _render(body: dict) -> bytes:
    """The one spelling of a manifest; its last field is the checksum of the rest."""
    checksum = xxhash.xxh3_128(json.dumps(body).encode()).hexdigest()
    return (json.dumps({**body, "checksum": checksum}, indent=1) + "\n").encode()


def read_manifest(folder: Any) -> dict[str, Any]:
    """The manifest of a step folder, or `Damaged`. Any change of any byte of it is noticed."""
    path = folder / MANIFEST
    try:
        if not is_remote(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise Damaged(f"{MANIFEST} is not a plain file")
        with path.open("rb") as file:
            content = file.read(MANIFEST_LIMIT + 1)
        body = json.loads(content)
    except FileNotFoundError:
        raise Damaged(f"{MANIFEST} is missing") from None
    except (ValueError, RecursionError):
        raise Damaged(f"{MANIFEST} is not valid JSON") from None
    # Comparing the text, not only the values, also notices a changed space or a doubled key.
    if not isinstance(body, dict) or not body.pop("checksum", None) or _render(body) != content:
        raise Damaged(f"{MANIFEST} does not match its own checksum")
    if not _well_formed(body):
        raise Damaged(f"{MANIFEST} lacks fields that this version needs")
    return body


def complete(folder: Any) -> bool:
    """Whether a step folder has a manifest as it was written."""
    try:
        return bool(read_manifest(folder))
    except (Damaged, OSError):
        return False


def _well_formed(body: dict) -> bool:
    """Whether a manifest has the fields that a restore reads, of the right types."""
    try:
        files = all(type(f["path"]) is type(f["xxh3_128"]) is str and type(f["size"]) is int for f in body["files"])
        leaves = all(
            type(leaf["dtype"]) is str and all(type(number) is int for number in [*leaf["shape"], *leaf["fingerprint"]])
            for leaf in body["leaves"].values()
        )
        mesh = all(type(size) is int for size in body.get("mesh", {}).values())
        return files and leaves and mesh and type(body["step"]) is int and type(body["meta"]) is dict
    except (KeyError, TypeError, AttributeError):
        return False


def check_sizes(folder: Any, manifest: dict) -> None:
    """Raise `Damaged` unless the files are exactly those of the manifest, in size."""
    want, have = {f["path"]: f for f in manifest["files"]}, list_files(folder)
    for name in sorted(want.keys() | have.keys()):
        if name not in have:
            raise Damaged(f"{name} is missing")
        if name not in want:
            raise Damaged(f"{name} does not belong to it")
        if have[name] != want[name]["size"]:
            raise Damaged(f"{name} has {have[name]} bytes instead of {want[name]['size']}")


def check_contents(folder: Any, manifest: dict, names: list[str]) -> None:
    """Raise `Damaged` unless these files hold what they held."""
    want = {f["path"]: f["xxh3_128"] for f in manifest["files"]}
    for name, found in zip(names, hash_files(folder, names)):
        if found != want[name]:
            raise Damaged(f"{name} does not match its checksum")
