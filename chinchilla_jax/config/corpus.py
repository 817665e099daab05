"""Which documents `prepare` keeps: thresholds of the published filters, each a setting."""

from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import require, setting


@dataclass(frozen=True)
class QualityConfig:
    """MassiveText's quality rules (Rae et al. 2021, appendix A.1), for English text."""

    on: bool = setting(False, "leave out documents that break one of these rules")
    min_words: int = setting(50, "fewest words")
    max_words: int = setting(100_000, "most words")
    min_word_length: float = setting(3.0, "least mean length of a word in characters")
    max_word_length: float = setting(10.0, "greatest mean length of a word")
    max_symbols: float = setting(0.1, "most hash signs, and most ellipses, a word")
    max_bullets: float = setting(0.9, "greatest share of lines that begin with a bullet")
    max_ellipses: float = setting(0.3, "greatest share of lines that end in an ellipsis")
    min_alphabetic: float = setting(0.8, "least share of words with a letter")
    min_stop_words: int = setting(2, "fewest different ones of: the be to of and that have with")


@dataclass(frozen=True)
class RepetitionConfig:
    """MassiveText's repetition filters (Rae et al. 2021, table A1): greatest shares of a document."""

    on: bool = setting(False, "leave out documents that exceed one of these shares")
    lines: float = setting(0.3, "duplicate lines")
    lines_characters: float = setting(0.2, "characters in duplicate lines")
    paragraphs: float = setting(0.3, "duplicate paragraphs")
    paragraphs_characters: float = setting(0.2, "characters in duplicate paragraphs")
    top_grams: tuple[float, ...] = setting((0.2, 0.18, 0.16), "characters in the most frequent 2-, 3- and 4-gram")
    duplicate_grams: tuple[float, ...] = setting(
        (0.15, 0.14, 0.13, 0.12, 0.11, 0.1), "characters in duplicate 5-, 6-, 7-, 8-, 9- and 10-grams"
    )

    def __post_init__(self):
        require(len(self.top_grams) == 3, "--data.repetition.top-grams takes three shares, for n = 2, 3, 4")
        require(len(self.duplicate_grams) == 6, "--data.repetition.duplicate-grams takes six shares, for n = 5 to 10")


@dataclass(frozen=True)
class NearConfig:
    """Near-duplicates: documents that share most of their words, in the same order."""

    mode: Literal["off", "drop", "group"] = setting(
        "off", "drop all but one of each cluster, or keep them and put a cluster on one side of the split (group)"
    )
    jaccard: float = setting(0.8, "words in common over words in either, from which on two documents are near")
    words: int = setting(3, "words of a shingle")

    def __post_init__(self):
        require(0.5 <= self.jaccard < 1, f"--data.near.jaccard {self.jaccard} must lie in [0.5, 1)")
        require(1 <= self.words <= 13, "--data.near.words must lie between 1 and 13")
