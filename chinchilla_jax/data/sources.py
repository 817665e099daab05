"""From the words after --data.sources to documents."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.config import DataConfig, closest, expanded
from chinchilla_jax.data import files, fs, tfds_source
from chinchilla_jax.data.documents import Document, Notes, Say, Source
from chinchilla_jax.data.naming import BUILT_IN
from chinchilla_jax.errors import UserError


def read_unit(unit: dict, notes: Notes) -> Iterator[Document]:
    """The documents of a unit; `notes` counts what cannot be read and may be passed over."""
    return tfds_source.read_unit(unit) if unit["kind"] == "tfds" else files.read_unit(unit, notes)


def open_sources(config: DataConfig, say: Say = print, skip_broken: bool = False) -> list[Source]:
    """The sources that `config.sources` names, in order; built-in data sets are downloaded and built on first use.

    A file or folder with the name of a built-in is written with a path, such as ./shakespeare. Raises `UserError` for
    a name that is nothing of these, and for text that cannot be read.
    """
    found = []
    for name in config.sources:
        if name.startswith("tfds:"):
            found.append(tfds_source.open_named(name, config))
        elif name in BUILT_IN:
            found.append(_built_in(name, config, say))
        elif files.is_there(name):
            if files.uncompressed(name).endswith((".csv", ".tsv")):
                say(f"note: {name} is read as one text, header and all; for a row a document write it as .jsonl")
            found.append(_local(name, config, skip_broken))
        else:
            raise UserError(
                f"--data.sources: {name!r} is no file, no folder and no built-in{closest(name, BUILT_IN)}; "
                f"built in are {', '.join(BUILT_IN)}, and tfds:NAME/CONFIG:SPLIT names a TFDS data set"
            )
    return found


def _local(name: str, config: DataConfig, skip_broken: bool = False) -> Source:
    downloads = (tfds_source.data_dir(config),) if config.data_dir else ()
    return files.open_path(name, config.field, skip_broken, downloads)


def _built_in(name: str, config: DataConfig, say: Say) -> Source:
    from chinchilla_jax.data.builders.download import Unreachable

    try:
        return tfds_source.open_built_in(name, config, say)
    except Unreachable as error:
        if not config.fallback or config.sources != (name,):
            raise UserError(
                f"{error}; or take another text: --data.sources docstrings needs no download, your own file neither"
            ) from error
        say(f"WARNING: {error}")
        say(f"WARNING: taking {config.fallback} in place of {name} (--data.fallback)")
        [source] = open_sources(dataclasses.replace(config, sources=(config.fallback,), fallback=""), say)
        return source


def states(config: DataConfig) -> dict[str, str]:
    """For each source of local files, and each file to decontaminate against, a hash that changes when these do."""
    names = [name for name in config.sources if not name.startswith("tfds:") and name not in BUILT_IN]
    found = {name: _local(name, config).state for name in names if files.is_there(name)}
    against = [name for name in config.decontaminate if fs.exists(expanded(name)) and not Path(expanded(name)).is_dir()]
    return found | {f"--data.decontaminate {name}": _content(expanded(name)) for name in against}


def _content(path: str) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(fs.read(path))
