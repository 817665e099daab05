"""Documents of a spool to a stream of tokens, in parallel, in order, and with bounded memory."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from chinchilla_jax.data.spool import Extents
from chinchilla_jax.data.store import token_dtype
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError

TASK = 1 << 20  # bytes of text that a worker takes at a time
SHARE = 8 << 20  # bytes of text that are worth the start of a worker
AHEAD = 3  # tasks a worker may be ahead of the writer

Encoded = tuple[np.ndarray, np.ndarray]


class Encoder:
    """A tokenizer over an open spool."""

    def __init__(self, spool: Path, tokenizer: Path):
        self._file = open(spool, "rb")  # noqa: SIM115 - lives as long as the worker
        self._tokenizer = open_tokenizer(tokenizer)
        self._dtype = token_dtype(self._tokenizer.size)

    def __call__(self, extents: Extents) -> Encoded:
        """All tokens of the documents, each behind its separator, and how many each has (separator included)."""
        arrays, lengths = [], []
        for offset, size in zip(extents.offsets.tolist(), extents.sizes.tolist()):
            arrays.append(self._tokenizer.document(os.pread(self._file.fileno(), size, offset).decode()))
            lengths.append(len(arrays[-1]))
        return np.concatenate(arrays).astype(self._dtype), np.array(lengths, np.uint64)


_encoder: Encoder | None = None


def _start(spool: Path, tokenizer: Path) -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a killed parent must not leave its workers behind."""
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _encoder = Encoder(spool, tokenizer)


def _encode(extents: Extents) -> Encoded:
    return _encoder(extents)


def tasks(extents: Extents) -> Iterator[Extents]:
    """`extents` in runs of about `TASK` bytes, at least one document each."""
    ends = np.cumsum(extents.sizes, dtype=np.int64)  # a Python int searched in uint64 copies all of it to float64
    start = 0
    while start < len(extents):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + TASK, side="right")))
        yield extents[start:stop]
        start = stop


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def encoder(spool: Path, tokenizer: Path, workers: int, size: int) -> Iterator[Callable[[Extents], Iterator[Encoded]]]:
    """Gives `encode(extents)`, which yields the tokens of each of its `tasks` in order.

    `workers` processes, one a core for 0; a corpus of `size` bytes that is small is encoded without any.
    """
    workers = min(workers or cores(), size // SHARE)
    if workers <= 1:
        local = Encoder(spool, tokenizer)
        yield lambda extents: map(local, tasks(extents))
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (spool, tokenizer))
    try:
        yield lambda extents: _in_order(pool, extents, workers * AHEAD)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker that encodes text died, most likely killed for want of memory; lower --data.workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, extents: Extents, ahead: int) -> Iterator[Encoded]:
    waiting: collections.deque[Future] = collections.deque()
    for task in tasks(extents):
        waiting.append(pool.submit(_encode, task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
