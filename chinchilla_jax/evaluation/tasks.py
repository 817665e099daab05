"""Validation of a tuned model by its task: what it gets right, and what it answers, one line an example."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.disk import finite, write_text
from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.evaluation.writing import Beams, Chooser, Writer
from chinchilla_jax.parallel import sharding
from chinchilla_jax.tasks.data import TaskData
from chinchilla_jax.tasks.encode import Item
from chinchilla_jax.tasks.pack import in_order
from chinchilla_jax.tasks.records import Record
from chinchilla_jax.training.program import Program, shardings_of

Poll = Callable[[], None]


@dataclass
class Validator:
    """Some records of a task, judged by a program; `name` stands before every figure.

    `tuned` are figures of validation, by which thresholds were set that other records are to be judged with.
    """

    program: Program
    data: TaskData
    records: Sequence[Record]
    name: str = "valid"
    tuned: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.rows = self.program.microbatch
        self.likelihood = Likelihood(self.program, None)
        self.take(self.records)
        self.bytes = self.data.bytes_of(self.items)

    def take(self, records: Sequence[Record]) -> None:
        """Judge these from now on, with a judge of their own: one may keep where the words of a record begin."""
        self.records, self.items = records, self.data.judged(records, self.name)
        self.held, self.batches = zip(*in_order(self.items, self.data.seq_len, self.rows, self.data.blocks))
        self.judge = self.data.kind.judge(self)

    def __call__(self, params: Any, poll: Poll = lambda: None) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The figures of whole parameters, and a row for every prediction."""
        found = self.likelihood.sums(params, self.batches, poll)
        figures = {"loss": found.loss / found.weight}
        if self.bytes:
            figures["bits_per_byte"] = figures["loss"] / (math.log(2) * self.bytes)
        more, predictions = self.judge(params, poll)
        return {f"{self.name}_{name}": value for name, value in (figures | more).items()}, predictions

    @property
    def most(self) -> int:
        """Records that are answered by generating: a few while training goes on, all of a test."""
        return self.data.task.generate if self.name == "valid" else len(self.records)

    def compiled(self, f: Callable) -> Callable:
        """f(params, batch) on the mesh."""
        program = self.program
        where = shardings_of(program.abstract_whole), sharding.batch_sharding(program.mesh)
        jitted = jax.jit(f, in_shardings=where, out_shardings=sharding.replicated(program.mesh))
        with jax.set_mesh(program.mesh):
            return jitted.lower(program.abstract_whole, program.abstract_batch(self.rows)).compile()

    def over(self, run: Callable, params: Any, poll: Poll, items: Sequence[Item] = ()):
        """(items of every row, batch, what `run` makes of it as numpy) for every batch, of other items if there are."""
        data = self.data
        other = in_order(items, data.seq_len, self.rows, data.blocks) if items else zip(self.held, self.batches)
        for held, batch in other:
            out = run(params, self.likelihood.placed(batch))
            poll()
            yield held, batch, jax.tree.map(np.asarray, out)

    def writer(self) -> Writer | Beams:
        """Answers as they are served, or by beam search."""
        data, cfg = self.data, self.program.config.model
        if data.task.beam == 1:
            return Writer(cfg, data.tokenizer.size, data.renderer.stops)
        return Beams(cfg, data.tokenizer.size, data.renderer.stops, data.task.beam, data.task.length_penalty)

    def chooser(self, endings: Sequence[list[int]]) -> Chooser:
        """Log-probabilities of the same few endings behind every prompt."""
        return Chooser(self.program.config.model, self.data.tokenizer.size, endings)


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line of JSON for every prediction, null for what is no number; by the first of several processes."""
    if jax.process_index() == 0:
        write_text(path, "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))
