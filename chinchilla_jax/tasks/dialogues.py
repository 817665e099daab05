"""Records with turns: prompt and answer, chat, preference; summaries and translations, which are such pairs."""

from collections.abc import Callable, Iterator
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.tasks.records import Dialogue, Document, Preference, Tally, Turn, Where

ROLES = {"developer": "system"} | {role: role for role in ("system", "user", "assistant")}
SHAREGPT = {"human": "user", "user": "user", "system": "system"} | dict.fromkeys(
    ("gpt", "assistant", "bing"), "assistant"
)
EMPTY = "empty messages left out"
SILENT = "dialogues dropped: no assistant text"


def text_of(where: Where, fields: dict, name: str) -> str:
    """A field that has to be a text."""
    value = fields.get(name)
    require(isinstance(value, str), f"{where}: {name} is {type(value).__name__}, not a text")
    return value


def turns_of(where: Where, messages: Any, name: str) -> list[Turn]:
    """OpenAI's messages as turns."""
    require(isinstance(messages, list) and bool(messages), f"{where}: {name} is no list of messages")
    return [_message(where, message, name) for message in messages]


def turns_in(where: Where, fields: dict, name: str, role: str) -> list[Turn]:
    """The turns of a field: a list of messages, or the text of one `role`."""
    if isinstance(fields[name], list):
        return turns_of(where, fields[name], name)
    return [Turn(role, text_of(where, fields, name))]


def _message(where: Where, message: Any, name: str) -> Turn:
    require(isinstance(message, dict), f"{where}: {name} holds {type(message).__name__}, not messages")
    role = message.get("role")
    known = isinstance(role, str) and role in ROLES
    require(known, f"{where}: role {role!r:.60} is none of {', '.join(ROLES)}; leave such messages out")
    content = message.get("content")
    if isinstance(content, list):
        kinds = [part.get("type") if isinstance(part, dict) else type(part).__name__ for part in content]
        require(set(kinds) <= {"text"}, f"{where}: content of type {kinds!r:.60}; only text can be trained on")
        texts = [part.get("text") for part in content]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else None
    found = type(content).__name__
    require(isinstance(content, str), f"{where}: a message of role {role} has {found} for content, not a text")
    weight = message.get("weight", 1)
    require(weight in (0, 1), f"{where}: weight {weight!r} of a message; 0 or 1 is meant")
    return Turn(ROLES[role], content, trained=bool(weight))


def clean(turns: list[Turn], where: Where, tally: Tally) -> tuple[Turn, ...]:
    """Without empty messages, and with neighbours of one role joined by a newline."""
    found: list[Turn] = []
    for turn in turns:
        if not turn.content.strip() and not turn.more:
            tally.note(EMPTY, where)
        elif found and found[-1].role == turn.role:
            last = found.pop()
            found.append(Turn(turn.role, f"{last.content}\n{turn.content}", turn.more, last.trained and turn.trained))
        else:
            found.append(turn)
    return tuple(found)


def dialogue(where: Where, turns: list[Turn], tally: Tally, **how) -> Iterator[Dialogue]:
    """The dialogue of some turns; none, but a count, where no assistant says anything."""
    kept = clean(turns, where, tally)
    if any(turn.role == "assistant" for turn in kept):
        yield Dialogue(where, kept, **how)
    else:
        tally.note(SILENT, where)


def document(where: Where, fields: dict, tally: Tally) -> Iterator[Document]:
    """`text` alone."""
    text = text_of(where, fields, "text")
    if text.strip():
        yield Document(where, text)
    else:
        tally.note("empty texts dropped", where)


def chat(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
    """OpenAI's `messages`."""
    require(not fields.get("tools"), f"{where}: tools are not understood; leave such dialogues out")
    return dialogue(where, turns_of(where, fields["messages"], "messages"), tally, messages=True)


def sharegpt(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
    """ShareGPT's `conversations` of `from` and `value`."""
    said = fields["conversations"]
    require(isinstance(said, list) and all(isinstance(m, dict) for m in said), f"{where}: conversations is no list")
    for message in said:
        who = message.get("from")
        known = isinstance(who, str) and who in SHAREGPT
        require(known, f"{where}: a message from {who!r:.60}; known are {', '.join(SHAREGPT)}")
        require(isinstance(message.get("value"), str), f"{where}: the value of a message is no text")
    return dialogue(where, [Turn(SHAREGPT[m["from"]], m["value"]) for m in said], tally, messages=True)


def alpaca(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
    """`instruction`, `input`, `output` and perhaps `system`."""
    optional = {name: text_of(where, fields, name) for name in ("input", "system") if fields.get(name) is not None}
    turns = [Turn("system", optional["system"])] if optional.get("system") else []
    turns.append(Turn("user", text_of(where, fields, "instruction"), optional.get("input", "")))
    return dialogue(where, [*turns, Turn("assistant", text_of(where, fields, "output"))], tally)


def pair(source: str, target: str) -> Callable:
    """Two named texts (or lists of messages) as question and answer."""

    def make(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
        turns = turns_in(where, fields, source, "user") + turns_in(where, fields, target, "assistant")
        return dialogue(where, turns, tally, messages=isinstance(fields[source], list))

    return make


def summary(source: str, target: str) -> Callable:
    """A text (or its sentences) with one summary, or several, of which the first is trained on."""

    def make(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
        text, short = fields[source], fields[target]
        if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
            text = " ".join(text)
        several = short if isinstance(short, list) else [short]
        strings = isinstance(text, str) and bool(several) and all(isinstance(s, str) for s in several)
        require(strings, f"{where}: {source} and {target} are to be texts, or lists of texts")
        turns = [Turn("user", text), Turn("assistant", several[0])]
        return dialogue(where, turns, tally, references=tuple(several[1:]))

    return make


def translation(where: Where, fields: dict, tally: Tally) -> Iterator[Dialogue]:
    """`translation` with two languages, in the order in which the record has them."""
    both = fields["translation"]
    texts = list(both.values()) if isinstance(both, dict) else []
    require(len(texts) == 2 and all(isinstance(t, str) for t in texts), f"{where}: translation needs two texts")
    return dialogue(where, [Turn("user", texts[0]), Turn("assistant", texts[1])], tally)


def preference(where: Where, fields: dict, tally: Tally) -> Iterator[Preference]:
    """`chosen` and `rejected`, behind a `prompt` or as two whole conversations with a common beginning."""
    sides = {}
    for name in ("prompt", "chosen", "rejected"):
        if fields.get(name) is not None:
            sides[name] = turns_in(where, fields, name, "user" if name == "prompt" else "assistant")
    for name in ("chosen", "rejected"):
        require(name in sides, f"{where}: {name} is null, not a text")
    good, bad, prompt = sides["chosen"], sides["rejected"], sides.get("prompt", [])
    if good[: len(prompt)] == bad[: len(prompt)] == prompt:
        good, bad = good[len(prompt) :], bad[len(prompt) :]
    while good and bad and good[0] == bad[0]:
        prompt, good, bad = [*prompt, good[0]], good[1:], bad[1:]
    ends = [clean(end, where, Tally()) for end in (good, bad)]
    if not all(any(turn.role == "assistant" for turn in end) for end in ends):
        tally.note("pairs dropped: an empty answer, or two equal ones", where)
        return
    messages = any(isinstance(fields[name], list) for name in sides)
    yield Preference(where, clean(prompt, where, tally), *ends, messages)
