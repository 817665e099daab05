"""Prompt lookup: what a text goes on with is guessed from what stands in it already (Saxena 2023).

Where the last three tokens came before, the tokens that followed them there are read in one pass, and those count that
the text's own sampler draws: greedy or seeded, the text is the one that decoding a token at a time gives. It pays where
a text repeats parts of its prompt or of itself; where it does not, guessing pauses.
"""

from collections.abc import Iterable

GRAM, DRAFT = 3, 7  # tokens that must have come before, and tokens guessed at most
WORTH, PAUSE, START = 1.4, 32, 2.5  # tokens a pass that pay, tokens without guesses otherwise, the first estimate


class Lookup:
    """The tokens of one text, and the place behind every three of them where they came last."""

    def __init__(self, ids: Iterable[int]):
        self.ids: list[int] = []
        self.places: dict[tuple[int, ...], int] = {}
        self.mean, self.pause = START, 0
        self.add(ids)

    def add(self, ids: Iterable[int]) -> None:
        """The text goes on with `ids`."""
        for token in ids:
            if len(self.ids) >= GRAM:
                self.places[tuple(self.ids[-GRAM:])] = len(self.ids)
            self.ids.append(token)
            self.pause -= 1

    def guess(self) -> list[int]:
        """`DRAFT` tokens that may follow, or none; a repetition goes on."""
        at = self.places.get(tuple(self.ids[-GRAM:]))
        if at is None or self.pause > 0:
            return []
        return (self.ids[at : at + DRAFT] * DRAFT)[:DRAFT]

    def heard(self, gained: int) -> None:
        """A guess gained so many tokens, 1 where it was wrong at once."""
        self.mean += (gained - self.mean) / 4
        if self.mean < WORTH:
            self.mean, self.pause = START, PAUSE
