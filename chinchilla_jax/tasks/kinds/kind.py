"""What a kind of task has to say of itself; the rest of the house asks the row and never the kind's name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chinchilla_jax.config import Config, DataConfig, TaskConfig, closest, flag, require
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.objectives.build import language
from chinchilla_jax.objectives.objective import Binding, Objective
from chinchilla_jax.tasks.records import Record
from chinchilla_jax.tasks.splits import by_group

Figures = dict[str, float]
Rows = list[dict[str, Any]]  # of predictions.jsonl
Judge = Callable[[Any, Callable[[], None]], tuple[Figures, Rows]]  # (whole parameters, poll)


class Examination(Protocol):
    """What a judge may use: `evaluation.tasks.Validator`."""

    name: str  # "valid", by which thresholds are set, or of what is judged with these
    program: Any  # training.program.Program
    data: Any  # tasks.data.TaskData
    records: Sequence[Record]
    items: Sequence[Any]  # what the records have become
    held: Sequence[Any]  # the same of every row of every batch
    most: int  # records to answer by generating
    tuned: Mapping[str, float]  # figures of validation, where these records are others

    def compiled(self, f: Callable) -> Callable:
        """f(whole parameters, batch), compiled on the mesh."""

    def over(
        self, run: Callable, params: Any, poll: Callable[[], None], items: Sequence[Any] = ()
    ) -> Iterator[tuple[Any, Any, Any]]:
        """(items of every row, batch, what `run` makes of it as numpy) for every batch, of other items if there are."""

    def chooser(self, endings: Sequence[list[int]]) -> Any:
        """(params, prompts, blocks, poll) -> log-probability of every ending behind every prompt."""

    def writer(self) -> Callable[..., list[Any]]:
        """write(params, prompts, blocks, most tokens, poll): `evaluation.writing.Writer`."""


def by_item(
    examination: Examination, run: Callable, params: Any, poll: Callable[[], None]
) -> Iterator[tuple[Any, np.ndarray]]:
    """(item, what `run` says at each of its tokens) for every item."""
    for held, _, out_BLC in examination.over(run, params, poll):
        for row, items in enumerate(held):
            start = 0
            for item in items:
                yield item, out_BLC[row, start : start + len(item)]
                start += len(item)


def spread(records: Sequence[Any], most: int) -> list[Any]:
    """So many of some records at most, evenly: the first of a file that is sorted by label would have one label."""
    count = min(most, len(records))
    return [records[n * len(records) // count] for n in range(count)]


def nothing(examination: Examination) -> Judge:
    """A judge for which the loss is all there is."""
    return lambda params, poll: ({}, [])


def subwords(task: TaskConfig, train: Sequence[Record], held: Sequence[Record], folder: Path) -> Path:
    """A folder with a tokenizer of `task.pieces` pieces, trained on the texts that are trained on."""
    require(
        task.pieces > 0,
        "name the run to start from with --from DIR, or train a model from nothing with --task.pieces 4000",
    )
    texts = [text for record in train for text in record.texts]
    tokenizer_train.train(lambda: texts, DataConfig(vocab_size=task.pieces), folder / "tokenizer.model")
    return folder


# The settings that a kind looks at, of those that not all do.
AUGMENTS = ("deletion", "swap", "replacement")
WRITES = ("beam", "length_penalty", "generate", "max_new_tokens")
FEW = (
    *AUGMENTS, *WRITES, "sampling", "only", "balance", "style", "stride", "max_answer", "choose", "core", "split",
    "preference", "beta", "smoothing", "reference",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A row of `table.KINDS`.

    `encode(encoder, record, encode)` gives the parts of every item that a record becomes; `objective` and `heads` are
    its loss and the shapes of the leaves that it adds to a model; `judge` does the task. `figures` of validation say
    whether more of them is better, and `metric` is the one that chooses the best checkpoint.
    """

    name: str
    encode: Callable[..., Iterator[tuple]]
    figures: Mapping[str, bool]
    metric: str = "loss"
    judge: Callable[[Examination], Judge] = nothing
    objective: Callable[[Config, Binding], Objective] = language
    heads: Callable[[Config], dict[str, tuple[int, ...]]] = lambda config: {}
    # Kinds of formats (`read.FORMATS`) that it takes, and whether it is what "auto" makes of such records.
    reads: tuple[str, ...] = ()
    # (task, records to train on, to validate, to test or None each, seed, tally) -> records of the three splits.
    divide: Callable[..., tuple[list, list, list]] = by_group
    # Makes the tokenizer of a model that starts from no run: (task, records to train on, held-out records of the same
    # file, folder) -> folder.
    catalogue: Callable[[TaskConfig, Sequence[Record], Sequence[Record], Path], Path] = subwords
    when: Callable[[Sequence[Record]], bool] = lambda records: True
    # Names of the labels in some records, where there are any; and what is wrong with settled ones.
    names: Callable[[Sequence[Record]], tuple[str, ...]] | None = None
    check: Callable[[TaskConfig, Sequence[Record]], None] = lambda task, records: None
    # A settled task for so many passes over the examples; and what has to be known of these before the first step,
    # which is kept in the run directory: (examination, its judge, folder).
    passing: Callable[[TaskConfig, float], TaskConfig] = lambda task, passes: task
    prepare: Callable[[Examination, Any, Path], None] = lambda examination, judge, folder: None
    documents: int = 1  # of an item
    counts: str = "trained tokens"  # what targets with a weight are called
    in_bytes: bool = False  # whether targets are text, so that a loss is one in bits per byte too
    pieces: str = ""  # what the pieces of its tokenizer are called, where they are no text
    fallback: str = "plain"  # template where neither the user nor the base has one
    keeps_start: bool = False  # whether a source that is too long loses its end, and not its beginning
    template: str = ""  # the only one, where the user has no choice but by name
    keeps_template: bool = False  # whether whoever uses the run later has to write turns as it did
    compares: bool = False  # whether it holds a model against what it was before tuning
    generates: bool = False  # whether `generate` is what one does with the run
    follows: tuple[str, ...] = ()  # settings among `FEW` that it looks at
    sources: tuple[str, ...] = ("causal", "bidirectional")  # of --task.source
    # What predictions.jsonl has beside record, input, output and reference.
    columns: tuple[str, ...] = ()
    # Sections of report.md from the run's figures and its predictions; counts by (reference, output) for the picture.
    sections: Callable[[dict[str, Any], Rows], list[str]] = lambda found, rows: []
    matrix: Callable[[dict[str, Any], Rows], list[list[int]]] = lambda found, rows: []
    wrong: Callable[[dict[str, Any]], bool] = lambda row: row["output"] != row["reference"]  # a line of predictions
    shown: Callable[..., str] | None = None  # (data, example) -> a line of --show

    def check_few(self, task: TaskConfig) -> None:
        """A setting that the kind would not follow is an error, not a silence; so is a figure of nothing."""
        for name in (few for few in FEW if few not in self.follows):
            value, named = getattr(task, name), flag("task." + name)
            told = " ".join(map(str, value)) if isinstance(value, tuple) else value
            require(
                value == getattr(TaskConfig, name),
                f"{named} {told} is nothing that --task.kind {self.name} looks at; leave it out",
            )
        metric = self.metric_of(task.metric)
        require(
            task.generate or "generate" not in self.follows or metric in ("valid_loss", "valid_bits_per_byte"),
            f"--task.generate 0 leaves no answer to count {metric} on; take --task.metric loss, or let some be written",
        )

    def metric_of(self, asked: str) -> str:
        """The figure of validation that chooses the best step."""
        name = self.metric if asked == "auto" else asked.removeprefix("valid_")
        known = tuple(self.figures)
        require(name in known, f"--task.metric {asked}: {self.name} has {', '.join(known)}{closest(name, known)}")
        return f"valid_{name}"

    def lower_is_better(self, metric: str) -> bool:
        """Whether less of a figure, such as valid_loss, is better."""
        return not self.figures[metric.split("_", 1)[1]]
