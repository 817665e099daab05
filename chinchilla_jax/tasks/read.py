"""Files of examples as records: suffix and first record decide the format, and every record keeps its place.

What is known is the table FORMATS; a file that fits none is refused with the fields it has and the formats there are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks import dialogues, histories, labelled, spans
from chinchilla_jax.tasks.files import Columns, Raw, rows, suffix
from chinchilla_jax.tasks.records import Record, Tally, Where


@dataclass(frozen=True)
class Format:
    """A kind of record, known by the fields that it `needs` and perhaps by what `test` says of them."""

    name: str
    kind: str
    needs: tuple[str, ...]
    make: Callable[[Where, dict, Tally], Iterator[Record]]
    test: Callable[[dict], bool] = lambda fields: True

    def fits(self, fields: dict[str, Any]) -> bool:
        """Whether a record is of this format."""
        return all(fields.get(name) is not None for name in self.needs) and self.test(fields)


def entities_are(kind: type) -> Callable[[dict], bool]:
    """Whether the field `entities` is a list or a table."""
    return lambda fields: isinstance(fields["entities"], kind)


# The first that fits is taken, so what asks for more fields stands first.
FORMATS = (
    Format("messages", "chat", ("messages",), dialogues.chat),
    Format("ShareGPT", "chat", ("conversations",), dialogues.sharegpt),
    Format("preference", "preference", ("chosen", "rejected"), dialogues.preference),
    Format("prompt and completion", "chat", ("prompt", "completion"), dialogues.pair("prompt", "completion")),
    Format("Alpaca", "chat", ("instruction", "output"), dialogues.alpaca),
    Format("SQuAD", "spans", ("context", "question", "answers"), spans.question),
    Format("SQuAD", "spans", ("context", "question", "is_impossible"), spans.question),
    Format("SQuAD", "spans", ("context", "question", "answer"), spans.question),
    Format("question and answer", "chat", ("question", "answer"), dialogues.pair("question", "answer")),
    Format("tagged words", "tags", ("tokens", "tags"), spans.words),
    Format("tagged words", "tags", ("tokens", "ner_tags"), spans.words),
    Format("spans", "tags", ("text", "entities"), spans.entities, entities_are(list)),
    Format("slots", "tags", ("userInput",), spans.slots, lambda fields: isinstance(fields["userInput"], dict)),
    Format("entity sentiment", "labels", ("text", "entities"), labelled.entities, entities_are(dict)),
    Format("labelled pair", "labels", ("premise", "hypothesis", "label"), labelled.labelled("premise", "hypothesis")),
    Format("labelled pair", "labels", ("text_a", "text_b", "label"), labelled.labelled("text_a", "text_b")),
    Format("labelled text", "labels", ("text", "label"), labelled.labelled("text")),
    Format("labelled text", "labels", ("sentence", "label"), labelled.labelled("sentence")),
    Format("labelled pair", "labels", ("sentence1", "sentence2", "label"), labelled.labelled("sentence1", "sentence2")),
    Format("labelled text", "labels", ("text", "labels"), labelled.labelled("text", label="labels")),
    Format("translation", "chat", ("translation",), dialogues.translation),
    Format("source and target", "chat", ("source", "target"), dialogues.pair("source", "target")),
    Format("summary", "chat", ("document", "summary"), dialogues.summary("document", "summary")),
    Format("summary", "chat", ("article", "highlights"), dialogues.summary("article", "highlights")),
    Format("summary", "chat", ("text", "summary"), dialogues.summary("text", "summary")),
    Format("history", "items", ("user", "items"), histories.history),
    Format("text", "text", ("text",), dialogues.document),
)
KINDS = tuple(dict.fromkeys(form.kind for form in FORMATS))
EVENTS = {name for names in histories.NAMES.values() for name in names}
KNOWN = frozenset({name for form in FORMATS for name in form.needs} | EVENTS)
HEADLESS = (
    "files of two columns without a known header, whose first line is read as a record (of a header, name the columns "
    "with --task.text and --task.label)"
)
# What --task.text and --task.label name, and two columns without a header are, where that is not text and label.
BARE = {("chat",): ("source", "target"), ("tags",): ("text", "entities")}
MEND = "name your own with --task.text and --task.label"
UNREAD = "files of which only the text is read, and none of their other fields (a label is named with --task.label)"


@dataclass
class Found:
    """The records of some files, all of one kind, and what happened to the others."""

    records: list[Record]
    kind: str
    format: str
    tally: Tally = field(default_factory=Tally)


def read(
    paths: Iterable[str | Path], kinds: tuple[str, ...] = (), text: str = "", label: str = "", divider: str = "",
    conversation: str = "", labels: tuple[str, ...] = (),
) -> Found:  # fmt: skip
    """The records of `paths`, all of one format of the `kinds` asked for, or of any; the first record decides.

    `text` and `label` name the user's own fields for these two; `divider` stands between labels of one field, and
    texts with the same value of the field `conversation` are one record. A label may be the number of one of `labels`.
    Raises `UserError`, which names file and line.
    """
    tally, records, form, names = Tally(), [], None, [str(path) for path in paths]
    spoken: list[Any] = []  # names of conversations
    require(bool(names), "no file of examples; name one with --task.train")
    for path in names:
        pair = BARE.get(kinds[:1], ("text", "label"))
        columns = Columns(KNOWN, tuple(name for name in (text, label, conversation) if name), pair, *kinds[:1])
        found = (divided(renamed(raw, text, label, pair), divider) for raw in rows(path, columns))
        first = next(found, None)
        require(first is not None, f"{path}: no record in this file; add some, or leave the file out")
        if first.headless:
            tally.note(HEADLESS, first.where)
        whole = chain([first], found)
        if (not kinds or "items" in kinds) and histories.is_event(first.fields):
            form = Format("events", "items", (), histories.history)
            records += histories.events(whole, tally)
            continue
        foreign = suffix(path) == ".inter" and not histories.is_event(first.fields)
        require(not foreign, histories.lacking(first))
        form = form or chosen(first, kinds)
        if form.kind == "text" and not kinds and len(first.fields) > 1:
            tally.note(UNREAD, first.where)
        for raw in whole:
            if not any(one.fits(raw.fields) for one in FORMATS if one.make is form.make):
                raise UserError(misfit(raw, form))
            made = list(form.make(raw.where, raw.fields, tally))
            if labels and form.kind == "labels":
                made = [labelled.by_name(record, labels, tally) for record in made]
            records += made
            if conversation:
                require(
                    form.kind == "labels" and conversation in raw.fields,
                    f"{raw.where}: --task.conversation {conversation}: no such field of a text with a label",
                )
                spoken += [raw.fields[conversation]] * len(made)
    if spoken:
        records = labelled.conversations(records, spoken, tally)
    spans.check_offsets(tally)
    require(bool(records), f"{', '.join(names)}: no record is left ({'; '.join(tally.lines())})")
    return Found(records, form.kind, form.name, tally)


def renamed(raw: Raw, text: str, label: str, pair: tuple[str, str]) -> Raw:
    """A row with the user's own names for text and label replaced by the `pair` that its kind has for them."""
    for name, own in (("text", text), ("label", label)):
        require(
            not own or own in raw.fields or within(raw.fields, own) is not None,
            f"{raw.where}: --task.{name} {own}: no such field; found {', '.join(raw.fields)}",
        )
    if pair[0] == "text" and isinstance(within(raw.fields, text or "tokens"), list):
        pair = ("tokens", "tags")
    given = {name: own for name, own in zip(pair, (text, label)) if own}
    if not given:
        return raw
    rest = {name: value for name, value in raw.fields.items() if name not in given and name not in given.values()}
    return Raw(raw.where, rest | {name: within(raw.fields, own) for name, own in given.items()})


def within(fields: dict[str, Any], name: str) -> Any:
    """The field `name`, or the one that `a.b` names: b of a; None where there is none."""
    if name in fields:
        return fields[name]
    outer, dot, inner = name.partition(".")
    return within(fields[outer], inner) if dot and isinstance(fields.get(outer), dict) else None


def divided(raw: Raw, divider: str) -> Raw:
    """A row whose field `label` is a list, where the user has said what divides it."""
    label = raw.fields.get("label")
    if not divider or not isinstance(label, str):
        return raw
    parts = [part.strip() for part in label.split(divider) if part.strip()]
    return replace(raw, fields=raw.fields | {"label": parts})


def chosen(raw: Raw, kinds: tuple[str, ...]) -> Format:
    """The format of a first record; a `UserError` lists its fields and what is known."""
    suitable = [form for form in FORMATS if not kinds or form.kind in kinds]
    found = next((form for form in suitable if form.fits(raw.fields)), None)
    if found is None:
        events = ["user, item, timestamp"] if "items" in (kinds or KINDS) else []
        known = "; ".join(dict.fromkeys([", ".join(form.needs) for form in suitable] + events))
        plain = list(raw.fields) == ["text"] and ".txt" in raw.where.file
        mend = "a text of pairs has a tab in every line, and two aligned files are written A+B" if plain else MEND
        asked = f" of {' or '.join(kinds)}" if kinds else ""
        raise UserError(
            f"{raw.where}: the fields {', '.join(raw.fields) or '(none)'} are no known format{asked}; known are: "
            f"{known}; {mend}"
        )
    return found


def misfit(raw: Raw, form: Format) -> str:
    """Why a record is refused."""
    if null := [name for name in form.needs if name in raw.fields and raw.fields[name] is None]:
        return f"{raw.where}: {', '.join(null)} is null; give it a value, or leave the record out"
    return (
        f"{raw.where}: the first record has the format {form.name} ({', '.join(form.needs)}), this one has the fields "
        f"{', '.join(raw.fields) or '(none)'}; put formats into files of their own"
    )
