"""Records with labels: a text, a pair of texts, or a text with an opinion on each of its entities."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.tasks.dialogues import text_of
from chinchilla_jax.tasks.records import Conversation, Labelled, Tally, Where

SEVERAL = "records with several labels, of which the first counts"
NUMBERED = "records whose labels are numbers, taken for the names of the labels in their order"
DIVIDER = "<div>"  # of several labels in one field, as in MultiDoGO


def labels_of(where: Where, value: Any) -> tuple[str, ...]:
    """Names of one label or several, numbers by their digits; an empty list is a text without a label."""
    several = value if isinstance(value, list) else value.split(DIVIDER) if isinstance(value, str) else [value]
    return tuple(dict.fromkeys(_name(where, label) for label in several))


def _name(where: Where, label: Any) -> str:
    label = int(label) if isinstance(label, float) and label.is_integer() else label
    known = isinstance(label, (str, int))
    require(known, f"{where}: label {label!r:.40} is neither a name nor a whole number; write one of these")
    require(bool(str(label).strip()), f"{where}: an empty label")
    return str(label).strip()


def by_name(record: Labelled, names: Sequence[str], tally: Tally) -> Labelled:
    """The record with the names of labels that are numbers, from 0, where no name is a number itself."""
    if any(name.isdecimal() for name in names):
        return record
    numbered = [label.isdecimal() and int(label) < len(names) for label in record.labels]
    if not any(numbered):
        return record
    tally.note(NUMBERED, record.where)
    made = (names[int(label)] if number else label for label, number in zip(record.labels, numbered))
    return replace(record, labels=tuple(dict.fromkeys(made)))


def labelled(*names: str, label: str = "label") -> Callable:
    """The texts in the fields `names` with what is in the field `label`."""

    def make(where: Where, fields: dict, tally: Tally) -> Iterator[Labelled]:
        texts = tuple(text_of(where, fields, name) for name in names)
        if all(text.strip() for text in texts):
            yield Labelled(where, texts, labels_of(where, fields[label]))
        else:
            tally.note("records dropped: an empty text", where)

    return make


def entities(where: Where, fields: dict, tally: Tally) -> Iterator[Labelled]:
    """`text` and {entity: label}: a record for every entity, the entity being the first text."""
    text = text_of(where, fields, "text")
    for entity, label in fields["entities"].items():
        yield Labelled(where, (entity, text), labels_of(where, label))


def conversations(records: Iterable[Labelled], names: Iterable[Any], tally: Tally) -> list[Conversation]:
    """Texts of a file under the name of their conversation, which have its order; it is where its first text is."""
    found: dict[tuple[str, str], list[Labelled]] = {}
    for record, name in zip(records, names, strict=True):
        where = record.where
        require(len(record.texts) == 1, f"{where}: --task.conversation belongs to records of one text")
        known = isinstance(name, (str, int)) and bool(str(name).strip())
        require(known, f"{where}: {name!r:.40} names no conversation; name it, or leave --task.conversation out")
        require(bool(record.labels), f"{where}: a text of a conversation without a label; give it one")
        found.setdefault((where.file, str(name)), []).append(record)
        if len(record.labels) > 1:
            tally.note(SEVERAL, record.where)
    return [
        Conversation(
            said[0].where, tuple(one.texts[0] for one in said), tuple(one.labels[0] for one in said), name,
            tuple(one.where for one in said),
        )
        for (_, name), said in found.items()
    ]  # fmt: skip
