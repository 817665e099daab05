"""Training the tokenizer."""

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.errors import UserError
from tests.data.conftest import story


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_size_controls_and_determinism(tmp_path, kind):
    texts, config = [story(n) for n in range(30)], DataConfig(vocab_size=330, tokenizer_kind=kind)
    made = [tokenizer_train.train(iter(texts), config, tmp_path / str(n)) for n in range(2)]
    tokenizer = Tokenizer(tmp_path / "0")
    assert made == [tokenizer.size] * 2 and 300 <= tokenizer.size <= 330
    assert tokenizer.separator == tokenizer_train.EOS
    assert tokenizer.lossless and not tokenizer.prefixes_space
    assert tokenizer.sha256 == Tokenizer(tmp_path / "1").sha256


def test_newlines_and_tabs_become_pieces(tmp_path):
    code = "def f(x):\n\treturn x\n\n\n" * 50
    tokenizer_train.train([code] * 5, DataConfig(vocab_size=300), tmp_path / "m")
    assert any(b"\n" in piece and len(piece) > 1 for piece in Tokenizer(tmp_path / "m").pieces)
    assert len(Tokenizer(tmp_path / "m").encode("\treturn x\n\n\n")) <= 6


def test_a_small_text_gives_fewer_pieces(tmp_path):
    assert tokenizer_train.train(["hello world hello world\n"], DataConfig(vocab_size=32000), tmp_path / "m") < 300


def test_chinese_fits_a_vocabulary_smaller_than_its_characters(tmp_path):
    text = "".join(chr(0x4E00 + n % 3000) for n in range(9000))
    assert tokenizer_train.train([text], DataConfig(vocab_size=500), tmp_path / "m") <= 500
    tokenizer = Tokenizer(tmp_path / "m")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["", "\u2581\0\u2585"])
def test_no_text_is_an_error(tmp_path, text):
    with pytest.raises(UserError, match="no text to train"):
        tokenizer_train.train([text], DataConfig(vocab_size=300), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_sentences_keep_every_character_and_stay_short():
    text = "a\n" * 3000 + "b" * 9001 + "\r\n\n\nend"
    found = list(tokenizer_train.sentences(text))
    assert "".join(found) == text
    assert max(map(len, found)) <= tokenizer_train.SENTENCE
