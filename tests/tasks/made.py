"""Records, renderers, encoders and task data for the tests of this folder."""

import json
from pathlib import Path

import numpy as np

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks import data
from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import (
    Dialogue,
    Turn,
    Where,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


HERE = Where("here", 1, 1)


WORDS = ["the sea", "old songs over cold stone", "wind", "naïve 海风", "bright stone and wind", "carries <|im_end|> on"]


def dialogue(answers: int, seed: int = 0, system: bool = False) -> Dialogue:
    draw = np.random.default_rng(seed)
    turns = [Turn("system", "be brief")] if system else []
    for _ in range(answers):
        turns += [Turn("user", WORDS[draw.integers(6)]), Turn("assistant", WORDS[draw.integers(6)])]
    return Dialogue(HERE, tuple(turns), messages=True)


def encoder(renderer, limit=1000, labels=(), kind="chat", **task) -> Encoder:
    return Encoder(KINDS[kind].encode, renderer, TaskConfig(**task), limit, labels)


def examples(made: Encoder, record):
    return [part for item in made.items(record, 0) for part in item.parts]


def trained_texts(tokenizer, part) -> list[list[int]]:
    """The stretches of trained targets."""
    found, last = [], -2
    for at in np.flatnonzero(part.weights):
        found = [*found, []] if at != last + 1 else found
        found[-1].append(int(part.targets[at]))
        last = at
    return found


def opened(tiny_store, tmp_path, name, *records, seq_len=64, **task):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    config = TaskConfig(train=(str(path),), **task)
    return data.open_task(config, folder=tiny_store, scratch=scratch, seq_len=seq_len, seed=0)


def of_kind(base, tmp_path, kind: str, records: list[dict], **task):
    """Some records of a kind, both to train and to validate on, in windows of 40."""
    both = {"kind": kind, "valid": (str(tmp_path / "records.jsonl"),), **task}
    return opened(base, tmp_path, "records.jsonl", *records, seq_len=40, **both)


LABELLED = [{"text": f"{word} {i}", "label": i % 2} for i, word in enumerate(WORDS * 4)]


MESSAGES = [
    {"messages": [{"role": "user", "content": f"{word} {i}"}, {"role": "assistant", "content": "songs"}]}
    for i, word in enumerate(WORDS)
]


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def lines(tmp_path, *records, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
