"""Nothing of a text is lost."""

import io
import itertools
import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data.tokenizer import Tokenizer, parts
from chinchilla_jax.data.tokenizer_base import SPACE, Streamer
from chinchilla_jax.data.tokenizer_train import train
from chinchilla_jax.errors import UserError
from tests.data.conftest import story

MARKS = [
    "",
    " ",
    "   two  spaces ",
    "\n",
    "\r\n",
    "\r",
    "\t\t",
    "\0",
    "a\0b",
    SPACE,
    f"a{SPACE}b",
    f" {SPACE} {SPACE * 2}",
]
SPECIAL = ["<s></s><unk><pad><0x0A>", "</s>", "\u2585", " \u2047 ", "\ufeff", "\ufffd", "\u200b\u200d", "\ue000"]
PLANES = [
    "e\u0301 \u00e9",
    "\U0010ffff",
    "\ufffe\uffff",
    "\x7f\x80\x85\u2028\u2029",
    "👩‍👩‍👧‍👦 🇩🇪",
    "ﬁ Å ½ ①",
    "\uff11 1",
]
LONG = [" " * 5000, "x" * 12000, "line\n" * 3000, "汉字" * 4000, SPACE * 2000, "مرحبا שלום", "0.1 1,000 2e-5"]
NASTY = MARKS + SPECIAL + PLANES + LONG


def pieces_of(kinds: str, size: int, draw: random.Random) -> str:
    """A random text that mixes ASCII, the first 12,288 and all characters, and the marks of SentencePiece."""
    ranges = {"a": 0x80, "b": 0x3000, "c": 0x110000}
    chars = (draw.choice(SPACE + " \n\u2585") if k == "m" else chr(draw.randrange(ranges[k])) for k in kinds * size)
    return "".join(c for c in chars if not 0xD800 <= ord(c) < 0xE000)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_nasty_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ten_thousand_random_strings_come_back(tokenizer):
    draw = random.Random(20261123)
    texts = [pieces_of("".join(draw.choices("abcm", k=4)), draw.randrange(12), draw) for _ in range(10_000)]
    assert [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text] == []


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from([SPACE, " ", "\n", "\0"])))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.separator not in ids


SPACELESS = {
    "cjk": "海风吹过山谷。\n" * 200,
    "lines": "word\nline\nsea\n" * 200,
    "rare": "海风吹过山谷。\n" * 3000 + " a",
}


@pytest.fixture(scope="module", params=itertools.product(["bpe", "unigram"], SPACELESS), ids="-".join)
def spaceless(request, tmp_path_factory):
    """A tokenizer that has no piece for a space."""
    kind, name = request.param
    path = tmp_path_factory.mktemp("spaceless") / "m"
    train(lambda: [SPACELESS[name]], DataConfig(vocab_size=330, tokenizer_kind=kind), path)
    assert SPACE.encode() not in path.read_bytes()
    return Tokenizer(path)


def test_a_model_without_a_space_loses_none(spaceless):
    assert spaceless.lossless and not spaceless.prefixes_space
    assert [spaceless.pieces[i] for i in spaceless.encode(f" {SPACE}")] == [b" ", b"\xe2", b"\x96", b"\x81"]
    assert [text for text in NASTY if spaceless.decode(spaceless.encode(text)) != text] == []
    for seed in range(20):
        assert spaceless.decode(spaceless.sample_array(f"a  海风 {SPACE} word ", seed)) == f"a  海风 {SPACE} word "
    streamer = Streamer(spaceless)
    assert "".join(streamer.feed([i]) for i in spaceless.encode("a 海")) == "a 海"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from([SPACE, " ", "\n", "\0", "\u2580"])))
def test_any_text_comes_back_from_a_model_without_a_space(spaceless, text):
    assert spaceless.decode(spaceless.encode(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["word", " ", "\n", "。", "海", SPACE, "x" * 700, "y " * 600])))
def test_parts_join_to_the_text(pieces):
    text = "".join(pieces)
    found = list(parts(text))
    assert "".join(found) == text
    assert all(0 < len(part) <= 5000 for part in found)


def test_parts_cost_next_to_no_tokens(tokenizer):
    text = story(99, lines=2000)
    whole = sentencepiece.SentencePieceProcessor(model_file=tokenizer.path).encode(text)
    assert len(tokenizer.encode(text)) <= len(whole) * 1.005


def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"lone surrogate, U\+D800"):
        tokenizer.encode("a\ud800b")


def train_plain(**options) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        model_writer=model, model_type="bpe", hard_vocab_limit=False, minloglevel=2,
        **{"sentence_iterator": iter([story(n) for n in range(20)]), "vocab_size": 400, **options},
    )  # fmt: skip
    return model.getvalue()


def test_a_foreign_lossless_model_is_taken(tmp_path):
    (tmp_path / "m").write_bytes(
        train_plain(normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True)
    )
    tokenizer = Tokenizer(tmp_path / "m")
    assert tokenizer.prefixes_space and tokenizer.lossless
    assert tokenizer.decode(tokenizer.encode(" a  b")) == " a  b"
    streamer = Streamer(tokenizer)
    assert streamer.feed(tokenizer.encode("sea wind")) == "sea wind"


def test_a_foreign_model_that_prefixes_a_space_it_has_no_piece_for_is_taken(tmp_path):
    lines = iter(["海风吹过山谷。" * 30] * 100)
    options = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    (tmp_path / "m").write_bytes(train_plain(sentence_iterator=lines, character_coverage=0.98, **options))
    assert SPACE.encode() not in (tmp_path / "m").read_bytes()
    tokenizer = Tokenizer(tmp_path / "m")
    assert tokenizer.prefixes_space and tokenizer.lossless
    assert tokenizer.decode(tokenizer.encode(" a  b")) == " a  b"


def test_a_foreign_lossy_model_says_so(tmp_path):
    (tmp_path / "m").write_bytes(train_plain())
    assert not Tokenizer(tmp_path / "m").lossless


def test_what_stands_for_no_text_of_its_own(tokenizer, tmp_path):
    assert tokenizer.special == (0, 1, 2, 3)
    (tmp_path / "m").write_bytes(train_plain(control_symbols=["<a>", "<b>"], eos_id=-1))
    assert Tokenizer(tmp_path / "m").special == (0, 1, 2, 3), "unknown, bos and the two"
    (tmp_path / "m").write_bytes(train_plain())
    assert Tokenizer(tmp_path / "m").special == (0, 1, 2), "no padding piece: 3 is text"


def test_separator_is_eos_then_bos(tmp_path):
    (tmp_path / "m").write_bytes(train_plain(eos_id=-1))
    assert Tokenizer(tmp_path / "m").separator == 1
    (tmp_path / "m").write_bytes(train_plain(eos_id=-1, bos_id=-1))
    with pytest.raises(UserError, match="neither an eos nor a bos"):
        Tokenizer(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"junk", b"\0" * 100])
def test_no_model_is_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer(tmp_path / "m")


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        Tokenizer(tmp_path / "m")
