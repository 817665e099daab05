"""Weights with zeros as they are stored: a bit a weight and the values, or the N of every M neighbours that are kept.

A leaf stands in a safetensors file under its path as it is, or as

    PATH.mask, PATH.values     uint8, a bit a weight in C order, 1 where it is not +0; the weights there
    PATH.index, PATH.values    uint8, ceil(log2 M) bits a kept weight, its place in its group of M inputs, layer by
                               layer and output by output; (groups, N), zeros included

whichever is smaller; the file's metadata have shapes and patterns. What is read back is what was written, bit for bit.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.optim.patterns import matrix

FILE = "sparse.safetensors"
PATTERNS = ((1, 4), (2, 4), (4, 8))
META = "chinchilla_jax"


def write(path: Path, leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write leaves by path; `facts` are kept beside them."""
    from safetensors.numpy import save_file

    tensors, how = {}, {}
    for name, leaf in leaves.items():
        found, how[name] = packed(name, np.ascontiguousarray(leaf))
        tensors |= found
    save_file(tensors, path, metadata={META: json.dumps({"leaves": how, **facts}), "format": "np"})


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The leaves by path, and the facts."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get(META, "{}"))
            how = facts.pop("leaves", {})
            require(bool(how), f"{path} was not written by export --format sparse; write it again")
            return {name: unpacked(name, how[name], file.get_tensor) for name in how}, facts
    except SafetensorError as error:
        require(False, f"{path} is damaged ({error}); write it again with export --format sparse")


def packed(name: str, leaf: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a leaf, and how to put them together."""
    how = {"shape": list(leaf.shape), "dtype": leaf.dtype.name}
    dense = {name: leaf}
    if not name.endswith("/kernel"):
        return dense, how
    kept = _bits(leaf).reshape(-1) != 0
    mask = {f"{name}.mask": np.packbits(kept), f"{name}.values": leaf.reshape(-1)[kept]}
    ways = [(dense, how), (mask, how | {"pattern": "mask"})]
    for n, m in PATTERNS:
        if found := _n_m(name, leaf, n, m):
            ways.append((found, how | {"pattern": f"{n}:{m}"}))
    # Of equal sizes the later: groups of fixed length are what a kernel could read.
    return min(reversed(ways), key=lambda way: sum(x.nbytes for x in way[0].values()))


def unpacked(name: str, how: dict[str, Any], get) -> np.ndarray:
    """A leaf from its tensors."""
    pattern, shape = how.get("pattern", ""), tuple(how["shape"])
    if not pattern:
        return get(name)
    values, made = get(f"{name}.values"), np.zeros(math.prod(shape), how["dtype"])
    if pattern == "mask":
        made[np.unpackbits(get(f"{name}.mask"), count=made.size).astype(bool)] = values
        return made.reshape(shape)
    n, m = map(int, pattern.split(":"))
    bits = (m - 1).bit_length()
    places = np.unpackbits(get(f"{name}.index"), count=values.size * bits).reshape(-1, n, bits)
    groups = made.reshape(-1, m)
    np.put_along_axis(groups, (places @ (1 << np.arange(bits)[::-1])).astype(np.int64), values, axis=1)
    N, P, Q = matrix(name, shape)
    return np.ascontiguousarray(groups.reshape(N, Q, P).swapaxes(1, 2)).reshape(shape)


def _bits(x: np.ndarray) -> np.ndarray:
    """The bits of every number: -0 is none that may be left out."""
    return x.view(f"u{x.dtype.itemsize}")


def _n_m(name: str, leaf: np.ndarray, n: int, m: int) -> dict[str, np.ndarray]:
    """The leaf packed N:M; nothing where a group has more than N weights."""
    N, P, Q = matrix(name, leaf.shape)
    if P % m:
        return {}
    groups = np.ascontiguousarray(leaf.reshape(N, P, Q).swapaxes(1, 2)).reshape(-1, m)
    kept = _bits(groups) != 0
    if kept.sum(1).max(initial=0) > n:
        return {}
    places = np.sort(np.argsort(~kept, axis=1, kind="stable")[:, :n], axis=1)
    bits = places[..., None] >> np.arange((m - 1).bit_length())[::-1] & 1
    values = np.take_along_axis(groups, places, axis=1)
    return {f"{name}.index": np.packbits(bits.astype(np.uint8)), f"{name}.values": values}
