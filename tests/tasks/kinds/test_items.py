"""Histories of items: what trains and what is asked, and what is left out."""

import json

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks.data import open_task
from chinchilla_jax.tasks.kinds import items
from chinchilla_jax.tasks.kinds.table import kind_of
from chinchilla_jax.tasks.records import History
from tests.tasks.made import HERE


def opened(folder, *histories, valid=(), limit=8, **task):
    """Task data of histories as JSON lines, without a run."""
    for name, some in (("train", histories), ("valid", valid)):
        lines = (json.dumps({"user": str(i), "items": list(letters)}) for i, letters in enumerate(some))
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = {"train": (str(folder / "train.jsonl"),), **({"valid": (str(folder / "valid.jsonl"),)} if valid else {})}
    config = TaskConfig(kind="items", core=task.pop("core", 0), **files, **task)
    return open_task(config, folder=None, scratch=folder, seq_len=limit, seed=0)


def test_every_item_is_predicted_once_and_what_is_asked_is_not_trained(tmp_path):
    data = opened(tmp_path, "abcdefghijkl", "lkjihgfedcba", "abc", limit=4)
    trained = [part for item in data.first for part in item.parts]
    assert sum(part.weights.sum() for part in trained) == 10 + 10 + 0
    for record in (0, 1):
        own = [part for item in data.first if item.record == record for part in item.parts]
        targets = np.concatenate([part.targets[part.weights > 0] for part in own])
        ids = [data.tokenizer.known(letter) for letter in data.train[record].items]
        assert sorted(targets) == sorted(ids) and all(len(part.tokens) <= 4 for part in trained)
    for item, record in zip(data.encoded(data.valid), data.valid):
        [part] = item.parts
        assert part.weights.tolist() == [0.0] * (len(part) - 1) + [1.0]
        assert part.targets[-1] == data.tokenizer.known(record.items[-1])


def test_unknown_items_and_lonely_users_are_counted(tmp_path):
    data = opened(tmp_path, "abcd", "bcda", "a", valid=("abz", "azb", "z"))
    held = data.encoded(data.valid)
    assert [item.record for item in held] == [1] and len(data.valid) == 2
    assert data.encoder.tally.counts[items.MISSED] == 1 and data.encoder.tally.counts[items.UNSEEN] == 1
    assert any("one item alone" in line for line in data.notes)


def test_a_split_by_time_needs_times(tmp_path):
    with pytest.raises(Exception, match="no times"):
        opened(tmp_path, "abcd", "bcda", split="time")
    assert kind_of("items").metric == "ndcg10"


def ranked(data, records, scores_I):
    """(ranks, line of predictions.jsonl) of some records under the same scores; no model is needed."""
    judge = items.Ranking.__new__(items.Ranking)
    judge.data, judge.popular_I = data, np.zeros(len(scores_I))
    return judge.ranked(records, np.tile(np.array(scores_I, np.float32), (len(records), 1)))


def test_an_item_that_was_seen_and_is_asked_for_stands_in_the_output_at_its_rank(tmp_path):
    data = opened(tmp_path, "abcd", "bcda")
    record = History(HERE, "u", ("a", "b", "a"), asked=True)
    [(ranks, line)] = ranked(data, [record], [2.0, 4.0, 3.0, 1.0])
    assert line["output"].split() == ["c", "a", "d", "b"] and ranks[0] == line["rank"] == 1
    assert line["output"].split()[line["rank"]] == line["reference"] == "a"


def test_an_unknown_item_has_no_rank(tmp_path):
    data = opened(tmp_path, "abcd", "bcda")
    judge = items.Ranking.__new__(items.Ranking)
    judge.data = data
    ranks, line = judge.missed(History(HERE, "u", ("a", "z"), asked=True))
    assert ranks == [np.inf] * 3 and json.loads(json.dumps(line))["rank"] is None
