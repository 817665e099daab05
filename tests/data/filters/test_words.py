"""Folded words and hashes of words beside plain Python."""

import pytest

from chinchilla_jax.data.filters.words import folded_words


@pytest.mark.parametrize("written, words", [
    ("The Sea, the sea!", ["the", "sea", "the", "sea"]), ("x_1 = f(Y)\n\tz", ["x", "1", "f", "y", "z"]), (" \n", []),
])  # fmt: skip
def test_folded_words(written, words):
    found = folded_words(["before", written, "after"])
    lower = "\n".join(["before", written.lower(), "after", ""])
    own = range(found.first[1], found.first[2])
    assert [lower[found.starts[i] : found.ends[i]] for i in own] == words


def test_equal_words_have_equal_hashes_wherever_they_stand():
    found = folded_words(["one two one", "TWO\tone 二 one"])
    hashes = found.hashes.tolist()
    assert hashes[0] == hashes[2] == hashes[4] == hashes[6] and hashes[1] == hashes[3] and len(set(hashes)) == 3
