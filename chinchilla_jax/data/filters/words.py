"""A batch of documents as arrays: characters, words and lines, with a hash of every word.

Letters: D documents, C characters, W words, all one behind the other. A hash of a stretch of characters is a
difference of two prefix sums (Rabin and Karp), so that no Python object is made for a word.
"""

import functools
import sys

import numpy as np

from chinchilla_jax.data.hashing import mix

SPACE, ALPHA, WORD, SINGLE = 1, 2, 4, 8
LAST_LETTER = 0x33480  # no character above is a letter
BASE = 0x9E3779B97F4A7C15 | 1
# Scripts that are written without spaces: every character is a word there.
SINGLES = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3347F))


@functools.lru_cache(1)
def classes() -> np.ndarray:
    """SPACE, ALPHA, WORD (a letter or digit) and SINGLE for every code point, uint8."""
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    for point in range(LAST_LETTER):
        c = chr(point)
        table[point] = SPACE * c.isspace() | ALPHA * c.isalpha() | WORD * c.isalnum()
    for first, last in SINGLES:
        table[first : last + 1] |= SINGLE
    return table


@functools.lru_cache(1)
def powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE**i and its inverse modulo 2**64 for i below `count`."""
    found = np.full((2, count), BASE, np.uint64)
    found[1] = pow(BASE, -1, 1 << 64)
    found[:, 0] = 1
    return tuple(np.cumprod(found, axis=1, dtype=np.uint64))


class Text:
    """Documents as code points (C,), each followed by a line end; `first` (D + 1,) is where each begins."""

    def __init__(self, texts: list[str]):
        self.texts = texts
        joined = "\n".join([*texts, ""])
        self.points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        self.sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        self.first = np.concatenate([[0], np.cumsum(self.sizes + 1)])
        self.classes = classes()[self.points]

    @functools.cached_property
    def prefix(self) -> np.ndarray:
        """Sums of points times powers of BASE before each character, uint64 (C + 1,)."""
        size = 1 << (max(len(self.points), 1) - 1).bit_length()
        found = np.zeros(len(self.points) + 1, np.uint64)
        np.cumsum((self.points + np.uint32(1)) * powers(size)[0][: len(self.points)], out=found[1:])
        return found

    def hashes(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """A hash of each stretch [start, end) of characters, uint64; equal stretches have equal ones."""
        inverse = powers(1 << (max(len(self.points), 1) - 1).bit_length())[1]
        return mix((self.prefix[ends] - self.prefix[starts]) * inverse[starts] + (ends - starts).astype(np.uint64))

    def count(self, marks: np.ndarray) -> np.ndarray:
        """How many of the marked characters (C,) lie in each document, (D,)."""
        places = np.flatnonzero(marks)
        return np.diff(np.searchsorted(places, self.first))


class Words:
    """Stretches of characters [start, end) in order, (W,); `first` (D + 1,) numbers the first one of each document."""

    def __init__(self, text: Text, starts: np.ndarray, ends: np.ndarray):
        self.text, self.starts, self.ends = text, starts, ends
        self.first = np.searchsorted(starts, text.first)
        self.counts = np.diff(self.first)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Characters of each word, (W,)."""
        return self.ends - self.starts

    @functools.cached_property
    def before(self) -> np.ndarray:
        """Characters of all words before each one, (W + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @functools.cached_property
    def document(self) -> np.ndarray:
        """The document of each word, (W,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """A hash of each word, uint64 (W,)."""
        return self.text.hashes(self.starts, self.ends)

    def per_document(self, values: np.ndarray) -> np.ndarray:
        """The sum of a value of each word, (D,)."""
        return np.bincount(self.document, values, len(self.counts))

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each run of `n` words of one document begins, (G,), and its hash, uint64 (G,)."""
        last = np.repeat(self.first[1:], self.counts)
        begins = np.flatnonzero(np.arange(len(self.starts)) + n <= last)
        found = np.zeros(len(begins), np.uint64)
        for k in range(n):
            found = mix(found + self.hashes[begins + k])
        return begins, found


def plain_words(text: Text) -> Words:
    """Words as `str.split()` finds them."""
    return _stretches(text, (text.classes & SPACE) == 0)


def folded_words(texts: list[str]) -> Words:
    """Runs of letters and digits in lower case; of scripts without spaces every character."""
    text = Text([t.lower() for t in texts])
    return _stretches(text, (text.classes & WORD) != 0, (text.classes & SINGLE) != 0)


def _stretches(text: Text, inside: np.ndarray, single: np.ndarray | None = None) -> Words:
    """The longest runs of characters that are `inside`, and each one that is `single` by itself."""
    padded = np.concatenate([[False], inside, [False]])
    if single is None or not single.any():
        edges = np.flatnonzero(padded[1:] != padded[:-1])
        return Words(text, edges[::2], edges[1::2])
    alone = np.concatenate([[False], single & inside, [False]])
    cut = alone[1:] | alone[:-1]  # a word ends before and behind such a character
    starts = np.flatnonzero(padded[1:] & (~padded[:-1] | cut))
    ends = np.flatnonzero(padded[:-1] & (~padded[1:] | cut))
    return Words(text, starts, ends)
