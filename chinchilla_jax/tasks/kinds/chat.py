"""Dialogues, and questions with one answer: validation answers by generating, as the model is served."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, WRITES, Examination, Figures, Kind, Rows, spread
from chinchilla_jax.tasks.metrics import extras, similarity
from chinchilla_jax.tasks.records import Dialogue, Record, Turn

Score = Callable[[Sequence[str], Sequence[Sequence[str]], str], Figures]  # (outputs, references of each, language)
OF_ANY = {"loss": False, "bits_per_byte": False, "exact": True, "stopped": True, "empty": False}
SHOWN = 10  # references in a line of predictions.jsonl


class Answers:
    """Answers, scored; `dialogue` says what is asked of a record, if anything. Of a few, every so many'th is asked."""

    def __init__(
        self,
        examination: Examination,
        score: Score,
        dialogue: Callable[[Record], Dialogue | None] = lambda record: record,
    ):
        self.data, self.score = examination.data, score
        made = (dialogue(record) for record in examination.records)
        found = [one for each in made if isinstance(each, Dialogue) for one in asked(each, self.data.task.turns)]
        self.asked = spread(found, examination.most)
        self.references = [references(record) for record in self.asked]
        texts = [text for given in self.references for text in given]
        language = similarity.code_of(self.data.task.language)
        self.language = similarity.language_of(texts) if language == "auto" else language
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
        """The last turns of the dialogues, written by the model."""
        data = self.data
        said = [record.turns[:-1] for record in self.asked]
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


def wrong(row: dict[str, Any]) -> bool:
    """Whether a line of predictions.jsonl is none of its references, but for blanks round it: as `exact` counts."""
    return row["output"].strip() not in map(str.strip, row.get("references", [row["reference"]]))


def asked(record: Dialogue, turns: str) -> list[Dialogue]:
    """The dialogue up to each of its answers, or, if `turns` is last, up to the last one, whose references it keeps."""
    ends = [i for i, turn in enumerate(record.turns) if turn.role == "assistant"]
    kept = ends[-1:] if turns == "last" else ends
    return [
        replace(record, turns=record.turns[: i + 1], references=record.references if i == ends[-1] else ())
        for i in kept
    ]


def references(record: Dialogue) -> tuple[str, ...]:
    """The texts that the last turn may be."""
    return (record.turns[-1].content, *record.references)


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
    follows=("sampling", *AUGMENTS, *WRITES), wrong=wrong,
)  # fmt: skip
