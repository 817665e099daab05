"""From the words after --data.sources to documents."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chinchilla_jax.config import DataConfig, closest, expanded
from chinchilla_jax.errors import UserError

BUILT_IN = ("shakespeare", "debian_docs", "docstrings")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Document:
    """A text, the source it came from and its name there; `split` is train or valid if the source says so."""

    text: str
    source: str
    key: str
    split: str = ""


@dataclass
class Notes:
    """What a reader found beside documents."""

    skipped: Counter = field(default_factory=Counter)  # kind of what is left out -> how many
    said: Counter = field(default_factory=Counter)  # what a reader should know -> how many it concerns
    records: int = 0  # documents that --data.field was looked up for


@dataclass
class Source(Notes):
    """One entry of --data.sources: parts to read, its licence, and a state that changes when its content does.

    A unit is a part that one process reads: a plain dict with the `kind` of its reader, about how many `bytes` of text
    it holds, and whatever that reader needs.
    """

    name: str = ""
    licence: str = ""
    units: list[dict] = field(default_factory=list)
    state: str = ""

    def documents(self) -> Iterator[Document]:
        """All documents, in order."""
        for unit in self.units:
            yield from read_unit(unit, self)


def read_unit(unit: dict, notes: Notes) -> Iterator[Document]:
    """The documents of a unit; `notes` counts what cannot be read and may be passed over."""
    from chinchilla_jax.data import files

    if unit["kind"] == "tfds":
        from chinchilla_jax.data import tfds_source

        return tfds_source.read_unit(unit)
    return files.read_unit(unit, notes)


def open_sources(config: DataConfig, say: Say = print, skip_broken: bool = False) -> list[Source]:
    """The sources that `config.sources` names, in order; built-in data sets are downloaded and built on first use.

    A file or folder with the name of a built-in is written with a path, such as ./shakespeare. Raises `UserError` for
    a name that is nothing of these, and for text that cannot be read.
    """
    found = []
    for name in config.sources:
        if name.startswith("tfds:"):
            from chinchilla_jax.data import tfds_source

            found.append(tfds_source.open_named(name, config))
        elif name in BUILT_IN:
            found.append(_built_in(name, config, say))
        elif "://" in name or Path(expanded(name)).exists():
            found.append(_local(name, config, skip_broken))
        else:
            raise UserError(
                f"--data.sources: {name!r} is no file, no folder and no built-in{closest(name, BUILT_IN)}; "
                f"built in are {', '.join(BUILT_IN)}, and tfds:NAME/CONFIG:SPLIT names a TFDS data set"
            )
    return found


def with_store(config: DataConfig) -> DataConfig:
    """`config` with its store's folder: where none is set, data/NAME after the first source.

    NAME is shakespeare for the built-in, books for books/ and for books.txt.gz, and c4 for tfds:c4/en:train. A source
    that lies at data/NAME itself gets data/NAME-tokens beside it, and one that is the folder data gets data-tokens.
    """
    if config.store:
        return config
    source = config.sources[0]
    path = Path(expanded(source))
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


def _local(name: str, config: DataConfig, skip_broken: bool = False) -> Source:
    from chinchilla_jax.data import files, tfds_source

    downloads = (tfds_source.data_dir(config),) if config.data_dir else ()
    return files.open_path(name, config.field, skip_broken, downloads)


def _built_in(name: str, config: DataConfig, say: Say) -> Source:
    from chinchilla_jax.data import tfds_source
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
    found = {name: _local(name, config).state for name in names if "://" in name or Path(expanded(name)).exists()}
    against = [name for name in config.decontaminate if Path(expanded(name)).is_file()]
    return found | {f"--data.decontaminate {name}": _content(Path(expanded(name))) for name in against}


def _content(path: Path) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(path.read_bytes())
