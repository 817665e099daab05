"""Typing mistakes in a text, and where in the faulty text each byte of the clean one is.

A mistake is one of four, as likely as each other where the character allows it: two neighbours are swapped, a character
is left out, another is typed before it, or a key beside it is hit instead (QWERTY). What lies between mistakes is
unchanged, so a place in the faulty text stands for one of the clean text, except inside a mistake.
"""

from collections.abc import Iterator

import numpy as np

ROWS = ("`1234567890-=", " qwertyuiop[]\\", " asdfghjkl;'", " zxcvbnm,./")


def _neighbours() -> dict[str, str]:
    """The keys beside, above and below each key, in the case of the character itself."""
    place = {key: (y, x) for y, row in enumerate(ROWS) for x, key in enumerate(row) if key != " "}

    beside = {(0, -1), (0, 1), (-1, 0), (-1, 1), (1, 0), (1, -1)}  # a row stands a little to the right of that above

    def near(key):
        y, x = place[key]
        return [k for k, (v, u) in place.items() if (v - y, u - x) in beside]

    lower = {key: "".join(near(key)) for key in place}
    return lower | {key.upper(): near.upper() for key, near in lower.items() if key.isalpha()}


NEIGHBOURS = _neighbours()


def mistakes(text: str, share: float, draw: np.random.Generator) -> Iterator[tuple[int, int, str]]:
    """(start, end, what is typed instead of text[start:end]) of every mistake; each character starts one at `share`."""
    free = 0
    for i in np.flatnonzero(draw.random(len(text)) < share).tolist():
        if i < free:  # the other half of a swap
            continue
        here, after = text[i], text[i + 1 : i + 2]
        near = NEIGHBOURS.get(here, here)
        hit = near[draw.integers(len(near))]
        kinds = [(i, i + 1, ""), (i, i, hit)]
        kinds += [(i, i + 1, hit)] if hit != here else []
        kinds += [(i, i + 2, after + here)] if after not in ("", here) else []
        kind = kinds[draw.integers(len(kinds))]
        free = kind[1]
        yield kind


def corrupt(text: str, share: float, draw: np.random.Generator) -> tuple[str, np.ndarray]:
    """The text with mistakes, and for each place between its bytes (n + 1,) the place in the clean text's bytes.

    A place inside a mistake has none: -1. What was left out lies behind its place; what was typed in excess, before.
    """
    parts: list[bytes] = []
    spans: list[tuple[int, int, int]] = []  # places in the faulty and the clean bytes, and how far both run alike
    faulty = clean = at = 0
    for start, end, typed in [*mistakes(text, share, draw), (len(text), len(text), "")]:
        same, typed = text[at:start].encode(), typed.encode()
        parts += [same, typed]
        spans.append((faulty, clean, len(same)))
        faulty += len(same) + len(typed)
        clean += len(same) + len(text[start:end].encode())
        at = end
    places = np.full(faulty + 1, -1, np.int64)
    for faulty, clean, length in reversed(spans):  # at the place of something left out, the span before it decides
        places[faulty : faulty + length + 1] = np.arange(clean, clean + length + 1)
    return b"".join(parts).decode(), places


def targets(
    faulty: np.ndarray, clean: np.ndarray, places: np.ndarray, sizes: np.ndarray, separator: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the clean text goes on with behind each token of a faulty document: targets and weights, both (n + 1,).

    `faulty` (n,) and `clean` are the documents' tokens without the separator, which stands before both and after the
    clean one; `sizes` are the bytes of every piece. The weight is 1 where the end of a faulty token is a place at which
    a clean token starts, and of several such tokens at the last, which has read most of the mistake.
    """
    ends = places[np.concatenate([[0], np.cumsum(sizes[faulty])])]
    starts = np.concatenate([[0], np.cumsum(sizes[clean])])
    token = np.searchsorted(starts, ends)
    meets = np.flatnonzero((ends >= 0) & (starts[token] == ends))
    meets = meets[np.append(token[meets][1:] != token[meets][:-1], True)]
    following, weights = np.full(len(ends), separator), np.zeros(len(ends), np.float32)
    following[meets] = np.append(clean, separator)[token[meets]]
    weights[meets] = 1
    return following, weights
