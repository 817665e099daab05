"""The filters of repetition beside a plain second reading of the paper, document by document."""

import re
from collections import Counter

import pytest

from chinchilla_jax.config.corpus import RepetitionConfig
from chinchilla_jax.data.filters import quality, repetition
from tests.data.filters.test_quality import TEXTS, check_limits


def naive_repetition(text: str) -> dict[str, float]:
    """Each share as the paper words it; a duplicate is an occurrence after the first."""
    found = {}
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    blocks = re.split(r"\n(?:[^\S\n]*\n)+", text)
    for name, items in (("lines", lines), ("paragraphs", [block.strip() for block in blocks if block.strip()])):
        again = [item in items[:n] for n, item in enumerate(items)]
        found[f"duplicate_{name}"] = sum(again) / max(1, len(items))
        found[f"duplicate_{name}_characters"] = sum(len(item) for item, twice in zip(items, again) if twice) / max(
            1, sum(map(len, items))
        )
    words = text.split()
    total = max(1, sum(map(len, words)))
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            often = max(counts.values(), default=0)
            sizes = [sum(map(len, gram)) for gram, times in counts.items() if times == often]
            found[f"top_{n}_grams"] = often * max(sizes) / total if often > 1 else 0
        else:
            seen, inside = set(), set()
            for i, gram in enumerate(grams):
                inside |= set(range(i, i + n)) if gram in seen else set()
                seen.add(gram)
            found[f"duplicate_{n}_grams"] = sum(len(words[i]) for i in inside) / total
    return found


def found_in(texts: list[str]) -> list:
    """The verdicts of all rules."""
    _, words, lines = quality.measure(texts)
    return list(repetition.rules(words, lines, RepetitionConfig()))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rules_agree_with_a_plain_reading_of_the_paper(size):
    for start in range(0, len(TEXTS) if size > 1 else 80, size):
        texts = TEXTS[start : start + size]
        found = found_in(texts)
        for number, one in enumerate(texts):
            assert {name: float(value[number]) for name, value, _ in found} == pytest.approx(naive_repetition(one)), one


def test_published_thresholds_decide():
    limits = {
        "duplicate_lines": (0, 0.3), "duplicate_lines_characters": (0, 0.2), "duplicate_paragraphs": (0, 0.3),
        "duplicate_paragraphs_characters": (0, 0.2), "top_2_grams": (0, 0.2), "top_3_grams": (0, 0.18),
        "top_4_grams": (0, 0.16), "duplicate_5_grams": (0, 0.15), "duplicate_6_grams": (0, 0.14),
        "duplicate_7_grams": (0, 0.13), "duplicate_8_grams": (0, 0.12), "duplicate_9_grams": (0, 0.11),
        "duplicate_10_grams": (0, 0.1),
    }  # fmt: skip
    check_limits(found_in(TEXTS), limits)
