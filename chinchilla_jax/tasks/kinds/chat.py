"""Dialogues, and questions with one answer: validation answers by generating, greedy, as the model is served."""

from collections.abc import Callable, Sequence
from typing import Any

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.records import Dialogue


class Answers:
    """Answers to the first `task.generate` records."""

    def __init__(self, examination: Examination):
        self.data = examination.data
        self.asked = [record for record in examination.records if isinstance(record, Dialogue)]
        self.asked = self.asked[: self.data.task.generate]
        self.writer = examination.writer()

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        if not self.asked:
            return {}, []
        rows = self.answers(params, self.asked, poll)
        return {
            "exact": sum(row["output"].strip() == row["reference"].strip() for row in rows) / len(rows),
            "stopped": sum(row["stopped"] for row in rows) / len(rows),
        }, rows

    def answers(self, params: Any, records: Sequence[Dialogue], poll: Callable[[], None]) -> Rows:
        """The answers to the last questions of some dialogues."""
        data = self.data
        last = [max(i for i, turn in enumerate(r.turns) if turn.role == "assistant") for r in records]
        room = data.seq_len
        prompts = [data.renderer.prompt(r.turns[:i])[-room:] for r, i in zip(records, last)]
        blocks = [data.renderer.blocks(r.turns[:i], data.task.turns == "last")[-room:] for r, i in zip(records, last)]
        written = self.writer(params, prompts, blocks if data.blocks else None, data.task.max_new_tokens, poll)
        return [
            {
                "record": str(r.where), "input": data.tokenizer.decode(prompts[row]),
                "output": data.tokenizer.decode(written[row].ids), "reference": r.turns[last[row]].content,
                "stopped": written[row].stopped,
            }
            for row, r in enumerate(records)
        ]  # fmt: skip


KIND = Kind(
    "chat", Encoder.dialogue, {"loss": False, "exact": True, "stopped": True}, judge=Answers, reads=("chat",),
    in_bytes=True, keeps_template=True, generates=True, columns=("stopped",),
)  # fmt: skip
