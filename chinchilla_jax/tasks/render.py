"""Turns as ids, with what of them is trained: built from parts, so that no mark is ever searched for in ids or text.

Training, validation and the chat in the terminal all come through here, so that served and trained ids are the same.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.tasks.records import Turn
from chinchilla_jax.tasks.template import Template

Ids = list[int]
Encode = Callable[[str], Ids]


@dataclass(frozen=True)
class Rendered:
    """A turn: untrained ids, ids that are trained if `trained`, and untrained ids behind them."""

    role: str
    head: Ids
    body: Ids
    gap: Ids
    trained: bool = False

    @property
    def ids(self) -> Ids:
        """All of them."""
        return [*self.head, *self.body, *self.gap]

    @property
    def mask(self) -> list[bool]:
        """Which of them are trained."""
        return [False] * len(self.head) + [self.trained] * len(self.body) + [False] * len(self.gap)


@dataclass(frozen=True)
class Renderer:
    """A template with a tokenizer. Raises `UserError` where the tokenizer lacks a mark that the template writes."""

    template: Template
    tokenizer: BaseTokenizer

    def __post_init__(self):
        missing = [mark for mark in self.template.marks if mark not in self.tokenizer.controls]
        require(
            not missing,
            f"the tokenizer has no control piece {missing[:1] and missing[0]}, which the template "
            f"{self.template.name} writes; choose another --task.template, or add the piece",
        )

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end an answer: the first mark behind it, and what ends a document."""
        return frozenset({self.end, self.tokenizer.closing} | self.tokenizer.stops)

    @property
    def end(self) -> int:
        """The id behind an answer."""
        tail = self.template.pieces(self.template.tails["assistant"])
        return self.tokenizer.controls[tail[0][1]] if tail and tail[0][0] else self.tokenizer.closing

    @property
    def reply(self) -> Ids:
        """What asks for an answer."""
        return self._ids(self.template.heads["assistant"], self.tokenizer.encode)

    def turn(self, turn: Turn, encode: Encode | None = None, keep: slice | None = None) -> Rendered:
        """A turn as ids; `keep` leaves only this part of the ids of its content.

        Of an answer head and content are encoded apart, as they come in serving; of any other turn the text between
        two marks is encoded in one.
        """
        template, encode = self.template, encode or self.tokenizer.encode
        head, tail = template.heads[turn.role], template.tails[turn.role]
        content = turn.content + (template.joint + turn.more if turn.more else "")
        if turn.role == "assistant":
            body = [*encode(content), *self._ids(tail, encode)]
            plain = self.tokenizer.encode
            return Rendered(turn.role, self._ids(head, plain), body, self._ids(template.gap, plain), turn.trained)
        if keep is not None:
            ids = [*self._ids(head, encode), *encode(content)[keep], *self._ids(tail + template.gap, encode)]
        else:
            parts = [*template.pieces(head), (False, content), *template.pieces(tail + template.gap)]
            ids = self._encoded(parts, encode)
        return Rendered(turn.role, ids, [], [])

    def turns(self, turns: Iterable[Turn], encode: Encode | None = None) -> list[Rendered]:
        """A conversation, with the template's own first turn where it has none."""
        return [self.turn(turn, encode) for turn in self.opened(turns)]

    def opened(self, turns: Iterable[Turn]) -> list[Turn]:
        """The turns, behind the template's own first one where they have none."""
        turns = list(turns)
        own = self.template.system and not (turns and turns[0].role == "system")
        return [Turn("system", self.template.system), *turns] if own else turns

    def prompt(self, turns: Iterable[Turn]) -> Ids:
        """What a model is asked with; the ids of training begin with the same."""
        said = [i for turn in self.turns(turns) for i in turn.ids]
        return [*self.tokenizer.start, *said, *self.reply] or [self.tokenizer.separator]

    def blocks(self, turns: Iterable[Turn], last: bool) -> Ids:
        """Numbers for the ids of `prompt` that are read in both directions: all but answers, which `last` reads so too.

        What training reads as a source is what was not trained, and with `--task.turns last` no earlier answer was.
        """
        mask = [m and not last for turn in self.turns(turns) for m in turn.mask]
        return numbered([*[False] * len(self.tokenizer.start), *mask, *[False] * len(self.reply)])

    def _ids(self, text: str, encode: Encode) -> Ids:
        return self._encoded(self.template.pieces(text), encode)

    def _encoded(self, parts: list[tuple[bool, str]], encode: Encode) -> Ids:
        """Marks by their ids, what stands between two of them as one text."""
        ids, text = [], ""
        for mark, part in [*parts, (True, "")]:
            if not mark:
                text += part
                continue
            ids += [*(encode(text) if text else []), *([self.tokenizer.controls[part]] if part else [])]
            text = ""
        return ids


def numbered(trained: Sequence[bool]) -> Ids:
    """The number of each untrained stretch at its tokens, from 1, and 0 at the trained ones."""
    found, number, inside = [], 0, False
    for one in trained:
        number += not one and not inside
        inside = not one
        found.append(number if inside else 0)
    return found


def sampling(tokenizer: BaseTokenizer, alpha: float, seed: int) -> Encode:
    """An encoder that cuts every text in one of its other ways, by `seed` and the text's number."""
    number = iter(range(1 << 30))

    def encode(text: str) -> Ids:
        own = np.random.SeedSequence([seed, next(number)]).generate_state(1)[0]
        return tokenizer.sample_array(text, int(own), alpha).tolist()

    return encode
