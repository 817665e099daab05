"""A tokenizer whose pieces are items, as of a catalogue: a run on items is then a run like any other.

A text is names of items with blanks between them. The file is a `tokenizer.json` of the WordLevel kind, which the
`tokenizers` library reads too. A name that holds blanks has underscores in their place.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chinchilla_jax.data.tokenizer_base import BaseTokenizer, check_utf8
from chinchilla_jax.errors import UserError

END = "<|endoftext|>"
BLANKS = re.compile(r"\s+")
CATALOGUE = re.compile(rb'"type":\s*"WordLevel"')


class ItemTokenizer(BaseTokenizer):
    """A catalogue: id 0 stands before every history, and the items follow."""

    def __init__(self, path: str | Path):
        data = Path(path).read_bytes()
        self.path, self.sha256 = str(path), hashlib.sha256(data).hexdigest()
        try:
            self._ids = dict(json.loads(data)["model"]["vocab"])
            self._names = sorted(self._ids, key=self._ids.__getitem__)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: no catalogue of items ({error}); put the run's own file back") from error
        if [self._ids[name] for name in self._names] != list(range(len(self._ids))) or self._names[:1] != [END]:
            raise UserError(
                f"{path}: a tokenizer of the WordLevel kind is read as a catalogue of items, whose ids must be 1, 2, "
                f"... behind {END} at 0; put the run's own file back, or take a tokenizer that gives texts back"
            )
        self.size, self.separator, self.prefixes_space = len(self._names), 0, True
        self.start, self.end, self.stops = (0,), (), frozenset([0])

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """A blank and the name of each item."""
        return [b"", *(f" {name}".encode() for name in self._names[1:])]

    @property
    def special(self) -> tuple[int, ...]:
        """The id before every history."""
        return (0,)

    @property
    def controls(self) -> dict[str, int]:
        """Its name."""
        return {END: 0}

    @property
    def lossless(self) -> bool:
        """Names of items are all that comes back."""
        return False

    def known(self, name: str) -> int | None:
        """The id of an item; None for one that is not in the catalogue."""
        return self._ids.get(spelled(name)) if name != END else None

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of named items, int32 (n,). Raises `UserError` for one that is not in the catalogue."""
        check_utf8(text)
        found = [(name, self.known(name)) for name in text.split()]
        for name, number in found:
            if number is None:
                raise UserError(f"item {name} is none of the {self.size - 1:,} that the model was trained on")
        return np.array([number for _, number in found], np.int32)

    def sample_array(self, text: str, seed: int, alpha: float = 0.1) -> np.ndarray:
        """A name has one form alone."""
        return self.encode_array(text)


def is_catalogue(file: Path) -> bool:
    """Whether a tokenizer.json is of this kind."""
    return CATALOGUE.search(file.read_bytes()) is not None


def spelled(name: str) -> str:
    """A name without blanks."""
    return BLANKS.sub("_", name.strip())


def write(names: Iterable[str], folder: Path) -> Path:
    """The tokenizer.json of a catalogue, in the order given. Raises `UserError` where two names become one."""
    ids, first = {END: 0}, {END: END}
    for name in names:
        short = spelled(name)
        if short in ids or not short:
            raise UserError(f"the items {first.get(short, '')!r} and {name!r} are written alike; rename one of them")
        ids[short], first[short] = len(ids), name
    mark = {"id": 0, "content": END, "special": True}
    mark |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    facts = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [mark], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": END},
    }  # fmt: skip
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
