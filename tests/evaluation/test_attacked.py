"""A task under attack: mistyped records, the table, and kinds that have no head; the attack itself: test_finetune."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from chinchilla_jax.config import Config, replace
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import attacked
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import Labelled
from tests.tasks.made import HERE


def test_mistakes_come_into_the_texts_alone_and_by_the_seed():
    texts = "the wind carries songs " * 20, "over the sea " * 20
    records = [Labelled(HERE, texts, (f"label {n}",)) for n in range(3)]
    found = attacked.mistyped(records, 0.1, 7)
    assert [dataclasses.replace(new, texts=old.texts) for new, old in zip(found, records)] == records
    assert all(new != old for one, two in zip(found, records) for new, old in zip(one.texts, two.texts))
    assert len({one.texts for one in found}) == 3, "every record has its own"
    assert attacked.mistyped(records, 0.1, 7) == found != attacked.mistyped(records, 0.1, 8)
    assert attacked.mistyped(records, 0.0, 7) == records
    few = attacked.mistyped(records, 0.01, 7)
    assert few[0].texts[0][:5] != found[0].texts[0][:5] or few != found, "another rate draws anew"


def test_a_kind_without_a_head_is_refused():
    config = replace(Config(), {"model.vocab_size": 64, "model.kernels": "reference", "task.kind": "text"})
    with pytest.raises(UserError, match="kinds with a head of their own, and text has none; without --task it attacks"):
        attacked.check(KINDS["text"], config)


def test_one_record_alone_has_no_standard_error():
    def of(rows):
        judge = object.__new__(attacked.Attacked)
        judge.nats, judge.weight, judge.data = 1.0, 1.0, SimpleNamespace(kind=SimpleNamespace(wrong=bool))
        judge.judge = lambda params, poll: ({}, rows)
        return judge(None)["right"]

    right, error = of([0])
    assert right == 1.0 and math.isnan(error) and "± nan" in attacked.shown((right, error))
    assert of([0, 1]) == (0.5, 0.5)


@pytest.mark.parametrize("metric, tables", [("accuracy", 1), ("loss", 1), ("f1", 2)])
def test_the_table_is_of_what_is_right_and_of_the_metric_of_the_kind(metric, tables):
    at = {"right": (0.75, 0.05), "f1": 0.5, "loss": 1.0, "accuracy": 0.75}
    found = {
        "clean": at,
        "records": 1234,
        "ordered": {0.1: True, 0.2: True},
        "typo": {0.05: at | {"right": (0.5, 0.1)}},
    }
    found |= {name: {0.1: at, 0.2: at | {"right": (0.25, 0.05)}} for name in attacked.NAMES}
    lines = attacked.table(found, metric)
    assert len(lines) == 5 * tables and lines[0] == "right, clean: 0.7500 ± 0.0500 over 1,234 records"
    assert lines[3].split()[0] == "0.2" and lines[3].count("0.2500 ± 0.0500") == len(attacked.NAMES) == 4
    assert lines[4] == "right with 0.05 of the characters mistyped: 0.5000 ± 0.1000"
    if tables == 2:
        assert lines[5] == "f1, clean: 0.5000 over 1,234 records"
