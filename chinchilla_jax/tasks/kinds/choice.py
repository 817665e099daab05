"""Classification by label words: of all labels the one whose words are likeliest behind the text. No head is added.

The log-probability of a label is that of all its pieces and of the end behind them, summed, or divided by how many they
are (`--task.choose mean`), which favours long names less against short ones.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.chat import pair
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, Examination, Figures, Kind, Rows, spread
from chinchilla_jax.tasks.kinds.labels import FIGURES, confusion, divide, label_names, number_of, sections
from chinchilla_jax.tasks.metrics import classes
from chinchilla_jax.tasks.records import Dialogue, Labelled, Turn
from chinchilla_jax.tasks.render import Encode, Renderer


def dialogue(record: Labelled) -> Dialogue:
    """The texts as a question, the label as its answer."""
    return pair(record, "\n".join(record.texts), record.labels[:1])


def encode(encoder: Encoder, record: Labelled, encode: Encode) -> Iterator[tuple]:
    """The text and its label's words."""
    number_of(encoder, record, record.labels[0])
    return encoder.dialogue(dialogue(record), encode)


def ending(renderer: Renderer, label: str) -> list[int]:
    """The ids that answer with a label and end: as they are trained."""
    body = renderer.turn(Turn("assistant", label)).body
    return body if body[-1:] == [renderer.end] else [*body, renderer.end]


class Choices:
    """The figures of a label head, of some of the records while it trains."""

    def __init__(self, examination: Examination):
        self.data, task = examination.data, examination.data.task
        self.records = spread(examination.records, examination.most)
        endings = [ending(self.data.renderer, label) for label in task.labels]
        self.chooser = examination.chooser(endings)
        self.divisors = np.array([len(ids) if task.choose == "mean" else 1 for ids in endings])

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        if not self.records:
            return {}, []
        data, names = self.data, self.data.task.labels
        asked = [dialogue(record).turns[:1] for record in self.records]
        prompts, blocks = map(list, zip(*map(data.encoder.prompt, asked)))
        logp_NC = self.chooser(params, prompts, blocks if data.blocks else None, poll) / self.divisors
        chosen_N = logp_NC.argmax(axis=1)
        p_N = 1 / np.exp(logp_NC - logp_NC.max(axis=1, keepdims=True)).sum(axis=1)
        rows = [
            {
                "record": str(record.where), "input": " | ".join(record.texts), "output": names[chosen],
                "reference": record.labels[0], "probability": round(float(p), 4),
            }
            for record, chosen, p in zip(self.records, chosen_N, p_N)
        ]  # fmt: skip
        right_N = np.array([names.index(record.labels[0]) for record in self.records])
        figures = classes.single(right_N, chosen_N, len(names))
        return figures | {"ece": classes.ece(right_N == chosen_N, p_N)}, rows


KIND = Kind(
    "choice", encode, FIGURES | {"bits_per_byte": False}, metric="accuracy", judge=Choices, reads=("labels",),
    when=lambda records: False, divide=divide, names=label_names, in_bytes=True, generates=True, keeps_template=True,
    columns=("probability",), matrix=confusion, sections=sections, fallback="lines",
    follows=("only", "choose", "generate", "sampling", *AUGMENTS),
)  # fmt: skip
