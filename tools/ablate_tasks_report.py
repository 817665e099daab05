"""Scores of a tuned run, clean and attacked, and the report of tools/ablate_tasks.py by the rule set before it."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

Figures = dict[str, dict[str, Any]]  # by the name of the run

RULE = """A difference is taken seed by seed against its own control: a pretraining recipe against plain pretraining,
both tuned plainly; a tuning method against plain tuning, both of the plain base. It counts on a task where Student's t
over the seeds rejects 0 at 5 %, after Holm's correction over the tasks. A recipe or method is worth it for clean scores
where it is better on two tasks or more and worse on none. It is worth it for robustness where the same holds for the
mean of the scores under noise, swaps and attack, and no mean clean score falls by more than half a point. Defaults and
claims follow these answers; where cells are missing there is no answer."""
RATES = {"noise": 0.05, "swaps": 0.1}
RADIUS = 0.1
HARD = ("noise", "swaps", "attack")


def scored(folder: Path, test: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Accuracy of a run on its test: clean, with wrong characters, with swapped words, under attack; and its ECE."""
    import tempfile
    from functools import partial

    import numpy as np

    from chinchilla_jax.config import replace as changed
    from chinchilla_jax.evaluation.tasks import Validator
    from chinchilla_jax.evaluation.typos import corrupt
    from chinchilla_jax.tasks import augment
    from chinchilla_jax.tasks.data import as_tuned, open_task
    from chinchilla_jax.tasks.kinds import table
    from chinchilla_jax.training.load import load
    from chinchilla_jax.training.resume import own_config

    own = own_config(folder)
    loaded = load(own, str(folder), make=table.of_task)
    with tempfile.TemporaryDirectory() as scratch:
        task = replace(own.task, test=(str(test),))
        data = open_task(task, folder=folder, scratch=Path(scratch), **as_tuned(own))
    swap = changed(own, {"task.swap": RATES["swaps"]}).task

    def rewritten(change: Callable) -> list:
        draw = np.random.default_rng(0)
        return [replace(r, texts=tuple(change(text, draw) for text in r.texts)) for r in data.test]

    texts = {
        "clean": data.test,
        "noise": rewritten(lambda text, draw: corrupt(text, RATES["noise"], draw)[0]),
        "swaps": rewritten(lambda text, draw: augment.changed(text, swap, (), draw)),
    }
    found = {}
    for name, records in texts.items():
        figures, _ = Validator(loaded.program, data, records, name)(loaded.params)
        found[name] = figures[f"{name}_accuracy"]
        if name == "clean":
            found["ece"] = figures["clean_ece"]
    validator = Validator(loaded.program, data, data.test, "attack")
    return found | {"attack": attacked(validator, loaded.params, partial(fgm, cfg=loaded.program.config.model))}


def fgm(params: Any, batch: Any, *, cfg: Any):
    """The labels chosen under one step of RADIUS along the gradient of every token, (B, L)."""
    import jax
    import jax.numpy as jnp

    from chinchilla_jax.model import transformer
    from chinchilla_jax.objectives.perturb import allowed, steepest, unit
    from chinchilla_jax.tasks.kinds.heads import logits, rows

    def scores(delta_BLD):
        return logits(transformer.apply(params, batch, cfg, delta_BLD=delta_BLD), rows(params))

    def total(delta_BLD):
        logp_BLC = jax.nn.log_softmax(scores(delta_BLD))
        return -jnp.sum(batch.weights * jnp.take_along_axis(logp_BLC, batch.targets[..., None], -1)[..., 0])

    zero_BLD = jnp.zeros((*batch.tokens.shape, cfg.d_model))
    size = RADIUS * cfg.embed_scale * unit("token", transformer.embedding(params), batch)
    delta_BLD = size * steepest(jax.grad(total)(zero_BLD), batch.segments, "l2_token") * allowed(batch, ())
    return jnp.argmax(scores(delta_BLD), -1)


def attacked(validator: Any, params: Any, run: Callable) -> float:
    """Accuracy where `run` chooses."""
    right = count = 0
    for _, batch, chosen_BL in validator.over(validator.compiled(run), params, lambda: None):
        asked_BL = batch.weights > 0
        right += int((chosen_BL == batch.targets)[asked_BL].sum())
        count += int(asked_BL.sum())
    return right / count


def read(path: Path) -> dict[str, Any]:
    """A JSON file; empty where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def figures(runs: Path, names: Sequence[str], shifts: Sequence[str], path: Path) -> Figures:
    """Figures by run: those of `path`, with those of the runs that are there over them; written to `path`."""
    found = read(path)
    for name in names:
        if scores := read(runs / name / "scores.json"):
            found[name] = scores | read(runs / name / "cost.json")
    told = {name: read(runs / f"{name}.json") for name in shifts}
    found |= {name: {k: v for k, v in one.items() if isinstance(v, int | float)} for name, one in told.items() if one}
    rows = (f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return found


def told(values: Sequence[float], scale: float = 100) -> str:
    """Mean and deviation."""
    if not values:
        return "empty"
    spread = f" ± {scale * statistics.stdev(values):.1f}" if len(values) > 1 else " (one seed)"
    return f"{scale * statistics.mean(values):.1f}{spread}"


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p of Student's t that the mean of paired differences is 0."""
    from scipy import stats

    if len(set(differences)) == 1:
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p: dict[str, float], level: float = 0.05) -> dict[str, bool]:
    """Which of some tests count at `level` together (Holm 1979)."""
    order, counts = sorted(p, key=p.__getitem__), {}
    for rank, name in enumerate(order):
        counts[name] = p[name] <= level / (len(p) - rank) and all(counts[other] for other in order[:rank])
    return counts


def verdict(differences: dict[str, Sequence[float]], seeds: int) -> str:
    """The rule on {task: differences by seed}: better, worse, no difference, or no answer where cells are missing."""
    if any(len(found) < seeds for found in differences.values()):
        return "no answer: cells are missing"
    counts = holm({task: p_value(found) for task, found in differences.items()})
    better = [task for task, found in differences.items() if counts[task] and statistics.mean(found) > 0]
    worse = [task for task, found in differences.items() if counts[task] and statistics.mean(found) < 0]
    answer = "worth it" if len(better) > 1 and not worse else "not worth it"
    return f"{answer} (better: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'})"


class Grid:
    """Scores of the downstream cells by (task, recipe, tuned, seed)."""

    def __init__(self, found: Figures, of: Any):
        self.of = of
        self.found = {
            (task, recipe, tuned, seed): found[name]
            for task in of.TASKS for recipe in of.PRETRAINED for tuned in of.TUNED for seed in of.SEEDS
            if (name := f"downstream/{task}/{recipe}/{tuned}-s{seed}") in found
        }  # fmt: skip

    def values(self, task: str, recipe: str, tuned: str, name: str) -> list[float]:
        """One figure over the seeds that are there."""
        keys = [(task, recipe, tuned, seed) for seed in self.of.SEEDS]
        return [self.found[key][name] for key in keys if key in self.found]

    def differences(
        self, task: str, one: tuple[str, str], control: tuple[str, str], names: Sequence[str]
    ) -> list[float]:
        """The mean of some figures, less that of the control of the same seed."""
        found = []
        for seed in self.of.SEEDS:
            pair = [self.found.get((task, *key, seed)) for key in (one, control)]
            if all(pair):
                mine, other = (statistics.mean(scores[name] for name in names) for scores in pair)
                found.append(mine - other)
        return found


def page(found: Figures, cells: Sequence[Any], of: Any) -> str:
    """The report."""
    grid = Grid(found, of)
    empty = [cell.name for cell in cells if cell.name not in found]
    lines = [
        "# Downstream: pretraining recipes and tuning methods", "",
        f"{len(cells) - len(empty)} of {len(cells)} runs are there. By `tools/ablate_tasks.py`, with the rule that was",
        "set before them (`plan.json`):", "", *(f"> {line}" for line in RULE.splitlines()), "", *conclusions(grid, of),
        *(row for task in of.TASKS for row in task_table(grid, task, of)), *method_tables(found, of),
        *shift_table(found, of), "## Empty cells", "", *missing(empty, cells), "",
    ]  # fmt: skip
    return "\n".join(lines)


def missing(empty: Sequence[str], cells: Sequence[Any]) -> list[str]:
    """How many cells of each part of the tables are empty."""
    of = Counter("/".join(cell.name.split("/")[:2]) for cell in cells)
    found = Counter("/".join(name.split("/")[:2]) for name in empty)
    return [f"- `{name}`: {found[name]} of {count}" for name, count in of.items() if found[name]] or ["None."]


def conclusions(grid: Grid, of: Any) -> list[str]:
    """The rule's answers."""
    lines = ["## Answers of the rule", ""]
    pairs = [
        (f"{recipe} pretraining", (recipe, "plain"), ("plain", "plain"))
        for recipe in of.PRETRAINED
        if recipe != "plain"
    ]
    pairs += [(f"tuning with {tuned}", ("plain", tuned), ("plain", "plain")) for tuned in of.TUNED if tuned != "plain"]
    for name, one, control in pairs:
        for what, figures in (("clean", ("clean",)), ("robust", HARD)):
            found = {task: grid.differences(task, one, control, figures) for task in of.TASKS}
            answer = verdict(found, len(of.SEEDS))
            clean = {task: grid.differences(task, one, control, ("clean",)) for task in of.TASKS}
            fell = [task for task, values in clean.items() if values and statistics.mean(values) < -0.005]
            if what == "robust" and answer.startswith("worth") and fell:
                answer = f"not worth it (clean falls on {', '.join(fell)})"
            lines.append(f"- {name}, {what}: {answer}")
    return [*lines, ""]


def task_table(grid: Grid, task: str, of: Any) -> list[str]:
    """Every figure of a task, a row for every recipe and tuning."""
    names = ("clean", *HARD, "ece")
    lines = [f"## {task}", "", f"| pretrained | tuned | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for recipe in of.PRETRAINED:
        for tuned in of.TUNED:
            row = [told(grid.values(task, recipe, tuned, name)) for name in names]
            lines.append(f"| {recipe} | {tuned} | {' | '.join(row)} |")
    return [*lines, ""]


def method_tables(found: Figures, of: Any) -> list[str]:
    """Methods against each other at about equal trained parameters."""
    lines = ["## Methods", "", "| task | method | accuracy | trained parameters | MB | seconds |", "| --- " * 6 + "|"]
    for task in of.METHOD_TASKS:
        for method in of.METHODS:
            names = [f"methods/{task}/{method}-s{seed}" for seed in of.SEEDS]
            there = [found[name] for name in names if name in found]
            more = ["", "", ""]
            if there:
                size, memory, seconds = (
                    statistics.mean(cell[name] for cell in there)
                    for name in ("trained_parameters", "memory_bytes", "seconds")
                )
                more = [f"{size:,.0f}", f"{memory / 1e6:.0f}", f"{seconds:.0f}"]
            lines.append(f"| {task} | {method} | {told([cell['clean'] for cell in there])} | {' | '.join(more)} |")
    return [*lines, ""]


def shift_table(found: Figures, of: Any) -> list[str]:
    """Bits per byte on other text, beside the difference to plain."""
    lines = ["## Other text", "", f"| pretrained | {' | '.join(of.SHIFTS)} |", "| --- " * (len(of.SHIFTS) + 1) + "|"]
    for recipe in of.PRETRAINED:
        cells = [found.get(f"shift/{recipe}-{source}", {}) for source in of.SHIFTS]
        row = [f"{cell['bits_per_byte']:.3f}" if cell else "empty" for cell in cells]
        lines.append(f"| {recipe} | {' | '.join(row)} |")
    return [*lines, ""]
