"""Training a SentencePiece model."""

import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from chinchilla_jax.config import DataConfig, flag
from chinchilla_jax.data import fs
from chinchilla_jax.errors import UserError

SENTENCE = 2000  # characters; at four bytes each still below LONGEST
LONGEST = 8192
# A line of training text must not hold these: SentencePiece stops at NUL and skips lines with its two marks.
RESERVED = str.maketrans({"\0": "\n", "\u2581": "\n", "\u2585": "\n"})
COUNTED = 1 << 20  # characters that are counted at a time
COVERAGE, LEAST = 0.9995, 0.98
# A character of three bytes saves two tokens where it stands, a merge one. The last merge of V pieces stands about once
# in 25 V characters (measured at 8,000 to 32,000), so that characters half as frequent still earn their piece.
RARE = 50
UNK, BOS, EOS, PAD = range(4)
CONTROLS_AND_BYTES = 4 + 256
GRID = 256
THREADS = 8  # fixed: unigram training sums per thread, so another number gives another model


def train(texts: Callable[[], Iterable[str]], config: DataConfig, path: str | Path) -> int:
    """Train a model on what `texts()` gives, write it to `path`, and return its number of pieces.

    `texts` is called twice: once to count the characters of all texts, once to train. The number of pieces is
    `config.vocab_size`, or less where the text supports no more. Raises `UserError` when there is no text to train on
    or `config.vocab_size` is too small for it.
    """
    import sentencepiece

    keep, coverage = alphabet(texts(), config.vocab_size)
    lines = itertools.chain.from_iterable(map(sentences, texts()))
    kept = (line.translate(keep) if keep else line for line in lines if line.strip())
    first = next(kept, None)
    if first is None:
        raise UserError("there is no text to train a tokenizer on; see --data.sources")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain([first], kept),
            model_writer=model,
            model_type=config.tokenizer_kind,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=coverage,
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=LONGEST,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"SentencePiece cannot train {config.vocab_size} pieces on this text; "
            f"choose another --data.vocab-size ({str(error).strip()})"
        ) from error
    made = on_grid(model.getvalue()) if config.tokenizer_kind == "unigram" else model.getvalue()
    fs.write(str(path), made, sync=True)
    return sentencepiece.SentencePieceProcessor(model_proto=made).get_piece_size()


def fewer(pieces: int, asked: int, setting: str) -> list[str]:
    """The line that says that a text gave fewer pieces than `setting` asked for, where it did."""
    return [f"the text supports {pieces:,} pieces, fewer than {flag(setting)} {asked:,}"] if pieces < asked else []


def on_grid(model: bytes) -> bytes:
    """A unigram model with scores that are multiples of 1 / `GRID` nats.

    Segmentations of the same pieces in another order, as of a run of spaces, have the same score. SentencePiece adds up
    in float32 and other libraries in float64, so that rounding would decide between them, differently in each. On the
    grid every sum up to 2^24 / GRID = 65,536 nats is exact in both, and the same rule decides.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    for entry in proto.pieces:
        entry.score = round(entry.score * GRID) / GRID
    return proto.SerializeToString()


def sentences(text: str) -> Iterator[str]:
    """Runs of whole lines of up to `SENTENCE` characters: pieces with newlines inside can be learned from them."""
    held: list[str] = []
    size = 0
    for line in text.translate(RESERVED).splitlines(keepends=True):
        if size + len(line) > SENTENCE and held:
            yield "".join(held)
            held, size = [], 0
        for start in range(0, len(line) - SENTENCE, SENTENCE):
            yield line[start : start + SENTENCE]
        rest = line[(len(line) - 1) // SENTENCE * SENTENCE :]
        held.append(rest)
        size += len(rest)
    if held:
        yield "".join(held)


class Keep(dict):
    """A table for `str.translate` that leaves the given characters and turns all others into line ends."""

    def __init__(self, characters: Iterable[str]):
        super().__init__((ord(c), c) for c in characters)

    def __missing__(self, key: int) -> str:
        return "\n"


def alphabet(texts: Iterable[str], vocab_size: int) -> tuple[Keep | None, float]:
    """What to leave of the texts, and the share of their characters that SentencePiece is to give their own pieces.

    That is `COVERAGE`, or the share of the characters that stand at least once in `RARE` times `vocab_size` characters
    and fill at most half the vocabulary; the rest are spelled in bytes. SentencePiece takes no share below `LEAST`:
    there the rare characters are to be taken out of the texts.
    """
    counts = count_characters(texts)
    frequent = np.argsort(-counts, kind="stable")[: max(1, (vocab_size - CONTROLS_AND_BYTES) // 2)]
    least = min(counts.sum() / (RARE * vocab_size), counts[frequent[0]])
    frequent = frequent[counts[frequent] >= least]
    share = float(counts[frequent].sum() / max(1, counts.sum()))
    if share >= LEAST:
        return None, min(COVERAGE, share)
    return Keep(map(chr, frequent[counts[frequent] > 0].tolist())), 1.0


def count_characters(texts: Iterable[str]) -> np.ndarray:
    """How often each code point stands in the texts, (0x110000,); those that `sentences` cuts at are left out."""
    counts = np.zeros(sys.maxunicode + 1, np.int64)
    held: list[str] = []

    def add() -> None:
        points = np.frombuffer("".join(held).encode("utf-32-le"), np.uint32)
        values, times = np.unique(points, return_counts=True)
        counts[values] += times
        held.clear()

    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= COUNTED:
            add()
            size = 0
    add()
    counts[list(RESERVED)] = 0
    return counts
