"""Records as tokens, targets and weights: what does not fit is cut from the source and never from the target."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.tasks.records import Dialogue, Document, Preference, Record, Tally, Turn, Where
from chinchilla_jax.tasks.render import Encode, Ids, Rendered, Renderer, numbered

NO_ROOM = "answers dropped: longer than --train.seq-len"
CUT = "sources cut to --train.seq-len"
EMPTY = "records dropped: nothing to train on"
MOST_DROPPED = 0.05


@dataclass(frozen=True)
class Example:
    """One document: arrays (n,) as in a `Batch`, and what a reference model makes of it, where that is known."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray | None = None
    reference: float | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def behind(self, ids: Sequence[int]) -> "Example":
        """The same with tokens before it that nothing predicts."""

        def padded(values: np.ndarray) -> np.ndarray:
            return np.concatenate([np.zeros(len(ids), values.dtype), values])

        tokens, blocks = padded(self.tokens), None if self.blocks is None else padded(self.blocks)
        tokens[: len(ids)] = ids
        return Example(tokens, padded(self.targets), padded(self.weights), blocks, self.reference)


@dataclass(frozen=True)
class Item:
    """What has to stand in one row: an example, or the two of a pair. `record` is the number of its record."""

    where: Where
    record: int
    parts: tuple[Example, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def example(ids: Sequence[int], trained: Sequence[bool], closing: int, closes: bool, blocks: bool) -> Example:
    """Next-token prediction over `ids`, whose last target is `closing`; `closes` says whether that is trained.

    With `blocks` every stretch of untrained tokens is read in both directions.
    """
    tokens = np.array(ids, np.int32)
    targets = np.append(tokens[1:], np.int32(closing))
    weights = np.array([*trained[1:], closes], np.float32)
    if not blocks:
        return Example(tokens, targets, weights)
    return Example(tokens, targets, weights, np.array(numbered(trained), np.int32))


def opening(tokenizer: BaseTokenizer, always: bool = True) -> list[int]:
    """What stands before a text that is judged: of their first token models keep little, as all others look at it."""
    return [tokenizer.opening] if always else list(tokenizer.start)


@dataclass
class Encoder:
    """Records of one kind as items of at most `limit` tokens; `labels` are the names that label ids stand for.

    `make(encoder, record, encode)` gives the parts of every item of a record, which then go behind `soft`, the ids of a
    soft prompt; `limit` does not count these.
    """

    make: Callable[..., Iterator[tuple[Example, ...]]]
    renderer: Renderer
    task: TaskConfig
    limit: int
    labels: tuple[str, ...] = ()
    keeps_start: bool = False  # of a source that is too long
    soft: Sequence[int] = ()
    tally: Tally = dataclasses.field(default_factory=Tally)

    def items(self, record: Record, number: int, encode: Encode | None = None) -> list[Item]:
        """What a record trains on: none where nothing is left of it, several where it is long."""
        encode = encode or self.renderer.tokenizer.encode
        made = self.make(self, record, encode)
        if self.soft:
            made = (tuple(part.behind(self.soft) for part in parts) for parts in made)
        found = [Item(record.where, number, parts) for parts in made]
        if not found:
            self.tally.note(EMPTY, record.where)
        return found

    def segment(self, tokens: Sequence[int], targets: np.ndarray, weights: np.ndarray) -> Example:
        """An example that is read in one direction, or with --task.source bidirectional as a whole in both."""
        blocks = np.ones(len(tokens), np.int32) if self.task.source == "bidirectional" else None
        return Example(np.asarray(tokens, np.int32), targets, weights, blocks)

    def text(self, record: Document, encode: Encode) -> Iterator[tuple[Example, ...]]:
        """Windows of a document, with a loss on every token."""
        tokenizer = self.renderer.tokenizer
        ids = [tokenizer.separator, *encode(record.text)]
        whole = example(ids, [True] * len(ids), tokenizer.closing, True, False)
        for start in range(0, len(ids), self.limit):
            part = slice(start, start + self.limit)
            yield (Example(whole.tokens[part], whole.targets[part], whole.weights[part]),)

    def dialogue(self, record: Dialogue, encode: Encode) -> Iterator[tuple[Example, ...]]:
        """A dialogue, or windows of it in which every answer is trained once."""
        turns = self.renderer.opened(self.asked(record))
        rendered = [self.renderer.turn(turn, encode) for turn in turns]
        for window, closes in self.windows(turns, rendered, record.where, encode):
            ids = [*self.renderer.tokenizer.start, *(i for turn in window for i in turn.ids)]
            trained = [False] * (len(ids) - sum(len(t.ids) for t in window)) + [m for turn in window for m in turn.mask]
            if any(trained):
                closing = self.renderer.tokenizer.closing
                yield (example(ids, trained, closing, closes, self.task.source == "bidirectional"),)

    def asked(self, record: Dialogue) -> list[Turn]:
        """The turns with the answers marked that are to train."""
        answers = [i for i, turn in enumerate(record.turns) if turn.role == "assistant"]
        several = self.renderer.template.several
        require(
            several or len(answers) == 1,
            f"{record.where}: {len(answers)} answers, and the template {self.renderer.template.name} has nothing that "
            "ends one of them; set --task.template chatml",
        )
        trained = answers if self.task.turns == "all" else answers[-1:]
        return [
            dataclasses.replace(turn, trained=turn.trained and i in trained and turn.role == "assistant")
            for i, turn in enumerate(record.turns)
        ]

    def windows(self, turns, rendered: list[Rendered], where, encode) -> Iterator[tuple[list[Rendered], bool]]:
        """Turns that fit, and whether they go to the end of a dialogue that ends with a trained answer."""
        room = self.limit - len(self.renderer.tokenizer.start)
        sizes, last = [len(turn.ids) for turn in rendered], len(rendered) - 1
        if sum(sizes) <= room:
            yield rendered, rendered[last].trained
            return
        self.tally.note(CUT, where)
        system = rendered[:1] if rendered[0].role == "system" else []
        first, room = len(system), room - sum(sizes[: len(system)])
        due = [i for i, turn in enumerate(rendered) if turn.trained]
        while due:
            begin = max(first, due[0] - 1)  # an answer comes with what it answers
            ends = [i for i in due if sum(sizes[begin : i + 1]) <= room]
            end = ends[-1] if ends else due[0]
            if ends:
                while begin > first and sum(sizes[begin - 1 : end + 1]) <= room:
                    begin -= 1
                window = rendered[begin : end + 1]
            else:
                window = self.squeezed(turns[begin], rendered[begin : end + 1], room, encode)
            if window is None:
                self.tally.note(NO_ROOM, where)
            else:
                fresh = [dataclasses.replace(t, trained=t.trained and begin + i in due) for i, t in enumerate(window)]
                yield system + fresh, end == last
            due = [i for i in due if i > end]

    def squeezed(self, source: Turn, pair: list[Rendered], room: int, encode: Encode) -> list[Rendered] | None:
        """A source and its answer, the source cut from the left; None where the answer alone is too long."""
        bare = self.renderer.turn(source, encode, slice(0, 0))
        left = room - len(pair[-1].ids) - len(bare.ids)
        if len(pair) < 2 or left < 1:
            return None
        return [self.renderer.turn(source, encode, self.kept(left)), pair[-1]]

    def kept(self, left: int) -> slice:
        """The part of a source's ids that stays where only so many do."""
        return slice(0, left) if self.keeps_start else slice(-left, None)

    def prompt(self, turns: Sequence[Turn]) -> tuple[Ids, Ids]:
        """What asks for an answer to some turns, in `limit` tokens, and the numbers of its blocks.

        The last turn is cut as in training; where what was said before is too long already, that is.
        """
        ids, blocks = self.renderer.prompt(turns), self.renderer.blocks(turns, self.task.turns == "last")
        if len(ids) <= self.limit:
            return ids, blocks
        if not turns:
            return ids[-self.limit :], blocks[-self.limit :]
        last, encode = turns[-1], self.renderer.tokenizer.encode
        rest = len(ids) - len(self.renderer.turn(last).ids)
        left = self.limit - rest - len(self.renderer.turn(last, encode, slice(0, 0)).ids)
        if left < 1:
            return ids[-self.limit :], blocks[-self.limit :]
        cut = self.renderer.turn(last, encode, self.kept(left)).ids
        start, end = rest - len(self.renderer.reply), len(ids) - len(self.renderer.reply)
        return [*ids[:start], *cut, *ids[end:]], [*blocks[:start], *[blocks[start]] * len(cut), *blocks[end:]]

    def preference(self, record: Preference, encode: Encode) -> Iterator[tuple[Example, ...]]:
        """Both endings behind the prompt; of what is too long the prompt is cut from the left, then each ending."""
        start, closing = self.renderer.tokenizer.start, self.renderer.tokenizer.closing
        prompt = [i for turn in self.renderer.turns(record.prompt, encode) for i in turn.ids] if record.prompt else []
        ends = [[self.renderer.turn(turn, encode) for turn in end] for end in (record.chosen, record.rejected)]
        answers = [([i for t in end for i in t.ids], [m for t in end for m in t.mask]) for end in ends]
        half = self.limit // 2 - len(start)
        if 2 * len(prompt) + sum(len(ids) for ids, _ in answers) + 2 * len(start) > self.limit:
            self.tally.note(CUT, record.where)
            most = max(half - max(len(ids) for ids, _ in answers), half // 4)
            prompt = prompt[max(0, len(prompt) - most) :]
        else:
            half = self.limit
        parts = []
        for ids, mask in answers:
            room = half - len(prompt)
            shown = len(start) + len(prompt)
            whole, trained = [*start, *prompt, *ids[:room]], [False] * shown + mask[:room]
            parts.append(example(whole, trained, closing, len(ids) <= room and any(mask), False))
        if all(part.weights.any() and len(part) > 1 for part in parts):
            yield tuple(parts)


def check_dropped(tally: Tally, records: int, limit: int) -> None:
    """Refuse a window into which more than 5 % of the records do not fit."""
    dropped = tally.counts.get(EMPTY, 0)
    require(
        dropped < records and dropped <= max(1, MOST_DROPPED * records),
        f"{dropped} of {records} records have nothing left to train on in --train.seq-len {limit}; raise it",
    )
