"""Where in a text each of its pieces stands, by the bytes that the tokenizer says it stands for."""

import re
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.tasks.render import Encode

HAN_KANA = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # written without blanks
# Han and kana one by one, other letters and digits as words, any other character by itself; with what is blank before.
UNITS = re.compile(rf"\s*(?:[^\W_{HAN_KANA}]+|\S|$)")


@dataclass(frozen=True)
class Placed:
    """Ids (n,) of a text, and the characters [start, end) that each covers."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def between(self, start: int, end: int) -> tuple[int, int]:
        """The first and the last id that cover characters [start, end)."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left")) - 1
        return first, max(first, last)

    def text(self, text: str, first: int, last: int) -> str:
        """The characters that ids `first` to `last` cover, without blanks round them."""
        return text[int(self.starts[first]) : int(self.ends[last])].strip()


def placed(tokenizer: BaseTokenizer, text: str, encode: Encode) -> Placed:
    """The ids of a text with their places; every unit of it is encoded by itself, so that an answer ends with a piece.

    Where a tokenizer changes the text of a unit, each of its pieces covers all of it.
    """
    parts = []
    for match in UNITS.finditer(text):
        unit = match.group().lstrip() if tokenizer.prefixes_space else match.group()
        ids, start = np.array(encode(unit) if unit else [], np.int32), match.end() - len(unit)
        own = by_bytes(tokenizer, unit, ids)
        starts, ends = own if own else (np.zeros(len(ids), int), np.full(len(ids), len(unit)))
        parts.append((ids, starts + start, ends + start))
    return Placed(*(np.concatenate(column) for column in zip(*parts)))


def by_bytes(tokenizer: BaseTokenizer, text: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """First and last character + 1 of every piece, by its bytes; None where the pieces do not give the text back."""
    whole, given = b"".join(tokenizer.pieces[i] for i in ids), text.encode()
    lead = int(tokenizer.prefixes_space and whole == b" " + given)
    if whole[lead:] != given:
        return None
    ends = np.cumsum(tokenizer.sizes[ids]) - lead
    starts = np.maximum(ends - tokenizer.sizes[ids], 0)
    character = np.cumsum([(byte & 0xC0) != 0x80 for byte in given]) - 1  # of every byte
    character = np.append(character, len(text))
    return character[starts], np.where(ends > starts, character[np.maximum(ends, 1) - 1] + 1, character[starts])
