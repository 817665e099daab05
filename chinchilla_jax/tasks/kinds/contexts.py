"""A question and its context as tokens: where its answer stands, and the windows that a long context is read in."""

import functools
import re
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.tasks.encode import Encoder, opening
from chinchilla_jax.tasks.offsets import Placed, placed
from chinchilla_jax.tasks.records import Question

SHARE = 2  # of a window, that its question takes at most


def place_of(record: Question) -> tuple[int, int] | None:
    """Characters of the first reference that stands in the context; those without a place are looked up.

    Blanks and capitals may differ, which no metric sees.
    """
    for text, start in record.answers:
        if start >= 0:
            return start, start + len(text)
        words = r"\s+".join(map(re.escape, text.split()))
        if words and (match := re.search(words, record.context, re.IGNORECASE)):
            return match.span()
    return None


@functools.lru_cache(maxsize=1 << 12)
def context_of(tokenizer: Any, context: str) -> Placed:
    """The pieces of a context, which many questions share."""
    return placed(tokenizer, context, tokenizer.encode)


def windows(encoder: Encoder, record: Question) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of the question, and the ids [first, end) of the context in each window; they overlap by --task.stride."""
    tokenizer = encoder.renderer.tokenizer
    copies = 2 if encoder.task.source == "twice" else 1
    room = encoder.limit - len(opening(tokenizer))
    question = tokenizer.encode(record.question)[: room // (SHARE * copies)]
    question = [*question, *tokenizer.encode("\n")]
    size = room // copies - len(question) - len(closing(tokenizer))
    count = len(context_of(tokenizer, record.context).ids)
    require(size > 0, f"{record.where}: no room for a context in --train.seq-len {encoder.limit}; raise it")
    stride = encoder.task.stride or size // 2
    require(
        stride < size or count <= size,
        f"{record.where}: windows of {size} tokens of the context cannot overlap by --task.stride {stride}; lower it "
        f"to {size // 2}, or raise --train.seq-len",
    )
    step = max(1, size - stride)
    starts = range(0, max(1, count - size + step), step)
    return question, [(start, min(start + size, count)) for start in starts]


def closing(tokenizer: Any) -> list[int]:
    """What stands behind a context; its last token, at which a causal model has read all, means no answer."""
    return tokenizer.encode("\n") or [tokenizer.separator]
