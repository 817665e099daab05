"""A run on examples of its task that it was not tuned on: figures, predictions and a report beside its own."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import Config, require
from chinchilla_jax.disk import read_json, write_json, write_text
from chinchilla_jax.evaluation import attacked
from chinchilla_jax.evaluation.attack import Attack
from chinchilla_jax.evaluation.tasks import Validator, write_predictions
from chinchilla_jax.tasks.data import TaskData, as_tuned, open_task
from chinchilla_jax.tasks.kinds import table as kinds
from chinchilla_jax.training.load import Loaded, load
from chinchilla_jax.training.metrics import Terminal
from chinchilla_jax.tuning import report

NAME = "evaluated"  # of the files: figures, predictions, report
SEEN = "these records are those of validation, by which the best step was chosen; name others with --task.test FILE"


def examine(
    config: Config, run_dir: Path, out: Path, given: set[str], attack: Attack | None, terminal: Terminal
) -> dict[str, Any]:
    """Judge the run by --task.test: the file given now, else the task's own, else what it was validated on.

    Settings are those that the run was tuned with, unless the command line has others; `given` names these. Thresholds
    are those of its validation. `attack` is what the inputs suffer beside, if anything.
    """
    loaded = load(config, str(run_dir), make=kinds.of_task)
    with tempfile.TemporaryDirectory() as scratch:
        data = examples(config, loaded, run_dir, Path(scratch), "task.test" in given)
        if attack:
            attacked.check(data.kind, loaded.program.config)
        records, seen = data.test or data.valid, [] if data.test else [SEEN]
        validator = Validator(loaded.program, data, records, "test", tuned(run_dir))
        figures, predictions = validator(loaded.params)
        found = {
            "run_dir": loaded.folder, "kind": data.kind.name, "labels": list(data.task.labels), "step": loaded.step,
            "records": len(records), "examples": [*seen, *data.notes, *data.encoder.tally.lines()], **figures,
        }  # fmt: skip
        if attack:
            found["attack"] = attacked.measure(validator, attack, loaded.params, terminal.say, terminal.show)
            found["under_attack"] = attacked.table(found["attack"], data.kind.metric)
    write_predictions(out / f"{NAME}_predictions.jsonl", predictions)
    if jax.process_index() == 0:
        write_json(out / f"{NAME}.json", found)
        write_text(out / f"{NAME}.md", page(run_dir.name, found, predictions))
    return found


def examples(config: Config, loaded: Loaded, run_dir: Path, scratch: Path, named: bool) -> TaskData:
    """The examples with the run's own tokenizer and template; of a file that was named, all are judged."""
    own, task = loaded.program.config.task, config.task
    kind = kinds.KINDS.get(task.kind)
    if named and not (kind and kind.pieces):
        task = dataclasses.replace(task, train=())
    require(bool(task.train or task.test), f"{run_dir} was tuned on no task; name examples with --task.test FILE")
    data = open_task(task, folder=run_dir, scratch=scratch, **as_tuned(config))
    require(
        not data.added,
        f"the tokenizer of {run_dir} lacks control pieces of the template {data.renderer.template.name}; set "
        "--task.template plain, or tune the run first",
    )
    require(
        data.kind.name == own.kind or not data.kind.heads(dataclasses.replace(config, task=data.task)),
        f"{run_dir} has no head for {data.kind.name}; tune it: finetune --run-dir NEW --from {run_dir} "
        "--task.train FILE",
    )
    return data


def tuned(run_dir: Path) -> dict[str, float]:
    """Figures of validation at the step that is loaded."""
    best = read_json(run_dir / report.FOUND, "write it again with finetune", missing={}).get("best", {})
    return {name.removeprefix("valid_"): value for name, value in best.items()}


def page(name: str, found: dict[str, Any], predictions: list[dict[str, Any]]) -> str:
    """The report."""
    figures = {key: value for key, value in found.items() if key.startswith("test_")}
    lines = [
        f"# {name}: {found['records']:,} records of {found['kind']}", "",
        *(f"- {key.removeprefix('test_')} {value:.4f}" for key, value in figures.items()),
        *(f"- {line}" for line in found["examples"]), "",
    ]  # fmt: skip
    if "attack" in found:
        shown = [*found["under_attack"], *found["attack"]["notes"]]
        lines += ["## Under attack", "", *(f"    {line}" for line in shown), ""]
    return "\n".join([*lines, *report.details(found, predictions)])
