"""A batch is a pure function of (seed, step): windows of the token stream in a stateless random order.

Letters: B rows of a batch, L tokens of a row, T tokens of a stream. All arrays are numpy and made on the host.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.data import streams
from chinchilla_jax.data.mixture import Mixture, Sequence, lanes_of
from chinchilla_jax.data.split import Split
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from chinchilla_jax.types import Batch

SAMPLED = 512


def gather(split: Split, starts_B: np.ndarray, seq_len: int) -> Batch:
    """The rows of `seq_len` tokens from each place of the stream, (B, L); what lies behind its end is padding."""
    total, rows = len(split.tokens), len(starts_B)
    stretch = np.zeros((rows, seq_len + 1), np.int32)
    targets_B = np.clip(total - 1 - starts_B, 0, seq_len)
    ends_B = np.where(targets_B > 0, starts_B + targets_B + 1, starts_B)
    for row, found in enumerate(streams.ranges(split.tokens, starts_B, ends_B)):
        stretch[row, : len(found)] = found
    real_BL = np.arange(seq_len) < targets_B[:, None]
    segments_BL, positions_BL = documents(split.starts, starts_B, seq_len)
    return Batch(
        tokens=np.where(real_BL, stretch[:, :-1], 0),
        targets=np.where(real_BL, stretch[:, 1:], 0),
        weights=real_BL.astype(np.float32),
        segments=np.where(real_BL, segments_BL, 0),
        positions=np.where(real_BL, positions_BL, 0),
    )


def documents(starts, rows_B: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments from 1 and positions from 0 of rows that begin at `rows_B`, by the places where documents start."""
    # The documents that start inside a row, but for its first token, begin a new segment there.
    row, column = streams.boundaries(starts, rows_B, seq_len)
    new_BL = np.zeros((len(rows_B), seq_len), np.int32)
    new_BL[row, column] = 1
    segments_BL = 1 + np.cumsum(new_BL, axis=1, dtype=np.int32)
    column_L = np.arange(seq_len, dtype=np.int32)
    return segments_BL, column_L - np.maximum.accumulate(new_BL * column_L, axis=1)


class TrainWindows:
    """The windows of a stream in the random order of `seed`, epoch after epoch, in `lanes` equal parts.

    Window w is tokens [w*L, w*L + L) with targets one later; where windows shift, in the first epoch alone. Raises
    `UserError` when the stream fills no window.
    """

    def __init__(self, split: Split, seq_len: int, seed: int, lanes: int = 1, shifts: bool = False):
        self.split, self.seq_len, self.lanes = split, seq_len, lanes
        self.bytes_per_token = split.bytes_per_token
        if len(split.tokens) <= seq_len:
            raise UserError(
                f"the training text has {len(split.tokens):,} tokens, not enough for one window of "
                f"--train.seq-len {seq_len}; prepare more text or choose a smaller --train.seq-len"
            )
        self._sequence = Sequence(len(split.tokens) - 1, seq_len, lanes, seed, shifts)

    def starts(self, rows_B: np.ndarray) -> np.ndarray:
        """The first token of each row of the endless training sequence."""
        rows_B = np.asarray(rows_B, np.int64)
        return self._sequence.starts(rows_B % self.lanes, rows_B // self.lanes)

    def rows(self, rows_B: np.ndarray) -> Batch:
        """The rows with these global numbers, (B, L)."""
        return gather(self.split, self.starts(rows_B), self.seq_len)


class MixedWindows:
    """The windows of a stream of several sources, drawn by weight."""

    def __init__(self, split: Split, mixture: Mixture):
        self.split, self.mixture = split, mixture
        sizes = [part.bytes / max(1, part.stop - part.start) for part in mixture.parts]
        self.bytes_per_token = float(np.dot(sizes, mixture.weights))

    def rows(self, rows_B: np.ndarray) -> Batch:
        """The rows with these global numbers, (B, L)."""
        return gather(self.split, self.mixture.starts(rows_B), self.mixture.seq_len)


class Rows(Protocol):
    """An endless sequence of rows of tokens, each a pure function of its number: windows of text, packed examples."""

    bytes_per_token: float | None

    def rows(self, rows_B: np.ndarray) -> Batch:
        """The rows with these global numbers, (B, L)."""


@dataclass(frozen=True)
class Batches:
    """The batch of every step, by arithmetic over the batch sizes of `train.phases`."""

    windows: Rows
    train: TrainConfig

    def batch_rows(self, step: int) -> int:
        """B at `step`."""
        return next(rows for start, rows in reversed(self.train.phases) if step >= start)

    def at(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of `step`, or those `rows` of it that a host needs."""
        numbers_B = self.train.rows_before(step) + np.arange(self.batch_rows(step))
        return self.windows.rows(numbers_B if rows is None else numbers_B[rows])

    def documents(self) -> int:
        """The most documents of a row, by a sample of `SAMPLED` rows spread over the run."""
        numbers_B = np.unique(np.linspace(0, self.train.rows_before(self.train.steps) - 1, SAMPLED).astype(np.int64))
        return int(self.windows.rows(numbers_B).segments.max())

    def figures(self, loss: float) -> dict[str, float]:
        """A mean loss in further units: bits per byte, where targets stand for bytes of text."""
        per_token = self.windows.bytes_per_token
        return {"bits_per_byte": loss * (1 / (np.log(2) * per_token))} if per_token else {}


def of_text(store: TokenStore, train: TrainConfig) -> Batches:
    """The batches of a pretraining run over a token store, its sources mixed by the store's weights if it has any."""
    lanes = lanes_of(train, store.train)
    if not store.weights:
        return Batches(TrainWindows(store.train, train.seq_len, train.seed, lanes, train.shift_windows), train)
    mixture = Mixture(store.train.sources, store.weights, train.seq_len, lanes, train.seed, train.shift_windows)
    return Batches(MixedWindows(store.train, mixture), train)


def valid_count(split: Split, seq_len: int, batch_size: int, limit: int = 0) -> int:
    """How many batches a whole stream fills, in order; `limit` of them at most if that is not 0."""
    windows = -(-(len(split.tokens) - 1) // seq_len)
    batches = -(-windows // batch_size)
    return min(batches, limit) if limit else batches


def valid_batch(split: Split, seq_len: int, batch_size: int, number: int, rows: slice = slice(None)) -> Batch:
    """Batch `number` of a whole stream in order, or those `rows` of it that a host needs.

    Every token but the first is a target once. The last window ends in padding and the last batch is filled up with
    empty rows (weights and segments 0).
    """
    rows_B = (number * batch_size + np.arange(batch_size, dtype=np.int64))[rows]
    return gather(split, rows_B * seq_len, seq_len)
