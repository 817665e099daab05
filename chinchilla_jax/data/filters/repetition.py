"""The repetition filters of MassiveText (Rae et al. 2021, appendix A.1, table A1).

A duplicate is an occurrence after the first in the same document. Shares of characters are of the characters in words
(n-grams) or in lines; a character in several overlapping duplicates counts once. The most frequent n-gram counts with
all its occurrences, where it has at least two; of several the longest.
"""

from collections.abc import Iterator

import numpy as np

from chinchilla_jax.config.corpus import RepetitionConfig
from chinchilla_jax.data.filters.quality import Lines
from chinchilla_jax.data.filters.words import Words
from chinchilla_jax.data.hashing import mix

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def rules(words: Words, lines: Lines, config: RepetitionConfig) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, value (D,) and verdict (D,) of every rule, True for documents that break it."""
    for name, first, ends, document in (
        ("lines", lines.starts, lines.ends, lines.document),
        ("paragraphs", *paragraphs(lines)),
    ):
        again = repeated(lines.text.hashes(first, ends), document)
        for kind, sizes in (("", np.ones(len(first))), ("_characters", (ends - first).astype(np.float64))):
            documents = len(lines.counts)
            total = np.maximum(np.bincount(document, sizes, documents), 1)
            share = np.bincount(document, sizes * again, documents) / total
            yield f"duplicate_{name}{kind}", share, share > getattr(config, f"{name}{kind}")
    for (kind, n, share), limit in zip(grams(words), (*config.top_grams, *config.duplicate_grams)):
        yield f"{kind}_{n}_grams", share, share > limit


def paragraphs(lines: Lines) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of lines without a blank one between: first and end character, and the document."""
    apart = (np.diff(lines.number, prepend=-2) > 1) | (np.diff(lines.document, prepend=-1) > 0)
    begin = np.flatnonzero(apart)
    return lines.starts[begin], lines.ends[np.append(begin, len(lines.ends))[1:] - 1], lines.document[begin]


def repeated(hashes: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Whether each item is in its document for at least the second time; items are in order."""
    _, first = np.unique(mix(hashes + document.astype(np.uint64)), return_index=True)
    again = np.ones(len(hashes), bool)
    again[first] = False
    return again


def grams(words: Words) -> Iterator[tuple[str, int, np.ndarray]]:
    """("top" or "duplicate", n, share of the characters (D,)) for n from 2 to 10.

    An n-gram occurs twice only where both (n-1)-grams in it do: only those places are looked at again.
    """
    total = np.maximum(words.per_document(words.sizes), 1)
    begins, hashes = words.grams(1)
    hashes = mix(hashes + words.document[begins].astype(np.uint64))
    several = np.ones(len(begins), bool)
    for n in range(2, 11):
        begins, hashes = grown(words, begins[several], hashes[several], n)
        order = np.argsort(hashes)
        ordered = hashes[order]
        edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
        counts = np.diff(np.append(edges, len(order)))
        several = np.zeros(len(begins), bool)
        several[order] = np.repeat(counts > 1, counts)
        if n in TOP:
            yield "top", n, top(words, begins[order[edges]], counts, n) / total
            continue
        later = several.copy()
        later[np.minimum.reduceat(order, edges) if len(edges) else edges] = False  # the first of each is no duplicate
        yield "duplicate", n, covered(words, begins[later], n) / total


def covered(words: Words, begins: np.ndarray, n: int) -> np.ndarray:
    """Characters of the words in any of the n-grams that begin there (in rising order), each once, (D,)."""
    upto = np.minimum(np.append(begins[1:], len(words.starts)), begins + n)  # the rest is the next one's
    return np.bincount(words.document[begins], words.before[upto] - words.before[begins], len(words.counts))


def grown(words: Words, begins: np.ndarray, hashes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams whose two (n-1)-grams are both among those given, which begin at `begins`, in rising order."""
    follows = np.zeros(len(begins), bool)
    follows[:-1] = np.diff(begins) == 1
    fits = follows & (begins + n <= words.first[1:][words.document[begins]])
    return begins[fits], mix(hashes[fits] * np.uint64(3) + words.hashes[begins[fits] + n - 1])


def top(words: Words, begins: np.ndarray, counts: np.ndarray, n: int) -> np.ndarray:
    """Characters of the most frequent of these n-grams in each document, all its occurrences together, (D,)."""
    some = np.flatnonzero(counts > 1)
    begins, counts = begins[some], counts[some].astype(np.int64)
    sizes = words.before[begins + n] - words.before[begins]
    best = np.zeros(len(words.counts), np.int64)
    np.maximum.at(best, words.document[begins], counts << 32 | sizes)
    return (best >> 32) * (best & 0xFFFFFFFF)
