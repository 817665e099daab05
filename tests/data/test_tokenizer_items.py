"""A catalogue as a tokenizer: names there and back, the library's reading of the file, and what is refused."""

import pytest

from chinchilla_jax.data import tokenizer_items
from chinchilla_jax.data.tokenizers import copy_tokenizer, open_tokenizer
from chinchilla_jax.errors import UserError

NAMES = ["tt42", "The  Matrix", "海风", "007"]


@pytest.fixture
def tokenizer(tmp_path):
    tokenizer_items.write(NAMES, tmp_path)
    return open_tokenizer(tmp_path)


def test_names_come_back_and_the_library_agrees(tokenizer, tmp_path):
    import tokenizers

    text = "海风 007 The_Matrix tt42"
    ids = tokenizer.encode(text)
    assert ids == [3, 4, 2, 1] and tokenizer.decode(ids) == text and tokenizer.prompt(text) == [0, *ids]
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode(text).ids == ids and library.get_vocab_size() == tokenizer.size == 5
    assert tokenizer.known("The  Matrix") == 2 and tokenizer.known("nobody") is None
    assert tokenizer.known(tokenizer_items.END) is None
    (tmp_path / "copy").mkdir()
    copy_tokenizer(tmp_path, tmp_path / "copy")
    assert open_tokenizer(tmp_path / "copy").sha256 == tokenizer.sha256


def test_what_is_not_in_the_catalogue_is_refused(tokenizer):
    with pytest.raises(UserError, match="item 008 is none of the 4"):
        tokenizer.encode("007 008")


def test_names_that_become_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="'a b' and 'a_b' are written alike"):
        tokenizer_items.write(["a b", "a_b"], tmp_path)
    with pytest.raises(UserError, match="written alike"):
        tokenizer_items.write(["<|endoftext|>"], tmp_path)
