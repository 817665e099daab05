"""Tokens of a partition by split and source, and the validation text."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.data import fs
from chinchilla_jax.data.stages import encoding, rows
from chinchilla_jax.data.stages.splitting import Plan
from tests.data.stages import small

TEXTS = [f"海 {n}" for n in range(12)]
TASK = {"name": "0000", "partition": 0, "sources": 2, "tokenizer": "t", "sha256": ""}


@pytest.fixture(autouse=True)
def bytes_as_tokens(monkeypatch):
    """A tokenizer whose ids are bytes, behind the separator 0."""
    made = SimpleNamespace(size=256, document=lambda text: np.array([0, *text.encode()], np.int32))
    monkeypatch.setattr(encoding, "tokenizer_of", lambda path, sha256: made)


def encoded(job) -> tuple[dict, list[bytes], bytes]:
    """The counts, the documents of the file of tokens, and the validation text."""
    groups = encoding.run(job, TASK)
    tokens = np.frombuffer(fs.read(job.path("encode", "0000.bin")), "<u2").astype(np.uint8).tobytes()
    lengths = np.frombuffer(fs.read(job.path("encode", "0000.lengths")), "<u8").tolist()
    ends = np.cumsum(lengths).tolist()
    assert sum(lengths) == len(tokens)
    held = fs.read(job.path("encode", "0000.txt"))
    return groups, [tokens[end - size : end] for end, size in zip(ends, lengths)], held


def test_splits_and_sources_follow_each_other(tmp_path):
    job = small.job(tmp_path, bits=0)
    small.segments(job, [(1, "", text) for text in TEXTS[:6]], [(0, "", text) for text in TEXTS[6:]])
    small.merge(job, sources=2)
    table = rows.merged(job, 0)
    of = [table[table["source"] == source] for source in (0, 1)]
    Plan(1e9, (int(of[0]["key"][1]), -1)).save(job)  # two documents of the first source, none of the second
    groups, documents, held = encoded(job)
    texts = [small.texts_in(job, part) for part in of]
    expected = [*texts[0][2:], *texts[1], *texts[0][:2]]
    assert documents == [b"\0" + text.encode() for text in expected] and held.decode() == "".join(texts[0][:2])
    sizes = [[len(text.encode()) for text in some] for some in (texts[0][2:], texts[1], texts[0][:2])]
    counts = [[len(some), sum(some) + len(some), sum(some)] for some in sizes]
    assert groups == {"train": counts[:2], "valid": [counts[2], [0, 0, 0]]}


def test_a_single_document_is_cut(tmp_path):
    job = small.job(tmp_path, bits=0)
    small.segments(job, [(0, "", "train here, held out   ")])
    small.merge(job)
    (row,) = rows.merged(job, 0)
    Plan(0.0, (-1, -1), (int(row["key"]), int(row["low"]), 12, 20)).save(job)
    groups, documents, held = encoded(job)
    assert documents == [b"\0train here, ", b"\0held out"] and held == b"held out"
    assert groups == {"train": [[1, 13, 12], [0, 0, 0]], "valid": [[1, 9, 8], [0, 0, 0]]}


def test_a_partition_without_text_has_files_all_the_same(tmp_path):
    job = small.job(tmp_path)
    small.segments(job, [(0, "", "a")])
    small.merge(job)
    Plan(0.0, (-1, -1)).save(job)
    empty = next(n for n in range(job.partitions) if not len(rows.merged(job, n)))
    groups = encoding.run(job, {**TASK, "name": f"{empty:04}", "partition": empty})
    assert groups == {split: [[0, 0, 0]] * 2 for split in ("train", "valid")}
    assert fs.names(job.path("encode")) == {f"{empty:04}.{kind}" for kind in ("bin", "lengths", "txt")}
