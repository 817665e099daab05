"""Where in a text each of its pieces stands."""

import numpy as np

from chinchilla_jax.tasks import offsets
from chinchilla_jax.tasks.kinds import tags


def test_pieces_of_a_tokenizer_that_changes_texts_cover_their_unit(tiny_store):
    class Changing:
        prefixes_space, pieces = False, [b"x", b" y", b"zz"]
        sizes = np.array([1, 2, 2])

    text = "ab cd"
    found = offsets.placed(Changing(), text, lambda unit: [0, 1] if unit.strip() == "ab" else [1, 2])
    assert found.starts.tolist() == [0, 0, 2, 2] and found.ends.tolist() == [2, 2, 5, 5]
    assert found.text(text, *found.between(3, 5)) == "cd"


def test_han_beyond_the_first_65536_characters_are_words_one_by_one():
    text = "go\U00020bb7\U0002000b家ab"
    words = ["go", "\U00020bb7", "\U0002000b", "家", "ab"]
    assert offsets.UNITS.findall(text) == [*words, ""] and tags.WORD.findall(text) == words
    assert not tags.spaced("\U00020bb7", "a") and tags.spaced("a", "b")
