"""A SentencePiece model, or its lists as a GGUF file holds them, as a tokenizer of the `tokenizers` library.

bpe: vocab {piece: id}; merges are all ways to put a piece together from two, in the order of the piece's score.
unigram: pieces with their scores, but for those that are no text (bytes, control, unknown), which get -1e6: else a
text that spells `<0x20>` or `<s>` becomes one token. That works where every character of such a spelling is a piece;
else the text is cut there.
Both: spaces are U+2581, characters without a piece are spelled in bytes, decoding joins. Two kinds of text differ from
`data.tokenizer`: U+2581 itself, which comes back as a space, and, where the caller asks the library to parse them,
the names of control pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax.data.tokenizer_base import SPACE
from chinchilla_jax.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces, in both formats
HOPELESS = -1e6
IDENTITY = ("identity", "")


@dataclass(frozen=True)
class Lists:
    """Pieces with scores and types; `prefix`: a space goes before every text."""

    unigram: bool
    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    prefix: bool

    def of_type(self, kind: int) -> list[str]:
        """The pieces of a type, in order."""
        return [piece for piece, found in zip(self.pieces, self.types) if found == kind]


def read_model(path: Path) -> Lists:
    """The lists of a .model file; `UserError` for a kind or a normalisation that has no counterpart."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    kind, normal = model.trainer_spec.model_type, model.normalizer_spec
    if kind not in (model.trainer_spec.BPE, model.trainer_spec.UNIGRAM):
        raise UserError(f"{path}: only bpe and unigram models of SentencePiece become a tokenizer.json")
    if normal.name not in IDENTITY or normal.precompiled_charsmap or normal.remove_extra_whitespaces:
        raise UserError(
            f"{path}: its normalisation ({normal.name or 'of its own'}) changes texts and has no counterpart in a "
            "tokenizer.json; train a tokenizer with prepare"
        )
    return Lists(
        kind == model.trainer_spec.UNIGRAM,
        [entry.piece for entry in model.pieces],
        [entry.score for entry in model.pieces],
        [entry.type for entry in model.pieces],
        normal.add_dummy_prefix,
    )


def library_tokenizer(lists: Lists) -> Any:
    """The `tokenizers.Tokenizer` that gives the same ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers

    if lists.prefix and USER in lists.types:
        raise UserError("symbols of the user and a space before every text do not go together in a tokenizer.json")
    made = Tokenizer(unigram(lists) if lists.unigram else bpe(lists))
    spaces = normalizers.Replace(" ", SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if lists.prefix else spaces
    joined = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*joined, decoders.Strip(" ", 1, 0)] if lists.prefix else joined)
    if lists.unigram:
        cut_spellings(made, lists)
    special = lists.of_type(UNKNOWN) + lists.of_type(CONTROL)
    order = {piece: i for i, piece in enumerate(lists.pieces)}
    made.add_special_tokens([AddedToken(piece, normalized=False) for piece in sorted(special, key=order.get)])
    made.add_tokens([AddedToken(piece, normalized=False) for piece in lists.of_type(USER)])
    wrong = [piece for piece, i in order.items() if made.token_to_id(piece) != i]
    if wrong or len(order) != len(lists.pieces):
        raise UserError(
            f"the tokenizer has the piece {wrong[0] if wrong else 'that is last'!r} twice; it cannot be kept"
        )
    return made


def begin(piece: str, i: int) -> Any:
    """What puts bos before every text."""
    from tokenizers import processors

    return processors.TemplateProcessing(
        single=[piece, "$A"], pair=[piece, "$A", f"{piece}:1", "$B:1"], special_tokens=[(piece, i)]
    )


def bpe(lists: Lists) -> Any:
    """The bpe model: a merge for every split of a piece into two pieces, best score first."""
    from tokenizers import models

    vocab = {piece: i for i, piece in enumerate(lists.pieces)}
    normal = {piece: i for piece, i in vocab.items() if lists.types[i] in (NORMAL, USER)}
    ranked = []
    for piece, i in normal.items():
        for cut in range(1, len(piece)):
            left, right = normal.get(piece[:cut]), normal.get(piece[cut:])
            if left is not None and right is not None:
                ranked.append((-lists.scores[i], i, left, right))
    merges = [(lists.pieces[left], lists.pieces[right]) for _, _, left, right in sorted(ranked)]
    unknown = next(iter(lists.of_type(UNKNOWN)), None)
    fallback = BYTE in lists.types
    return models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)


def unigram(lists: Lists) -> Any:
    """The unigram model."""
    from tokenizers import models

    scores = [HOPELESS if kind in (BYTE, CONTROL, UNKNOWN) else score for score, kind in zip(lists.scores, lists.types)]
    unknown = lists.types.index(UNKNOWN) if UNKNOWN in lists.types else None
    return models.Unigram(list(zip(lists.pieces, scores)), unk_id=unknown, byte_fallback=BYTE in lists.types)


def cut_spellings(made: Any, lists: Lists) -> None:
    """Cut a text behind the first character of what spells a byte or control piece, where a low score is not enough."""
    import re

    from tokenizers import Regex, pre_tokenizers

    known = set(lists.of_type(NORMAL))
    heads = [
        f"{re.escape(piece[0])}(?={re.escape(piece[1:])})"
        for piece in lists.of_type(CONTROL) + lists.of_type(UNKNOWN) + lists.of_type(BYTE)
        if not set(piece.replace(" ", SPACE)) <= known
    ]
    if heads:
        made.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(heads)), "merged_with_previous")
