"""A fitted law as a page and as one plain dict."""

import dataclasses
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.commands.plan import amount
from chinchilla_jax.scaling import lawfile
from chinchilla_jax.scaling.analysis import Analysis, standard_errors
from chinchilla_jax.scaling.approaches import vertex_shift
from chinchilla_jax.scaling.fit import Fit
from chinchilla_jax.scaling.minimise import NAMES


def write(found: Analysis, folder: Path) -> list[str]:
    """law.json, fit.md and, where matplotlib is installed, the pictures; the law first."""
    folder.mkdir(parents=True, exist_ok=True)
    lawfile.save(found.law, folder / "law.json")
    pictures = []
    if find_spec("matplotlib") is not None:
        from chinchilla_jax.commands import fit_plots

        pictures = fit_plots.draw(found, folder)
    shown = "".join(f"\n![{Path(p).stem}]({Path(p).name})\n" for p in pictures)
    (folder / "fit.md").write_text(page(found) + "\n" + shown, encoding="utf-8")
    return [str(folder / "law.json"), str(folder / "fit.md"), *pictures]


def figures(found: Analysis) -> dict[str, Any]:
    """Everything, ready for JSON; the replicates and rows stay in the law file and the table."""
    runs, law = found.fit.runs, found.law
    return {
        "law": {"form": law.forms[0].form, **dict(zip(NAMES, law.forms[0].theta)), "unit": law.unit,
                "count": law.count, "accounting": law.accounting, "per_nd": law.per_nd, "dataset": law.dataset,
                "tokenizer": law.tokenizer, "ranges": law.ranges},
        "forms": [_member(found, i) for i in range(len(law.forms))],
        "held_out": None if found.held_out is None else dict(zip(("inside", "losses"), map(int, found.held_out))),
        "source": runs.source,
        "rows": len(runs.N),
        "clusters": runs.clusters,
        "dropped": list(runs.dropped),
        "converged": found.fit.converged,
        "estimator": law.estimator,
        "standard_errors": standard_errors(found.replicates),
        "level": found.settings.level,
        "profile": {name: list(edges) for name, edges in found.profiles.items()},
        "answers": found.answers,
        "sensitivity": [dataclasses.asdict(row) for row in found.sensitivity],
        "rollout": [dataclasses.asdict(row) for row in found.rollout],
        "residuals": residual_table(found.fit),
        "trends": trends(found.fit),
        "approach_1": _line(found.envelope),
        "approach_2": _isoflop(found),
        "warnings": found.warnings,
    }  # fmt: skip


def _member(found: Analysis, i: int) -> dict[str, Any]:
    """A form of the mixture and what it alone says at the first budget."""
    one, C = found.law.forms[i], found.settings.flops[0]
    N, D = found.members[i].fit.surface.optimum(C, found.law.per_nd)
    return {"form": one.form, "weight": one.weight, "rollout": one.rollout, "converged": one.converged,
            **dict(zip(NAMES, one.theta)), "params": float(N), "tokens_per_param": float(D / N)}  # fmt: skip


def _line(found) -> dict[str, Any]:
    if isinstance(found, str):
        return {"refused": found.removeprefix("refused: ")}
    return {"exponent_n": found.exponent, "intercept": found.intercept, "warnings": list(found.warnings)}


def _isoflop(found: Analysis) -> dict[str, Any]:
    if isinstance(found.isoflop, str):
        return _line(found.isoflop)
    line, budgets = found.isoflop
    return _line(line) | {"budgets": [_budget(found, budget) for budget in budgets]}


def _budget(found: Analysis, budget) -> dict[str, Any]:
    runs = found.fit.runs
    sizes = runs.N[[i for i, row in enumerate(runs.row) if row in budget.rows]]
    shift = vertex_shift(found.fit.surface, budget.C, sizes, runs.per_nd)
    return {"flops": budget.C, "params": budget.N, "params_akima": budget.akima, "loss": budget.loss, "ln_bias": shift}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table that reads well in a terminal too."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def page(found: Analysis) -> str:
    """fit.md."""
    parts = [
        _head(found),
        _proof(found),
        _forms(found),
        _answers(found),
        _sensitivity(found),
        _rollout(found),
        _residuals(found),
    ]
    parts += [_approaches(found)]
    if found.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {line}" for line in found.warnings))
    return "\n\n".join(parts)


def _head(found: Analysis) -> str:
    law, runs, theta = found.law, found.fit.runs, found.fit.theta
    errors = standard_errors(found.replicates)
    k = f")^{law.surface.k:.4f}" if law.forms[0].form in ("skaling", "kaplan") else ""
    a, b, e = (float(v) for v in (law.surface.a, law.surface.b, law.surface.e))
    lines = [
        f"# {law.name}",
        "",
        f"L = exp({e:.8f}) + {'(' if k else ''}exp({a:.8f}) / N^{theta[3]:.8f} + exp({b:.8f}) / D^{theta[4]:.8f}{k}",
        "",
        f"L in {law.unit}, N = {law.count}, C = {law.accounting} ({law.per_nd:.4g} N D); data {law.dataset}, tokenizer "
        f"{law.tokenizer}",
        f"{len(runs.N)} rows of {runs.clusters} independent runs from {runs.source}: N {amount(runs.N.min())} to "
        f"{amount(runs.N.max())}, D {amount(runs.D.min())} to {amount(runs.D.max())}, C {runs.C.min():.3g} to "
        f"{runs.C.max():.3g}",
        *(f"left out: {line}" for line in runs.dropped),
        "",
        "standard errors: " + ", ".join(f"{name} {value:.6g}" for name, value in errors.items()),
    ]
    return "\n".join(lines)


def _proof(found: Analysis) -> str:
    fit, law = found.fit, found.law
    state = "converged" if fit.converged else "**NOT converged**"
    boot = law.estimator["bootstrap"]
    profile = "; ".join(f"{name} ({low:.4f}, {high:.4f})" for name, (low, high) in found.profiles.items())
    return (
        f"{fit.goal.label}: {state}, relative gradient norm {fit.gradient:.1e}, {fit.agreement:.0%} of "
        f"{len(fit.starts)} starts agree, objective {fit.value:.10g}, condition number {fit.condition:.3g}, "
        f"tokens per parameter over a factor {law.estimator['tokens_per_param_spread']:.3g}.\n"
        f"Bootstrap over independent runs: {boot['replicates']} replicates, seed {boot['seed']}, {boot['protocol']}. "
        f"Profile likelihood, {found.settings.level:.0%}: {profile}."
    )


def _forms(found: Analysis) -> str:
    rows = [
        [one["form"], f"{one['weight']:.1%}", "" if one["rollout"] is None else f"{100 * one['rollout']:.2f} %",
         amount(one["params"]), f"{one['tokens_per_param']:.3g}", "" if one["converged"] else "unconverged"]
        for one in (_member(found, i) for i in range(len(found.members)))
    ]  # fmt: skip
    head = ("form", "weight", "error of its roll-out", "N*", "D/N", "")
    said = "The first gives the values, all of them the intervals, each with its weight (1 / error^2)."
    if found.held_out:
        inside, count = found.held_out
        said += (
            f" By the same procedure {inside} of the {count} losses of most compute lie inside the "
            f"{found.settings.level:.0%} interval that the other runs give."
        )
    return f"## Forms, at {found.settings.flops[0]:.3g} FLOPs\n\n{table(head, rows)}\n\n{said}"


def _between(figure: dict[str, Any], form) -> str:
    low, high = ("never" if end is None else form(end) for end in figure["interval"])
    return f"{form(figure['value'])} ({low}, {high})"


def _answers(found: Analysis) -> str:
    rows = []
    for row in found.answers:
        low, high = row["loss"]["prediction"]
        rows.append([
            f"{row['C']:.3g}" + ("" if row["inside"] else " beyond the runs"), _between(row["params"], amount),
            _between(row["tokens"], amount), _between(row["tokens_per_param"], "{:.3g}".format),
            _between(row["loss"], "{:.4f}".format), f"({low:.4f}, {high:.4f})",
        ])  # fmt: skip
    head = ("FLOPs", "N*", "D*", "D/N", "loss", "loss of a new run")
    return f"## Best model of a budget, {found.settings.level:.0%} intervals\n\n" + table(head, rows)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _sensitivity(found: Analysis) -> str:
    rows = [
        [r.what, "" if r.params is None else amount(r.params), _number(r.tokens_per_param, ".3g"),
         _number(r.loss, ".4f"), _number(r.exponent, ".4f"), r.note]
        for r in found.sensitivity
    ]  # fmt: skip
    head = ("choice", "N*", "D/N", "loss", "a of N* ~ C^a", "")
    return f"## Other choices, at {found.settings.flops[0]:.3g} FLOPs\n\n" + table(head, rows)


def _rollout(found: Analysis) -> str:
    rows = [
        [str(r.fitted_on), f"{r.C_fitted:.3g}", str(r.predicted), f"{r.C_predicted:.3g}",
         "" if r.mean_error is None else f"{100 * r.mean_error:+.2f} %",
         "" if r.worst_error is None else f"{100 * r.worst_error:+.2f} %", r.note]
        for r in found.rollout
    ]  # fmt: skip
    head = ("fitted on", "up to FLOPs", "predicted", "up to FLOPs", "mean error", "worst error", "")
    return "## The largest runs predicted from the others\n\n" + table(head, rows)


def _residuals(found: Analysis) -> str:
    rows = [
        [str(r["row"]), amount(r["params"]), amount(r["tokens"]), f"{r['loss']:.4f}", f"{r['residual_percent']:+.2f} %"]
        for r in residual_table(found.fit)
    ]
    thirds = [[r["by"], *(f"{r[k]:+.3f} %" for k in ("low", "middle", "high"))] for r in trends(found.fit)]
    worst = table(("row", "N", "D", "loss", "predicted minus observed"), rows)
    return f"## Residuals\n\n{worst}\n\n" + table(("mean, by thirds of", "low", "middle", "high"), thirds)


def _approaches(found: Analysis) -> str:
    lines = ["## The other approaches", ""]
    for name, line in (("1, envelope", found.envelope), ("2, isoFLOP parabolas", found.isoflop)):
        if isinstance(line, str):
            lines.append(f"Approach {name}: {line}")
            continue
        line = line if name[0] == "1" else line[0]
        lines.append(f"Approach {name}: N* ~ C^{line.exponent:.4f}. {'; '.join(line.warnings)}")
    if not isinstance(found.isoflop, str):
        rows = [
            [f"{b['flops']:.3g}", amount(b["params"]), "" if b["params_akima"] is None else amount(b["params_akima"]),
             f"{100 * b['ln_bias']:+.2f} %"]
            for b in _isoflop(found)["budgets"]
        ]  # fmt: skip
        head = ("FLOPs", "parabola's N*", "Akima's N*", "bias of the parabola on the fitted law")
        lines += ["", table(head, rows)]
    return "\n".join(lines)


def residual_table(found: Fit, rows: int = 10) -> list[dict[str, float]]:
    """The rows that the law misses most, and the mean miss by thirds of N, D and D / N (a saddle shows there)."""
    order = np.argsort(-np.abs(found.residuals))[:rows]
    runs = found.runs
    return [
        {"row": int(runs.row[i]), "params": float(runs.N[i]), "tokens": float(runs.D[i]), "loss": float(runs.loss[i]),
         "residual_percent": 100 * float(np.expm1(found.residuals[i]))}
        for i in order
    ]  # fmt: skip


def trends(found: Fit) -> list[dict[str, float | str]]:
    """Mean residual in per cent by thirds of parameters, tokens and tokens per parameter; structure is form error."""
    runs, table = found.runs, []
    for what, values in (("params", runs.N), ("tokens", runs.D), ("tokens_per_param", runs.D / runs.N)):
        thirds = np.array_split(np.argsort(values, kind="stable"), 3)
        means = [100 * float(np.expm1(found.residuals[part].mean())) if len(part) else float("nan") for part in thirds]
        table.append(dict(zip(("by", "low", "middle", "high"), (what, *means))))
    return table
