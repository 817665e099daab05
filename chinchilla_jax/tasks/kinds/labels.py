"""A text, or two, with one label: classification, sentiment, intents, inference between two sentences."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.tasks import splits
from chinchilla_jax.tasks.encode import CUT, Encoder, Example, opening
from chinchilla_jax.tasks.kinds import heads, tables
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.labelled import SEVERAL
from chinchilla_jax.tasks.metrics import classes
from chinchilla_jax.tasks.records import Conversation, Labelled, Tally, Turn
from chinchilla_jax.tasks.render import Encode, Ids

RARE = "held-out records that train after all: no other record has their label"
WITHOUT = "records dropped: no label"
DIVIDED = "conversations divided to fit into --train.seq-len"
MOST_LABELS = 30  # of a confusion matrix
MOST_CONFUSED = 20


def label_names(records: Sequence[Labelled], most: int = 1) -> tuple[str, ...]:
    """The first label of every text once, or the first `most`; sorted, numbers by their value."""
    names = {label for record in records for label in record.labels[: most * len(record.judged)]}
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def divide(
    task: TaskConfig, train: list, valid: list | None, test: list | None, seed: int, tally: Tally, several: bool = False
):  # fmt: skip
    """By text; with --task.only, the records that have one of these labels. `several` of them may be the target."""
    if train and task.only:
        known = {label for record in train for label in record.labels}
        absent = [label for label in task.only if label not in known]
        require(not absent, f"--task.only {', '.join(absent)}: no record to train on has it; found {_some(known)}")
    if not several:
        alone = not train  # a test that is judged without training
        train, valid, test = (part and with_label(part, tally) for part in (train, valid, test))
        require(alone or bool(train), "no record to train on has a label; name another --task.train")
    made = splits.by_group(task, train, valid, test, seed, tally)
    if task.only:
        made = tuple(only(task.only, part, tally) for part in made)
    if valid is not None or task.labels:
        return made
    names = partial(label_names, most=1 << 30 if several else 1)
    return *rare_back(*made[:2], names, tally), made[2]


def only(labels: Sequence[str], records: Sequence[Labelled], tally: Tally) -> list[Labelled]:
    """The records that have one of these labels, without their other ones."""
    found = []
    for record in records:
        kept = tuple(label for label in record.labels if label in labels)
        if not kept:
            tally.note("records left out by --task.only", record.where)
            continue
        if len(kept) < len(record.labels):
            tally.note("records with further labels, left out by --task.only", record.where)
        found.append(replace(record, labels=kept))
    return found


def with_label(records: Sequence[Labelled], tally: Tally) -> list[Labelled]:
    """The records that have a label, which all but those of several labels need."""
    for record in records:
        if not record.labels:
            tally.note(WITHOUT, record.where)
    return [record for record in records if record.labels]


def rare_back(train: list[Labelled], valid: list[Labelled], names: Callable, tally: Tally) -> tuple[list, list]:
    """Held-out texts train after all where nothing else that trains has their label: no model could give it."""
    known = set(names(train))
    back = {record.group for record in valid if not known.issuperset(names([record]))}
    rare = [record for record in valid if record.group in back]
    kept = [record for record in valid if record.group not in back]
    if rare:
        tally.note(RARE, rare[0].where, len(rare))
    file = [*train, *valid][0].where.file if train or valid else "the training file"
    require(bool(kept), f"{file}: no label has a second text to validate on; name another file with --task.valid")
    return [*train, *rare], kept


def number_of(encoder: Encoder, record: Labelled, label: str) -> int:
    """The number of a label. Raises `UserError` for one that training does not know."""
    require(
        label in encoder.labels,
        f"{record.where}: label {label!r} is none of the training set's {_some(encoder.labels)}; add records with it "
        "to --task.train, keep the others with --task.only, or leave this record out",
    )
    return encoder.labels.index(label)


def _some(labels: Iterable[str]) -> str:
    return f"{', '.join(labels)!r:.200}"


def encode(encoder: Encoder, record: Labelled, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """A text whose last token predicts the label; two texts are divided by a newline, and so are those of a
    conversation, each of which has a label."""
    if len(record.labels) > len(record.judged):
        encoder.tally.note(SEVERAL, record.where)
    numbers = [number_of(encoder, record, label) for _, label in record.judged]
    for tokens, ends in parts(encoder, record, encode):
        weights, targets = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int32)
        targets[ends], weights[ends] = numbers[: len(ends)], 1
        numbers = numbers[len(ends) :]
        yield (encoder.segment(tokens, targets, weights),)


def parts(encoder: Encoder, record: Labelled, encode: Encode) -> Iterator[tuple[Ids, list[int]]]:
    """(ids, where those end that have a label) of a record; of a conversation as many as it takes."""
    if not isinstance(record, Conversation):
        ids = asking(encoder, record, encode)
        yield ids, [len(ids) - 1]
        return
    tokenizer = encoder.renderer.tokenizer
    start, newline = opening(tokenizer, encoder.task.opening), tokenizer.encode("\n")
    tokens, ends = list(start), []
    for text in record.texts:
        ids = encode(text)[: encoder.limit - len(start)] or newline
        if len(tokens) + len(newline) + len(ids) > encoder.limit and ends:
            encoder.tally.note(DIVIDED, record.where)
            yield tokens, ends
            tokens, ends = list(start), []
        tokens += [*(newline if ends else []), *ids]
        ends.append(len(tokens) - 1)
    yield tokens, ends


def asking(encoder: Encoder, record: Labelled, encode: Encode) -> Ids:
    """The ids of a text that is to get a label, cut from the right."""
    turns = encoder.renderer.turns([Turn("user", "\n".join(record.texts))], encode)
    frame = (
        [*opening(encoder.renderer.tokenizer, encoder.task.opening), *(i for t in turns[:-1] for i in t.ids)],
        encoder.renderer.reply,
    )
    room = encoder.limit - sum(map(len, frame))
    ids = turns[-1].ids
    if len(ids) > room:
        encoder.tally.note(CUT, record.where)
        turn = Turn("user", "\n".join(record.texts))
        bare = encoder.renderer.turn(turn, encode, slice(0, 0))
        ids = encoder.renderer.turn(turn, encode, slice(0, max(0, room - len(bare.ids)))).ids[:room]
    return [*frame[0], *ids, *frame[1]] or [encoder.renderer.tokenizer.separator]


def compiled_head(examination: Examination, of: Callable, head: str = "labels") -> Callable:
    """(params, batch) -> what `of` makes of a head's logits (B, L, C), compiled."""
    cfg = examination.program.config.model

    def run(params, batch):
        return of(heads.logits(transformer.apply(params, batch, cfg), heads.rows(params, head)))

    return examination.compiled(run)


class Classes:
    """The likeliest label of every record, with its probability."""

    def __init__(self, examination: Examination):
        self.examination, self.log_p = examination, compiled_head(examination, jax.nn.log_softmax)

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        names, found, right, chosen, p = self.examination.data.task.labels, [], [], [], []
        left = [list(zip(record.judged, record.places)) for record in self.examination.records]
        for item, target, log_p_C in at_last(self.examination, self.log_p, params, poll):
            right.append(target)
            chosen.append(int(log_p_C.argmax()))
            p.append(float(np.exp(log_p_C.max())))
            output, reference = names[chosen[-1]], names[target]
            (text, _), where = left[item.record].pop(0)
            row = {"record": str(where), "input": text, "output": output, "reference": reference}
            found.append({**row, "probability": round(p[-1], 4)})
        right_N, chosen_N = np.array(right, int), np.array(chosen, int)
        figures = classes.single(right_N, chosen_N, len(names))
        return figures | {"ece": classes.ece(right_N == chosen_N, np.array(p))}, found


def at_last(examination: Examination, run: Callable, params: Any, poll: Callable[[], None]) -> Iterator[tuple]:
    """(item, its target, what `run` says) at the last token of every text, in their order."""
    found, order = [], {id(item): number for number, item in enumerate(examination.items)}
    for held, batch, out_BLC in examination.over(run, params, poll):
        for row, items in enumerate(held):
            ends = np.flatnonzero(batch.weights[row])
            owners = (item for item in items for part in item.parts for _ in range(np.count_nonzero(part.weights)))
            for item, at in zip(owners, ends, strict=True):
                found.append((item, int(batch.targets[row, at]), out_BLC[row, at]))
    yield from sorted(found, key=lambda each: order[id(each[0])])


def confusion(found: dict[str, Any], rows: Rows) -> list[list[int]]:
    """Counts by (label, predicted); nothing where there are too many labels to look at."""
    names = found["labels"]
    if len(names) > MOST_LABELS:
        return []
    counts = Counter((row["reference"], row["output"]) for row in rows)
    return [[counts[label, other] for other in names] for label in names]


def sections(found: dict[str, Any], rows: Rows) -> list[str]:
    """Every label, the pairs most confused, the length of the input, and how sure the model was."""
    pairs = Counter((row["reference"], row["output"]) for row in rows)
    right = np.array([row["output"] == row["reference"] for row in rows])
    wrong = [(a, b, n) for (a, b), n in pairs.most_common() if a != b][:MOST_CONFUSED]
    bins = classes.calibration(right, np.array([row["probability"] for row in rows])) if rows else []

    def accuracy(part: Rows) -> float:
        return sum(row["output"] == row["reference"] for row in part) / len(part)

    return [
        *tables.by_label(found["labels"], *([[row[part]] for row in rows] for part in ("reference", "output"))),
        *tables.section("Confused most", ("reference", "output", "times"), wrong),
        *tables.by_length(rows, lambda row: len(row["input"]), "characters", {"accuracy": accuracy}),
        *tables.section("Calibration", ("mean probability", "share right", "records"), bins),
    ]


def shown(data: Any, text: str, part: Example) -> str:
    """The text and its label, of a conversation all of them."""
    return f"{text} -> [[{', '.join(data.task.labels[i] for i in part.targets[part.weights > 0])}]]"


FIGURES = {
    "loss": False, "accuracy": True, "macro_f1": True, "weighted_f1": True, "mcc": True, "ece": False,
}  # fmt: skip
KIND = Kind(
    "labels", encode, FIGURES, metric="accuracy", judge=Classes, objective=heads.labels, heads=heads.head_rows,
    reads=("labels",), divide=divide, names=label_names, counts="labels", template="plain",
    follows=("only", "balance", "sampling", *AUGMENTS), columns=("probability",),
    sections=sections, matrix=confusion, shown=shown,
)  # fmt: skip
