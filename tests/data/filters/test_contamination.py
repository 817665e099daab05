"""Runs of words of evaluation sets are found in documents, and the sets are read as they come."""

import gzip
import json

import numpy as np
import pyarrow.parquet
import pytest

from chinchilla_jax.data.filters import contamination
from chinchilla_jax.errors import UserError
from tests.data.filters.test_minhash import text


def test_planted_runs_are_found_through_case_and_white_space(tmp_path):
    exam = tmp_path / "exam.jsonl"
    questions = [text(n, 40) for n in range(100)]
    exam.write_text("".join(json.dumps({"q": {"text": [q]}, "n": 3}) + "\n" for q in questions))
    finder = contamination.Contamination(contamination.collect((str(exam),), 13), 13)
    clean = [text(1000 + n, 150) for n in range(300)]
    assert not finder.hits(clean).any()
    planted = []
    for number, question in enumerate(questions):
        start = number % 27
        run = question.split()[start : start + 13]
        words = clean[number].split()
        planted.append(" ".join(words[:50]) + "\n" + "\u00a0 \n".join(run).upper() + ".\t" + " ".join(words[50:]))
    assert (finder.hits(planted) == 1).all()
    twelve = [" ".join(question.split()[:12]) for question in questions]
    assert not finder.hits([a + " " + b for a, b in zip(clean, twelve)]).any()


def test_evaluation_sets_are_read_as_they_come(tmp_path):
    """Compressed, as parquet, nested, and with a line separator (U+2028) inside a JSON string."""
    question = text(1, 40)
    record = {"q": {"text": [question]}, "n": 3, "note": "one\u2028two"}
    plain = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    (tmp_path / "a.jsonl").write_bytes(plain)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "c.json").write_bytes(plain)
    (tmp_path / "lines.json").write_bytes(2 * plain)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "d.parquet")
    expected = contamination.folded_words([question]).grams(13)[1]
    for path in sorted(tmp_path.iterdir()):
        assert np.isin(expected, contamination.collect((str(path),), 13)).all(), path


def test_files_without_a_run_are_refused(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'"a"\n' * 99)[:-9])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for name, message in (
        ("short.txt", "no run of 13 words"), ("none.txt", "no such file"), (".", "this is a folder; name its files"),
        ("cut.jsonl.gz", "damaged"), ("cut.parquet", "damaged"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            contamination.collect((str(tmp_path / name),), 13)
