"""What both kinds of tokenizer share: pieces of known bytes, decoding, and streams of text."""

import codecs
import functools
import string
from collections.abc import Iterable

import numpy as np

from chinchilla_jax.errors import UserError

SPACE = "\u2581"  # as SentencePiece, and files of its kind, write a space
PROBE = "  two  spaces\r\n\ttab \ufb01 \u00e9 e\u0301 \u2460 \uff21 \U0001f600 \x07 end  "
PROBE += f"{string.punctuation} \u2018\u2019 \u201c\u201d \u2026 \u2013 \u2014 \u00ab\u00bb "


class BaseTokenizer:
    """Ids behind a few calls. A subclass sets these attributes and writes `encode_array`, `sample_array`, `pieces`:

    `path`, `sha256` of the file; `size`, ids in use; `prefixes_space`, whether a text gets a space in front;
    `adds_bos`, whether `start` is a bos that other libraries put before a text as well;
    `separator`, the id that stands before every document of a token stream and after the last; `end`, ids between the
    last piece of a document and the next separator; `start`, ids before a prompt; `stops`, ids that end a text.
    """

    path: str
    sha256: str
    size: int
    prefixes_space: bool
    adds_bos: bool = False
    separator: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    stops: frozenset[int]

    @property
    def pieces(self) -> list[bytes]:
        """The bytes that each id stands for; none for control pieces."""
        raise NotImplementedError

    @property
    def special(self) -> tuple[int, ...]:
        """The ids that stand for no text of their own: control pieces and the unknown one."""
        raise NotImplementedError

    @property
    def controls(self) -> dict[str, int]:
        """Name -> id of the control pieces, which no text gives."""
        raise NotImplementedError

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text` as int32, (n,), without any separator. Raises `UserError` for a lone surrogate."""
        raise NotImplementedError

    def sample_array(self, text: str, seed: int, alpha: float = 0.1) -> np.ndarray:
        """Like `encode_array`, with one of the other ways to cut the text into pieces, chosen by `seed`.

        `alpha` is the share of merges left out by a bpe model (BPE-dropout, Provilkov et al. 2020), and the sharpness
        of the draw among all segmentations by a unigram model (Kudo 2018).
        """
        raise NotImplementedError

    def check_text(self, ids: Iterable[int]) -> None:
        """Raise a `UserError` where none of a vocabulary's `ids` stands for text."""
        if not {*ids} - {*self.special}:
            raise UserError(f"{self.path}: the vocabulary is empty, no token stands for text; get the file again")

    @property
    def opening(self) -> int:
        """The id that stands before a text that is judged, and alone for an empty prompt."""
        return (*self.start, self.separator)[0]

    @property
    def closing(self) -> int:
        """The id that follows the last piece of a document."""
        return self.end[0] if self.end else self.separator

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Bytes of every piece (V,); none for control pieces."""
        return np.array([len(piece) for piece in self.pieces])

    @property
    def lossless(self) -> bool:
        """Whether every text comes back unchanged."""
        return self.keeps([])

    def keeps(self, texts: Iterable[str]) -> bool:
        """Whether these texts, and one that normalisation would change, come back unchanged."""
        return all(self.decode(self.encode(text)) == text for text in (PROBE, *texts))

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without any separator. Raises `UserError` for a lone surrogate."""
        return self.encode_array(text).tolist()

    def document(self, text: str) -> np.ndarray:
        """The ids of a document of a token stream, int32 (n,): its separator, the text, and what ends it."""
        return np.concatenate([[self.separator], self.encode_array(text), self.end]).astype(np.int32)

    def prompt(self, text: str) -> list[int]:
        """The ids that a model continues `text` from; never none."""
        return [*self.start, *self.encode(text)] or [self.opening]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; byte pieces that are no UTF-8 become U+FFFD."""
        pieces = self.pieces
        text = b"".join([pieces[i] for i in ids]).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.prefixes_space else text


class Streamer:
    """Decodes a stream of ids; `feed` gives text as soon as it is complete UTF-8, `flush` what is left.

    With `begins` the text is one of its own, which some tokenizers encode with a space before it; else it goes on.
    """

    def __init__(self, tokenizer: BaseTokenizer, begins: bool = True):
        self._pieces = tokenizer.pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = begins and tokenizer.prefixes_space

    def feed(self, ids: Iterable[int]) -> str:
        """The text that became complete with `ids`."""
        text = self._decoder.decode(b"".join([self._pieces[i] for i in ids]))
        if self._at_start and text:
            text, self._at_start = text.removeprefix(" "), False
        return text

    def flush(self) -> str:
        """The end of the text; an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


def check_utf8(text: str) -> None:
    """Raise a `UserError` for a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate, U+{ord(text[error.start]):04X}, which UTF-8 cannot hold; remove it"
        ) from error
