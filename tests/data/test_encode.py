"""Encoding in order, in tasks of bounded size."""

import itertools
import os

import numpy as np
import pytest

from chinchilla_jax.data import encode
from chinchilla_jax.data.sources import Document
from chinchilla_jax.data.spool import Extents, Spool, blocks, sample, texts
from chinchilla_jax.errors import UserError
from tests.data.conftest import story


@pytest.fixture
def spool(tmp_path):
    """Forty documents."""
    spool = Spool(tmp_path / "spool")
    for number in range(40):
        assert spool.add(Document(story(number, 1 + number % 7), "s", str(number)), 0) > 0
    spool.close()
    return spool


def test_the_spool_gives_back_what_it_was_given(spool):
    assert [t.decode() for t in texts(spool.path, spool.extents)] == [story(n, 1 + n % 7) for n in range(40)]
    assert len({tuple(d) for d in spool.digests.tolist()}) == 40 and len(spool.sources) == len(spool.own) == 40


def test_the_spool_leaves_out_white_space_and_refuses_surrogates(tmp_path):
    spool = Spool(tmp_path / "spool")
    assert spool.add(Document(" \n\t", "s", "k"), 0) == 0
    with pytest.raises(UserError, match="k: character 1 is a lone surrogate"):
        spool.add(Document("a\udc00", "s", "k"), 0)
    spool.close()
    assert len(spool.extents) == 0


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_blocks_cover_the_documents(spool, size):
    cut = blocks(spool.extents, size)
    assert b"".join(texts(spool.path, cut)) == spool.path.read_bytes()
    assert max(cut.sizes) <= size and min(cut.sizes) > 0


@pytest.mark.parametrize("share", [0.3, 0.01, 1.0])
def test_a_sample_is_even_and_no_larger(share):
    numbers = np.arange(10_000, dtype=np.uint64)
    kept = sample(Extents(numbers, numbers), share).offsets
    assert len(kept) == pytest.approx(10_000 * share, abs=1)
    assert abs(kept.mean() - 5000) < 100


@pytest.mark.parametrize("size", [1, 100, 10**9])
def test_tasks_cover_all_documents_in_order(monkeypatch, size):
    monkeypatch.setattr(encode, "TASK", size)
    sizes = np.array([5, 300, 1, 1, 90, 1000, 2, 3], np.uint64)
    extents = Extents(np.cumsum(sizes) - sizes, sizes)
    found = list(encode.tasks(extents))
    assert np.concatenate([t.offsets for t in found]).tolist() == extents.offsets.tolist()
    assert all(t.bytes <= size or len(t) == 1 for t in found)


@pytest.mark.parametrize("workers", [1, 2])
def test_tokens_are_those_of_the_tokenizer(spool, tokenizer, monkeypatch, workers):
    monkeypatch.setattr(encode, "SHARE", 100)
    monkeypatch.setattr(encode, "TASK", 500)
    expected = [[tokenizer.separator, *tokenizer.encode(story(n, 1 + n % 7))] for n in range(40)]
    with encode.encoder(spool.path, tokenizer.path, workers, spool.extents.bytes) as run:
        found = list(run(spool.extents))
    assert len(found) > 5
    assert np.concatenate([tokens for tokens, _ in found]).tolist() == list(itertools.chain(*expected))
    assert np.concatenate([lengths for _, lengths in found]).tolist() == [len(ids) for ids in expected]


def die(extents):
    """What the kernel does to a process that takes too much memory."""
    os._exit(9)


def test_a_worker_that_dies_is_one_line(spool, tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "SHARE", 100)
    monkeypatch.setattr(encode, "_encode", die)
    with (
        pytest.raises(UserError, match=r"lower --data\.workers"),
        encode.encoder(spool.path, tokenizer.path, 2, spool.extents.bytes) as run,
    ):
        list(run(spool.extents))
