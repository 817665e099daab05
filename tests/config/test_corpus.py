"""Thresholds of published filters."""

import pytest

from tests.config.refusals import refused


@pytest.mark.parametrize("path, value, hint", [
    ("repetition.top_grams", (0.2, 0.1), "three shares, for n = 2, 3, 4"),
    ("repetition.duplicate_grams", (0.1,) * 5, "six shares, for n = 5 to 10"),
    ("near.jaccard", 0.4, "[0.5, 1)"), ("near.jaccard", 1.0, "[0.5, 1)"), ("near.words", 0, "between 1 and 13"),
    ("near.mode", "dorp", "did you mean drop?"), ("quality.min_word", 3, "did you mean min_words?"),
])  # fmt: skip
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({f"data.{path}": value}, hint)
