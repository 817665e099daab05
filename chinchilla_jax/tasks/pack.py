"""Items packed into rows, each row a pure function of (seed, number): an endless sequence for the training loop.

Every epoch has an order of its own, and its items fill rows by first fit among the last few open ones. A document is a
segment with positions of its own, so that nothing sees its neighbours. Letters: B rows, L tokens of a row.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from chinchilla_jax.data.hashing import seeded
from chinchilla_jax.data.mixture import permute
from chinchilla_jax.tasks.encode import Example, Item
from chinchilla_jax.types import Batch

OPEN = 32  # rows that still take items
Row = list[int]  # numbers of items


def layout(sizes: Sequence[int], order: Sequence[int], seq_len: int) -> list[Row]:
    """Rows of item numbers, none longer than `seq_len` tokens; the fullest open row that has room takes an item."""
    rows: list[Row] = []
    still: list[tuple[int, int]] = []  # (room, row)
    for item in order:
        size = sizes[item]
        fitting = [(room, row) for room, row in still if room >= size]
        if fitting:
            room, row = min(fitting)
            still.remove((room, row))
        else:
            room, row = seq_len, len(rows)
            rows.append([])
            if len(still) == OPEN:
                still.remove(min(still))
        rows[row].append(item)
        still.append((room - size, row))
    return rows


def filled(rows: Sequence[Sequence[Item]], seq_len: int, blocks: bool) -> Batch:
    """The batch of some rows, an empty one for each that holds nothing."""
    shape = len(rows), seq_len
    whole = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "segments", "positions", "blocks")}
    weights, reference = np.zeros(shape, np.float32), None
    for number, row in enumerate(rows):
        start = 0
        for segment, part in enumerate((part for item in row for part in item.parts), 1):
            there = number, slice(start, start + len(part))
            whole["tokens"][there], whole["targets"][there], weights[there] = part.tokens, part.targets, part.weights
            whole["segments"][there], whole["positions"][there] = segment, np.arange(len(part))
            if part.blocks is not None:
                whole["blocks"][there] = part.blocks
            if part.reference is not None:
                reference = np.zeros(shape, np.float32) if reference is None else reference
                reference[number, start] = part.reference
            start += len(part)
    if not blocks:
        del whole["blocks"]
    return Batch(weights=weights, reference=reference, **whole)


class Packed:
    """The rows of training. `items(epoch)` are an epoch's; where they are the same every time, pass a function of that.

    `bytes_per_token` are bytes of text for each target, None where targets are no text.
    """

    def __init__(
        self,
        items: Callable[[int], Sequence[Item]],
        seq_len: int,
        seed: int,
        *,
        blocks: bool = False,
        bytes_per_token: float | None = None,
    ):
        self.items, self.seq_len, self.seed, self.blocks = items, seq_len, seed, blocks
        self.bytes_per_token = bytes_per_token
        self.ends: list[int] = []  # rows of all epochs up to and with each
        self._lock, self._last = threading.Lock(), (-1, [], [])

    def epoch(self, epoch: int) -> tuple[Sequence[Item], list[Row]]:
        """An epoch's items and rows; those before it are laid out first, since only that tells where it begins."""
        while len(self.ends) < epoch:
            self.epoch(len(self.ends))
        if self._last[0] != epoch:
            items = self.items(epoch)
            key = seeded(np.array([epoch]), self.seed)
            order = permute(np.arange(len(items)), len(items), key)
            rows = layout([len(item) for item in items], order.tolist(), self.seq_len)
            self._last = epoch, items, rows
            if len(self.ends) == epoch:
                self.ends.append((self.ends[-1] if self.ends else 0) + len(rows))
        return self._last[1:]

    def row(self, number: int) -> list[Item]:
        """The items of a row of the endless sequence."""
        while not self.ends or self.ends[-1] <= number:
            self.epoch(len(self.ends))
        epoch = int(np.searchsorted(self.ends, number, side="right"))
        items, rows = self.epoch(epoch)
        return [items[i] for i in rows[number - (self.ends[epoch - 1] if epoch else 0)]]

    def rows(self, rows_B: np.ndarray) -> Batch:
        """The rows with these global numbers, (B, L)."""
        with self._lock:
            return filled([self.row(int(number)) for number in rows_B], self.seq_len, self.blocks)

    def rows_of(self, epochs: float) -> int:
        """How many rows so many epochs have, the last in proportion."""
        with self._lock:
            whole = int(epochs)
            self.epoch(whole)
            before = self.ends[whole - 1] if whole else 0
            return before + round((epochs - whole) * (self.ends[whole] - before))


def in_order(items: Sequence[Item], seq_len: int, rows: int, blocks: bool) -> Iterator[tuple[list[list[Item]], Batch]]:
    """Batches of `rows` rows over all items once, with the items of each; the last is filled up with empty rows."""
    laid = layout([len(item) for item in items], range(len(items)), seq_len)
    for start in range(0, len(laid), rows):
        held = [[items[i] for i in row] for row in laid[start : start + rows]]
        yield held, filled([*held, *[[]] * (rows - len(held))], seq_len, blocks)


def text_bytes(examples: Sequence[Example], sizes: np.ndarray) -> float | None:
    """Bytes of text for each trained target."""
    trained = sum(float(part.weights.sum()) for part in examples)
    told = sum(int(sizes[part.targets[part.weights > 0]].sum()) for part in examples)
    return told / trained if trained else None
