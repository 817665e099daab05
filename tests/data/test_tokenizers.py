"""Opening tokenizers: on object storage, and with what stands beside them."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from chinchilla_jax.data import build, remote, tokenizers
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizers import copy_tokenizer, open_tokenizer
from chinchilla_jax.errors import StorageError, UserError
from tests import bucket

URL = "gs://bucket/runs/one"


@pytest.fixture
def there(made, tmp_path, monkeypatch):
    """The folder that URL names, with a store's tokenizer in it."""
    bucket.install(tmp_path, monkeypatch.setattr)
    folder = tmp_path / "bucket/runs/one"
    folder.mkdir(parents=True)
    shutil.copy(remote.Path(made.store) / "tokenizer.model", folder)
    yield folder
    tokenizers.fetched.cache_clear()


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}/tokenizer.model"])
def test_a_tokenizer_at_a_url_makes_the_same_store(there, made, store, tmp_path, url):
    config = replace(made, tokenizer=url, store=str(tmp_path / "s"))
    said = []
    build.prepare(config, say=said.append, show=False)
    assert (TokenStore.open(config.store).train.tokens == store.train.tokens).all() and not said
    build.prepare(config, say=said.append, show=False)
    assert "complete" in said[-1]
    (there / "tokenizer.model").write_bytes(b"another")
    tokenizers.fetched.cache_clear()
    with pytest.raises(UserError, match=re.escape(f"{url}: not a SentencePiece model")):
        build.prepare(config, say=said.append, show=False)


def test_what_stands_beside_a_tokenizer_is_fetched_with_it(there, tokenizer):
    (there / "chat_template.jinja").write_text("{{ messages }}")
    (there / "metrics.jsonl").write_text("{}")
    folder = tokenizers.fetched(URL)
    assert {path.name for path in folder.iterdir()} == {"tokenizer.model", "chat_template.jinja"}
    assert tokenizers.open_tokenizer(URL).sha256 == tokenizer.sha256 and tokenizers.fetched(URL) is folder


def test_what_is_not_there_or_not_reached_is_one_line(there, monkeypatch):
    (there / "tokenizer.json").write_text(json.dumps({"model": {}}))
    for url, message in (
        (f"{URL}/none.model", "there is no tokenizer here"),
        ("gs://bucket/runs/two", "there is no tokenizer here"),
        ("gs://bucket/runs", "no tokenizer in this folder"),
        (URL, "tokenizer.json|tokenizer"),
        ("zz://bucket/runs", "cannot be reached"),
    ):
        with pytest.raises(UserError, match=f"^{url}.*{message}"):
            tokenizers.open_tokenizer(url)
    monkeypatch.setattr(bucket.Bucket, "isdir", lambda self, path: (_ for _ in ()).throw(TimeoutError("no answer")))
    with pytest.raises(StorageError, match="gs://bucket/three cannot be reached"):
        tokenizers.open_tokenizer("gs://bucket/three")


@pytest.mark.parametrize("told, begins", [
    ({}, True), ({"add_bos_token": True}, True), ({"add_bos_token": False}, False), (None, False),
])  # fmt: skip
def test_a_config_beside_a_sentencepiece_model_says_that_bos_begins_texts(told, begins, tiny_store, tmp_path):
    """As transformers does for Llama's; a model of ours has no such file, and its separator begins texts."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir(), ours.mkdir()
    shutil.copyfile(tiny_store / "tokenizer.model", theirs / "tokenizer.model")
    if told is not None:
        told = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, **told}
        (theirs / "tokenizer_config.json").write_text(json.dumps(told))
    found = open_tokenizer(copy_tokenizer(theirs, ours))
    assert found.adds_bos == begins and found.prompt("sea") == [1 if begins else 2, *found.encode("sea")]
    assert found.document("sea").tolist() == ([1, *found.encode("sea"), 2] if begins else [2, *found.encode("sea")])
    assert found.closing == 2 and 2 in found.stops
