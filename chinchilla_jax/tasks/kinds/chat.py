"""Dialogues, and questions with one answer: validation answers by generating, as the model is served."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, WRITES, Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.metrics import extras, similarity
from chinchilla_jax.tasks.records import Dialogue, Record, Turn

Score = Callable[[Sequence[str], Sequence[Sequence[str]], str], Figures]  # (outputs, references of each, language)
OF_ANY = {"loss": False, "bits_per_byte": False, "exact": True, "stopped": True, "empty": False}
SHOWN = 10  # references in a line of predictions.jsonl


class Answers:
    """Answers to the first records, scored; `dialogue` says what is asked of a record, if anything."""

    def __init__(
        self,
        examination: Examination,
        score: Score,
        dialogue: Callable[[Record], Dialogue | None] = lambda record: record,
    ):
        self.data, self.score = examination.data, score
        found = (dialogue(record) for record in examination.records)
        self.asked = [one for one in found if isinstance(one, Dialogue)][: examination.most]
        self.references = [references(record) for record in self.asked]
        texts = [text for given in self.references for text in given]
        asked = similarity.code_of(self.data.task.language)
        self.language = similarity.language_of(texts) if asked == "auto" else asked
        self.writer = examination.writer()
        self.score([""], [["x"]], self.language)  # a library that is missing is said before anything is trained

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        if not self.asked:
            return {}, []
        rows = self.answers(params, poll)
        outputs = [row["output"].strip() for row in rows]
        count = len(rows)
        exact = sum(output in map(str.strip, given) for output, given in zip(outputs, self.references))
        return {
            "exact": exact / count,
            "stopped": sum(row["stopped"] for row in rows) / count,
            "empty": outputs.count("") / count,
            **self.score(outputs, self.references, self.language),
        }, rows

    def answers(self, params: Any, poll: Callable[[], None]) -> Rows:
        """The answers to the last questions of the dialogues."""
        data = self.data
        said = [record.turns[: last_answer(record)] for record in self.asked]
        prompts, blocks = map(list, zip(*map(data.encoder.prompt, said)))
        written = self.writer(params, prompts, blocks if data.blocks else None, data.task.max_new_tokens, poll)
        return [
            {
                "record": str(record.where), "input": data.tokenizer.decode(prompt),
                "output": data.tokenizer.decode(one.ids), "reference": given[0], "stopped": one.stopped,
                **({"references": list(given[:SHOWN])} if len(given) > 1 else {}),
            }
            for record, prompt, one, given in zip(self.asked, prompts, written, self.references)
        ]  # fmt: skip


def last_answer(record: Dialogue) -> int:
    """The number of the last turn that answers."""
    return max(i for i, turn in enumerate(record.turns) if turn.role == "assistant")


def references(record: Dialogue) -> tuple[str, ...]:
    """The texts that the last answer may be."""
    return (record.turns[last_answer(record)].content, *record.references)


def encode_as(dialogue: Callable[[Record], Dialogue | None]) -> Callable[..., Iterator[tuple]]:
    """The encoding of records as the dialogues that they are turned into."""

    def encode(encoder: Encoder, record: Record, encode: Any) -> Iterator[tuple]:
        turned = dialogue(record)
        return encoder.dialogue(turned, encode) if turned else iter(())

    return encode


def pair(record: Record, source: str, targets: Sequence[str]) -> Dialogue:
    """A question with its answers, the first of which is trained on."""
    return Dialogue(record.where, (Turn("user", source), Turn("assistant", targets[0])), references=tuple(targets[1:]))


def talk(outputs: Sequence[str], given: Sequence[Sequence[str]], language: str) -> Figures:
    """How varied replies are; how like the one that was given, where sacrebleu is there: many others may be as good."""
    found = similarity.variety(outputs, language)
    if extras.has("sacrebleu"):
        scores, _ = similarity.translation(outputs, given, language)
        found |= {f"similarity_{name}": value for name, value in scores.items()}
    return found


FIGURES = OF_ANY | dict.fromkeys(("distinct1", "distinct2", "length", "similarity_bleu", "similarity_chrf2"), True)
KIND = Kind(
    "chat", Encoder.dialogue, FIGURES, judge=partial(Answers, score=talk), reads=("chat",),
    in_bytes=True, keeps_template=True, generates=True, columns=("stopped", "references"),
    follows=("sampling", *AUGMENTS, *WRITES),
)  # fmt: skip
