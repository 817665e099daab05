"""What an exported folder says of its tokenizer, read back by ours, and by transformers where that is installed."""

import json

import pytest

from chinchilla_jax.data.controls import add_controls
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.interop import gguf_lists
from chinchilla_jax.interop.tokenizers import export_tokenizer
from tests.data import jsons
from tests.data.conftest import story
from tests.data.test_tokenizer import NASTY

PIECES = {"bos": "</s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_sentencepiece_run(tiny_store, folder):
    found = export_tokenizer(tiny_store, folder, 64)
    assert found.ids == {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 3} and not found.notes
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert told["tokenizer_class"] == "PreTrainedTokenizerFast" and told["model_max_length"] == 64
    assert {name: told[f"{name}_token"] for name in PIECES} == PIECES and not told["add_bos_token"]
    assert json.loads((folder / "generation_config.json").read_text()) == found.ids
    assert (folder / "tokenizer.model").read_bytes() == (tiny_store / "tokenizer.model").read_bytes()
    ours, back = open_tokenizer(tiny_store), open_tokenizer(folder)
    assert back.path.endswith("tokenizer.json") and back.pieces == ours.pieces and back.special == ours.special
    assert back.separator == ours.separator and back.controls == ours.controls
    for text in [*NASTY, story(3)]:
        assert back.encode(text) == ours.encode(text), "U+2581 and the names of control pieces too"


def test_a_chat_run_ends_its_turns(tiny_store, tmp_path, folder):
    (tmp_path / "run").mkdir()
    tokenizer = add_controls(tiny_store, ["<|im_start|>", "<|im_end|>"], tmp_path / "run")
    (tmp_path / "run/chat_template.jinja").write_text("{{ messages }}")
    found = export_tokenizer(tmp_path / "run", folder, 64)
    assert found.ids["eos_token_id"] == [tokenizer.controls["<|im_end|>"], 2]
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert told["eos_token"] == "<|im_end|>" and told["chat_template"] == "{{ messages }}"
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_run_with_a_tokenizer_json_gives_it_unchanged(tmp_path, folder):
    run = jsons.write(tmp_path / "run", jsons.byte_level(), eos_token="<|im_end|>", bos_token="<|im_start|>", own=1)
    (run / "chat_template.jinja").write_text("{{ messages }}")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    found = export_tokenizer(run, folder, 64)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    assert found.ids == {"bos_token_id": 1, "eos_token_id": [2, 0]}
    assert json.loads((folder / "generation_config.json").read_text()) == found.ids
    (run / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.2}')
    assert export_tokenizer(run, folder, 64).ids == {"bos_token_id": 1, "eos_token_id": 2}
    bare = jsons.write(tmp_path / "bare", jsons.byte_level())
    assert export_tokenizer(bare, folder, 64).ids["eos_token_id"] == 2, "files that are there stay"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_transformers_reads_the_folder(kind, tmp_path, folder):
    transformers = pytest.importorskip("transformers")
    from chinchilla_jax.config import DataConfig
    from chinchilla_jax.data import tokenizer_train

    (tmp_path / "run").mkdir()
    data = DataConfig(tokenizer_kind=kind, vocab_size=420)
    tokenizer_train.train(lambda: [story(n) for n in range(30)], data, tmp_path / "run/tokenizer.model")
    export_tokenizer(tmp_path / "run", folder, 64)
    ours, theirs = open_tokenizer(tmp_path / "run"), transformers.AutoTokenizer.from_pretrained(folder)
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.model_max_length) == (2, 3, 64)
    for text in [*NASTY, story(3)]:
        text = text.replace("\u2581", "")
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert ids == ours.encode(text) and theirs.decode(ids) == text


def test_a_sentencepiece_model_with_a_bos_goes_out_with_it(tiny_store, tmp_path, folder):
    """Other libraries put it there, and an imported export begins texts as the run does."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "tokenizer.model").write_bytes((tiny_store / "tokenizer.model").read_bytes())
    told = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (run / "tokenizer_config.json").write_text(json.dumps(told))
    found = export_tokenizer(run, folder, 64)
    assert found.ids["bos_token_id"] == 1 and found.ids["eos_token_id"] == 2
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert told["add_bos_token"] is True and told["tokenizer_class"] == "PreTrainedTokenizerFast"
    ours, back = open_tokenizer(run), open_tokenizer(folder)
    assert back.path.endswith("tokenizer.json") and back.adds_bos
    assert back.prompt("the sea") == ours.prompt("the sea") == [1, *ours.encode("the sea")]
    assert back.document("sea").tolist() == ours.document("sea").tolist() and back.stops == ours.stops
    assert gguf_lists.entries(run, ours.size)["ggml.add_bos_token"] is True
    assert gguf_lists.entries(tiny_store, ours.size)["ggml.add_bos_token"] is False
