"""A soft prompt in the data: its ids before every document of a row."""

import numpy as np

from chinchilla_jax.types import Batch


def prefixed(batch: Batch, ids: tuple[int, ...]) -> Batch:
    """`batch`, numpy and (B, L), with `ids`, which nothing predicts, before each document; what runs over is cut off.

    Documents are numbered from 1 along a row. A batch whose documents have the ids, as those of a task, stays as it is.
    """
    if np.isin(batch.tokens, ids).any():
        return batch
    segments = np.asarray(batch.segments)
    (B, L), P = segments.shape, len(ids)
    row, column = np.nonzero(segments)
    place = column + P * segments[row, column]
    kept = place < L
    row, column, place = row[kept], column[kept], place[kept]
    found = {name: np.zeros((B, L), np.asarray(x).dtype) for name, x in vars(batch).items()}
    for name, new in found.items():
        new[row, place] = np.asarray(getattr(batch, name))[row, column]
    found["positions"][row, place] += P
    for number in range(1, int(segments.max(initial=0)) + 1):
        rows = np.flatnonzero((segments == number).any(1))
        first = np.argmax(segments[rows] == number, 1) + P * (number - 1)
        for offset, one in enumerate(ids):
            here = first + offset < L
            at = rows[here], first[here] + offset
            found["tokens"][at], found["segments"][at], found["positions"][at] = one, number, offset
    return Batch(**found)
