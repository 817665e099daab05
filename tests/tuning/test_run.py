"""What a tuning run leaves for later use, and its test."""

import json
from types import SimpleNamespace

import jax
import pytest

from chinchilla_jax.config import Config, TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tuning import run
from chinchilla_jax.tuning.start import Job


@pytest.fixture
def job(tmp_path):
    """A job on labels whose template is kept."""
    kind = SimpleNamespace(metric_of=lambda named: f"best of {named}", keeps_template=True)
    data = SimpleNamespace(
        kind=kind, task=TaskConfig(), test=[], describe=lambda **more: {"kind": "labels", **more},
        renderer=SimpleNamespace(template="chatml"), tokenizer=SimpleNamespace(start=(1,)),
    )  # fmt: skip
    return Job(Config(), tmp_path / "runs/new", data)


def test_the_task_and_its_template_are_kept(job, monkeypatch):
    monkeypatch.setattr(run, "jinja", lambda template, begins: f"{template} {begins}")
    run.keep(job)
    assert json.loads((job.run_dir / "task.json").read_text()) == {"kind": "labels", "metric": "best of auto"}
    assert (job.run_dir / "chat_template.jinja").read_text() == "chatml True"
    job.data.kind.keeps_template = False
    (job.run_dir / "chat_template.jinja").unlink()
    run.keep(job)
    assert [path.name for path in job.run_dir.iterdir()] == ["task.json"]


def test_of_many_processes_the_first_writes(job, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run.keep(job)
    assert list(job.run_dir.iterdir()) == []


def test_a_test_has_the_thresholds_of_the_best_step(job, monkeypatch):
    assert run.tested(job, {}) == {}
    job.data.test, seen = ["a", "b"], []
    monkeypatch.setattr(run, "load", lambda config, run_dir, make: SimpleNamespace(program="program", params="params"))

    def validator(*told):
        seen.append(told)
        return lambda params: ({"test_f1": 0.5, "for": params}, [{"record": 0}])

    monkeypatch.setattr(run, "Validator", validator)
    job.run_dir.mkdir(parents=True)
    found = run.tested(job, {"valid_threshold": 0.3})
    assert found == {"test": {"test_f1": 0.5, "for": "params"}}
    assert seen == [("program", job.data, ["a", "b"], "test", {"threshold": 0.3})]
    assert json.loads((job.run_dir / "test_predictions.jsonl").read_text()) == {"record": 0}


def test_a_run_whose_validations_all_failed_ends_with_an_error(job, monkeypatch):
    monkeypatch.setattr(run, "jinja", lambda template, begins: "")
    row = json.dumps({"step": 2, "hook_failed": "validation"}) + "\n"
    monkeypatch.setattr(run, "pretrain", lambda *given, **how: (job.run_dir / "metrics.jsonl").write_text(row))
    with pytest.raises(UserError, match=r"every validation of .*runs/new failed, as the warnings say, so no step is"):
        run.finetune(job, None)
