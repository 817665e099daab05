"""Validation of a tuned model by its task: what it gets right, and what it answers, one line an example.

Every kind of task is a row of JUDGES: `figures` of whole parameters, and the predictions that they come from.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.labels import rows as head_rows
from chinchilla_jax.objectives.preference import Judge as PairScores
from chinchilla_jax.objectives.preference import pair_losses
from chinchilla_jax.parallel import sharding
from chinchilla_jax.tasks.data import TaskData
from chinchilla_jax.tasks.pack import in_order
from chinchilla_jax.tasks.records import Dialogue, Record
from chinchilla_jax.training.program import Program, shardings_of

Poll = Callable[[], None]
ANSWERS_AT_ONCE = 8


@dataclass
class Validator:
    """Some records of a task, judged by a program; `name` stands before every figure."""

    program: Program
    data: TaskData
    records: Sequence[Record]
    name: str = "valid"

    def __post_init__(self):
        self.items = self.data.encoded(self.records)
        self.rows = self.program.microbatch
        batches = in_order(self.items, self.data.seq_len, self.rows, self.data.blocks)
        self.held, self.batches = zip(*batches) if self.items else ((), ())
        self.likelihood = Likelihood(self.program, None)
        self.judge = JUDGES[self.data.task.kind](self)

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


class Labels:
    """Accuracy and macro-F1 of a label head."""

    def __init__(self, validator: Validator):
        self.validator = validator
        cfg = validator.program.config.model

        def choose(params, batch):
            hidden_BLD = transformer.apply(params, batch, cfg)
            rows_CD = head_rows(params).astype(hidden_BLD.dtype)
            logits_BLC = jnp.einsum("bld,cd->blc", hidden_BLD, rows_CD, preferred_element_type=jnp.float32)
            log_p_BLC = jax.nn.log_softmax(logits_BLC)
            return jnp.argmax(log_p_BLC, -1), jnp.max(log_p_BLC, -1)

        self.choose = validator.compiled(choose)

    def __call__(self, params: Any, poll: Poll) -> tuple[dict[str, float], list[dict[str, Any]]]:
        names, rows, right, chosen = self.validator.data.task.labels, [], [], []
        for held, batch, (choice_BL, log_p_BL) in self.validator.over(self.choose, params, poll):
            for row, items in enumerate(held):
                at = np.flatnonzero(batch.weights[row])
                for item, place in zip(items, at):
                    record = self.validator.records[item.record]
                    right.append(int(batch.targets[row, place]))
                    chosen.append(int(choice_BL[row, place]))
                    rows.append(
                        {
                            "record": str(item.where), "text": " | ".join(record.texts), "label": names[right[-1]],
                            "predicted": names[chosen[-1]], "probability": round(math.exp(log_p_BL[row, place]), 4),
                        }
                    )  # fmt: skip
        return classified(np.array(right), np.array(chosen), len(names)), rows


def classified(right: np.ndarray, chosen: np.ndarray, labels: int) -> dict[str, float]:
    """Accuracy, and the mean over labels of F1; a label that neither has is left out of the mean."""
    each = [
        2 * np.sum((right == c) & (chosen == c)) / (np.sum(right == c) + np.sum(chosen == c))
        for c in range(labels)
        if np.any(right == c) or np.any(chosen == c)
    ]
    return {"accuracy": float(np.mean(right == chosen)), "macro_f1": float(np.mean(each))}


class Pairs:
    """The share of pairs whose chosen answer gained on the reference; its log-probabilities are computed once."""

    def __init__(self, validator: Validator):
        self.validator = validator
        self.scores = validator.compiled(PairScores(validator.program.config).of)
        self.reference: list[np.ndarray] = []

    def __call__(self, params: Any, poll: Poll) -> tuple[dict[str, float], list[dict[str, Any]]]:
        program, task, rows, losses = self.validator.program, self.validator.data.task, [], []
        if not self.reference:
            start = program.whole(jax.jit(program.recipe.start)(jax.random.key(0), program.base_params()))
            start = jax.device_put(start, shardings_of(program.abstract_whole))
            self.reference = [out for _, _, out in self.validator.over(self.scores, start, poll)]
        found = self.validator.over(self.scores, params, poll)
        for (held, _, scores_BP2), reference_BP2 in zip(found, self.reference):
            loss_BP, margin_BP = map(np.asarray, pair_losses(task, scores_BP2, reference_BP2))
            for row, items in enumerate(held):
                for pair, item in enumerate(items):
                    losses.append(float(loss_BP[row, pair]))
                    rows.append({"record": str(item.where), "margin": round(float(margin_BP[row, pair]), 5)})
        margins = [row["margin"] for row in rows]
        preferred = sum(margin > 0 for margin in margins) / len(margins)
        figures = {"preference_loss": sum(losses) / len(losses), "margin": sum(margins) / len(margins)}
        return figures | {"preferred": preferred}, rows


class Answers:
    """Answers by generating, greedy, as they are served; for the first `task.generate` records."""

    def __init__(self, validator: Validator):
        self.validator, data = validator, validator.data
        self.asked = [record for record in validator.records if isinstance(record, Dialogue)][: data.task.generate]
        config = validator.program.config
        self.engine = Engine(config.model, data.tokenizer.size)

    def __call__(self, params: Any, poll: Poll) -> tuple[dict[str, float], list[dict[str, Any]]]:
        if not self.asked:
            return {}, []
        split, rows = self.engine.prepare(params), []
        for start in range(0, len(self.asked), ANSWERS_AT_ONCE):
            rows += self.answers(split, self.asked[start : start + ANSWERS_AT_ONCE], poll)
        return {
            "exact": sum(row["answer"].strip() == row["reference"].strip() for row in rows) / len(rows),
            "stopped": sum(row["stopped"] for row in rows) / len(rows),
        }, rows

    def answers(self, split: Any, records: Sequence[Dialogue], poll: Poll) -> list[dict[str, Any]]:
        """The answers to the last questions of some dialogues."""
        data = self.validator.data
        last = [max(i for i, turn in enumerate(r.turns) if turn.role == "assistant") for r in records]
        room = data.seq_len
        prompts = [data.renderer.prompt(r.turns[:i])[-room:] for r, i in zip(records, last)]
        made: list[list[int]] = [[] for _ in prompts]
        stops, ended = data.renderer.stops, [False] * len(prompts)
        blocks = [data.renderer.blocks(r.turns[:i], data.task.turns == "last")[-room:] for r, i in zip(records, last)]
        filled, both = (one + [one[0]] * (ANSWERS_AT_ONCE - len(prompts)) for one in (prompts, blocks))  # compiled once
        greedy, new = Rows.of(Sampling(0.0), [0] * ANSWERS_AT_ONCE), data.task.max_new_tokens
        for block_BC in self.engine.stream(split, filled, new, greedy, both if data.blocks else None):
            poll()
            for row in range(len(prompts)):
                for token in block_BC[row].tolist():
                    ended[row] = ended[row] or token in stops
                    made[row] += [] if ended[row] else [token]
            if all(ended):
                break
        return [
            {
                "record": str(r.where), "prompt": data.tokenizer.decode(prompts[row]),
                "answer": data.tokenizer.decode(made[row]), "reference": r.turns[last[row]].content,
                "stopped": ended[row],
            }
            for row, r in enumerate(records)
        ]  # fmt: skip


def nothing(validator: Validator):
    """The loss is all there is."""
    return lambda params, poll: ({}, [])


JUDGES: dict[str, Callable] = {"labels": Labels, "preference": Pairs, "chat": Answers, "text": nothing}
# The figure that chooses the best step, and whether less of it is better.
METRICS = {"labels": "accuracy", "preference": "preferred", "chat": "loss", "text": "loss"}
LOWER = ("loss", "preference_loss")


FIGURES = {
    "labels": ("loss", "accuracy", "macro_f1"),
    "preference": ("loss", "preference_loss", "margin", "preferred"),
    "chat": ("loss", "exact", "stopped"),
    "text": ("loss",),
}


def metric_of(kind: str, asked: str) -> str:
    """The figure of validation that chooses the best step."""
    name = METRICS[kind] if asked == "auto" else asked.removeprefix("valid_")
    known = FIGURES[kind]
    require(name in known, f"--task.metric {asked}: {kind} has {', '.join(known)}{closest(name, known)}")
    return f"valid_{name}"


def lower_is_better(metric: str) -> bool:
    """Whether less of a figure is better."""
    return metric.split("_", 1)[1] in LOWER


def write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line of JSON for every prediction."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
