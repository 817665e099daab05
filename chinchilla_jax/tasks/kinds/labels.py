"""A text, or two, with one label: classification, sentiment, intents, inference between two sentences."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.labels import head_rows, labels, rows
from chinchilla_jax.tasks.encode import CUT, Encoder, Example
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.records import Labelled, Turn
from chinchilla_jax.tasks.render import Encode, Ids

MOST_LABELS = 30  # of a confusion matrix


def label_names(records: Sequence[Labelled]) -> tuple[str, ...]:
    """The first label of every record once, sorted; numbers by their value."""
    names = {label for record in records for label in record.labels[:1]}
    return tuple(sorted(names, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name)))


def encode(encoder: Encoder, record: Labelled, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """A text whose last token predicts the label; two texts are divided by a newline."""
    label = record.labels[0]
    if len(record.labels) > 1:
        encoder.tally.note("records with several labels, of which the first counts", record.where)
    require(
        label in encoder.labels,
        f"{record.where}: label {label!r} is none of the training set's {', '.join(encoder.labels)!r:.200}",
    )
    tokens = np.array(asking(encoder, record, encode), np.int32)
    weights, targets = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int32)
    targets[-1], weights[-1] = encoder.labels.index(label), 1
    blocks = np.ones(len(tokens), np.int32) if encoder.task.source == "bidirectional" else None
    yield (Example(tokens, targets, weights, blocks),)


def asking(encoder: Encoder, record: Labelled, encode: Encode) -> Ids:
    """The ids of a text that is to get a label, cut from the right."""
    turns = encoder.renderer.turns([Turn("user", "\n".join(record.texts))], encode)
    frame = [*encoder.renderer.tokenizer.start, *(i for t in turns[:-1] for i in t.ids)], encoder.renderer.reply
    room = encoder.limit - sum(map(len, frame))
    ids = turns[-1].ids
    if len(ids) > room:
        encoder.tally.note(CUT, record.where)
        turn = Turn("user", "\n".join(record.texts))
        bare = encoder.renderer.turn(turn, encode, slice(0, 0))
        ids = encoder.renderer.turn(turn, encode, slice(0, max(0, room - len(bare.ids)))).ids[:room]
    return [*frame[0], *ids, *frame[1]] or [encoder.renderer.tokenizer.separator]


class Classes:
    """Accuracy and macro-F1 of a label head."""

    def __init__(self, examination: Examination):
        self.examination = examination
        cfg = examination.program.config.model

        def choose(params, batch):
            hidden_BLD = transformer.apply(params, batch, cfg)
            rows_CD = rows(params).astype(hidden_BLD.dtype)
            logits_BLC = jnp.einsum("bld,cd->blc", hidden_BLD, rows_CD, preferred_element_type=jnp.float32)
            log_p_BLC = jax.nn.log_softmax(logits_BLC)
            return jnp.argmax(log_p_BLC, -1), jnp.max(log_p_BLC, -1)

        self.choose = examination.compiled(choose)

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        names, found, right, chosen = self.examination.data.task.labels, [], [], []
        for held, batch, (choice_BL, log_p_BL) in self.examination.over(self.choose, params, poll):
            for row, items in enumerate(held):
                at = np.flatnonzero(batch.weights[row])
                for item, place in zip(items, at):
                    record = self.examination.records[item.record]
                    right.append(int(batch.targets[row, place]))
                    chosen.append(int(choice_BL[row, place]))
                    found.append(
                        {
                            "record": str(item.where), "input": " | ".join(record.texts),
                            "output": names[chosen[-1]], "reference": names[right[-1]],
                            "probability": round(math.exp(log_p_BL[row, place]), 4),
                        }
                    )  # fmt: skip
        return classified(np.array(right), np.array(chosen), len(names)), found


def classified(right: np.ndarray, chosen: np.ndarray, labels: int) -> Figures:
    """Accuracy, and the mean over labels of F1; a label that neither has is left out of the mean."""
    each = [
        2 * np.sum((right == c) & (chosen == c)) / (np.sum(right == c) + np.sum(chosen == c))
        for c in range(labels)
        if np.any(right == c) or np.any(chosen == c)
    ]
    return {"accuracy": float(np.mean(right == chosen)), "macro_f1": float(np.mean(each))}


def confusion(found: dict[str, Any], predictions: Rows) -> list[list[int]]:
    """Counts by (label, predicted); nothing where there are too many labels to look at."""
    names = found["labels"]
    if len(names) > MOST_LABELS:
        return []
    counts = Counter((row["reference"], row["output"]) for row in predictions)
    return [[counts[label, other] for other in names] for label in names]


def shown(data: Any, text: str, part: Example) -> str:
    """The text and its label."""
    return f"{text} -> [[{data.task.labels[part.targets[-1]]}]]"


KIND = Kind(
    "labels", encode, {"loss": False, "accuracy": True, "macro_f1": True}, metric="accuracy", judge=Classes,
    objective=labels, heads=head_rows, reads=("labels",), names=label_names, counts="labels", template="plain",
    balances=True, columns=("probability",), matrix=confusion, shown=shown,
)  # fmt: skip
