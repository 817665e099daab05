"""A run judged on other examples: which examples those are, and its page."""

import json
from types import SimpleNamespace

import pytest

from chinchilla_jax.config import Config, TaskConfig, replace
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation.attack import Attack
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import Tally
from chinchilla_jax.tuning import examine


@pytest.fixture
def opened(monkeypatch):
    """The task that is opened, and the data that come of it; of a run on labels."""
    data = SimpleNamespace(added=(), kind=SimpleNamespace(name="labels", heads=lambda config: True), task=TaskConfig())
    data.renderer = SimpleNamespace(template=SimpleNamespace(name="chatml"))

    def note(task, **how):
        data.opened, data.how = task, how
        return data

    monkeypatch.setattr(examine, "open_task", note)
    return data


def examples(tmp_path, named: bool, kind="labels", **task):
    """What is judged, of a run on labels, with these settings."""
    own = SimpleNamespace(program=SimpleNamespace(config=replace(Config(), {"task.kind": kind})))
    config = replace(Config(), {"task.kind": kind, **{f"task.{name}": value for name, value in task.items()}})
    return examine.examples(config, own, tmp_path, tmp_path / "scratch", named)


def test_all_of_a_file_that_is_named_is_judged(opened, tmp_path):
    files = {"train": ("train.jsonl",), "valid": ("valid.jsonl",), "test": ("new.jsonl",)}
    examples(tmp_path, True, **files)
    assert (opened.opened.train, opened.opened.test) == ((), ("new.jsonl",)), "as a test alone"
    assert opened.how["folder"] == tmp_path, "by the run's own tokenizer and template"
    examples(tmp_path, False, **files)
    assert (opened.opened.train, opened.opened.test) == (("train.jsonl",), ("new.jsonl",))


def test_a_run_that_cannot_be_asked_says_why(opened, tmp_path):
    with pytest.raises(UserError, match=r"was tuned on no task; name examples with --task\.test FILE"):
        examples(tmp_path, False)
    opened.kind.name = "tags"
    with pytest.raises(UserError, match=r"has no head for tags; tune it: finetune --run-dir NEW --from "):
        examples(tmp_path, True, test=("new.jsonl",))
    opened.added = (320,)
    with pytest.raises(UserError, match="lacks control pieces of the template chatml"):
        examples(tmp_path, True, test=("new.jsonl",))


def test_thresholds_are_those_of_the_best_validation(tmp_path):
    assert examine.tuned(tmp_path) == {}
    (tmp_path / "finetune.json").write_text(json.dumps({"best": {"valid_threshold": 0.3, "valid_f1": 0.8}}))
    assert examine.tuned(tmp_path) == {"threshold": 0.3, "f1": 0.8}


@pytest.mark.parametrize("test", [[], ["one"]])
def test_what_is_judged_is_said_where_validation_has_seen_it(monkeypatch, tmp_path, test):
    data = SimpleNamespace(test=test, valid=["a", "b"], notes=["a note"], kind=KINDS["text"], task=TaskConfig())
    data.encoder = SimpleNamespace(tally=Tally())
    loaded = SimpleNamespace(program=SimpleNamespace(config=Config()), params={}, folder="run", step=3)
    judged = lambda program, data, records, name, tuned: lambda params: ({f"{name}_loss": len(records)}, [])  # noqa: E731
    for name, stub in (("load", loaded), ("examples", data)):
        monkeypatch.setattr(examine, name, lambda *args, stub=stub, **how: stub)
    monkeypatch.setattr(examine, "Validator", judged)
    given = Config(), tmp_path, tmp_path, set()
    found = examine.examine(*given, None, None)
    assert found["examples"] == ["a note"] if test else [examine.SEEN, "a note"] and found["test_loss"] == 2 - len(test)
    assert (examine.SEEN in (tmp_path / "evaluated.md").read_text()) == (not test)
    monkeypatch.setattr(examine, "Validator", None)  # refused before anything is judged
    with pytest.raises(UserError, match="--attack with --task is for kinds with a head"):
        examine.examine(*given, Attack(), None)


def test_the_page_has_the_figures_and_those_under_attack(monkeypatch):
    monkeypatch.setattr(examine.report, "details", lambda found, rows: ["## By label"])
    found = {"records": 1200, "kind": "labels", "examples": ["2 left out"], "test_accuracy": 0.75, "step": 4}
    lines = examine.page("mine", found, []).splitlines()
    assert lines[:4] == ["# mine: 1,200 records of labels", "", "- accuracy 0.7500", "- 2 left out"]
    assert "## Under attack" not in lines and lines[-1] == "## By label"
    attack = {"attack": {"notes": ["of 60 tokens"]}, "under_attack": ["rho 0.1  0.5"]}
    lines = examine.page("mine", {**found, **attack}, []).splitlines()
    at = lines.index("## Under attack")
    assert lines[at + 2 : at + 4] == ["    rho 0.1  0.5", "    of 60 tokens"]
