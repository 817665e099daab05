"""Questions answered by a span of their context: the likeliest pair of first and last token, or no answer."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.tasks import splits
from chinchilla_jax.tasks.encode import Encoder, Example, opening
from chinchilla_jax.tasks.kinds import heads, tables
from chinchilla_jax.tasks.kinds.contexts import closing, context_of, place_of, windows
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows, by_item
from chinchilla_jax.tasks.kinds.span_head import CANDIDATE, END, START, likeliest, span_head, span_log_p
from chinchilla_jax.tasks.metrics import answers
from chinchilla_jax.tasks.records import Question, Tally
from chinchilla_jax.tasks.render import Encode

NOWHERE = "questions left out of training: no answer stands in their context"
LACKING = "questions none of whose references stands in its context, which no output can match"
WINDOWS = "contexts read in several windows"
STYLES = {"squad": "SQuAD's script (words)", "cmrc": "CMRC 2018's script (characters, longest common substring)"}


def divide(task: TaskConfig, train: list, valid: list | None, test: list | None, seed: int, tally: Tally):
    """By context; what cannot be trained on is left out, and kept in validation, where it counts as missed."""
    train, valid, test = splits.by_group(task, train, valid, test, seed, tally)
    kept = [record for record in train if not record.answers or place_of(record)]
    for part, what in ((train, NOWHERE), ([*valid, *test], LACKING)):
        for record in part:
            if record.answers and not place_of(record):
                tally.note(what, record.where)
    every = [*train, *valid, *test]
    require(
        bool(kept) or not train,
        f"{every[0].where.file}: no answer stands in its context; train --task.kind chat, which writes",
    )
    tally.note(f"questions scored by {STYLES[style_of(task, every)]}", every[0].where, len(every))
    return kept, valid, test


def style_of(task: TaskConfig, records: Sequence[Question]) -> str:
    """Whose script scores: CMRC's where most letters of the questions are Chinese."""
    if task.style != "auto":
        return task.style
    letters = [bool(answers.HAN.match(c)) for record in records[:200] for c in record.question if c.isalpha()]
    return "cmrc" if sum(letters) > len(letters) / 2 else "squad"


def encode(encoder: Encoder, record: Question, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """A question, a newline and its context, in windows where that is long; each window's weight is its share of 1.

    Targets are bits: where an answer may begin and end, and where this one does. In a window without the whole answer
    it is the last token, which also stands for no answer at all.
    """
    tokenizer = encoder.renderer.tokenizer
    question, spans = windows(encoder, record)
    if len(spans) > 1:
        encoder.tally.note(WINDOWS, record.where)
    whole, place = context_of(tokenizer, record.context), place_of(record)
    first, last = whole.between(*place) if place else (-1, -1)
    for start, end in spans:
        part = [*question, *whole.ids[start:end].tolist(), *closing(tokenizer)]
        tokens = opening(tokenizer) + part * (2 if encoder.task.source == "twice" else 1)
        targets, weights = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), np.float32)
        at = len(tokens) - len(closing(tokenizer)) - (end - start)  # of the context's first token
        targets[at : at + end - start] = CANDIDATE
        targets[-1] = CANDIDATE
        inside = start <= first and last < end
        begins, ends = (at + first - start, at + last - start) if inside else (len(tokens) - 1,) * 2
        if place or not record.answers:
            targets[begins] |= START
            targets[ends] |= END
            weights[begins] += 0.5 / len(spans)
            weights[ends] += 0.5 / len(spans)
        yield (encoder.segment(tokens, targets, weights),)


class Reader:
    """Exact match and F1 in hundredths; where some questions have no answer, by a threshold that validation sets.

    Without a threshold every question is answered: a test never sets its own.
    """

    def __init__(self, examination: Examination):
        self.examination = examination
        cfg = examination.program.config.model
        data = examination.data
        self.style = style_of(data.task, [*data.train, *data.valid, *data.test])

        encoder, seen = data.new_encoder(), Counter()
        self.starts: dict[int, int] = {}  # where in its context the window of an item begins
        for item in examination.items:
            spans = windows(encoder, examination.records[item.record])[1]
            self.starts[id(item)] = spans[seen[item.record]][0]
            seen[item.record] += 1

        def log_p(params, batch):
            hidden_BLD = transformer.apply(params, batch, cfg)
            return span_log_p(hidden_BLD, heads.rows(params, "spans"), batch).astype(jnp.float32)

        self.log_p = examination.compiled(log_p)

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        records = self.examination.records
        said = {number: [(-np.inf, ""), np.inf] for number in range(len(records))}  # (score, text), score of no answer
        for item, log_p_L2 in by_item(self.examination, self.log_p, params, poll):
            log_p_C2 = log_p_L2[item.parts[0].targets & CANDIDATE > 0]
            self.read(said[item.record], records[item.record], log_p_C2, self.starts[id(item)])
        return self.scored(said)

    def read(self, said: list, record: Question, log_p_C2: np.ndarray, start: int) -> None:
        """Take what a window says, if it is surer than those before; the last candidate means no answer."""
        task = self.examination.data.task
        whole = context_of(self.examination.data.tokenizer, record.context)
        if len(log_p_C2) > 1:
            score, first, last = likeliest(log_p_C2[:-1], task.max_answer)
            said[0] = max(said[0], (score, whole.text(record.context, start + first, start + last)))
        said[1] = min(said[1], float(log_p_C2[-1].sum()))

    def scored(self, said: dict[int, list]) -> tuple[Figures, Rows]:
        """The figures, and the lines of predictions.jsonl."""
        records = self.examination.records
        gaps = np.array([none - best[0] for best, none in said.values()])
        texts = [best[1] for best, _ in said.values()]
        references = [[text for text, _ in record.answers] for record in records]
        full = np.array([answers.best(self.style, text, refs) for text, refs in zip(texts, references)])
        empty = np.array([answers.best(self.style, "", refs) for refs in references])
        asked = np.array([bool(refs) for refs in references])
        cut = self.examination.tuned.get("null_threshold")
        if cut is None:
            sets = self.examination.name == "valid" and not asked.all()
            cut = threshold(gaps, full[:, 1], empty[:, 1]) if sets else np.inf
        none = gaps > cut
        found = 100 * np.where(none[:, None], empty, full)
        figures = {"exact": float(found[:, 0].mean()), "f1": float(found[:, 1].mean())}
        for name, part in (("has_answer", asked), ("no_answer", ~asked)):
            if part.any() and not asked.all():
                figures |= {f"{name}_exact": float(found[part, 0].mean()), f"{name}_f1": float(found[part, 1].mean())}
        figures |= {"null_threshold": float(cut)} if np.isfinite(cut) else {}
        rows = [
            {
                "record": str(record.where), "input": {"question": record.question, "context": record.context},
                "output": "" if no else text, "reference": refs or [""], "f1": round(float(one), 2),
                "null_gap": round(float(gap), 4),
            }
            for record, no, text, refs, one, gap in zip(records, none, texts, references, found[:, 1], gaps)
        ]  # fmt: skip
        return figures, rows


def threshold(gaps: np.ndarray, full: np.ndarray, empty: np.ndarray) -> float:
    """The gap between no answer and the best span above which the first is given, for the best mean F1."""
    order = np.argsort(gaps, kind="stable")
    gain = np.append(0.0, np.cumsum((full - empty)[order]))  # of answering so many, the surest first
    count = int(gain.argmax())
    if count == len(gaps):
        return np.inf if not count else float(gaps[order[-1]] + 1.0)
    return float(gaps[order[0]] - 1.0) if not count else float((gaps[order[count - 1]] + gaps[order[count]]) / 2)


def sections(found: dict[str, Any], rows: Rows) -> list[str]:
    """Exact match and F1 by the length of the context and by the first word of the question."""

    def exact(part: Rows) -> float:
        return 100 * sum(row["f1"] == 100 for row in part) / len(part)

    def f1(part: Rows) -> float:
        return sum(row["f1"] for row in part) / len(part)

    kinds: dict[str, Rows] = {}
    for row in rows:
        kinds.setdefault(first_word(row["input"]["question"]), []).append(row)
    most = sorted(kinds.items(), key=lambda pair: -len(pair[1]))[:10]
    return [
        *tables.by_length(
            rows, lambda row: len(row["input"]["context"]), "characters", {"F1 of 100": exact, "F1": f1}
        ),
        *tables.section("By first word of the question", ("word", "questions", "F1"),
                        [(word, len(part), f1(part)) for word, part in most]),
    ]  # fmt: skip


def first_word(question: str) -> str:
    """What a question begins with, in lower case; two characters of a Chinese one."""
    words = question.lower().split()
    return "" if not words else words[0][:2] if answers.HAN.match(words[0]) else words[0]


def shown(data: Any, text: str, part: Example) -> str:
    """The question with its context, and the answer."""
    at = [int(np.flatnonzero(part.targets & bit)[0]) for bit in (START, END) if (part.targets & bit).any()]
    there = data.tokenizer.decode(part.tokens[at[0] : at[1] + 1].tolist()).strip() if at else ""
    return f"{text} -> [[{there}]]"


KIND = Kind(
    "spans", encode, {
        "loss": False, "exact": True, "f1": True, "has_answer_exact": True, "has_answer_f1": True,
        "no_answer_exact": True, "no_answer_f1": True,
    },
    metric="f1", judge=Reader, objective=heads.headed("spans", span_head),
    heads=heads.biased_rows("spans", lambda config: 2), wrong=lambda row: row["f1"] < 100, reads=("spans",),
    divide=divide, template="plain", sources=("causal", "bidirectional", "twice"),
    columns=("f1", "null_gap"), sections=sections, shown=shown,
    follows=("style", "stride", "max_answer"),
)  # fmt: skip
