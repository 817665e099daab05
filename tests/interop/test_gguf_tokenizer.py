"""The lists of a GGUF file as a tokenizer.json, and lists that do not fit together."""

import json

import pytest

from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.interop import gguf_tokenizer
from tests.interop import folders, ggufs
from tests.interop.test_gguf_read import refused

REFUSED = {
    "kind of tokenizer": ({"tokenizer__ggml__model": "t5"}, "kind 't5'"),
    "words": ({"tokenizer__ggml__pre": "tekken"}, "'tekken' is not supported"),
    "a list of words": ({"tokenizer__ggml__pre": ["smollm"]}, "is not supported"),
    "kinds beyond": ({"tokenizer__ggml__token_type": [99] * 300}, "kinds beyond 6"),
    "scores": ({"tokenizer__ggml__model": "llama", "tokenizer__ggml__scores": [float("nan")] * 300}, "not finite"),
    "bos by a word": ({"tokenizer__ggml__add_bos_token": "no"}, "add_bos_token is 'no'"),
    "eos true": ({"tokenizer__ggml__eos_token_id": True}, "eos_token_id True"),
    "no words": ({"leave": ("tokenizer.ggml.pre",)}, "'none' is not supported"),
    "no merges": ({"leave": ("tokenizer.ggml.merges",)}, "tokenizer.ggml.merges"),
    "types": ({"tokenizer__ggml__token_type": [1, 1]}, "2 entries in tokenizer.ggml.token_type"),
    "twice": ({"tokenizer__ggml__tokens": ["a"] * 300}, "twice"),
    "eos": ({"tokenizer__ggml__eos_token_id": 999}, "eos_token_id 999"),
    "eos of text": ({"tokenizer__ggml__eos_token_id": "two"}, "eos_token_id two"),
    "eos unused": ({"tokenizer__ggml__token_type": [1] * 299 + [5], "tokenizer__ggml__eos_token_id": 299},
                   "eos_token_id 299"),
    "no text": ({"tokenizer__ggml__token_type": [3] * 300}, "the vocabulary is empty"),
    "merges of another": ({"tokenizer__ggml__merges": ["zebra cow"]}, "do not fit together"),
    "types of text": ({"tokenizer__ggml__token_type": ["a"] * 300}, "no list of int"),
    "a template of numbers": ({"tokenizer__chat_template": 5}, "chat_template is 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_named(case, tmp_path):
    refused(tmp_path, *REFUSED[case])


@pytest.mark.parametrize("pre, words", [
    ("gpt-2", ["it", "'s", "Ġ2026", "!"]),
    ("smollm", ["it", "'s", "Ġ", "2", "0", "2", "6", "!"]),
    ("smaug-bpe", ["it", "'s", "Ġ", "202", "6", "!"]),
    ("llama-bpe", ["it", "'s", "Ġ", "202", "6", "!"]),
    ("qwen2", ["it", "'s", "Ġ", "2", "0", "2", "6", "!"]),
])  # fmt: skip
def test_texts_are_cut_into_words_as_its_kind_cuts_them(pre, words):
    """Digits all together, one by one, or in threes."""
    assert [word for word, _ in gguf_tokenizer.WORDS[pre].cut().pre_tokenize_str("it's 2026!")] == words


def written(folder, **changes):
    """The tokenizer of the tests' lists with some changed, opened, and its settings."""
    keys = ggufs.tokenizer() | {f"tokenizer.{name.replace('__', '.')}": value for name, value in changes.items()}
    folder.mkdir(exist_ok=True)
    told = lambda key, *default: keys.get(key, *default) if default else keys[key]  # noqa: E731
    gguf_tokenizer.check(folder, told)
    file = gguf_tokenizer.write(folder, told, folder)
    return open_tokenizer(file), json.loads((folder / "tokenizer_config.json").read_text())


def test_bos_stands_before_a_text_where_the_file_or_its_kind_says_so(tmp_path):
    plain, told = written(tmp_path / "a")
    assert plain.start == () and told["add_bos_token"] is False and told["eos_token"] == "<|im_end|>"
    named, told = written(tmp_path / "b", ggml__add_bos_token=True)
    assert named.prompt("sea")[0] == 1 == named.start[0] and told["add_bos_token"] is True
    kind, _ = written(tmp_path / "c", ggml__pre="llama-bpe")
    assert kind.start == (1,), "as Llama 3 has it"
    other, _ = written(tmp_path / "e", ggml__pre="smaug-bpe")
    assert other.start == (), "as SmolLM3 has it not"
    none, _ = written(tmp_path / "d", ggml__add_bos_token=True, ggml__bos_token_id=-1)
    assert none.start == ()
    ids = folders.tokenizer().encode("a sea of 2026").ids
    assert plain.encode("a sea of 2026") == ids == named.encode("a sea of 2026")


def test_a_turn_s_end_is_a_second_end_of_text(tmp_path):
    ours, _ = written(tmp_path / "a", ggml__eos_token_id=0, ggml__eot_token_id=2)
    assert ours.stops == {0, 2}
    assert json.loads((tmp_path / "a/generation_config.json").read_text()) == {"eos_token_id": [0, 2]}
    written(tmp_path / "b", ggml__eos_token_id=2, ggml__eot_token_id=2)
    assert not (tmp_path / "b/generation_config.json").exists()


def test_unused_tokens_at_the_end_only_fill_the_table(tmp_path):
    keys = ggufs.tokenizer()
    pieces, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    longer, _ = written(tmp_path, ggml__tokens=[*pieces, "[PAD0]", "[PAD1]"], ggml__token_type=[*types, 5, 5])
    assert longer.size == len(pieces)
