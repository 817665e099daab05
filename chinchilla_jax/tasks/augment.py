"""Sources changed by (seed, epoch, record): words deleted, swapped, replaced. Targets stay as they are.

The operations of EDA (Wei and Zou 2019) that need no thesaurus; replacements are words of other sources. Histories
lose items. Sampled segmentation is the tokenizer's. Back-translations are records of a file like any other.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks.records import Dialogue, History, Labelled, Record

WORDS = re.compile(r"\S+")
PARTS = ("content", "more")  # of a turn


def sources(record: Record) -> list[str]:
    """The texts of a record that augmentation may change: questions and texts to label."""
    if isinstance(record, Labelled):
        return list(record.texts)
    turns = record.turns if isinstance(record, Dialogue) else ()
    return [text for turn in turns if turn.role == "user" for text in (turn.content, turn.more) if text]


def vocabulary(records: Sequence[Record]) -> list[str]:
    """The words that replacements are drawn from, as often as they occur."""
    return [word for record in records for text in sources(record) for word in WORDS.findall(text)]


def augmented(record: Record, task: TaskConfig, words: Sequence[str], draw: np.random.Generator) -> Record:
    """A record with changed sources; one without any as it is."""
    if isinstance(record, Labelled):
        return dataclasses.replace(record, texts=tuple(changed(text, task, words, draw) for text in record.texts))
    if isinstance(record, History):
        keep = np.flatnonzero(draw.random(len(record.items)) >= task.deletion)
        return dataclasses.replace(record, items=tuple(record.items[i] for i in keep)) if len(keep) > 1 else record
    if isinstance(record, Dialogue):
        turns = [
            dataclasses.replace(turn, **{part: changed(getattr(turn, part), task, words, draw) for part in PARTS})
            if turn.role == "user"
            else turn
            for turn in record.turns
        ]
        return dataclasses.replace(record, turns=tuple(turns))
    return record


def changed(text: str, task: TaskConfig, words: Sequence[str], draw: np.random.Generator) -> str:
    """A text with some words gone, replaced or in another's place; the blanks between them stay, and one word does."""
    found = WORDS.findall(text)
    blanks = WORDS.split(text)
    n = len(found)
    for i in np.flatnonzero(draw.random(n) < task.replacement) if words else ():
        found[i] = words[draw.integers(len(words))]
    for i in np.flatnonzero(draw.random(n) < task.swap):
        j = draw.integers(n)
        found[i], found[j] = found[j], found[i]
    keep = draw.random(n) >= task.deletion
    if n and not keep.any():
        keep[draw.integers(n)] = True
    kept = [blanks[0]]
    for i in np.flatnonzero(keep):
        kept += [found[i], blanks[i + 1]]
    return "".join(kept)
