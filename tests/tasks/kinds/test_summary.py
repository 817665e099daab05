"""Summaries: what is kept of a long text, and libraries that are missing."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds import summary
from chinchilla_jax.tasks.kinds.chat import references
from chinchilla_jax.tasks.metrics import extras
from tests.tasks.made import of_kind

pytest.importorskip("rouge_score")


def test_a_summary_keeps_the_beginning_and_all_references(whole_run, tmp_path):
    words = " ".join(f"{word} {i}" for i, word in enumerate(["the sea", "old wind", "cold stone"] * 9))
    data = of_kind(whole_run, tmp_path, "summary", [{"document": [words], "summary": ["sea", "wind", "sea"]}])
    [part] = data.first[0].parts
    spelled = data.tokenizer.decode(part.tokens.tolist())
    assert (
        spelled.startswith("the sea 0")
        and len(part) <= 40
        and part.weights.sum() == len(data.tokenizer.encode("sea")) + 1
    )
    assert references(data.train[0]) == ("sea", "wind", "sea")
    ids, blocks = data.encoder.prompt(data.train[0].turns[:1])
    assert len(ids) == 40 == len(blocks) and data.tokenizer.decode(ids).startswith("the sea 0")
    chat = of_kind(whole_run, tmp_path, "chat", [{"document": [words], "summary": ["sea"]}])
    assert not data.tokenizer.decode(chat.first[0].parts[0].tokens.tolist()).startswith("the sea 0")


def test_a_library_that_is_missing_is_said_at_the_start(monkeypatch):
    monkeypatch.setattr(extras, "has", lambda name: False)
    with pytest.raises(UserError, match="pip install"):
        summary.similarity.rouge([""], [["x"]], "en")
