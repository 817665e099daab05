"""Tokens added beside a SentencePiece model: where they are read, what they become, and what is refused."""

import json
import shutil

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, tokenizer_train
from chinchilla_jax.data.added_tokens import copy_with_added, open_with_added
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import huggingface
from tests.data.conftest import story
from tests.interop import folders
from tests.interop.damage import KIND

SIZE = 380
LIST = {"<|im_end|>": SIZE, "<sea>": SIZE + 1, "</s>": 2}
TABLE = {str(i): {"content": token, "special": token != "<sea>"} for token, i in LIST.items()}
OLD = {"added_tokens.json": LIST, "special_tokens_map.json": {"additional_special_tokens": ["<|im_end|>"]}}
NEW = {"tokenizer_config.json": {"added_tokens_decoder": TABLE, "add_bos_token": False}}
BOTH = NEW | {"added_tokens.json": {"<old>": SIZE + 7}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A SentencePiece model of 380 pieces."""
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    tokenizer_train.train(lambda: [story(n) for n in range(30)], DataConfig(vocab_size=SIZE), path)
    return path


def folder(place, model, files):
    """A folder with that model and these files."""
    place.mkdir(exist_ok=True)
    shutil.copyfile(model, place / "tokenizer.model")
    for name, told in files.items():
        (place / name).write_text(json.dumps(told))
    return place


@pytest.mark.parametrize("files", [OLD, NEW, BOTH], ids=["old", "new", "both"])
def test_added_tokens_stand_behind_the_pieces(files, model, tmp_path):
    """A special one cannot be typed, another is found in any text, no other id moves; the table wins over the list."""
    found, plain = open_with_added(folder(tmp_path / "theirs", model, files)), open_tokenizer(model)
    assert found.size == SIZE + 2 and found.controls["<|im_end|>"] == SIZE and found.pieces[:SIZE] == plain.pieces
    assert SIZE + 1 in found.encode("the <sea> wind") and SIZE not in found.encode("the <|im_end|> wind")
    assert found.decode(found.encode("the <sea> wind <|im_end|>")) == "the <sea> wind <|im_end|>"
    assert found.encode("old songs") == plain.encode("old songs")
    (tmp_path / "copy").mkdir()
    assert open_tokenizer(copy_with_added(tmp_path / "theirs", tmp_path / "copy")).sha256 == found.sha256


@pytest.mark.parametrize("name", ["", "tokenizer.model"])
def test_a_store_is_made_with_the_added_tokens(name, model, tmp_path):
    """Whether --data.tokenizer names the folder or the file in it; the same settings find the store complete."""
    source, said = folder(tmp_path / "theirs", model, OLD), []
    (tmp_path / "text.txt").write_text("the <sea> wind carries old songs\n" * 50)
    config = DataConfig((str(tmp_path / "text.txt"),), store=str(tmp_path / "s"), tokenizer=str(source / name))
    build.prepare(config, say=said.append, show=False)
    store = TokenStore.open(config.store)
    assert store.tokenizer.sha256 == open_with_added(source).sha256 and SIZE + 1 in store.train.tokens
    build.prepare(config, say=said.append, show=False)
    assert "complete" in said[-1]


def test_a_model_that_is_complete_stays_as_it_is(model, tmp_path):
    source = folder(tmp_path / "theirs", model, {"added_tokens.json": {"</s>": 2}})
    assert open_with_added(source).sha256 == open_tokenizer(model).sha256


@pytest.mark.parametrize(("files", "message"), [
    ({"added_tokens.json": {"<x>": SIZE + 1}}, f"'<x>' has the id {SIZE + 1}, where the next free id .* is {SIZE};"),
    ({"added_tokens.json": {"<x>": SIZE, "<y>": SIZE}}, f"'<y>' has the id {SIZE}"),
    ({"added_tokens.json": {"<x>": 2}}, "'<x>' has the id 2"),
    ({"added_tokens.json": {"</s>": SIZE}}, "'</s>' has the"),
    ({"added_tokens.json": {"<x>": "y"}}, "added_tokens.json: y is no id"),
    ({"added_tokens.json": {"<x>": True}}, "added_tokens.json: True is no id"),
    ({"tokenizer_config.json": {"added_tokens_decoder": {"-1": {"content": "<x>"}}}}, "config.json: -1 is no id"),
    ({"tokenizer_config.json": {"added_tokens_decoder": ["<x>"]}}, "added_tokens_decoder is no table"),
])  # fmt: skip
def test_what_cannot_be_added_is_one_line(files, message, model, tmp_path):
    with pytest.raises(UserError, match=message):
        open_with_added(folder(tmp_path / "theirs", model, files))


def test_a_fault_of_the_whole_names_the_folder(model, tmp_path):
    files = {"added_tokens.json": {"<x>": SIZE}, "tokenizer_config.json": {"add_bos_token": "no"}}
    source = folder(tmp_path / "theirs", with_bos(model, tmp_path), files)
    with pytest.raises(UserError, match=r"theirs/tokenizer_config\.json: add_bos_token is 'no'"):
        open_with_added(source)


def with_bos(model, place):
    """The model with a bos piece, as Llama's have it."""
    from sentencepiece import sentencepiece_model_pb2

    made = sentencepiece_model_pb2.ModelProto()
    made.ParseFromString(model.read_bytes())
    made.trainer_spec.bos_id, made.trainer_spec.bos_piece = 3, made.pieces[3].piece
    (place / "bos.model").write_bytes(made.SerializeToString())
    return place / "bos.model"


def test_an_added_token_ends_a_text_of_an_imported_folder(model, tmp_path):
    """Where tokenizer_config.json names it eos, which the model alone does not know."""
    source = folders.folder(tmp_path / "theirs", KIND, vocab_size=SIZE + 2)
    (source / "tokenizer.json").unlink()
    files = {"added_tokens.json": LIST, "tokenizer_config.json": {"eos_token": "<|im_end|>"}}
    folder(source, with_bos(model, tmp_path), files)
    found, place = huggingface.Folder(source), tmp_path / "place"
    place.mkdir()
    assert SIZE in open_tokenizer(found.write_tokenizer(place)).stops
    assert {path.name for path in found.files} >= {"added_tokens.json", "tokenizer.model"}
