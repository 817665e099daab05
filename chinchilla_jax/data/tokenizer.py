"""A SentencePiece model behind four calls; nothing of a text is lost on the way there and back.

SentencePiece writes a space as U+2581 and cannot tell it from a real U+2581. Texts are therefore cut at that
character, which is spelled as its three byte pieces instead. A model without a piece for U+2581, trained on text with
few spaces, would spell a space so too: there it is the byte piece of a space.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from chinchilla_jax.data.marks import CONFIG, read_marks
from chinchilla_jax.data.tokenizer_base import SPACE, BaseTokenizer, check_utf8
from chinchilla_jax.disk import read_json
from chinchilla_jax.errors import UserError

SPACE_BYTES = tuple(f"<0x{byte:02X}>" for byte in SPACE.encode())
PART = 1000
LONGEST_PART = 5000
# After a line or a Chinese sentence, or before a lone space: places that no piece of ours crosses but a few with
# newlines in them. Encoding a long text part by part is up to twice as fast as whole.
BOUNDARY = re.compile(r"(?<=[\n\u3002\uff01\uff1f])(?=\S)|(?<=\S)(?= \S)")


class Tokenizer(BaseTokenizer):
    """A SentencePiece model. `separator` is the control piece that starts every document of a token stream.

    Raises `UserError` for a file that is missing, is no SentencePiece model, or has neither an eos nor a bos piece.
    """

    def __init__(self, path: str | Path):
        import sentencepiece

        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot read the tokenizer ({error.strerror}); see --data.tokenizer") from error
        self.path, self.sha256 = str(path), hashlib.sha256(model).hexdigest()
        try:
            if not model:
                raise RuntimeError("the file is empty")
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"{path}: not a SentencePiece model; pass a .model file to --data.tokenizer") from error
        self.size = self._model.get_piece_size()
        self.check_text(range(self.size))
        self.separator = next((i for i in (self._model.eos_id(), self._model.bos_id()) if i >= 0), -1)
        if self.separator < 0:
            raise UserError(f"{path}: the tokenizer has neither an eos nor a bos piece to part documents with")
        self.start, self.end, self.stops = (self.separator,), (), frozenset([self.separator])
        self._follow(Path(path).parent)
        ids = [self._model.piece_to_id(piece) for piece in SPACE_BYTES]
        self._space_ids = np.array(ids, np.int32) if all(map(self._model.is_byte, ids)) else None
        # Every model with byte pieces has all 256.
        lacks_space = self._space_ids is not None and self._model.piece_to_id(SPACE) == self._model.unk_id()
        self._space_byte = self._model.piece_to_id("<0x20>") if lacks_space else None
        # A model that puts a space before its input would put one before every part.
        self.prefixes_space = self._model.encode("a", out_type=str)[:1] not in (["a"], ["<0x61>"])

    def _follow(self, folder: Path) -> None:
        """Begin texts with bos where tokenizer_config.json beside a model says so, or says nothing.

        That is what transformers does for the models that come as this file (Llama, Mistral, Gemma); in what is trained
        here no such file stands beside it.
        """
        bos = self._model.bos_id()
        if bos < 0 or read_json(folder / CONFIG, missing={"add_bos_token": False}).get("add_bos_token") is False:
            return
        vocabulary = {self._model.id_to_piece(i): i for i in range(self.size)}
        marks = read_marks(folder, vocabulary, self.controls, (bos,))
        self.separator, self.start, self.end, self.stops = marks.separator, marks.start, marks.end, marks.stops
        self.adds_bos = True

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """The bytes that each id stands for; none for control pieces."""
        return [self._piece_bytes(i) for i in range(self.size)]

    def _piece_bytes(self, i: int) -> bytes:
        if self._model.is_control(i):
            return b""
        piece = self._model.id_to_piece(i)
        if self._model.is_byte(i):
            return bytes([int(piece[3:5], 16)])
        return "\ufffd".encode() if self._model.is_unknown(i) else piece.replace(SPACE, " ").encode()

    @functools.cached_property
    def special(self) -> tuple[int, ...]:
        """The ids that stand for no text of their own: control pieces and the unknown one."""
        return tuple(i for i in range(self.size) if self._model.is_control(i) or self._model.is_unknown(i))

    @functools.cached_property
    def controls(self) -> dict[str, int]:
        """Name -> id of the control pieces, which no text gives."""
        return {self._model.id_to_piece(i): i for i in range(self.size) if self._model.is_control(i)}

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text` as int32, (n,)."""
        return self._encode_all(text, self._encode_part)

    def sample_array(self, text: str, seed: int, alpha: float = 0.1) -> np.ndarray:
        import sentencepiece

        sentencepiece.set_random_generator_seed(seed)

        def sampled(part):
            return np.array(self._model.encode(part, enable_sampling=True, alpha=alpha, nbest_size=-1), np.int32)

        return self._encode_all(text, sampled)

    def _encode_all(self, text: str, encode: Callable[[str], np.ndarray]) -> np.ndarray:
        if self.prefixes_space:
            return self._spaces_in_one(encode(text))
        arrays: list[np.ndarray] = []
        for number, section in enumerate(text.split(SPACE) if self._space_ids is not None else [text]):
            if number:
                arrays.append(self._space_ids)
            arrays.extend(self._spaces_in_one(encode(part)) for part in parts(section))
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.zeros(0, np.int32)

    def _spaces_in_one(self, ids: np.ndarray) -> np.ndarray:
        """`ids` of a text without U+2581: what is spelled so is a space that the model lacks, and gets its one byte."""
        if self._space_byte is None:
            return ids
        ids, (first, second, third) = ids.copy(), self._space_ids
        found = np.flatnonzero((ids[:-2] == first) & (ids[1:-1] == second) & (ids[2:] == third))
        ids[found] = self._space_byte
        return np.delete(ids, np.concatenate([found + 1, found + 2]))

    def _encode_part(self, text: str) -> np.ndarray:
        try:
            return self._model.encode_as_numpy(text)
        except RuntimeError:
            check_utf8(text)
            raise


def parts(text: str) -> Iterable[str]:
    """`text` in parts of about a thousand characters, cut where a piece rarely crosses."""
    start, size = 0, len(text)
    while start < size:
        end = size
        if size - start > PART:
            limit = start + LONGEST_PART
            found = BOUNDARY.search(text, start + PART, limit + 1)
            end = found.start() if found else min(limit, size)
        yield text[start:end]
        start = end
