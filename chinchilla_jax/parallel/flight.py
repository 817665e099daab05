"""A bound on the programs that wait for the devices at the same time."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

T = TypeVar("T")

# XLA:CPU of JAX 0.10 deadlocks when a 33rd program with a collective is queued on several devices (measured: 32 pass,
# 33 do not). On any device a queued program already holds the memory of its results.
DEPTH = 8


def paced(results: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """`results` of compiled functions as they are dispatched, at most `depth` of them unfinished.

    For every loop over batches whose results are not read on the host at once.
    """
    unfinished: deque[T] = deque()
    for result in results:
        unfinished.append(result)
        if len(unfinished) > depth:
            jax.block_until_ready(unfinished.popleft())
        yield result
