"""Which tokens begin and end a text, by the files beside a tokenizer."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models

from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError
from tests.data import jsons


def test_what_begins_and_ends_a_text(tmp_path):
    gpt = open_tokenizer(jsons.write(tmp_path / "a", jsons.byte_level(), eos_token={"content": "<|im_end|>"}))
    assert (gpt.separator, gpt.start, gpt.end, gpt.stops) == (0, (), (), {0, 2}), "a turn's end ends no document"
    assert gpt.prompt("a") == gpt.encode("a") and gpt.prompt("") == [0] == [gpt.opening]
    llama = open_tokenizer(jsons.write(tmp_path / "b", jsons.fallback(prefix=True), eos_token="</s>"))
    assert (llama.separator, llama.start, llama.end, llama.stops) == (1, (1,), (2,), {1, 2})
    assert llama.document("a").tolist() == [1, *llama.encode("a"), 2] and llama.closing == 2
    told = {"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": False}
    bare = open_tokenizer(jsons.write(tmp_path / "c", jsons.fallback(prefix=True), **told))
    assert (bare.separator, bare.start, bare.opening) == (2, (), 1), "a bos that is named is what models know first"
    assert bare.prompt("") == [1] and bare.prompt("a") == bare.encode("a") and bare.document("a")[0] == 2
    (tmp_path / "c/generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert open_tokenizer(tmp_path / "c").stops == {2, 7}
    older = tmp_path / "d/special_tokens_map.json"
    jsons.write(tmp_path / "d", jsons.byte_level())
    older.write_text(json.dumps({"eos_token": {"content": "<|im_end|>"}}))
    assert open_tokenizer(tmp_path / "d").stops == {0, 2}, "told in the file that older folders have for it"
    older.write_text(json.dumps({"eos_token": "<zz>"}))
    with pytest.raises(UserError, match=r"special_tokens_map\.json: eos_token '<zz>' is no token"):
        open_tokenizer(tmp_path / "d")


@pytest.mark.parametrize(("told", "message"), [({"eos_token": "<zz>"}, "eos_token '<zz>' is no token"),
                                               ({"bos_token": {"content": "<zz>"}}, "bos_token '<zz>'"),
                                               ({"add_bos_token": "no"}, "add_bos_token is 'no'")])  # fmt: skip
def test_what_is_told_beside_a_file_must_hold(told, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_tokenizer(jsons.write(tmp_path, jsons.byte_level(), **told))


def test_no_end_of_documents_is_one_line(tmp_path):
    made = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    made.decoder = decoders.ByteLevel()
    with pytest.raises(UserError, match="which token ends a document"):
        open_tokenizer(jsons.write(tmp_path, made))
    with pytest.raises(UserError, match="lone surrogate"):
        open_tokenizer(jsons.write(tmp_path, made, eos_token="a")).encode("\ud800")
