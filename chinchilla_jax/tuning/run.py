"""A tuning run: the ordinary loop on packed examples, validation by loss and by doing the task, the best step."""

from typing import Any

import jax

from chinchilla_jax.config import require
from chinchilla_jax.disk import write_json, write_text
from chinchilla_jax.evaluation import ranks
from chinchilla_jax.evaluation.tasks import Validator, write_predictions
from chinchilla_jax.tasks.data import TaskData
from chinchilla_jax.tasks.kept import FILE
from chinchilla_jax.tasks.kinds import table as kinds
from chinchilla_jax.tasks.template import JINJA, jinja
from chinchilla_jax.training import best, mirror
from chinchilla_jax.training.hooks import Hook
from chinchilla_jax.training.load import load
from chinchilla_jax.training.loop import pretrain
from chinchilla_jax.training.metrics import Terminal, read
from chinchilla_jax.training.program import Program
from chinchilla_jax.tuning.start import Job

PREDICTIONS = "predictions.jsonl"
VALIDATION = "validation"  # the name of its hook


def finetune(job: Job, terminal: Terminal, *, allow_changes: bool = False) -> dict[str, Any]:
    """Tune to the last step, or until validation says that it is enough; the figures of the best and the last step."""
    config, run_dir = job.config, job.run_dir
    kind = job.data.kind
    metric = kind.metric_of(config.task.metric)
    patience = config.task.patience

    def enough() -> bool:
        return bool(patience) and best.read(run_dir).get("since", 0) >= patience

    def hooks(program: Program, data: TaskData) -> list[Hook]:
        keep(job)  # not before the run's own settings are known to be these
        validator = Validator(program, data, data.valid)
        kind.prepare(validator, validator.judge, run_dir)
        budget = program.recipe.schedule(config.train.steps)
        first = budget.last + 1 if budget else 0  # before, more of an adapter lives than its budget allows

        def validate(state, poll):
            step = int(state.step)
            row, predictions = validator(program.evaluated(state), poll)
            rows = [old for old in read(run_dir / "metrics.jsonl") if first <= old["step"] < step]
            now = [{"step": step, **row}] if step >= first else []
            found = best.choose([*rows, *now], metric, kind.lower_is_better(metric))
            if jax.process_index() == 0:
                best.write(run_dir, found)
                if found.get("step") == step:
                    write_predictions(run_dir / PREDICTIONS, predictions)
            return row

        return [Hook(config.train.eval_every, validate, VALIDATION), *ranks.hooks(program)]

    last = pretrain(
        config, run_dir, job.data, hooks, terminal, allow_changes=allow_changes,
        make_batches=TaskData.batches, enough=enough,
    )  # fmt: skip
    rows = read(run_dir / "metrics.jsonl")
    chosen = best.read(run_dir)
    require(
        bool(chosen) or not any(row.get("hook_failed") == VALIDATION for row in rows),
        f"every validation of {run_dir} failed, as the warnings say, so no step is the best; mend that and judge the "
        f"last step with evaluate --run-dir {run_dir} --task",
    )
    at_best = {
        k: v for row in rows if row["step"] == chosen.get("step") for k, v in row.items() if k.startswith("valid_")
    }
    test = tested(job, at_best)  # first, since its judge notes how it scores
    return {
        "run_dir": mirror.name(run_dir),
        "method": config.tune.method,
        "base": config.tune.base,
        "kind": config.task.kind,
        "labels": list(config.task.labels),
        "examples": job.data.summary(),
        "metric": metric,
        "best_step": chosen.get("step"),
        "best": at_best,
        "last_step": last["step"],
        "last": {name: value for name, value in last.items() if name != "step"},
        **test,
    }


def keep(job: Job) -> None:
    """Put what the task needs in later use into the run directory: task.json and the template."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    if jax.process_index():
        return
    data = job.data
    metric = data.kind.metric_of(data.task.metric)
    write_json(job.run_dir / FILE, data.describe(metric=metric))
    if data.kind.keeps_template:
        text = jinja(data.renderer.template, bool(data.tokenizer.start))
        write_text(job.run_dir / JINJA, text)


def tested(job: Job, best: dict[str, float]) -> dict[str, Any]:
    """The figures of --task.test under the best parameters."""
    if not job.data.test:
        return {}
    loaded = load(job.config, str(job.run_dir), make=kinds.of_task)
    tuned = {name.removeprefix("valid_"): value for name, value in best.items()}
    figures, predictions = Validator(loaded.program, job.data, job.data.test, "test", tuned)(loaded.params)
    write_predictions(job.run_dir / f"test_{PREDICTIONS}", predictions)
    return {"test": figures}
