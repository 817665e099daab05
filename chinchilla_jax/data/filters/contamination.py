"""Documents that share a run of words with given files, such as evaluation sets (Brown et al. 2020, appendix C)."""

import json
from collections.abc import Iterator

import numpy as np

from chinchilla_jax.config import expanded
from chinchilla_jax.data import containers, files, fs, records
from chinchilla_jax.data.filters.words import folded_words
from chinchilla_jax.data.text import unmarked
from chinchilla_jax.errors import UserError

SIEVE = 22  # bits of a hash that are looked up first


class Contamination:
    """The runs of `n` folded words of the given texts."""

    def __init__(self, hashes: np.ndarray, n: int):
        self.hashes, self.n = hashes, n
        self._sieve = np.zeros(1 << SIEVE, bool)
        self._sieve[(hashes >> np.uint64(64 - SIEVE)).astype(np.int64)] = True

    def hits(self, texts: list[str]) -> np.ndarray:
        """How many runs of each document are among those of the given texts, (D,)."""
        words = folded_words(texts)
        begins, hashes = words.grams(self.n)
        some = np.flatnonzero(self._sieve[(hashes >> np.uint64(64 - SIEVE)).astype(np.int64)])
        place = np.minimum(np.searchsorted(self.hashes, hashes[some]), max(0, len(self.hashes) - 1))
        found = some[self.hashes[place] == hashes[some]] if len(self.hashes) else some[:0]
        return np.bincount(words.document[begins[found]], minlength=len(texts))


def collect(names: tuple[str, ...], n: int) -> np.ndarray:
    """The hashes of all runs of `n` words in the files, rising, uint64; of records every string, else the text.

    Raises `UserError` for a file that cannot be read or has no run of `n` words.
    """
    found = [np.empty(0, np.uint64)]
    for name in names:
        try:
            own = folded_words(list(strings(expanded(name)))).grams(n)[1]
        except FileNotFoundError as error:
            raise UserError(f"--data.decontaminate {name}: no such file") from error
        except IsADirectoryError as error:
            raise UserError(f"--data.decontaminate {name}: this is a folder; name its files") from error
        except files.DAMAGED as error:
            raise UserError(f"--data.decontaminate {name}: a damaged file ({error}); replace it") from error
        if not len(own):
            raise UserError(f"--data.decontaminate {name}: it has no run of {n} words")
        found.append(own)
    return np.unique(np.concatenate(found))


def strings(name: str) -> Iterator[str]:
    """The strings of a parquet or JSON file or of one with a JSON value a line, or the text of any other file."""
    path = fs.located(name)
    kind = files.uncompressed(path.name)
    if kind.endswith(".parquet"):
        yield from _strings(containers.rows(name))
        return
    with files.open_file(path) as file:
        text = unmarked(file.read(), path)
    if not kind.endswith((".json", ".jsonl", ".ndjson")):
        yield text
        return
    whole = kind.endswith(".json") and not records.is_lines(path, files.open_file)
    lines = [text] if whole else text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); correct the line") from error


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
