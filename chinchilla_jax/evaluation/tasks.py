"""Validation of a tuned model by its task: what it gets right, and what it answers, one line an example."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.evaluation.writing import Writer
from chinchilla_jax.parallel import sharding
from chinchilla_jax.tasks.data import TaskData
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
        self.items = self.data.encoded(self.records)
        self.rows = self.program.microbatch
        batches = in_order(self.items, self.data.seq_len, self.rows, self.data.blocks)
        self.held, self.batches = zip(*batches) if self.items else ((), ())
        self.likelihood = Likelihood(self.program, None)
        self.judge = self.data.kind.judge(self)

    def __call__(self, params: Any, poll: Poll = lambda: None) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The figures of whole parameters, and a row for every prediction."""
        found = self.likelihood.sums(params, self.batches, poll)
        figures = {"loss": found.loss / found.weight}
        more, predictions = self.judge(params, poll)
        return {f"{self.name}_{name}": value for name, value in (figures | more).items()}, predictions

    def compiled(self, f: Callable) -> Callable:
        """f(params, batch) on the mesh."""
        program = self.program
        where = shardings_of(program.abstract_whole), sharding.batch_sharding(program.mesh)
        jitted = jax.jit(f, in_shardings=where, out_shardings=sharding.replicated(program.mesh))
        with jax.set_mesh(program.mesh):
            return jitted.lower(program.abstract_whole, program.abstract_batch(self.rows)).compile()

    def over(self, run: Callable, params: Any, poll: Poll):
        """(items of every row, what `run` makes of a batch as numpy) for every batch."""
        for held, batch in zip(self.held, self.batches):
            out = run(params, self.likelihood.placed(batch))
            poll()
            yield held, batch, jax.tree.map(np.asarray, out)

    def writer(self) -> Writer:
        """Answers as they are served."""
        data = self.data
        return Writer(self.program.config.model, data.tokenizer.size, data.renderer.stops)


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line of JSON for every prediction."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
