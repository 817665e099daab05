"""The built-in sources, and the store that is named after a source; light, since every command asks."""

import dataclasses
from pathlib import Path

from chinchilla_jax.config import DataConfig, expanded

BUILT_IN = ("shakespeare", "debian_docs", "docstrings")


def is_pattern(path: str) -> bool:
    """Whether `path` stands for all that it matches."""
    return any(c in path for c in "*?[")


def with_store(config: DataConfig) -> DataConfig:
    """`config` with its store's folder: where none is set, data/NAME after the first source.

    NAME is shakespeare for the built-in, books for books/, for books.txt.gz and for books/*.txt, and c4 for
    tfds:c4/en:train. A source that lies at data/NAME itself gets data/NAME-tokens beside it, and one that is the folder
    data gets data-tokens.
    """
    if config.store:
        return config
    source = config.sources[0]
    path = Path(expanded(source))
    while is_pattern(path.name) and not path.exists():
        path = path.parent
    if source in BUILT_IN:
        name = source
    elif source.startswith("tfds:"):
        name = source.removeprefix("tfds:").partition(":")[0].partition("/")[0]
    elif path.is_dir():
        name = path.resolve().name if path.name in ("", "..") else path.name
    else:
        name = Path(path.name.removesuffix(".gz").removesuffix(".zst")).stem
    store = Path("data", name or "text")
    clash = source not in BUILT_IN and store.resolve() == path.resolve()
    if source not in BUILT_IN and store.parent.resolve() == path.resolve():
        store, clash = Path(name or "text"), True
    return dataclasses.replace(config, store=f"{store}-tokens" if clash else str(store))
