"""Other ways to cut a text into the pieces of a tokenizer.json, drawn from a seed.

BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267): every merge is left out with probability alpha, for good, as
SentencePiece does it (in the paper it comes back with the next merge, which makes hardly any difference in a text that
is not cut into words). Unigram (Kudo 2018, arXiv:1804.10959): a segmentation x is drawn with probability proportional
to P(x)^alpha, by forward filtering and backward sampling.
"""

import heapq
import math
import random
from typing import Any

UNSEEN = 10.0  # below the lowest score, as the unigram models of both libraries have it


class Resegmenter:
    """`draw(text)` gives ids; `model` is the "model" of the file, `library` the tokenizer made of it.

    `barred` pieces are never drawn from a text.
    """

    def __init__(
        self, library: Any, model: dict, vocabulary: dict[str, int], barred: list[str], seed: int, alpha: float
    ):
        self._library, self._vocabulary, self._alpha = library, vocabulary, alpha
        self._random = random.Random(seed)
        self._bytes = bool(model.get("byte_fallback"))
        self._unigram = "merges" not in model
        unknown = model.get("unk_token")
        self._unknown = model.get("unk_id") if self._unigram else vocabulary.get(unknown or "")
        if self._unigram:
            self._scores = {piece: score for piece, score in model["vocab"] if piece not in set(barred)}
            self._longest = max(map(len, self._scores))
            self._unseen = min(score for _, score in model["vocab"]) - UNSEEN
        else:
            pairs = (tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"])
            self._ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def __call__(self, text: str) -> list[int]:
        normal, cut = self._library.normalizer, self._library.pre_tokenizer
        text = normal.normalize_str(text) if normal else text
        words = [word for word, _ in cut.pre_tokenize_str(text)] if cut else [text]
        draw = self._unigram_pieces if self._unigram else self._bpe_pieces
        return [i for word in words for piece in draw(word) for i in self._ids(piece)]

    def _ids(self, piece: str) -> list[int]:
        """The id of a piece; of a character that has none, its byte pieces or the unknown one."""
        if piece in self._vocabulary:
            return [self._vocabulary[piece]]
        if self._bytes:
            return [self._vocabulary[f"<0x{byte:02X}>"] for byte in piece.encode()]
        return [] if self._unknown is None else [self._unknown]

    def _bpe_pieces(self, word: str) -> list[str]:
        pieces, after, before = list(word), list(range(1, len(word) + 1)), list(range(-1, len(word) - 1))
        queue: list[tuple[int, int, str, str]] = []

        def offer(left: int) -> None:
            if left >= 0 and after[left] < len(pieces):
                pair = pieces[left], pieces[after[left]]
                if pair in self._ranks:
                    heapq.heappush(queue, (self._ranks[pair], left, *pair))

        for left in range(len(pieces) - 1):
            offer(left)
        while queue:
            _, left, first, second = heapq.heappop(queue)
            right = after[left]
            if pieces[left] != first or right >= len(pieces) or pieces[right] != second:
                continue  # one of the two is part of a longer piece by now
            if self._random.random() < self._alpha:
                continue
            pieces[left], pieces[right], after[left] = first + second, "", after[right]
            if after[left] < len(pieces):
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [piece for piece in pieces if piece]

    def _unigram_pieces(self, word: str) -> list[str]:
        ends: list[list[tuple[float, int]]] = [[] for _ in range(len(word) + 1)]  # (log weight, start) of each piece
        total = [0.0] + [-math.inf] * len(word)
        for end in range(1, len(word) + 1):
            for start in range(max(0, end - self._longest), end):
                score = self._scores.get(word[start:end])
                if score is None and end - start == 1:
                    score = self._unseen
                if score is not None:
                    ends[end].append((total[start] + self._alpha * score, start))
            top = max(weight for weight, _ in ends[end])
            total[end] = top + math.log(sum(math.exp(weight - top) for weight, _ in ends[end]))
        pieces, end = [], len(word)
        while end:
            weights = [math.exp(weight - total[end]) for weight, _ in ends[end]]
            start = self._random.choices([start for _, start in ends[end]], weights)[0]
            pieces.append(word[start:end])
            end = start
        return pieces[::-1]
