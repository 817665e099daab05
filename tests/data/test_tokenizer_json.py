"""The library's own files behind the calls of ours: the same ids, nothing of a text lost, nothing smuggled in."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from chinchilla_jax.data.tokenizer_base import SPACE, Streamer
from chinchilla_jax.data.tokenizer_json import JsonTokenizer, byte_table
from chinchilla_jax.data.tokenizers import copy_tokenizer, open_tokenizer, tokenizer_file
from chinchilla_jax.errors import UserError
from tests.data import jsons
from tests.data.test_tokenizer import NASTY, pieces_of

KINDS = {
    "byte-level": jsons.byte_level,
    "bpe": jsons.fallback,
    "unigram": lambda: jsons.fallback("Unigram"),
    "prefix": lambda: jsons.fallback(prefix=True),
}


@pytest.fixture(scope="module", params=KINDS)
def opened(request, tmp_path_factory):
    """A tokenizer of each kind, and the library's own object."""
    made = KINDS[request.param]()
    folder = jsons.write(tmp_path_factory.mktemp(request.param), made)
    return open_tokenizer(folder), made


def test_texts_come_back_and_ids_are_the_library_s(opened):
    ours, library = opened
    draw = random.Random(20261127)
    texts = [pieces_of("".join(draw.choices("abcm", k=4)), draw.randrange(12), draw) for _ in range(3000)]
    library.encode_special_tokens = True
    unigram = isinstance(library.model, models.Unigram)
    for text in [*NASTY, *jsons.TEXTS, *texts]:
        ids = ours.encode(text)
        if unigram and ("<s>" in text or "</s>" in text):
            assert ours.decode(ids) == text and ids != library.encode(text, add_special_tokens=False).ids
        elif SPACE not in text or isinstance(library.decoder, decoders.ByteLevel):
            assert ids == library.encode(text, add_special_tokens=False).ids
            assert ours.decode(ids) == text == library.decode(ids, skip_special_tokens=False)
        else:
            assert ours.decode(ids) == text, "U+2581 is spelled in bytes"
        assert not set(ids) & (set(ours.special) | ours.stops)
        assert SPACE in text or ours.sizes[ids].sum() == len(text.encode()) + (ours.prefixes_space and bool(text))
    assert ours.lossless


def test_a_stream_has_whole_characters(opened):
    ours, _ = opened
    text = "naïve 海风 👩‍👩‍👧‍👦 🇩🇪 end"
    streamer = Streamer(ours)
    parts = [streamer.feed([i]) for i in ours.encode(text)]
    assert "".join(parts) + streamer.flush() == text and "\ufffd" not in "".join(parts)


def test_other_segmentations_say_the_same_and_follow_the_seed(opened):
    ours, _ = opened
    text = jsons.TEXTS[0][:400] + f" naïve 👩 </s><0x0A>{SPACE} end{SPACE}"
    drawn = [ours.sample_array(text, seed).tolist() for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(ours.decode(ids) == text for ids in drawn)
    calm = 1e9 if "merges" not in json.loads(Path(ours.path).read_text())["model"] else 0.0
    assert ours.sample_array(text, 3, calm).tolist() == ours.encode(text), "no noise, no difference"


def test_a_user_cannot_type_a_control_token(tmp_path):
    made = jsons.byte_level()
    made.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<end>", normalized=False)])
    ours = open_tokenizer(jsons.write(tmp_path, made, eos_token="<end>", bos_token=None))
    text = "<|endoftext|><|im_start|>user<|im_end|> <tool><end>"
    ids = ours.encode(text)
    assert not set(ids) & set(ours.special) and ours.decode(ids) == text
    assert made.token_to_id("<tool>") in ids, "an added token that is no control token is text"
    assert made.token_to_id("<end>") in ours.special and ours.pieces[made.token_to_id("<end>")] == b""
    assert made.token_to_id("<end>") in ours.stops


def test_what_normalisation_loses_is_said(tmp_path):
    made = jsons.byte_level()
    made.normalizer = normalizers.NFC()
    assert not open_tokenizer(jsons.write(tmp_path / "nfc", made)).lossless
    assert not open_tokenizer(jsons.write(tmp_path / "prefix", jsons.byte_level(add_prefix_space=True))).lossless
    made.normalizer = normalizers.Replace("\u2044", "/")
    assert not open_tokenizer(jsons.write(tmp_path / "replaced", made)).lossless
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("removed"), made.pre_tokenizer])
    assert not open_tokenizer(jsons.write(tmp_path / "removed", made)).lossless


def test_missing_bytes_are_said(tmp_path):
    """SmolLM2's vocabulary lacks the bytes of some planes: the library drops such characters."""
    facts = json.loads(jsons.byte_level().to_str())
    ids = facts["model"]["vocab"]
    lacking = next(piece for piece, byte in byte_table().items() if byte == 0xF2)
    facts["model"]["vocab"] = {piece: i for piece, i in ids.items() if piece != lacking}
    ours = open_tokenizer(jsons.write(tmp_path, tokenizers.Tokenizer.from_str(json.dumps(facts))))
    assert not ours.lossless and ours.keeps(["plain text"]) and not ours.keeps(["\U00090000"])
    assert open_tokenizer(jsons.write(tmp_path / "whole", jsons.byte_level())).lossless


def test_padding_and_truncation_of_a_file_are_left_out(tmp_path):
    made = jsons.byte_level()
    made.enable_truncation(4)
    made.enable_padding(length=64)
    assert len(open_tokenizer(jsons.write(tmp_path, made)).encode("the sea wind " * 5)) in range(5, 64)


def wordpiece():
    made = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    return made.to_str()


def suffixed():
    return tokenizers.Tokenizer(models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>")).to_str()


FOREIGN = {
    "{": "not a tokenizer.json",
    "[1]": "no model",
    '{"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}': "cannot read it",
    wordpiece(): "WordPiece kind",
    suffixed(): "decoder none",
}


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_files_are_one_line(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=FOREIGN[text]) as said:
        JsonTokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in str(said.value)


def whole_file(**changes) -> str:
    """A tokenizer.json of the first kind with some parts changed; those of the model as model__NAME."""
    facts = json.loads(jsons.byte_level().to_str())
    for name, value in changes.items():
        part, _, key = name.rpartition("__")
        (facts[part] if part else facts)[key] = value
    return json.dumps(facts)


def begins_with(name: str, ids: list[int] | None) -> dict:
    """A template that puts a token before every text, with its ids or without."""
    around = {name: {"id": name, "ids": ids, "tokens": [name]}} if ids else {}
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single[1:], "special_tokens": around}


VOCABULARY = json.loads(jsons.byte_level().to_str())["model"]["vocab"]
DAMAGED = {  # what the library fails on when it reads, or takes and fails on later
    "deep": ("[" * 200_000, "not a tokenizer.json"),
    "decoder of text": (whole_file(decoder="ByteLevel"), "cannot read it"),
    "decoder of numbers": (whole_file(decoder={"type": "Sequence", "decoders": [1]}), "cannot read it"),
    "model of lists": (whole_file(model__type=["BPE"]), "cannot read it"),
    "no tokens added": (whole_file(added_tokens=None), "cannot read it"),
    "an unknown token that is none": (whole_file(model__unk_token="<nope>"), "unk_token '<nope>' is no token"),
    "a template of tokens that are none": (whole_file(post_processor=begins_with("<zz>", None)), "post_processor"),
    "a template of ids that are none": (whole_file(post_processor=begins_with("<zz>", [5000])), "post_processor"),
    "two tokens of an id": (whole_file(model__vocab={**VOCABULARY, "zebra": 7}), "have the same id"),
    "an id far off": (whole_file(model__vocab={**VOCABULARY, "zebra": 2**32 - 1}), "go up to 4294967295 for"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_one_line(case, tmp_path):
    text, message = DAMAGED[case]
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=message) as said:
        open_tokenizer(tmp_path)
    assert "\n" not in str(said.value)


def test_dropout_of_a_file_is_left_out(tmp_path):
    (tmp_path / "tokenizer.json").write_text(whole_file(model__dropout=0.5))
    ours = open_tokenizer(tmp_path)
    assert len({tuple(ours.encode(jsons.TEXTS[0][:200])) for _ in range(5)}) == 1


def test_a_copy_is_found_and_the_same(tmp_path, made):
    (tmp_path / "copy").mkdir()
    source = jsons.write(tmp_path / "a", jsons.byte_level(), eos_token="<|im_end|>")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    copy_tokenizer(source, tmp_path / "copy")
    assert open_tokenizer(tmp_path / "copy").sha256 == open_tokenizer(source / "tokenizer.json").sha256
    assert open_tokenizer(tmp_path / "copy").stops == {0, 2}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {path.name for path in source.iterdir()}
    assert tokenizer_file(made.store).name == "tokenizer.model"
    with pytest.raises(UserError, match=r"no tokenizer in this folder; put its tokenizer\.json or"):
        open_tokenizer(tmp_path)


def test_ids_with_holes(tmp_path):
    made = jsons.byte_level()
    facts = json.loads(made.to_str())
    facts["model"]["vocab"]["zebra"] = 600
    made = tokenizers.Tokenizer.from_str(json.dumps(facts))
    ours = open_tokenizer(jsons.write(tmp_path, made))
    assert ours.size == 601 and len(ours.pieces) == 601 and ours.pieces[600] == b"zebra" and 599 in ours.special
    assert np.array_equal(ours.sizes, [len(piece) for piece in ours.pieces])
