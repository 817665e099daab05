"""The validation of a task: its figures by name, and how much is generated."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.evaluation import tasks
from chinchilla_jax.evaluation.tasks import Validator
from chinchilla_jax.evaluation.writing import Beams, Writer
from chinchilla_jax.types import Sums

RECORDS = [SimpleNamespace(where=SimpleNamespace(file="valid.jsonl"))] * 5


@pytest.fixture
def made(monkeypatch):
    """make(**changes) -> a validator of items by hand: no model, and a judge that is right about everything."""
    likelihood = SimpleNamespace(sums=lambda params, batches, poll: Sums(6.0, 4.0, {}), placed=lambda batch: batch)
    monkeypatch.setattr(tasks, "Likelihood", lambda program, split: likelihood)
    monkeypatch.setattr(tasks, "in_order", lambda items, *how: [(item, item.parts) for item in items])

    def make(records=RECORDS, in_bytes=False, keep=lambda record: True, **changes):
        items = [SimpleNamespace(parts=[n, n]) for n, record in enumerate(records) if keep(record)]
        kind = SimpleNamespace(judge=lambda _: lambda params, poll: ({"right": 1.0}, [{"said": "x"}]))
        data = SimpleNamespace(
            kind=kind, task=TaskConfig(generate=3), seq_len=8, blocks=False, judged=lambda records, name: items,
            bytes_of=lambda items: sum(len(item.parts) for item in items) / 2 if in_bytes else None,
            tokenizer=SimpleNamespace(sizes=None, size=50), renderer=SimpleNamespace(stops=frozenset()),
        )  # fmt: skip
        program = SimpleNamespace(microbatch=2, config=SimpleNamespace(model=None))
        return Validator(program, data, records, **changes)

    return make


def test_figures_carry_the_name_of_what_was_judged(made):
    assert made()({}) == ({"valid_loss": 1.5, "valid_right": 1.0}, [{"said": "x"}])
    figures, _ = made(in_bytes=True, name="test")({})
    assert figures == {"test_loss": 1.5, "test_bits_per_byte": pytest.approx(1.5 / math.log(2) / 5), "test_right": 1.0}


def test_a_few_answers_are_written_while_it_trains_and_all_of_a_test(made):
    assert made().most == 3 and made(name="test").most == 5


def test_other_records_get_a_judge_of_their_own(made):
    """A judge may keep where the words of its records begin."""
    validator = made()
    validator.data.kind.judge = lambda examination: list(examination.records)
    validator.take(RECORDS[:2])
    assert validator.judge == RECORDS[:2]


def test_other_items_are_run_in_their_own_batches(made):
    """And after every batch whoever asked to stop is heard."""
    validator, polled = made(), []
    run = lambda params, batch: {"sum": np.sum(batch)}  # noqa: E731
    found = list(validator.over(run, {}, lambda: polled.append(1)))
    assert [out["sum"] for _, _, out in found] == [0, 2, 4, 6, 8] and len(polled) == 5
    [(held, _, out)] = validator.over(run, {}, lambda: None, [SimpleNamespace(parts=[7, 8])])
    assert out["sum"] == 15 and held.parts == [7, 8]


@pytest.mark.parametrize("beam, kind", [(1, "Writer"), (4, "Beams")])
def test_answers_are_as_served_or_by_beam_search(made, monkeypatch, beam, kind):
    for owner in (Writer, Beams):
        monkeypatch.setattr(tasks, owner.__name__, lambda *given, name=owner.__name__: (name, *given))
    validator = made()
    validator.data.task = TaskConfig(beam=beam, length_penalty=0.5)
    found = validator.writer()
    assert found[0] == kind and found[3:] == (frozenset(), *((beam, 0.5) if beam > 1 else ()))


def test_predictions_are_a_line_of_json_each(tmp_path):
    rows = [{"text": "naïve\n海"}, {"right": True}, {"gap": math.inf, "p": [math.nan]}]
    tasks.write_predictions(tmp_path / "p.jsonl", rows)
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, lines)) == [*rows[:2], {"gap": None, "p": [None]}] and "海" in lines[0]


def test_one_of_several_processes_writes_predictions(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.jax, "process_index", lambda: 1)
    tasks.write_predictions(tmp_path / "p.jsonl", [{"text": "x"}])
    assert not list(tmp_path.iterdir())
