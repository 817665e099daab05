"""The rules of quality beside a plain second reading of the paper, document by document."""

import random

import numpy as np
import pytest

from chinchilla_jax.config.corpus import QualityConfig
from chinchilla_jax.data.filters import quality

STOP = {"the", "be", "to", "of", "and", "that", "have", "with"}
SOME = [
    "sea",
    "wind",
    "stone",
    "#",
    "##",
    "…",
    "...",
    "wait...",
    "42",
    "x-ray",
    "naïve",
    "海风",
    "a",
    "7th",
    "-",
    "•",
    "*",
]
WORDS = [*SOME, *STOP, "The"]


def document(draw: random.Random) -> str:
    """Lines of words, some of them again, some blank, some bullets."""
    vocabulary = draw.sample(WORDS, draw.randint(2, len(WORDS)))
    lines = []
    for _ in range(draw.randint(1, 12)):
        kind = draw.random()
        if kind < 0.25 and lines:
            lines.append(draw.choice(lines))
        elif kind < 0.4:
            lines.append(draw.choice(["", "  ", "\t"]))
        else:
            line = draw.choice(["", "- ", "• ", "  "]) + " ".join(draw.choices(vocabulary, k=draw.randint(1, 14)))
            lines.append(line + draw.choice(["", "...", " …", "\r"]))
    return "\n".join(lines)


DRAW = random.Random(7)
TEXTS = [*(document(DRAW) for _ in range(600)), "", " \n\n ", "a", "...", "a a a a a a a a a a a a a", "é" * 40]


def naive_quality(text: str) -> dict[str, float]:
    """Each rule's value as the paper words it."""
    words, lines = text.split(), [line.strip() for line in text.split("\n") if line.strip()]
    count, some = max(1, len(words)), max(1, len(lines))
    return {
        "words": len(words),
        "word_length": sum(map(len, words)) / count,
        "hashes": text.count("#") / count,
        "ellipses": (text.count("…") + text.count("...")) / count,
        "bullet_lines": sum(line[0] in quality.BULLETS for line in lines) / some,
        "ellipsis_lines": sum(line.endswith(("…", "...")) for line in lines) / some,
        "alphabetic_words": sum(any(c.isalpha() for c in word) for word in words) / count,
        "stop_words": len({word.lower() for word in words} & STOP),
    }


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rules_agree_with_a_plain_reading_of_the_paper(size):
    for start in range(0, len(TEXTS) if size > 1 else 80, size):
        texts = TEXTS[start : start + size]
        found = list(quality.rules(*quality.measure(texts), QualityConfig()))
        for number, one in enumerate(texts):
            assert {name: float(value[number]) for name, value, _ in found} == pytest.approx(naive_quality(one)), one


def test_published_thresholds_decide():
    limits = {
        "words": (50, 100_000), "word_length": (3, 10), "hashes": (0, 0.1), "ellipses": (0, 0.1),
        "bullet_lines": (0, 0.9), "ellipsis_lines": (0, 0.3), "alphabetic_words": (0.8, 1), "stop_words": (2, 8),
    }  # fmt: skip
    check_limits(list(quality.rules(*quality.measure(TEXTS), QualityConfig())), limits)


def check_limits(found, limits) -> None:
    """Each rule of `limits` breaks exactly outside of them, for some texts and not for all."""
    assert [name for name, _, _ in found] == list(limits)
    for name, value, broken in found:
        least, most = limits[name]
        assert (broken == ((value < least) | (value > most))).all() and 0 < broken.sum() < len(TEXTS), name


def test_settings_move_a_threshold():
    text, words, lines = quality.measure(TEXTS)
    verdicts = {name: broken for name, _, broken in quality.rules(text, words, lines, QualityConfig(min_words=3))}
    assert (verdicts["words"] == np.array([len(t.split()) < 3 for t in TEXTS])).all()
