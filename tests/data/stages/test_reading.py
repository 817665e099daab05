"""A unit of a source becomes sorted segments of what the filters leave."""

import json
from collections import Counter

import numpy as np
import pytest

from chinchilla_jax.data import files
from chinchilla_jax.data.documents import Document
from chinchilla_jax.data.stages import reading, rows
from chinchilla_jax.errors import UserError
from tests.data.stages import small

TEXTS = [f"text {n} 海\n" * (1 + n % 3) for n in range(30)]


@pytest.mark.parametrize("segment", [1 << 20, 1])
def test_documents_of_a_unit_lie_in_segments_by_their_hash(tmp_path, monkeypatch, segment):
    monkeypatch.setattr(reading, "BATCH", 100)
    records = [*TEXTS, " \n", "x \x07 y"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in records))
    (unit,) = files.open_path(str(tmp_path / "t.jsonl"), "text").units
    job = small.job(tmp_path, clean=("controls",))
    object.__setattr__(job, "segment", segment)
    found = reading.run(job, {**unit, "name": "000007", "source": 3})
    assert found["documents"] == 32 and found["empty"] == 1 and found["records"] == 32
    assert found["bytes"] == sum(len(text.encode()) for text in TEXTS) + len("x  y")
    assert found["account"]["clean"]["rules"]["changed"]["documents"] == 1
    assert (len(found["segments"]) > 5) == (segment == 1) and found["segments"][0] == "000007-0000"
    rows.collect_cuts(job, found["segments"])
    parts = [rows.read_partition(job, number) for number in range(job.partitions)]
    whole = np.concatenate(parts)
    assert sorted(small.texts_in(job, whole)) == sorted([*TEXTS, "x  y"])
    assert {*whole["source"].tolist()} == {3} and whole["lines"].sum() == sum(t.count("\n") + 1 for t in TEXTS) + 1
    for part, first in zip(parts, rows.boundaries(2)):
        assert (part["key"] >= first).all() and (part["key"] - first < 2**62).all()


def test_batches_keep_all_in_order(monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 10)
    for sizes in ([], [3], [3, 3, 3, 3, 3], [25, 1, 9], [10, 10]):
        texts = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
        found = list(reading.batches(iter(texts), len))
        assert [text for batch in found for text in batch] == texts
        assert all(sum(map(len, batch[:-1])) < 10 <= sum(map(len, batch)) for batch in found[:-1])


def test_a_lone_surrogate_is_named_by_its_document(tmp_path):
    held = reading.Segment(small.job(tmp_path), 0)
    with pytest.raises(UserError, match=r"a\.txt#3: character 2 is a lone surrogate"):
        held.add(Document("ab\udc80", "s", "a.txt#3"), Counter())
    assert not held.texts
