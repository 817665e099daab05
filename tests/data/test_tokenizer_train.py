"""Training the tokenizer."""

import random

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.errors import UserError
from tests.data.conftest import story


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_size_controls_and_determinism(tmp_path, kind):
    texts, config = [story(n) for n in range(30)], DataConfig(vocab_size=330, tokenizer_kind=kind)
    made = [tokenizer_train.train(lambda: iter(texts), config, tmp_path / str(n)) for n in range(2)]
    tokenizer = Tokenizer(tmp_path / "0")
    assert made == [tokenizer.size] * 2 and 300 <= tokenizer.size <= 330
    assert tokenizer.separator == tokenizer_train.EOS
    assert tokenizer.lossless and not tokenizer.prefixes_space
    assert tokenizer.sha256 == Tokenizer(tmp_path / "1").sha256


def test_newlines_and_tabs_become_pieces(tmp_path):
    code = "def f(x):\n\treturn x\n\n\n" * 50
    tokenizer_train.train(lambda: [code] * 5, DataConfig(vocab_size=300), tmp_path / "m")
    assert any(b"\n" in piece and len(piece) > 1 for piece in Tokenizer(tmp_path / "m").pieces)
    assert len(Tokenizer(tmp_path / "m").encode("\treturn x\n\n\n")) <= 6


def test_a_small_text_gives_fewer_pieces(tmp_path):
    assert (
        tokenizer_train.train(lambda: ["hello world hello world\n"], DataConfig(vocab_size=32000), tmp_path / "m") < 300
    )


def test_chinese_fits_a_vocabulary_smaller_than_its_characters(tmp_path):
    text = "".join(chr(0x4E00 + n % 3000) for n in range(9000))
    assert tokenizer_train.train(lambda: [text], DataConfig(vocab_size=500), tmp_path / "m") <= 500
    tokenizer = Tokenizer(tmp_path / "m")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["", "\u2581\0\u2585"])
def test_no_text_is_an_error(tmp_path, text):
    with pytest.raises(UserError, match="no text to train"):
        tokenizer_train.train(lambda: [text], DataConfig(vocab_size=300), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_sentences_keep_every_character_and_stay_short():
    text = "a\n" * 3000 + "b" * 9001 + "\r\n\n\nend"
    found = list(tokenizer_train.sentences(text))
    assert "".join(found) == text
    assert max(map(len, found)) <= tokenizer_train.SENTENCE


def test_the_alphabet_does_not_depend_on_which_language_comes_first(tmp_path):
    chinese = ["".join(chr(0x4E00 + (n * m) % 200) for n in range(2000)) + "\n" for m in range(1, 60)]
    english = [story(n) for n in range(60)]
    for name, texts in (("zh first", chinese + english), ("en first", english + chinese)):
        tokenizer_train.train(lambda texts=texts: texts, DataConfig(vocab_size=800), tmp_path / name)
        pieces = set(Tokenizer(tmp_path / name).pieces)
        assert {letter.encode() for letter in "theseawind"} <= pieces, name
        assert chr(0x4E01).encode() in pieces, name
    assert (tmp_path / "zh first").read_bytes() == (tmp_path / "en first").read_bytes()


def test_rare_characters_leave_their_pieces_to_merges(tmp_path, monkeypatch):
    """Fewer tokens in all than where every character has a piece."""
    draw = random.Random(3)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(3, 8))) for _ in range(2000)]
    rare = ["".join(chr(0x4E00 + min(1999, int(draw.paretovariate(1.5)))) for _ in range(120)) for _ in range(900)]
    texts = [" ".join(draw.choices(words, k=40)) + "\n" + text + "\n" for text in rare]
    tokens = {}
    for least in (tokenizer_train.RARE, 10**9):
        monkeypatch.setattr(tokenizer_train, "RARE", least)
        tokenizer_train.train(lambda: texts, DataConfig(vocab_size=700), tmp_path / "m")
        tokenizer = Tokenizer(tmp_path / "m")
        tokens[least] = sum(len(tokenizer.encode(text)) for text in texts)
        assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
    assert tokens[50] < 0.998 * tokens[10**9]
    keep, _ = tokenizer_train.alphabet(["".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))], 264)
    assert keep, "where all are rare the first ones stay"


def test_characters_are_counted_once_and_cut_marks_are_not():
    counts = tokenizer_train.count_characters(["aab", "b\0\u2581", "海"])
    assert {chr(c): int(counts[c]) for c in counts.nonzero()[0]} == {"a": 2, "b": 2, "海": 1}
