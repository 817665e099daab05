"""A tuned run as one page: figures of the best and the last step, curves, confusions, examples of what it answers."""

import json
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.disk import read_json, write_text
from chinchilla_jax.tasks.kinds.table import kind_of
from chinchilla_jax.training.metrics import read
from chinchilla_jax.tuning.run import PREDICTIONS

FOUND = "finetune.json"  # the figures of a run, which the page is written from
PICTURE = "report.png"
EXAMPLES = 10
LONGEST = 300  # characters of a text in an example
SHOWN = 20  # characters of a label in the picture


def headline(found: dict[str, Any]) -> str:
    """Best and last step in two lines, and the test's figures in a third."""
    named = f"checkpoint {found['best_step']} by {found['metric']} ({told(found['best'])})"
    none = f"none, since {found['metric']} was a number in no validation"
    last = {name: value for name, value in found["last"].items() if name == "loss" or name in found["best"]}
    lines = [
        f"best: {none if found['best_step'] is None else named}",
        f"last: checkpoint {found['last_step']} ({told(last)})",
    ]
    return "\n".join([*lines, *([f"test, with the best: {told(found['test'])}"] if "test" in found else [])])


def told(figures: dict[str, Any]) -> str:
    """Figures in a row."""
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))


def write(run_dir: Path, out: Path | None = None) -> dict[str, Any]:
    """Write report.md and its picture from what the run has left; its figures."""
    require((run_dir / FOUND).exists(), f"{run_dir} has not ended yet; go on with finetune --run-dir {run_dir}")
    found, out = read_json(run_dir / FOUND, "write it again with finetune"), out or run_dir
    rows, predictions = read(run_dir / "metrics.jsonl"), read(run_dir / PREDICTIONS)
    out.mkdir(parents=True, exist_ok=True)
    draw(rows, found, kind_of(found["kind"]).matrix(found, predictions), out / PICTURE)
    write_text(out / "report.md", page(run_dir.name, found, predictions))
    return found


def draw(rows: list[dict], found: dict[str, Any], matrix: list[list[int]], path) -> None:
    """Losses, the figure that chooses, and the confusions where there are any."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * (3 if matrix else 2), 4), layout="constrained")
    axes = figure.subplots(1, 3 if matrix else 2)
    for name, style in (("loss", {"alpha": 0.6, "linewidth": 1}), ("valid_loss", {"marker": "o"})):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            axes[0].plot(*zip(*points), label=name, **style)
    axes[0].set(xlabel="step", ylabel="loss, nats", title="loss")
    axes[0].legend()
    metric = found["metric"]
    points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    if points:
        axes[1].plot(*zip(*points), marker="o")
    if found["best_step"] is not None:
        axes[1].axvline(found["best_step"], color="gray", linestyle=":", label="best")
        axes[1].legend()
    axes[1].set(
        xlabel="step",
        title=f"{metric} ({'lower' if kind_of(found['kind']).lower_is_better(metric) else 'higher'} is better)",
    )
    if matrix:
        axes[2].imshow(matrix, cmap="Blues")
        axes[2].set(xlabel="predicted", ylabel="label", title="validation, best step")
        how = {"labels": ticks(found["labels"]), "fontsize": 7, "parse_math": False}
        axes[2].set_xticks(range(len(matrix)), rotation=90, **how)
        axes[2].set_yticks(range(len(matrix)), **how)
    for each in axes[:2]:
        each.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def ticks(labels: list[str]) -> list[str]:
    """Names for an axis, cut where they are long; for one that the font cannot write its place in "By label"."""
    from matplotlib import font_manager

    written = font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap()
    cut = [f"{name[:SHOWN]}..." if len(name) > SHOWN + 3 else name for name in labels]
    return [name if all(ord(c) in written for c in name) else f"{place}." for place, name in enumerate(cut, 1)]


def page(name: str, found: dict[str, Any], predictions: list[dict]) -> str:
    """report.md."""
    lines = [
        f"# {name}", "", f"`{found['method']}` on {found['kind']}, from `{found['base']}`.", "",
        f"![curves]({PICTURE})", "", *(f"- {line}" for line in (*headline(found).splitlines(), *found["examples"])), "",
    ]  # fmt: skip
    return "\n".join([*lines, *details(found, predictions)])


def details(found: dict[str, Any], predictions: list[dict]) -> list[str]:
    """The tables of the kind of task, and examples of what is wrong."""
    kind = kind_of(found["kind"])
    lines, wrong = kind.sections(found, predictions), [row for row in predictions if kind.wrong(row)]
    if wrong:
        lines += ["## Where output and reference differ", ""]
        lines += [*(f"    {json.dumps(shortened(row), ensure_ascii=False)}" for row in wrong[:EXAMPLES]), ""]
    return lines


def shortened(value: Any) -> Any:
    """A prediction whose long texts are cut in the middle."""
    if isinstance(value, dict):
        return {name: shortened(each) for name, each in value.items()}
    if isinstance(value, list):
        return list(map(shortened, value))
    half = LONGEST // 2
    return f"{value[:half]} ... {value[-half:]}" if isinstance(value, str) and len(value) > LONGEST else value
