"""safetensors files, one or many: headers checked before anything is read, tensors read in parts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.disk import plain, read_json
from chinchilla_jax.errors import UserError

FLOATS = ("F32", "F16", "BF16")


class Tensors:
    """The tensors of a folder's .safetensors files by name. A file is open only while a tensor is read from it.

    A mapped file counts as memory of this process for as long as it is mapped.
    """

    def __init__(self, files: dict[str, Path]):
        self._file = files
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        by_file: dict[Path, list[str]] = {}
        for name, path in files.items():
            by_file.setdefault(path, []).append(name)
        for path, names in by_file.items():
            self._look(path, names)

    def _look(self, path: Path, names: list[str]) -> None:
        with opened(path) as file:
            there = set(file.keys())
            for name in names:
                require(name in there, f"{path} has no tensor {name}, which the index says is there; get it again")
            more = sorted(there - set(names))
            require(not more, f"{path} holds {', '.join(more[:3])}, which the index does not name; get both again")
            for name in names:
                part = file.get_slice(name)
                self.shapes[name], self.dtypes[name] = tuple(part.get_shape()), part.get_dtype()

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor."""
        with opened(self._file[name]) as file:
            found = file.get_slice(name)
            return found[index] if index else file.get_tensor(name)

    def rows(self, name: str, count: int = 4096) -> Iterator[np.ndarray]:
        """A whole tensor, some rows at a time."""
        for start in range(0, self.shapes[name][0], count):
            yield self.read(name, (slice(start, min(start + count, self.shapes[name][0])),))


def opened(path: Path):
    """An open safetensors file; a damaged one is a `UserError`."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(plain(path), framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}); get it again") from error


def locate(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Name of a tensor -> file that has it, and the files read, of a folder with one file or with an index."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists() or single.is_symlink():
        with opened(single) as file:
            return dict.fromkeys(file.keys(), single), [single]
    if not index.exists() and not index.is_symlink():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
        named = sorted(p.name for p in folder.glob("*.safetensors"))
        also = f"; {others[0]} is of a kind that is not loaded, save it as safetensors" if others else ""
        also = f"; {named[0]} is not read under this name" if named else also
        raise UserError(f"{folder} holds no weights: no model.safetensors and no model.safetensors.index.json{also}")
    table = read_json(index).get("weight_map")
    require(isinstance(table, dict) and bool(table), f"{index} has no weight_map; get it again")
    for name, file in table.items():
        ok = isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors") and len(file) < 256
        require(ok, f"{index} puts {name} into {str(file)[:80]!r}, which is no name of a .safetensors file beside it")
    shards = {file: folder / file for file in sorted(set(table.values()))}
    lost = [file for file, path in shards.items() if not path.exists()]
    require(not lost, f"{folder} lacks {len(lost)} of {len(shards)} shards: {', '.join(lost[:3])}; get them again")
    return {name: shards[file] for name, file in table.items()}, [index, *shards.values()]
