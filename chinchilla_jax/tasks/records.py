"""What a record of a task file becomes, whatever format the file had."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

Typo = Callable[[str], str]  # a text as somebody types it


@dataclass(frozen=True)
class Where:
    """A record's place, for messages: the file, the record's number in it and its first line, both from 1."""

    file: str
    number: int
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} (record {self.number})"


@dataclass
class Tally:
    """What was left out or repaired while reading: how often, and where first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, Where] = field(default_factory=dict)
    offsets: int = 0  # looked at, right or wrong

    def note(self, what: str, where: Where, times: int = 1) -> None:
        """Count `what`, which happened to the record at `where`."""
        self.counts[what] = self.counts.get(what, 0) + times
        self.first.setdefault(what, where)

    def add(self, other: "Tally") -> None:
        """Count what another has counted."""
        for what, times in other.counts.items():
            self.note(what, other.first[what], times)

    def lines(self) -> list[str]:
        """A line for each kind of event, such as `3 records dropped: ...; first at FILE:LINE`."""
        return [f"{count:,} {what}; first at {self.first[what]}" for what, count in self.counts.items()]


@dataclass(frozen=True)
class Turn:
    """One message. `more` is a second part of it (Alpaca's input); `trained` is what its file says of an answer."""

    role: str
    content: str
    more: str = ""
    trained: bool = True


@dataclass(frozen=True)
class Document:
    """A text with a loss on every token."""

    where: Where
    text: str

    @property
    def group(self) -> str:
        """Records of the same group fall into the same split."""
        return self.text

    @property
    def texts(self) -> tuple[str, ...]:
        """All its text, which a tokenizer is trained on."""
        return (self.text,)


@dataclass(frozen=True)
class Dialogue:
    """A conversation, a question with its answer among them; `references` are further right answers to the last turn.

    `messages` says that the file had roles, and not two bare texts.
    """

    where: Where
    turns: tuple[Turn, ...]
    messages: bool = False
    references: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The first turn: what several answers share."""
        return self.turns[0].content

    @property
    def texts(self) -> tuple[str, ...]:
        """What was said."""
        return tuple(turn.content for turn in self.turns)


@dataclass(frozen=True)
class Preference:
    """Two endings of one conversation, of which the first is to be preferred."""

    where: Where
    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    messages: bool = False

    @property
    def group(self) -> str:
        """The prompt."""
        return "\n".join(turn.content for turn in self.prompt)

    @property
    def texts(self) -> tuple[str, ...]:
        """What was said, in both endings."""
        return tuple(turn.content for turn in (*self.prompt, *self.chosen, *self.rejected))


@dataclass(frozen=True)
class Labelled:
    """A text, or two, and its labels by name."""

    where: Where
    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def group(self) -> str:
        """The longest text: pairs of one sentence stay together."""
        return max(self.texts, key=len)

    @property
    def judged(self) -> tuple[tuple[str, str], ...]:
        """(text, its label) for every label that a head of one label gives."""
        return tuple((" | ".join(self.texts), label) for label in self.labels[:1])

    @property
    def places(self) -> tuple[Where, ...]:
        """Where each of these stands."""
        return (self.where,)

    def mistyped(self, typo: Typo) -> "Labelled":
        """The same labels for mistyped texts."""
        return replace(self, texts=tuple(map(typo, self.texts)))


@dataclass(frozen=True)
class Conversation(Labelled):
    """What was said in a conversation, in its order, as many labels and `places`; `name` tells it from others."""

    name: str = ""
    places: tuple[Where, ...] = ()

    @property
    def group(self) -> str:
        """The conversation."""
        return self.name

    @property
    def judged(self) -> tuple[tuple[str, str], ...]:
        """Every text has a label of its own."""
        return tuple(zip(self.texts, self.labels))


@dataclass(frozen=True)
class Tagged:
    """Words, each with its tag."""

    where: Where
    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def group(self) -> str:
        """The sentence."""
        return " ".join(self.words)

    @property
    def texts(self) -> tuple[str, ...]:
        """The words, each of which is encoded by itself."""
        return self.words

    def mistyped(self, typo: Typo) -> "Tagged":
        """The same tags for mistyped words; a word of which nothing would be left stays, since its tag does."""
        return replace(self, words=tuple(typo(word) or word for word in self.words))


@dataclass(frozen=True)
class Spans(Document):
    """A text and named stretches of it, as (start, end, name) in characters."""

    spans: tuple[tuple[int, int, str], ...]

    def mistyped(self, typo: Typo) -> "Spans":
        """The text cut at the ends of spans and mistyped part by part, so that every span moves with its text; a part
        of which nothing would be left stays."""
        cuts = sorted({0, len(self.text), *(at for start, end, _ in self.spans for at in (start, end))})
        whole = [self.text[start:end] for start, end in pairwise(cuts)]
        parts = [typo(part) or part for part in whole]
        moved = dict(zip(cuts, accumulate(map(len, parts), initial=0)))
        return replace(
            self, text="".join(parts), spans=tuple((moved[start], moved[end], name) for start, end, name in self.spans)
        )


@dataclass(frozen=True)
class Question:
    """A question about a context; `answers` are (text, start in the context or -1 where unknown)."""

    where: Where
    context: str
    question: str
    answers: tuple[tuple[str, int], ...]

    @property
    def group(self) -> str:
        """The context, which many questions share."""
        return self.context

    @property
    def texts(self) -> tuple[str, ...]:
        """The context, the question and its answers."""
        return (self.context, self.question, *(text for text, _ in self.answers))

    def mistyped(self, typo: Typo) -> "Question":
        """A mistyped question; the context stays, since the answers stand in it."""
        return replace(self, question=typo(self.question))


@dataclass(frozen=True)
class History:
    """The items of one user, in the order of time; with `asked` the last one is to be predicted from the others.

    `times` are those of the items, where the file has them.
    """

    where: Where
    user: str
    items: tuple[str, ...]
    times: tuple[float, ...] = ()
    asked: bool = False

    @property
    def group(self) -> str:
        """The user."""
        return self.user


Record = Document | Dialogue | Preference | Labelled | Tagged | Spans | Question | History
