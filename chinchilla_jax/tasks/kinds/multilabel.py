"""A text, or two, with any number of labels, each decided by itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.tasks.encode import Encoder, Example
from chinchilla_jax.tasks.kinds import heads, tables
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.kinds.labels import asking, at_last, compiled_head, divide, label_names, number_of
from chinchilla_jax.tasks.metrics import classes
from chinchilla_jax.tasks.records import Labelled
from chinchilla_jax.tasks.render import Encode
from chinchilla_jax.types import Batch

BITS = 31  # labels that the target of one token holds
CERTAIN = 0.5
TOLD = 0.05  # probabilities below are left out of predictions.jsonl


def encode(encoder: Encoder, record: Labelled, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """A text whose last token predicts the labels, which stand as bits in the targets of its last tokens."""
    count, numbers = words_of(len(encoder.labels)), [number_of(encoder, record, label) for label in record.labels]
    ids = asking(replace(encoder, limit=encoder.limit - count), record, encode)
    ids = [encoder.renderer.tokenizer.separator] * (count - len(ids)) + ids
    targets, weights = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
    for number in numbers:
        word, bit = divmod(number, BITS)
        targets[-1 - word] |= 1 << bit
    weights[-1] = 1
    yield (encoder.segment(ids, targets, weights),)


def words_of(labels: int) -> int:
    """Tokens whose targets it takes to hold a set of labels."""
    return -(-labels // BITS)


def sets(targets_BL, labels: int) -> jax.Array:
    """Which labels a record has, told at its last token by the targets of its last tokens, `BITS` each: (B, L, C)."""
    words_BLW = jnp.stack([jnp.roll(targets_BL, word, axis=1) for word in range(words_of(labels))], -1)
    bits_BLWK = (words_BLW[..., None] >> jnp.arange(BITS)) & 1
    return bits_BLWK.reshape(*targets_BL.shape, -1)[..., :labels]


def binary_head(hidden_BLD, table_CD, batch: Batch):
    """The sum over labels of -log p(there) or -log p(not there), each decided by itself: nats a record."""
    z_BLC = heads.logits(hidden_BLD, table_CD)
    y_BLC = sets(batch.targets, len(table_CD)).astype(jnp.float32)
    losses_BL = jnp.sum(jax.nn.softplus(z_BLC) - y_BLC * z_BLC, axis=-1)
    return jnp.sum(batch.weights * losses_BL), hidden_BLD


class Sets:
    """Sets of labels at the threshold 0.5, and at the one that validation found best, 0.5 where it found none."""

    def __init__(self, examination: Examination):
        self.examination, self.p = examination, compiled_head(examination, jax.nn.sigmoid)

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        names, records = self.examination.data.task.labels, self.examination.records
        found = {item.record: p_C for item, _, p_C in at_last(self.examination, self.p, params, poll)}
        p_NC = np.stack(list(found.values()))
        there_NC = np.array([[name in records[number].labels for name in names] for number in found])
        best = self.examination.tuned.get("threshold", 0.0)
        if not best:
            best = classes.threshold(there_NC, p_NC) if self.examination.name == "valid" else CERTAIN
        figures = classes.several(there_NC, p_NC >= CERTAIN)
        tuned = classes.several(there_NC, p_NC >= best)
        figures |= {f"{name}_tuned": tuned[name] for name in ("micro_f1", "macro_f1")}
        ece = classes.ece(there_NC.ravel(), p_NC.ravel())
        rows = [self.row(records[number], p_C) for number, p_C in found.items()]
        return figures | {"threshold": best, "ece": ece}, rows

    def row(self, record: Labelled, p_C: np.ndarray) -> dict[str, Any]:
        """A line of predictions.jsonl."""
        names = self.examination.data.task.labels
        return {
            "record": str(record.where), "input": " | ".join(record.texts),
            "output": [name for name, p in zip(names, p_C) if p >= CERTAIN], "reference": sorted(record.labels),
            "probabilities": {name: round(float(p), 4) for name, p in zip(names, p_C) if p >= TOLD},
        }  # fmt: skip


def sections(found: dict[str, Any], rows: Rows) -> list[str]:
    """Every label at the threshold 0.5, and the length of the input."""

    def equal(part: Rows) -> float:
        return sum(set(row["output"]) == set(row["reference"]) for row in part) / len(part)

    return [
        *tables.by_label(found["labels"], *([row[part] for row in rows] for part in ("reference", "output"))),
        *tables.by_length(rows, lambda row: len(row["input"]), "characters", {"equal sets": equal}),
    ]


def shown(data: Any, text: str, part: Example) -> str:
    """The text and its labels."""
    names, words = data.task.labels, part.targets[::-1]
    there = [name for i, name in enumerate(names) if words[i // BITS] >> (i % BITS) & 1]
    return f"{text} -> [[{', '.join(there)}]]"


def several(records: Sequence[Labelled]) -> bool:
    """Whether any text has not just one label."""
    return any(len(record.labels) != max(1, len(record.judged)) for record in records)


KIND = Kind(
    "multilabel", encode, {
        "loss": False, "micro_f1": True, "macro_f1": True, "micro_f1_tuned": True, "macro_f1_tuned": True,
        "equal": True, "ece": False,
    },
    metric="micro_f1", judge=Sets, objective=heads.headed("labels", binary_head), heads=heads.head_rows,
    reads=("labels",), divide=partial(divide, several=True), when=several,
    names=partial(label_names, most=1 << 30), counts="records", template="plain", columns=("probabilities",),
    follows=("only", "sampling", *AUGMENTS),
    sections=sections, shown=shown, wrong=lambda row: set(row["output"]) != set(row["reference"]),
)  # fmt: skip
