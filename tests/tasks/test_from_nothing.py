"""Every kind of text may start from nothing, with a tokenizer of its own records."""

import json

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.data import open_task

RECORDS = {
    "labels": {"text": "the sea and the wind", "label": "wet"},
    "tags": {"tokens": ["Ada", "sailed", "the", "sea"], "tags": ["B-PER", "O", "O", "O"]},
    "spans": {"context": "the wind blew over the sea", "question": "what blew over?", "answers": ["the wind"]},
    "preference": {"prompt": "the sea", "chosen": "is deep", "rejected": "is dry"},
    "answer": {"context": "the wind blew over the sea", "question": "what blew over?", "answers": ["the wind"]},
}
OTHER = {"labels": {"text": "stone over stone", "label": "dry"}}


def opened(folder, kind: str, pieces: int):
    """Task data of a few records, for a model that starts from no run."""
    file = folder / "records.jsonl"
    rows = [RECORDS[kind], OTHER.get(kind, RECORDS[kind])] * 4
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskConfig(kind=kind, train=(str(file),), valid=(str(file),), pieces=pieces)
    return open_task(task, folder=None, scratch=folder, seq_len=64, seed=0)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_tokenizer_of_the_records_is_made(kind, tmp_path):
    data = opened(tmp_path, kind, 300)
    assert 256 < data.tokenizer.size <= 300 and (data.path / "tokenizer.model").exists()
    [first, *_] = data.first
    assert any("sea" in data.tokenizer.decode(part.tokens.tolist()) for part in first.parts)


def test_without_pieces_it_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"--from DIR, or train a model from nothing with --task\.pieces 4000"):
        opened(tmp_path, "tags", 0)
