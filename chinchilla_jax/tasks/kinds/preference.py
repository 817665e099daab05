"""Pairs of answers of which one is preferred (DPO): validation asks whether it gained on the reference model."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chinchilla_jax.objectives.preference import Judge as PairScores
from chinchilla_jax.objectives.preference import pair_losses, preference
from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows


class Pairs:
    """The share of pairs whose chosen answer gained on the reference; its log-probabilities are computed once."""

    def __init__(self, examination: Examination):
        self.examination = examination
        self.scores = examination.compiled(PairScores(examination.program.config).of)
        self.reference: list[np.ndarray] = []

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        program, task, rows, losses = self.examination.program, self.examination.data.task, [], []
        if not self.reference:
            start = program.whole(jax.jit(program.recipe.start)(jax.random.key(0), program.base_params()))
            start = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, program.abstract_whole))
            self.reference = [out for _, _, out in self.examination.over(self.scores, start, poll)]
        found = self.examination.over(self.scores, params, poll)
        for (held, _, scores_BP2), reference_BP2 in zip(found, self.reference):
            loss_BP, margin_BP = map(np.asarray, pair_losses(task, scores_BP2, reference_BP2))
            for row, items in enumerate(held):
                for pair, item in enumerate(items):
                    losses.append(float(loss_BP[row, pair]))
                    rows.append(self.row(item, round(float(margin_BP[row, pair]), 5)))
        margins = [row["margin"] for row in rows]
        preferred = sum(margin > 0 for margin in margins) / len(margins)
        figures = {"preference_loss": sum(losses) / len(losses), "margin": sum(margins) / len(margins)}
        return figures | {"preferred": preferred}, rows

    def row(self, item: Any, margin: float) -> dict[str, Any]:
        """A line of predictions.jsonl."""
        record = self.examination.records[item.record]
        texts = ["\n".join(turn.content for turn in turns) for turns in (record.prompt, record.chosen, record.rejected)]
        output = texts[1] if margin > 0 else texts[2]
        return {"record": str(item.where), "input": texts[0], "output": output, "reference": texts[1], "margin": margin}


KIND = Kind(
    "preference", Encoder.preference, {"loss": False, "preference_loss": False, "margin": True, "preferred": True},
    metric="preferred", judge=Pairs, objective=preference, reads=("preference",), counts="tokens of answers",
    keeps_template=True, generates=True, columns=("margin",),
)  # fmt: skip
