"""A run's tokenizer as the lists of a GGUF file, and back."""

import dataclasses
import json
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from chinchilla_jax.data.controls import add_controls
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.interop import gguf_lists, gguf_write
from chinchilla_jax.interop.gguf_read import File
from tests.data import jsons
from tests.data.conftest import story
from tests.data.test_tokenizer import NASTY
from tests.interop.test_gguf_write import given, tokenizer_run

TOKENIZERS = {
    "bytes": jsons.byte_level,
    "bpe": jsons.fallback,
    "prefix": lambda: jsons.fallback(prefix=True),
    "sentencepiece": None,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers_come_back(kind, tmp_path, tiny_store):
    if TOKENIZERS[kind]:
        names = {} if kind == "bytes" else {"eos_token": "</s>", "bos_token": "<s>"}
        run = tokenizer_run(tmp_path, TOKENIZERS[kind](), **names)
    else:
        (run := tmp_path / "run").mkdir()
        add_controls(tiny_store, ["<|im_start|>", "<|im_end|>"], run)
        (run / "chat_template.jinja").write_text("{{ messages }}")
    ours, (tensors, cfg, _) = open_tokenizer(run), given()
    rows = ours.size + 7  # some to spare
    table = np.zeros((rows, cfg.d_model), np.float32)
    tensors[0] = SimpleNamespace(name="model.embed_tokens.weight", shape=table.shape, make=lambda: table)
    cfg = dataclasses.replace(cfg, vocab_size=rows)
    gguf_write.write(tmp_path / "m.gguf", run, tensors, cfg, 64, "float32")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert len(fields["tokenizer.ggml.tokens"].contents()) == rows, "llama.cpp counts them"
    (tmp_path / "back").mkdir()
    back = open_tokenizer(File(tmp_path / "m.gguf").write_tokenizer(tmp_path / "back"))
    assert back.pieces == ours.pieces and back.special == ours.special
    for text in [*NASTY, story(3)]:
        assert back.encode(text) == ours.encode(text)
    if kind == "sentencepiece":
        assert fields["tokenizer.ggml.eos_token_id"].contents() == ours.controls["<|im_end|>"]
        assert (tmp_path / "back/chat_template.jinja").read_text() == "{{ messages }}"
    else:
        assert (back.start, back.separator, back.end) == (ours.start, ours.separator, ours.end)


def test_a_piece_scores_by_the_first_merge_that_makes_it(tmp_path):
    """SentencePiece's bpe takes the pair of the highest score first, as a list of merges takes the first."""
    run = tokenizer_run(tmp_path, jsons.fallback(), eos_token="</s>", bos_token="<s>")
    found = gguf_lists.entries(run, 900)
    score = dict(zip(found["ggml.tokens"], found["ggml.scores"]))
    merges = json.loads((run / "tokenizer.json").read_text())["model"]["merges"]
    ranks = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, -float(rank))
    assert {piece: score[piece] for piece in ranks} == ranks
    assert score["[PAD899]"] < min(ranks.values()) and found["ggml.token_type"][899] == 5, "unused"
    assert found["ggml.token_type"][found["ggml.tokens"].index("<0x0A>")] == 6, "a byte"


def test_merges_are_read_in_either_spelling():
    found = gguf_lists.pairs({"model": {"merges": ["a b", ["c", "d e"], "f g h"]}})
    assert found == [("a", "b"), ("c", "d e"), ("f", "g h")]
