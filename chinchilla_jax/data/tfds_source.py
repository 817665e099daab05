"""Documents from TFDS data sets in ArrayRecord files, read without TensorFlow."""

import contextlib
import functools
import importlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.config import DataConfig, expanded, require
from chinchilla_jax.data.documents import Document, Say, Source
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError

DEFAULT_DIR = "~/tensorflow_datasets"
INFO = "dataset_info.json"
UNIT = 8 << 20  # bytes of examples that are read as one unit


def data_dir(config: DataConfig) -> Path:
    """The folder of TFDS data sets. Raises `UserError` where it is in a home folder and there is none."""
    if config.data_dir:
        require(not is_remote(config.data_dir), f"--data.data-dir {config.data_dir}: this has to be a local folder")
        return Path(expanded(config.data_dir))
    found = os.path.expanduser(DEFAULT_DIR)
    require(not found.startswith("~"), "no home folder is known here to keep data sets in; set --data-dir, or HOME")
    return Path(found)


def open_named(name: str, config: DataConfig) -> Source:
    """The source of `tfds:NAME/CONFIG:SPLIT`; without a split, train and validation as the data set has them."""
    dataset, _, split = name.removeprefix("tfds:").partition(":")
    if not dataset:
        raise UserError(f"--data.sources {name}: write tfds:NAME/CONFIG:SPLIT")
    return open_folder(name, find(data_dir(config) / dataset, name), split, config.field)


def find(folder: Path, name: str) -> Path:
    """The newest version below `folder`, in ArrayRecord; otherwise a `UserError` that says how to get there."""
    found = [folder] if (folder / INFO).is_file() else [path.parent for path in folder.glob(f"*/{INFO}")]
    dataset = name.removeprefix("tfds:").partition(":")[0]
    if not found:
        inner = sorted(path.parent.parent.name for path in folder.glob(f"*/*/{INFO}"))
        if inner:
            raise UserError(f"{name}: name one of its configs: {', '.join(f'tfds:{dataset}/{i}' for i in inner)}")
        raise UserError(
            f"{name}: not in {folder}; set --data.data-dir, or make it with `tfds build {dataset} "
            f"--file_format=array_record --data_dir={folder.parents[dataset.count('/')]}`"
        )
    newest = max(found, key=lambda path: [int(n) if n.isdigit() else 0 for n in path.name.split(".")])
    try:
        kind = json.loads((newest / INFO).read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
    except ValueError as error:
        raise UserError(f"{newest / INFO}: damaged; make the data set again") from error
    if kind != "array_record":
        raise UserError(
            f"{name}: {newest} is stored as {kind}, which only TensorFlow reads; make it again with `tfds build "
            f"{dataset} --file_format=array_record`"
        )
    return newest


def open_built_in(name: str, config: DataConfig, say: Say) -> Source:
    """A data set of `data/builders`, built below the data folder if it is not there yet."""
    import tensorflow_datasets as tfds

    module = importlib.import_module(f"chinchilla_jax.data.builders.{name}")
    builder_class = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    tfds.disable_progress_bar()
    root = data_dir(config)
    made = writable(root)
    require(made, f"the data folder {root} cannot be written; set --data-dir to one that you may write to")
    builder = builder_class(data_dir=str(root), file_format="array_record")
    if not (Path(builder.data_dir) / INFO).is_file():
        say(f"building the data set {name} in {builder.data_dir}")
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints sizes that it does not know
            builder.download_and_prepare()
    return open_folder(name, Path(builder.data_dir), "", "text")


def writable(folder: Path) -> bool:
    """Whether files can be put into a folder; it is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def open_folder(name: str, folder: Path, split: str, field: str) -> Source:
    """The source of a data set in `folder`: one split, or its own train and validation."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    available = sorted(builder.info.splits)
    if field not in (builder.info.features or {}):
        raise UserError(
            f"{name}: no field {field!r}; name the text's with --data.field: {', '.join(sorted(builder.info.features))}"
        )
    if split:
        wanted = {split: ""}
    else:
        wanted = {s: own for s, own in (("train", "train"), ("validation", "valid")) if s in available}
        wanted = wanted if len(wanted) == 2 else dict.fromkeys(wanted, "")
    if not wanted:
        raise UserError(f"{name}: has no train split; name one: {', '.join(f'{name}:{s}' for s in available)}")
    try:
        views = {s: builder.as_data_source(split=s) for s in wanted}
    except ValueError as error:
        raise UserError(f"{name}: no split {split!r}; it has {', '.join(available)}") from error
    units = [
        {"kind": "tfds", "name": name, "folder": str(folder), "field": field, "split": part, "own": wanted[part], **cut}
        for part, view in views.items()
        for cut in cuts(len(view), builder.info.splits[part].num_bytes or 0)
    ]
    licence = builder.info.redistribution_info.license or "not stated by the data set"
    left = [s for s in available if s not in wanted] if not split else []
    said = Counter({f"splits are left out ({', '.join(left)}); name one to read it": len(left)} if left else {})
    sizes = {s: builder.info.splits[s].num_bytes for s in available}
    records = sum(len(view) for view in views.values())
    return Source(
        name=name, licence=licence, units=units, state=f"{builder.info.version} {sizes}", said=said, records=records
    )


def cuts(examples: int, size: int) -> list[dict]:
    """Ranges of `examples` that hold about `UNIT` of `size` bytes each."""
    count = max(1, min(examples, -(-size // UNIT)))
    edges = [examples * n // count for n in range(count + 1)]
    return [{"start": a, "stop": b, "bytes": size // count} for a, b in itertools.pairwise(edges)]


def read_unit(unit: dict) -> Iterator[Document]:
    """The documents of a range of examples."""
    view = _view(unit["folder"], unit["split"])
    name, part, field = unit["name"], unit["split"], unit["field"]
    for number in range(unit["start"], unit["stop"]):
        text = view[number][field]
        yield Document(_text(text, f"{name} {part} {number}", field), name, f"{part}:{number}", unit["own"])


@functools.lru_cache(4)
def _view(folder: str, split: str):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder).as_data_source(split=split)


def _text(value: object, where: str, field: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise UserError(f"{where}: field {field!r} holds {type(value).__name__}, not text; see --data.field")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start:,} of {field!r} is not UTF-8; clean the data set") from error
