"""Other segmentations are drawn with the probabilities that their papers give."""

import itertools
import json
import math
from collections import Counter

import pytest
import tokenizers
from tokenizers import models

from chinchilla_jax.data.resegment import Resegmenter

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def resegmenter(model, alpha: float, seed: int = 0, barred=()) -> Resegmenter:
    """One for a model of the library's."""
    library = tokenizers.Tokenizer(model)
    facts = json.loads(library.to_str())["model"]
    return Resegmenter(library, facts, library.get_vocab(), list(barred), seed, alpha)


SCORES = {"a": -1.0, "b": -1.5, "c": -2.0, "ab": -1.2, "bc": -2.2, "abc": -2.5}


def unigram() -> models.Unigram:
    return models.Unigram([("<unk>", 0.0), *SCORES.items()], unk_id=0, byte_fallback=False)


def segmentations(text: str) -> list[tuple[str, ...]]:
    """All ways to cut a text into known pieces."""
    if not text:
        return [()]
    heads = [text[:n] for n in range(1, len(text) + 1) if text[:n] in SCORES]
    return [(head, *rest) for head in heads for rest in segmentations(text[len(head) :])]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_unigram_segmentations_come_with_their_probability(alpha):
    """P(x)^alpha over their sum, by counting all of them."""
    ways, draws = segmentations("abcab"), 4000
    weights = [math.exp(alpha * sum(SCORES[piece] for piece in way)) for way in ways]
    draw, number = resegmenter(unigram(), alpha), {piece: 1 + n for n, piece in enumerate(SCORES)}
    counts = Counter(tuple(draw("abcab")) for _ in range(draws))
    assert len(ways) == 8 and sum(counts.values()) == draws
    for way, weight in zip(ways, weights):
        p = weight / sum(weights)
        found = counts.pop(tuple(number[piece] for piece in way), 0) / draws
        assert abs(found - p) < 5 * math.sqrt(p * (1 - p) / draws), way
    assert not counts, "nothing else is drawn"


def test_barred_pieces_are_never_drawn():
    draw = resegmenter(unigram(), 0.1, barred=["ab", "abc"])
    drawn = set(itertools.chain.from_iterable(draw("abcab") for _ in range(200)))
    assert drawn == {1, 2, 3, 5}


def bpe(**more) -> models.BPE:
    pieces = [*BYTES, "a", "b", "c", "ab", "abc"]
    merges = [("a", "b"), ("ab", "c")]
    return models.BPE({piece: n for n, piece in enumerate(pieces)}, merges, byte_fallback=True, **more)


def test_merges_are_left_out_as_often_as_asked():
    whole = tokenizers.Tokenizer(bpe()).encode("abcb").ids
    assert resegmenter(bpe(), 0.0)("abcb") == whole == [260, 257]
    assert resegmenter(bpe(), 1.0)("abcb") == [256, 257, 258, 257]
    draw, draws = resegmenter(bpe(), 0.3), 4000
    counts = Counter(len(draw("abc")) for _ in range(draws))
    for size, p in ((1, 0.49), (2, 0.21), (3, 0.3)):  # both merges, the first one alone, none
        assert abs(counts[size] / draws - p) < 5 * math.sqrt(p * (1 - p) / draws), size


def test_what_has_no_piece_is_spelled_in_bytes():
    assert resegmenter(bpe(), 0.0)("aé") == [256, 0xC3, 0xA9]
    assert resegmenter(unigram(), 1.0)("aé") == [1, 0], "or is unknown"
