"""A run directory as one page: loss curve, figures beside the compressors', a sample, the speed."""

import json
import statistics
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.disk import write_text
from chinchilla_jax.errors import UserError
from chinchilla_jax.training import origin
from chinchilla_jax.training.metrics import read, si

PICTURE = "report.png"


def write(run_dir: Path, out: Path | None = None) -> dict[str, Any]:
    """Write report.md and its picture into `out` (the run directory) from what other commands left; the figures.

    A model that was imported has no curve to draw. Raises `UserError` where nothing was trained yet.
    """
    out = out or run_dir
    rows = read(run_dir / "metrics.jsonl")
    sources = origin.lines(run_dir)
    require(bool(rows or sources), f"{run_dir} has no metrics yet; run pretrain --run-dir {run_dir} first")
    figures = summary(run_dir, rows) | ({"came_from": sources} if sources else {})
    out.mkdir(parents=True, exist_ok=True)
    if rows:
        draw(rows, figures, out / PICTURE)
    write_text(out / "report.md", page(run_dir, rows, figures))
    return figures


def summary(run_dir: Path, rows: list[dict]) -> dict[str, Any]:
    """The figures of a run: the whole-set evaluation where there is one of the last step, else the last validation."""
    figures: dict[str, Any] = {"steps": max(row["step"] for row in rows)} if rows else {}
    for figure, name in LAST.items():
        if points := curve(rows, name):
            figures[figure] = points[-1][1]
    evaluation = run_dir / "evaluation.json"
    if evaluation.exists():
        try:
            found = json.loads(evaluation.read_text(encoding="utf-8"))
            figures |= found if found["step"] >= figures.get("steps", 0) else {}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{evaluation} is damaged ({error}); write it again with evaluate") from error
    if speeds := [row["tokens_per_s"] for row in read(run_dir / "timing.jsonl") if row.get("tokens_per_s")]:
        figures["tokens_per_s"] = statistics.median(speeds)
    return figures


LAST = {
    "train_loss": "loss",
    "loss_nats_per_token": "valid_loss",
    "bits_per_byte": "valid_bits_per_byte",
    "activation_zeros": "valid_activation_zeros",
    "density": "density",
}


def curve(rows: list[dict], name: str) -> list[tuple[int, float]]:
    """(step, figure) of the rows that have it; a skipped step's is null."""
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def draw(rows: list[dict], figures: dict[str, Any], path: Path) -> None:
    """The loss curve in bits per byte, with the compressors as lines to get below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if trained := curve(rows, "bits_per_byte"):
        axes.plot(*zip(*trained), color="tab:blue", alpha=0.6, linewidth=1, label="training")
    if valid := curve(rows, "valid_bits_per_byte"):
        axes.plot(*zip(*valid), color="tab:orange", marker="o", label="validation")
    for name, style in (("gzip", ":"), ("xz", "--")):
        if figures.get(f"{name}_bits_per_byte") is not None:
            axes.axhline(figures[f"{name}_bits_per_byte"], color="gray", linestyle=style, label=name)
    axes.set(xlabel="step", ylabel="bits per byte", title=f"{figures['steps']} steps")
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


ROWS = (
    ("steps", "steps", "{}"),
    ("tokens per second (median)", "tokens_per_s", "{:,.0f}"),
    ("training loss, last step, nats per token", "train_loss", "{:.4f}"),
    ("token store that `evaluate` read", "store", "{}"),
    ("validation loss, nats per token", "loss_nats_per_token", "{:.4f}"),
    ("validation perplexity", "perplexity", "{:.2f}"),
    ("**validation bits per byte**", "bits_per_byte", "**{:.4f}**"),
    ("density of the weight matrices", "density", "{:.4f}"),
    ("hidden activations that are 0", "activation_zeros", "{:.4f}"),
    ("`xz -9e` on the same text, bits per byte", "xz_bits_per_byte", "{:.4f}"),
    ("`gzip -9` on the same text, bits per byte", "gzip_bits_per_byte", "{:.4f}"),
)


def page(run_dir: Path, rows: list[dict], figures: dict[str, Any]) -> str:
    """report.md."""
    table = [
        f"| {label} | {form.format(figures[name])} |" for label, name, form in ROWS if figures.get(name) is not None
    ]
    samples = [row for row in rows if "sample" in row]
    lines = [
        f"# {run_dir.name}",
        "",
        *([f"![loss curve]({PICTURE})", ""] if rows else []),
        "| figure | value |",
        "| --- | --- |",
        *table,
        "",
    ]
    if sources := figures.get("came_from"):
        lines += ["## Where it came from", "", *(f"- {source}" for source in sources), ""]
    if samples:
        lines += [
            f"## What it writes after step {samples[-1]['step']}",
            "",
            "```text",
            samples[-1]["sample"],
            "```",
            "",
        ]
    return "\n".join(lines)


def headline(figures: dict[str, Any]) -> str:
    """The report in a line or two, for the terminal."""
    parts = [f"{figures['steps']} steps"] if "steps" in figures else []
    if figures.get("came_from"):
        parts.append(f"from {figures['came_from'][0]}")
    if "tokens_per_s" in figures:
        parts.append(f"{si(figures['tokens_per_s'])} tokens/s")
    names = (("bits_per_byte", "model"), ("xz_bits_per_byte", "xz -9e"), ("gzip_bits_per_byte", "gzip -9"))
    beside = [f"{label} {figures[name]:.3f}" for name, label in names if figures.get(name) is not None]
    return ", ".join(parts) + (f"; bits per byte on the validation text: {', '.join(beside)}" if beside else "")
