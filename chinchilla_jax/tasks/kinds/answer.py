"""Generative question answering: a question, perhaps about a text, and an answer in words of its own.

Exact match and F1 are those of SQuAD's script, or of CMRC's for Chinese; the best over the references.
"""

from collections.abc import Sequence
from functools import partial

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.tasks.kinds.chat import OF_ANY, Answers, encode_as, pair, wrong
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, WRITES, Figures, Kind
from chinchilla_jax.tasks.kinds.summary import MARKS
from chinchilla_jax.tasks.metrics import answers, similarity
from chinchilla_jax.tasks.records import Dialogue, Question, Record

STYLES = {"zh": "cmrc"}


def dialogue(record: Record) -> Dialogue | None:
    """Text and question as a turn, the answers as the other; a question without an answer asks nothing."""
    if not isinstance(record, Question):
        return record
    texts = [text for text, _ in record.answers]
    return pair(record, f"{record.context}\n{record.question}", texts) if texts else None


def check(task: TaskConfig, records: Sequence[Record]) -> None:
    """Refuse to augment questions about a text, which augmentation leaves as they are."""
    asked = [f"--task.{name}" for name in AUGMENTS if getattr(task, name)]
    still = any(isinstance(record, Question) for record in records)
    require(not (asked and still), f"{', '.join(asked)}: a question about a text is not augmented; leave it out")


def score(outputs: Sequence[str], given: Sequence[Sequence[str]], language: str) -> Figures:
    """Exact match and F1 in percent, and ROUGE-L."""
    style = STYLES.get(language, "squad")
    each = [answers.best(style, output, texts) for output, texts in zip(outputs, given, strict=True)]
    em, f1 = (100 * sum(column) / len(each) for column in zip(*each))
    rouge = similarity.rouge(outputs, given, language)
    return {f"{style}_em": em, f"{style}_f1": f1, **{k: v for k, v in rouge.items() if k.startswith("rougeL")}}


FIGURES = OF_ANY | {f"{style}_{name}": True for style in answers.STYLES for name in ("em", "f1")}
FIGURES |= {f"rougeL{mark}": True for mark in MARKS}
KIND = Kind(
    "answer", encode_as(dialogue), FIGURES, judge=partial(Answers, score=score, dialogue=dialogue),
    reads=("chat", "spans"), in_bytes=True, keeps_template=True, generates=True, columns=("stopped", "references"),
    fallback="lines",
    check=check, follows=("sampling", *AUGMENTS, *WRITES), wrong=wrong,
)  # fmt: skip
