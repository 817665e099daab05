"""Records with places in a text: tags of words, spans of characters, answers in a context."""

from collections.abc import Iterator
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.dialogues import text_of
from chinchilla_jax.tasks.metrics.entities import begun
from chinchilla_jax.tasks.records import Question, Spans, Tagged, Tally, Where

MOVED = "answers or entities that did not stand where their offset says, moved to the nearest place"
SCHEME = "tags of the scheme BIOES or BILOU, read as B- and I-"
BROKEN = "I- tags that continue nothing, read as B-"
ALIKE = {"S-": "B-", "U-": "B-", "E-": "I-", "L-": "I-"}
GONE = "records dropped: an answer or entity does not occur in its text"
ABSENT = "references left out: they do not occur in their context, in which another one stands"
BLANK = "blank answers left out"


def words(where: Where, fields: dict, tally: Tally) -> Iterator[Tagged]:
    """`tokens` with `tags` or `ner_tags`, as names or as numbers of `names`."""
    tokens, tags = fields["tokens"], fields.get("tags", fields.get("ner_tags"))
    require(isinstance(tokens, list) and isinstance(tags, list), f"{where}: tokens and tags are to be lists")
    require(len(tokens) == len(tags), f"{where}: {len(tokens)} tokens and {len(tags)} tags")
    names = fields.get("names") or []
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    require(texts, f"{where}: names is {names!r:.40}, not a list of the tags' names")
    if names and all(isinstance(tag, int) for tag in tags):
        require(all(0 <= tag < len(names) for tag in tags), f"{where}: a tag beyond the {len(names)} names")
        tags = [names[tag] for tag in tags]
    yield Tagged(where, tuple(map(str, tokens)), tuple(to_iob2(where, list(map(str, tags)), tally)))


def to_iob2(where: Where, tags: list[str], tally: Tally) -> list[str]:
    """Tags of the schemes BIOES, BILOU and IOB1 in IOB2; what is changed is counted."""
    same = [ALIKE.get(tag[:2], tag[:2]) + tag[2:] for tag in tags]
    odd = next((tag for tag in same if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) == 2)), None)
    require(odd is None, f"{where}: tag {odd!r} is neither O nor B-TYPE nor I-TYPE; correct it, or write O")
    made = begun(same)
    for what, old, new in ((SCHEME, tags, same), (BROKEN, same, made)):
        if times := sum(a != b for a, b in zip(old, new)):
            tally.note(what, where, times)
    return made


def entities(where: Where, fields: dict, tally: Tally) -> Iterator[Spans]:
    """`text` and `entities`: objects with start, end and label, or spaCy's [start, end, label]."""
    text, spans, given = text_of(where, fields, "text"), [], fields["entities"]
    require(isinstance(given, list), f"{where}: the entities or labels are {given!r:.40}, not a list")
    for entity in given:
        start, end, label, quoted = _entity(where, entity)
        require(0 <= start <= end <= len(text), f"{where}: entity {entity!r:.60} lies outside of its text")
        if quoted is not None:
            start = placed(text, quoted, start, where, tally)
            if start < 0:
                tally.note(GONE, where)
                return
            end = start + len(quoted)
        spans.append((start, end, label))
    yield Spans(where, text, tuple(sorted(spans)))


def _entity(where: Where, entity: Any) -> tuple[int, int, str, str | None]:
    """Start, end, label and, where it is given, the text of an entity; protobuf leaves out a start of 0."""
    if isinstance(entity, list) and len(entity) == 3:
        start, end, label, quoted = *entity, None
    else:
        require(
            isinstance(entity, dict), f"{where}: entity {entity!r:.60} is neither an object nor [start, end, label]"
        )
        place = entity.get("valueSpan", entity)
        require(isinstance(place, dict), f"{where}: valueSpan is {place!r:.40}, not an object with a start and an end")
        start, end = (place.get(name, place.get(f"{name}Index", 0)) for name in ("start", "end"))
        label, quoted = entity.get("label", entity.get("slot")), entity.get("text")
    whole = isinstance(start, int) and isinstance(end, int) and isinstance(label, str) and bool(label)
    require(whole, f"{where}: entity {entity!r:.60} needs whole numbers start and end, and a label")
    require(quoted is None or isinstance(quoted, str), f"{where}: the text of entity {entity!r:.60} is no text")
    return start, end, label, quoted


def slots(where: Where, fields: dict, tally: Tally) -> Iterator[Spans]:
    """`userInput` and `labels` of slots (restaurant8k)."""
    return entities(where, {"text": fields["userInput"].get("text"), "entities": fields.get("labels", [])}, tally)


def question(where: Where, fields: dict, tally: Tally) -> Iterator[Question]:
    """SQuAD's fields; `answers` are objects or texts, `answer` one of these; none where it `is_impossible`.

    A blank answer is none. One that does not occur in the context is left out; without any other the record is.
    """
    context, asked = text_of(where, fields, "context"), text_of(where, fields, "question")
    lone = fields.get("answer", [])
    answers = listed(where, fields.get("answers", lone if isinstance(lone, list) else [lone]))
    impossible = fields.get("is_impossible", False)
    require(
        bool(answers) or impossible or "answers" in fields or "answer" in fields,
        f"{where}: no answers, and not is_impossible",
    )
    found, absent = [], 0
    for answer in [] if impossible else answers:
        if not isinstance(answer, str):
            check_answer(where, answer)
        if not (answer if isinstance(answer, str) else answer["text"]).strip():
            tally.note(BLANK, where)
            continue
        if isinstance(answer, str):
            found.append((answer, -1))
            continue
        text, start = answer["text"], answer.get("answer_start", 0)
        if start < 0:  # CMRC's way to say that an answer does not stand in its context
            found.append((text.strip(), -1))
            continue
        place = placed(context, text.strip(), start + len(text) - len(text.lstrip()), where, tally)
        if place < 0:
            absent += 1
        else:
            found.append((text.strip(), place))
    if absent:
        tally.note(ABSENT if found else GONE, where, absent if found else 1)
    if found or not absent:
        yield Question(where, context, asked, tuple(found))


def listed(where: Where, answers: Any) -> list:
    """`answers` as a list, also where they are the columns of a data frame; none where they are null."""
    if answers is None or answers == {}:
        return []
    if isinstance(answers, dict):
        texts = answers.get("text")
        require(isinstance(texts, list), f"{where}: the text of answers is {type(texts).__name__}, not a list of texts")
        starts = answers.get("answer_start", [-1] * len(texts))
        same = isinstance(starts, list) and len(starts) == len(texts)
        require(same, f"{where}: answer_start of answers is to be a list of {len(texts)}, as many as there are texts")
        return [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    require(isinstance(answers, list), f"{where}: answers is {type(answers).__name__}, not a list")
    return answers


def check_answer(where: Where, answer: Any) -> None:
    """Refuse an answer that is no object with a text and a whole number as its start."""
    require(isinstance(answer, dict), f"{where}: answer {answer!r:.60} is neither a text nor an object with one")
    require(isinstance(answer.get("text"), str), f"{where}: an answer without a text")
    start = answer.get("answer_start", 0)
    known = isinstance(start, int)
    require(known, f"{where}: answer_start {start!r:.40} is no whole number; leave it out where it is not known")


def placed(text: str, quoted: str, start: int, where: Where, tally: Tally) -> int:
    """`start` if `quoted` stands there, else the nearest place where it does, which is counted; -1 if nowhere."""
    tally.offsets += 1
    if text[start : start + len(quoted)] == quoted:
        return start
    places = [i for i in range(len(text)) if text.startswith(quoted, i)]
    if places:
        tally.note(MOVED, where)
    return min(places, key=lambda i: abs(i - start), default=-1)


MOST_MOVED = 0.01


def check_offsets(tally: Tally) -> None:
    """Refuse a set of which more than 1 % of the offsets are off."""
    kinds = [what for what in (MOVED, GONE, ABSENT) if what in tally.counts]
    wrong = sum(tally.counts[what] for what in kinds)
    if wrong > MOST_MOVED * tally.offsets:
        where = tally.first[kinds[0]]
        raise UserError(
            f"{where}: {wrong} of {tally.offsets} offsets do not give their text, this one the first; correct "
            "the file, or leave the offsets out"
        )
