"""Decisions that every process of a run must take alike; on one process they cost nothing."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

LONGEST = 300  # bytes of a word that processes exchange


def from_first(value: Any) -> Any:
    """The JSON-able `value` of process 0, on every process. All processes must call it."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, text.size)] = text[:size]
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


def largest(value: int) -> int:
    """The largest `value` of any process, on every process. All processes must call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def first_said(word: str) -> str:
    """The first word that any process has to say, on every process; "" where none has. All processes must call it."""
    if jax.process_count() == 1:
        return word
    letters = np.zeros(LONGEST, np.uint8)
    said = np.frombuffer(word.encode()[:LONGEST], np.uint8)
    letters[: said.size] = said
    words = (bytes(row).rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(letters))
    return next(filter(None, words), "")
