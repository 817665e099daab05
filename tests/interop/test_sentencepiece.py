"""SentencePiece models as tokenizer.json: the ids of ours, the text back, and the stated exceptions."""

import random

import pytest
import sentencepiece

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.data.tokenizer_base import SPACE
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import sentencepiece as sp
from tests.data.conftest import story
from tests.data.test_tokenizer import NASTY, pieces_of

CODE = [
    "def f(x): return x[1:] + 'a\\n'\n",
    "<s> </s> <0x20><0x0A>",
    "if (a<0) { b = 0x1F; }",
    "1.5e-3 \uff11\uff12 \u2460",
    "don't\t\tstop",
]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def pair(request, tmp_path_factory):
    """Our tokenizer of a kind, and the library's object made of its file."""
    path = tmp_path_factory.mktemp("sp") / "tokenizer.model"
    texts = [story(seed) for seed in range(30)] + CODE * 3
    tokenizer_train.train(lambda: texts, DataConfig(tokenizer_kind=request.param, vocab_size=420), path)
    return Tokenizer(path), sp.library_tokenizer(sp.read_model(path))


def test_ten_thousand_strings(pair):
    ours, theirs = pair
    draw, made = random.Random(5), []
    while len(made) < 10_000:
        kinds = "".join(draw.choices("abcm", k=4))
        made.append(
            pieces_of(kinds, draw.randrange(12), draw) if draw.random() < 0.5 else " ".join(draw.choices(CODE, k=2))
        )
    long = "".join(story(seed) for seed in range(100, 220))
    names = ours.controls
    for text in [*NASTY, *CODE, *made, long]:
        text = text.replace(SPACE, "")
        theirs.encode_special_tokens = False
        if any(name in text for name in [*names, "<unk>"]):
            assert theirs.encode(text).ids != ours.encode(text), "the library parses the names of control pieces"
            theirs.encode_special_tokens = True
        ids = theirs.encode(text).ids
        assert ids == ours.encode(text) and theirs.decode(ids, skip_special_tokens=False) == text


def test_the_space_mark_is_the_other_exception(pair):
    ours, theirs = pair
    assert theirs.decode(theirs.encode(f"a{SPACE}b").ids) == "a b" != ours.decode(ours.encode(f"a{SPACE}b"))


def test_spellings_of_bytes_where_their_characters_have_no_piece(tmp_path):
    """A low score alone would let `<0x20>` become a byte, for characters without a piece score even less."""
    path = tmp_path / "m"
    tokenizer_train.train(lambda: [story(1)], DataConfig(tokenizer_kind="unigram", vocab_size=330), path)
    ours, theirs = Tokenizer(path), sp.library_tokenizer(sp.read_model(path))
    assert len(ours.encode("<")) == 1 and ours.pieces[ours.encode("<")[0]] == b"<" and theirs.token_to_id("<") is None
    for text in ("<0x20>", "a <0xE2><0x0A> b", "<0x2>", "<"):
        assert theirs.encode(text).ids == ours.encode(text)


@pytest.mark.parametrize(("prefix", "symbols"), [(True, []), (False, ["[sea]", "<sea>"])])
def test_a_prefixed_space_and_symbols_of_the_user(tmp_path, prefix, symbols):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([story(n) for n in range(9)]), model_prefix=str(tmp_path / "m"), vocab_size=350,
        model_type="bpe", normalization_rule_name="identity", add_dummy_prefix=prefix, byte_fallback=True,
        remove_extra_whitespaces=False, user_defined_symbols=symbols, minloglevel=2,
    )  # fmt: skip
    ours, theirs = Tokenizer(tmp_path / "m.model"), sp.library_tokenizer(sp.read_model(tmp_path / "m.model"))
    for text in [story(77), "a [sea] b<sea> c", "  two", "", "海"]:
        assert theirs.encode(text).ids == ours.encode(text) and theirs.decode(ours.encode(text)) == text


def test_normalising_models_are_refused_by_name(tmp_path):
    for name, options, message in (
        ("m", {"normalization_rule_name": "nmt_nfkc"}, "nmt_nfkc"),
        ("c", {"model_type": "char", "normalization_rule_name": "identity"}, "only bpe and unigram"),
    ):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([story(n) for n in range(9)]), model_prefix=str(tmp_path / name), vocab_size=90,
            minloglevel=2, hard_vocab_limit=False, **options,
        )  # fmt: skip
        with pytest.raises(UserError, match=message):
            sp.read_model(tmp_path / f"{name}.model")


def test_segmentations_of_equal_score_are_decided_alike(tmp_path):
    """Of five spaces and three there are two ways with the same sum; float32 and float64 round it differently."""
    path, draw = tmp_path / "m", random.Random(1)
    spaced = ["".join(word + " " * draw.randint(1, 9) for word in story(n).split(" ")) for n in range(40)]
    tokenizer_train.train(lambda: spaced, DataConfig(tokenizer_kind="unigram", vocab_size=400), path)
    ours, theirs = Tokenizer(path), sp.library_tokenizer(sp.read_model(path))
    assert sum(set(piece) == {32} for piece in ours.pieces) > 4, "runs of spaces are pieces"
    for text in [*spaced, *(f"{'a' * n}{' ' * m}b" for n in range(20) for m in range(60))]:
        assert theirs.encode(text).ids == ours.encode(text)
