"""A tag for every word: names, slots. The tag stands at a word's first piece; outputs keep to the B-I-O scheme."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.tasks.encode import CUT, Encoder, Example, opening
from chinchilla_jax.tasks.kinds import heads, tables
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows, by_item
from chinchilla_jax.tasks.kinds.labels import compiled_head
from chinchilla_jax.tasks.metrics import entities
from chinchilla_jax.tasks.offsets import HAN_KANA
from chinchilla_jax.tasks.records import Spans, Tagged
from chinchilla_jax.tasks.render import Encode

OUTSIDE = "O"
BARE = "words without a piece of their own, which count as O"
WIDENED = "entities widened to whole words, or left out because they overlap"
UNKNOWN = "tags of a type that the training set lacks, which no output can match"
WORD = re.compile(rf"[^\W{HAN_KANA}]+|[^\s]")  # a run of letters, or one other character
UNSPACED = re.compile(rf"[{HAN_KANA}\u3000-\u303f\uff00-\uffef]")


@functools.lru_cache(maxsize=1 << 16)
def words_of(record: Tagged | Spans) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...], int]:
    """Words, their tags, whether a blank stands before each, and how many entities had to be widened or left out."""
    if isinstance(record, Tagged):
        return record.words, record.tags, tuple(map(spaced, ("", *record.words), record.words)), 0
    places = [match.span() for match in WORD.finditer(record.text)]
    tags, changed = [OUTSIDE] * len(places), 0
    for start, end, name in record.spans:
        inside = [i for i, (a, b) in enumerate(places) if a < end and b > start]
        free = inside and all(tags[i] == OUTSIDE for i in inside)
        if free:
            for i in inside:
                tags[i] = f"{'B' if i == inside[0] else 'I'}-{name}"
        changed += not free or (places[inside[0]][0], places[inside[-1]][1]) != (start, end)
    words = tuple(record.text[a:b] for a, b in places)
    return words, tuple(tags), tuple(a > 0 and record.text[a - 1].isspace() for a, _ in places), changed


def spaced(before: str, word: str) -> bool:
    """Whether a blank stands between two words: none where one side is Chinese or Japanese."""
    return bool(before and word) and not (UNSPACED.match(before[-1]) or UNSPACED.match(word[0]))


def tag_names(records: Sequence[Tagged | Spans]) -> tuple[str, ...]:
    """O, and B- and I- of every type, sorted."""
    types = sorted({entities.kind_of(tag) for record in records for tag in words_of(record)[1] if tag != OUTSIDE})
    return (OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI"))


def encode(encoder: Encoder, record: Tagged | Spans, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """A sentence with a target at the first piece of every word; what does not fit is cut from the right.

    Words are encoded each by itself, so that no piece belongs to two. With --task.source twice the sentence stands
    there two times, and the second one, which has seen the whole, is tagged.
    """
    words, tags, blanks, changed = words_of(record)
    if changed:
        encoder.tally.note(WIDENED, record.where, changed)
    tokenizer, twice = encoder.renderer.tokenizer, encoder.task.source == "twice"
    ids = [encode(text) for text in spelled(tokenizer, words, blanks)]
    between = tokenizer.encode("\n") if twice else []
    start = opening(tokenizer)
    room = encoder.limit - len(start) - len(between)
    fits = fitting([len(each) for each in ids], room // 2 if twice else room)
    if fits < len(words):
        encoder.tally.note(CUT, record.where)
    known = {tag: i for i, tag in enumerate(encoder.labels)}
    sentence = [i for each in ids[:fits] for i in each]
    tokens = [*start, *(sentence + between if twice else []), *sentence]
    targets, weights, at = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), np.float32), len(tokens)
    at -= len(sentence)
    for each, tag in zip(ids[:fits], tags):
        if each:
            targets[at], weights[at] = known.get(tag, 0), 1
        else:
            encoder.tally.note(BARE, record.where)
        if tag not in known:
            encoder.tally.note(UNKNOWN, record.where)
        at += len(each)
    if weights.any():
        yield (encoder.segment(tokens, targets, weights),)


def spelled(tokenizer: BaseTokenizer, words: Sequence[str], blanks: Sequence[bool]) -> list[str]:
    """Each word as it is encoded: behind its blank, where the tokenizer puts none there itself."""
    gap = not tokenizer.prefixes_space
    return [" " * (gap and blank) + word for word, blank in zip(words, blanks)]


def fitting(sizes: Sequence[int], room: int) -> int:
    """How many words fit."""
    return int(np.searchsorted(np.cumsum(sizes), room, side="right"))


def allowed(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which tags may begin a sentence (C,), and which may follow which (C, C): I-X comes after B-X and I-X alone."""
    inside = np.array([tag[:1] == "I" for tag in tags])
    same = np.array([[entities.kind_of(a) == entities.kind_of(b) and a != OUTSIDE for b in tags] for a in tags])
    return ~inside, ~inside[None, :] | same


def viterbi(log_p_NC: np.ndarray, first_C: np.ndarray, follows_CC: np.ndarray) -> np.ndarray:
    """The likeliest sequence of tags among those that keep to the scheme: (N,)."""
    steps, last_C = [], np.where(first_C, log_p_NC[0], -np.inf)
    for log_p_C in log_p_NC[1:]:
        scores_CC = np.where(follows_CC, last_C[:, None], -np.inf)
        steps.append(scores_CC.argmax(0))
        last_C = scores_CC.max(0) + log_p_C
    path = [int(last_C.argmax())]
    for back_C in reversed(steps):
        path.append(int(back_C[path[-1]]))
    return np.array(path[::-1])


class Tagger:
    """Entities found, strictly and leniently, by the constrained outputs; and by the unconstrained ones, to compare."""

    def __init__(self, examination: Examination):
        self.examination, self.names = examination, examination.data.task.labels
        self.log_p = compiled_head(examination, jax.nn.log_softmax, "tags")
        self.first_C, self.follows_CC = allowed(self.names)
        encoder = examination.data.new_encoder()
        self.places = [np.flatnonzero(with_pieces(encoder, record)) for record in examination.records]

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        records = self.examination.records
        found = {number: ([OUTSIDE] * len(words_of(r)[0]),) * 2 for number, r in enumerate(records)}
        for item, log_p_LC in by_item(self.examination, self.log_p, params, poll):
            found[item.record] = self.outputs(item.record, log_p_LC[item.parts[0].weights > 0])
        rows = [
            {
                "record": str(record.where), "input": list(words_of(record)[0]), "output": found[number][0],
                "reference": list(words_of(record)[1]),
            }
            for number, record in enumerate(records)
        ]  # fmt: skip
        return tagged([row["reference"] for row in rows], *zip(*found.values())), rows

    def outputs(self, number: int, log_p_NC: np.ndarray) -> tuple[list[str], list[str]]:
        """Tags of every word by Viterbi, and by the largest probability alone; words that were cut are O."""
        chosen = viterbi(log_p_NC, self.first_C, self.follows_CC), log_p_NC.argmax(-1)
        made = [[OUTSIDE] * len(words_of(self.examination.records[number])[0]) for _ in chosen]
        for tags, path in zip(made, chosen):
            for word, tag in zip(self.places[number], path):
                tags[word] = self.names[tag]
        return made[0], made[1]


def with_pieces(encoder: Encoder, record: Tagged | Spans) -> list[bool]:
    """Whether each word has a piece."""
    tokenizer = encoder.renderer.tokenizer
    words, _, blanks, _ = words_of(record)
    return [bool(tokenizer.encode(text)) for text in spelled(tokenizer, words, blanks)]


def tagged(references: Sequence[list[str]], outputs: Sequence[list[str]], freely: Sequence[list[str]]) -> Figures:
    """F1 of entities: strict, lenient, and strict of outputs that were free to break the scheme."""
    exact = entities.counted(references, outputs, entities.strict)
    precision, recall, f1 = entities.micro(exact)
    words = [a == b for r, o in zip(references, outputs) for a, b in zip(r, o)]
    return {
        "strict_f1": f1, "strict_precision": precision, "strict_recall": recall,
        "strict_macro_f1": entities.macro(exact)[2],
        "lenient_f1": entities.micro(entities.counted(references, outputs, entities.lenient))[2],
        "strict_f1_unconstrained": entities.micro(entities.counted(references, freely, entities.strict))[2],
        "word_accuracy": sum(words) / max(len(words), 1),
    }  # fmt: skip


def sections(found: dict[str, Any], rows: Rows) -> list[str]:
    """Strict F1 by type, and by length of the sentence."""
    references, outputs = ([row[name] for row in rows] for name in ("reference", "output"))
    counts = entities.counted(references, outputs, entities.strict)
    lines = [
        (name, there, said, right, *entities.scores(right, said, there))
        for name, (right, said, there) in counts.items()
    ]
    head = ("type", "in references", "in outputs", "right", "precision", "recall", "strict F1")

    def f1(part: Rows) -> float:
        pairs = ([row[name] for row in part] for name in ("reference", "output"))
        return entities.micro(entities.counted(*pairs, entities.strict))[2]

    by = tables.by_length(rows, lambda row: len(row["input"]), "words", {"strict F1": f1})
    return [*tables.section("By type", head, lines), *by]


def check(task: Any, records: Sequence[Tagged | Spans]) -> None:
    """Refuse names of tags that keep to no scheme; those of records are looked at when these are read."""
    names = set(task.labels)
    odd = [tag for tag in task.labels if tag[:1] == "I" and "B" + tag[1:] not in names]
    require(OUTSIDE in names and not odd, f"--task.labels needs O, and B-TYPE for every I-TYPE ({', '.join(odd[:3])})")


def shown(data: Any, text: str, part: Example) -> str:
    """The sentence and its tags."""
    return f"{text} -> [[{' '.join(data.task.labels[i] for i in part.targets[part.weights > 0])}]]"


KIND = Kind(
    "tags", encode, {
        "loss": False, "strict_f1": True, "strict_precision": True, "strict_recall": True, "strict_macro_f1": True,
        "lenient_f1": True, "strict_f1_unconstrained": True, "word_accuracy": True,
    },
    metric="strict_f1", judge=Tagger, objective=heads.tags,
    heads=heads.biased_rows("tags", lambda config: len(config.task.labels)), reads=("tags",), names=tag_names,
    check=check, counts="words", template="plain", sources=("causal", "bidirectional", "twice"), sections=sections,
    shown=shown, follows=("sampling",),
)  # fmt: skip
