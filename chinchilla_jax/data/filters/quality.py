"""The quality rules of MassiveText (Rae et al. 2021, arXiv:2112.11446, appendix A.1), for English text.

Words are those of `str.split()`, lines those that are not blank. A document that breaks one rule is left out.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from chinchilla_jax.config.corpus import QualityConfig
from chinchilla_jax.data.filters.words import ALPHA, Text, Words, plain_words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = "-*\u2022\u2023\u2043\u25e6\u25cf\u25cb\u25a0\u25a1\u25aa\u25ab\u25b6\u2013"
ELLIPSIS, DOT, HASH, LINE = ord("…"), ord("."), ord("#"), ord("\n")


def rules(
    text: Text, words: Words, lines: "Lines", config: QualityConfig
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, value (D,) and verdict (D,) of every rule, True for documents that break it."""
    count = np.maximum(words.counts, 1)
    yield from limits("words", words.counts, config.min_words, config.max_words)
    yield from limits(
        "word_length", words.per_document(words.sizes) / count, config.min_word_length, config.max_word_length
    )
    yield from limits("hashes", text.count(text.points == HASH) / count, -1, config.max_symbols)
    yield from limits("ellipses", ellipses(text) / count, -1, config.max_symbols)
    some = np.maximum(lines.counts, 1)
    yield from limits("bullet_lines", lines.sums(lines.begin_with(BULLETS)) / some, -1, config.max_bullets)
    yield from limits("ellipsis_lines", lines.sums(lines.end_in_ellipsis()) / some, -1, config.max_ellipses)
    yield from limits("alphabetic_words", words.per_document(alphabetic(text, words)) / count, config.min_alphabetic, 2)
    yield from limits("stop_words", stop_words(text, words), config.min_stop_words, len(STOP_WORDS))


def limits(name: str, value: np.ndarray, least: float, most: float) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """A rule that keeps values from `least` to `most`."""
    yield name, value, (value < least) | (value > most)


def alphabetic(text: Text, words: Words) -> np.ndarray:
    """Whether each word has a letter, (W,)."""
    # A segment runs on to the next word, over white space that has none.
    return np.bitwise_or.reduceat(text.classes, words.starts) & ALPHA != 0 if len(words.starts) else words.starts > 0


def ellipses(text: Text) -> np.ndarray:
    """How many "…" and "..." each document has, (D,), the latter as `str.count` counts them."""
    dots = np.flatnonzero(text.points == DOT)
    begins = np.flatnonzero(np.diff(dots, prepend=-2) > 1)  # of a run of dots
    lengths = np.diff(np.append(begins, len(dots)))
    documents = np.searchsorted(text.first, dots[begins], side="right") - 1
    return text.count(text.points == ELLIPSIS) + np.bincount(documents, lengths // 3, len(text.sizes))


@functools.lru_cache(1)
def stop_word_hashes() -> tuple[np.ndarray, np.ndarray]:
    """The hash of every stop word in every mixture of cases, rising, and which word it is."""
    cases = [(word, "".join(c)) for word in STOP_WORDS for c in itertools.product(*zip(word, word.upper()))]
    hashes = plain_words(Text([" ".join(written for _, written in cases)])).hashes
    order = np.argsort(hashes)
    return hashes[order], np.array([STOP_WORDS.index(word) for word, _ in cases])[order]


def stop_words(text: Text, words: Words) -> np.ndarray:
    """How many different ones of `STOP_WORDS` each document has, in either case, (D,)."""
    known, number = stop_word_hashes()
    short = np.flatnonzero((words.sizes >= 2) & (words.sizes <= 4))
    hashes = words.hashes[short]
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    found = known[place] == hashes
    seen = np.zeros((len(text.sizes), len(STOP_WORDS)), bool)
    seen[words.document[short[found]], number[place[found]]] = True
    return seen.sum(axis=1)


class Lines:
    """Lines that are not blank: [start, end) without white space around them, (N,), and those of each document."""

    def __init__(self, text: Text, words: Words):
        self.text = text
        ends = np.flatnonzero(text.points == LINE)
        last = np.searchsorted(words.starts, ends)  # words before each line end
        first = np.concatenate([[0], last[:-1]])
        there = last > first
        self.starts, self.ends = words.starts[first[there]], words.ends[last[there] - 1]
        self.number = np.flatnonzero(there)  # among all lines, blank ones counted
        self.first = np.searchsorted(self.starts, text.first)
        self.counts = np.diff(self.first)
        self.document = np.repeat(np.arange(len(self.counts)), self.counts)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of a value of each line, (D,)."""
        return np.bincount(self.document, values, len(self.counts))

    def begin_with(self, characters: str) -> np.ndarray:
        """Whether each line begins with one of these, (N,)."""
        return np.isin(self.text.points[self.starts], [ord(c) for c in characters])

    def end_in_ellipsis(self) -> np.ndarray:
        """Whether each line ends in "…" or "...", (N,)."""
        points, last = self.text.points, self.ends - 1
        long = self.ends - self.starts >= 3
        three = long & (points[last] == DOT) & (points[last - 1] == DOT) & (points[last - 2] == DOT)
        return three | (points[last] == ELLIPSIS)


def measure(texts: list[str]) -> tuple[Text, Words, Lines]:
    """What the rules of quality and repetition look at."""
    text = Text(texts)
    words = plain_words(text)
    return text, words, Lines(text, words)
