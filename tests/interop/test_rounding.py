"""The text that a rounded model is measured on."""

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.interop import rounding


@pytest.mark.parametrize(
    "count, length, shape", [(33, 8, (4, 8)), (32, 8, (3, 8)), (9, 8, (1, 8)), (5, 8, (1, 4)), (2, 8, (1, 1))]
)
def test_windows_are_whole_and_their_targets_one_later(count, length, shape):
    ids = np.arange(100, 100 + count, dtype=np.int32)
    batch = rounding.windows(ids, length)
    assert batch.tokens.shape == shape and (batch.targets == batch.tokens + 1).all()
    assert batch.tokens.ravel().tolist() == ids[: batch.tokens.size].tolist()
    assert (
        (batch.weights == 1).all() and (batch.segments == 1).all() and (batch.positions[0] == np.arange(shape[1])).all()
    )


def test_validation_text_is_taken_where_its_tokenizer_is_the_run_s(tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr(rounding, "documents", lambda roots: iter([("m", "the sea wind. " * 9), ("n", "old songs")]))
    tokenizer = open_tokenizer(tiny_store)
    ids, where = rounding.sample(tokenizer, tiny_store, 50)
    assert (
        ids == np.fromfile(tiny_store / "valid.bin", "<u2")[:50]
    ).all() and f"49 validation tokens of {tiny_store}" in where
    for store, own in ((tmp_path / "none", tokenizer.sha256), (tiny_store, "another")):
        monkeypatch.setattr(tokenizer, "sha256", own)
        ids, where = rounding.sample(tokenizer, store, 20)
        assert ids.tolist() == [tokenizer.separator, *tokenizer.encode("the sea wind. " * 9)][:20]
        assert where == "on 19 tokens of Python's docstrings"
    ids, where = rounding.sample(tokenizer, tmp_path, 10_000)
    assert where == f"on {len(ids) - 1} tokens of Python's docstrings", "as many as there are"
