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


def test_a_run_that_is_refused_keeps_its_task_and_template(job, monkeypatch):
    def pretrain(config, run_dir, data, hooks, terminal, **how):
        raise UserError("a run with other settings")

    monkeypatch.setattr(run, "pretrain", pretrain)
    with pytest.raises(UserError, match="other settings"):
        run.finetune(job, None)
    assert not job.run_dir.exists()


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
    job.run_dir.mkdir(parents=True)
    monkeypatch.setattr(run, "pretrain", lambda *given, **how: (job.run_dir / "metrics.jsonl").write_text(row))
    with pytest.raises(UserError, match=r"every validation of .*runs/new failed, as the warnings say, so no step is"):
        run.finetune(job, None)


def test_the_best_step_under_a_budget_is_one_of_the_final_ranks(job, monkeypatch):
    """Higher figures from before the budget was reached are those of a larger adapter."""
    monkeypatch.setattr(run, "jinja", lambda template, begins: "")
    losses = {4: 0.1, 6: 0.2, 7: 0.5, 9: 0.4}
    kind = job.data.kind
    kind.metric_of, kind.lower_is_better = (lambda named: "valid_loss"), (lambda metric: True)
    kind.prepare = lambda validator, judge, folder: None
    job.data.valid, job.data.summary = [], list
    chosen = []

    class Judged:
        judge = None

        def __call__(self, loss, poll):
            return {"valid_loss": loss}, []

    monkeypatch.setattr(run, "Validator", lambda *told: Judged())

    def pretrain(config, run_dir, data, hooks, terminal, **how):
        recipe = SimpleNamespace(schedule=lambda steps: SimpleNamespace(last=6))
        program = SimpleNamespace(
            recipe=recipe, evaluated=lambda state: losses[state.step],
            config=SimpleNamespace(train=SimpleNamespace(steps=9, eval_every=1)),
        )  # fmt: skip
        validate, ranks = hooks(program, data)
        assert (validate.name, ranks.name) == ("validation", "ranks")
        with (run_dir / "metrics.jsonl").open("w") as file:
            for step in losses:
                row = validate.run(SimpleNamespace(step=step), None)
                file.write(json.dumps({"step": step, **row}) + "\n")
                file.flush()
                chosen.append(run.best.read(run_dir).get("step"))
        return {"step": 9, "loss": 0.3}

    monkeypatch.setattr(run, "pretrain", pretrain)
    found = run.finetune(job, None)
    assert chosen == [None, None, 7, 9] and (found["best_step"], found["best"]) == (9, {"valid_loss": 0.4})
