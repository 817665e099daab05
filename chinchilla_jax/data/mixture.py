"""The order of training windows: one random sequence, or one for each lane and source of a weighted mixture.

A lane is a K-th of every batch's rows and a K-th of the text: a host that makes some rows of each batch reads some
lanes, so of a remote store it fetches its own part. Everything is arithmetic on a row's number; nothing is stored.
"""

import math

import numpy as np

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.data.hashing import mix, seeded
from chinchilla_jax.data.split import Part, Split
from chinchilla_jax.errors import UserError

ROUNDS = 6
UNIT = 1 << 20  # weights are whole multiples of one UNITth
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fill [0, 1) evenly, however many there are


def permute(index: np.ndarray, size: int, key: np.ndarray | int) -> np.ndarray:
    """A bijection of [0, size) chosen by `key` (one, or one for each index), applied to `index`; int64.

    A Feistel network over the next even number of bits, walked until it falls inside the range (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002): no table, any place in O(1).
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    place = np.array(index, np.uint64)
    keys = np.broadcast_to(np.asarray(key, np.uint64), place.shape)
    outside = np.ones(place.shape, bool)
    while outside.any():
        high, low, k = place[outside] >> half, place[outside] & mask, keys[outside]
        for turn in range(1, ROUNDS + 1):
            high, low = low, high ^ (mix(low + mix(k + np.uint64(turn))) & mask)
        place[outside] = (high << half) | low
        outside = place >= size
    return place.astype(np.int64)


class Sequence:
    """The windows of a stretch of tokens in `lanes` equal parts, each in a random order of its own, epoch after epoch.

    Where they shift, every epoch after the first cuts its windows at other places: a token is predicted from another
    stretch of text before it, which keeps a model from learning the windows by heart.
    """

    def __init__(self, tokens: int, length: int, lanes: int, seed: int, shifts: bool = False):
        self.windows, self.length, self.seed = max(1, tokens // length), length, seed
        self._last, self._shifts = max(0, tokens - length), shifts
        self._all, self._lanes = lanes, lanes if self.windows >= lanes else 1

    def starts(self, lane: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The first token of the window that stands at `index` of the endless sequence of a lane; int64."""
        if self._lanes < self._all:  # too few windows for a part in every lane: all lanes take turns
            lane, index = np.zeros_like(lane), index * self._all + lane
        first = lane * self.windows // self._lanes
        count = (lane + 1) * self.windows // self._lanes - first
        window, epoch = np.empty(len(lane), np.int64), index // count
        for size in np.unique(count).tolist():  # there are two sizes at most
            some = count == size
            key = seeded(epoch[some] * self._lanes + lane[some], self.seed)
            window[some] = first[some] + permute(index[some] % size, size, key)
        shift = (epoch * GOLDEN % 1 * self.length).astype(np.int64) if self._shifts else 0
        return np.minimum(window * self.length + shift, self._last)


class Mixture:
    """Where in the stream each row begins: rows of several `parts` by weight, each read through before it repeats.

    Of any n rows of a lane in order, source s gives n times its weight, to within one row a source.
    """

    def __init__(
        self, parts: tuple[Part, ...], weights: tuple[float, ...], seq_len: int, lanes: int, seed: int,
        shifts: bool = False,
    ):  # fmt: skip
        self.parts, self.seq_len, self.lanes = parts, seq_len, lanes
        self.weights = np.array(weights, np.float64) / sum(weights)
        for part, weight in zip(parts, weights):
            if weight and part.stop - part.start < seq_len:
                raise UserError(
                    f"{part.name} has {part.stop - part.start:,} tokens of training text, not enough for one window of "
                    f"--train.seq-len {seq_len}; give it the weight 0 or choose a smaller --train.seq-len"
                )
        self.sequences = [
            Sequence(part.stop - part.start, seq_len, lanes, seed + number, shifts) for number, part in enumerate(parts)
        ]

    def starts(self, rows_B: np.ndarray) -> np.ndarray:
        """The first token of each row of the endless training sequence."""
        rows_B = np.asarray(rows_B, np.int64)
        lane, left = rows_B % self.lanes, rows_B // self.lanes
        source, index = self.draw(left, lane)
        found = np.empty(len(rows_B), np.int64)
        for number, (part, sequence) in enumerate(zip(self.parts, self.sequences)):
            some = source == number
            found[some] = part.start + sequence.starts(lane[some], index[some])
        return found

    def draw(self, row: np.ndarray, lane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each row of a lane, and how many rows of that source the lane has had before.

        The first source takes its share of the rows, floor(row * w) of the first `row`; the next ones share what it
        leaves in the same way. Each lane begins at another place of that rhythm.
        """
        source, index = np.full(len(row), -1), np.zeros(len(row), np.int64)
        offset = (mix(np.asarray(lane, np.uint64)) % np.uint64(UNIT)).astype(np.int64)
        rest = 1.0
        for number, weight in enumerate(self.weights.tolist()):
            share = round(UNIT * min(1.0, weight / rest)) if rest > 1e-12 else 0
            before = (row * share + offset) // UNIT
            taken = (source < 0) & ((row + 1) * share + offset >= (before + 1) * UNIT)
            if number == len(self.weights) - 1 or weight >= rest:
                taken, before = source < 0, row
            source[taken], index[taken] = number, before[taken]
            row, rest = row - before, rest - weight
            if rest <= 1e-12:
                break
        return source, index

    @property
    def shares(self) -> dict[str, float]:
        """The share of the rows that each source gives."""
        return {part.name: weight for part, weight in zip(self.parts, self.weights.tolist())}

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each source is read through in so many rows."""
        return {
            part.name: float(rows * weight / sequence.windows)
            for part, weight, sequence in zip(self.parts, self.weights, self.sequences)
        }


def lanes_of(train: TrainConfig, split: Split) -> int:
    """Lanes of a training stream: as many as every batch size has rows in common where it is in several files, else 1.

    A stream in one file keeps the order that it always had.
    """
    return math.gcd(*(rows for _, rows in train.phases)) if split.sharded else 1
