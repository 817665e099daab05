"""Loss, perplexity and bits per byte over a whole validation set, every byte counted once."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.data.batches import valid_batch, valid_count
from chinchilla_jax.data.loader import prefetch
from chinchilla_jax.data.split import Split
from chinchilla_jax.parallel.flight import paced
from chinchilla_jax.training.program import Program
from chinchilla_jax.types import Batch, Sums

VALIDATION_SHARE = 0.1


class Likelihood:
    """The compiled validation of a program on a split; `limit` batches at most, 0 for all.

    A window sees only its own tokens, so the first tokens of each are predicted from little; the figures are upper
    bounds of what the model can do with a full context.
    """

    def __init__(self, program: Program, split: Split | None, limit: int = 0):
        self.program, self.split, self.limit = program, split, limit
        self.rows = program.microbatch
        # A stream of one source is read as it is.
        sources = split.sources if split else ()  # no split for who brings batches to `sums`
        self.parts = [part for part in sources if part.stop > part.start] if len(sources) > 1 else []
        self.by_source: dict[str, float] = {}

    @functools.cached_property
    def compiled(self) -> Callable:
        """Compiled when it is first needed: a run that is stopped before that has not paid for it."""
        return self.program.evaluate(self.rows)

    def __call__(self, params: Any, poll: Callable[[], None] = lambda: None) -> dict[str, float]:
        """The figures of `params`; bits per byte needs the bytes of what was read, so a limit scales them by tokens.

        `by_source` has the loss of each source afterwards, where the split has several.
        """
        parts = [self.read(params, split, limit, poll) for split, limit in self.splits()]
        found = jax.tree.map(lambda *sums: sum(sums), *parts)
        named = zip(labels([part.name for part in self.parts]), parts) if self.parts else ()
        self.by_source = {name: sums.loss / sums.weight for name, sums in named}
        nats = found.loss / found.weight
        return {
            "loss_nats_per_token": nats,
            "perplexity": math.exp(min(nats, 700.0)),
            "bits_per_byte": nats / (math.log(2) * self.split.bytes_per_token),
            "tokens": int(found.weight),
            **{name: other.loss / other.weight for name, other in found.others.items()},
        }

    def splits(self) -> Iterator[tuple[Split, int]]:
        """The split, or its part of each of its sources in turn, of which a limit takes its share; and that limit."""
        for part in self.parts or (None,):
            split = self.split.of(part) if part else self.split
            share = (len(split.tokens) - 1) / (len(self.split.tokens) - 1)
            yield split, max(1, round(self.limit * share)) if self.limit else 0

    def read(self, params: Any, split: Split, limit: int, poll: Callable[[], None]) -> Sums:
        """The sums over a split, of which each host reads only its own rows, ahead of the device."""
        length = self.program.config.train.seq_len

        def placed(number: int) -> Batch:
            return self.program.place(lambda rows: valid_batch(split, length, self.rows, number, rows), self.rows)

        with prefetch(placed, 0, valid_count(split, length, self.rows, limit)) as batches:
            return self.added(params, batches, poll)

    def sums(self, params: Any, batches: Iterable[Batch], poll: Callable[[], None] = lambda: None) -> Sums:
        """The sums, as Python's floats, of batches of `rows` windows, numpy and whole on every process."""
        return self.added(params, map(self.placed, batches), poll)

    def added(self, params: Any, batches: Iterable[Batch], poll: Callable[[], None]) -> Sums:
        """The sums of batches on the mesh."""
        found: list[Sums] = []
        # One batch behind, so that the device never waits for the host.
        for sums in paced((self.compiled(params, batch) for batch in batches), depth=1):
            found.append(sums)
            poll()
        # Added up in double precision: a sum over a whole set outgrows float32.
        return jax.tree.map(lambda *parts: sum(map(float, parts)), *found)

    def placed(self, batch: Batch) -> Batch:
        """A batch of numpy arrays on the mesh."""
        return self.program.place(lambda rows: part(batch, rows), self.rows)


def labels(names: list[str]) -> list[str]:
    """Short names for sources: the last part of a path where that tells them apart."""
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else names


def affordable(train: TrainConfig) -> int:
    """The limit of a validation during training: as set, or the batches that cost VALIDATION_SHARE of the training
    between two of them, a window without a gradient being a third of one with it."""
    if train.eval_batches >= 0:
        return train.eval_batches
    interval = train.eval_every or train.steps
    trained = min(interval, train.steps) * train.batch_size
    return max(1, int(VALIDATION_SHARE * 3 * trained * train.microbatches / train.batch_size))


def part(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch of numpy arrays."""
    return Batch(**{name: value[rows] for name, value in vars(batch).items()})
