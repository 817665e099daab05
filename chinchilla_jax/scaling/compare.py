"""Two laws beside each other: how much less compute one recipe needs for what the other reaches."""

from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.scaling.analysis import Settings, law_of
from chinchilla_jax.scaling.fit import surface
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.lawfile import LawFile, percentiles
from chinchilla_jax.scaling.published import law_of as named
from chinchilla_jax.scaling.runs import read

TABLES = (".csv", ".jsonl", ".ndjson")


def opened(text: str, floor: float | None) -> LawFile:
    """The law of a name, of a law file, or of a table of runs, which is fitted with `floor` held, if given."""
    if Path(text).suffix not in TABLES:
        require(floor is None, f"--floor is for tables of runs, which are fitted with it; {text} is a law already")
        return named(text)
    return law_of(read(Path(text)), Settings(replicates=400, floor=floor, name=Path(text).stem))


def compare(a: LawFile, b: LawFile, budgets: tuple[float, ...] = (), level: float = 0.9) -> dict[str, Any]:
    """The speed-up of `a` over `b`: C over the compute at which `a` reaches what `b` does with C, each at its optimum.

    Raises `UserError` where losses are of two units.
    """
    require(a.unit == b.unit, f"{a.name} has losses in {a.unit}, {b.name} in {b.unit}: they do not compare")
    low, high = (f(a.ranges["C"][i], b.ranges["C"][i]) for i, f in ((0, max), (1, min)))
    require(bool(budgets) or (low < high and np.isfinite(high)), "the two laws share no range of compute; give --flops")
    rows = []
    for C in budgets or tuple(np.geomspace(low, 10 * high, 5)):
        rows.append({"flops": float(C), "inside": bool(low <= C <= high), **_speed_up(a, b, float(C), level)})
    same = a.dataset == b.dataset and a.tokenizer == b.tokenizer
    warnings = [] if same else [f"texts or tokenizers differ: {a.dataset}, {a.tokenizer}; {b.dataset}, {b.tokenizer}"]
    return {"a": a.name, "b": b.name, "unit": a.unit, "level": level, "rows": rows, "warnings": warnings}


def _speed_up(a: LawFile, b: LawFile, C: float, level: float) -> dict[str, Any]:
    ours, theirs = _leading(a, b)
    loss = float(theirs.loss(*theirs.optimum(C, b.per_nd)))
    value = C / float(ours.compute(loss, a.per_nd)) if loss > ours.loss(np.inf, np.inf) else 0.0
    found = {"loss": loss, "speed_up": value, "interval": None}
    if a.draws is None or b.draws is None:
        return found
    ours, theirs = _paired(a, b)
    losses = theirs.loss(*theirs.optimum(C, b.per_nd))
    with np.errstate(divide="ignore"):
        ratios = np.where(losses > np.exp(ours.e), C / ours.compute(losses, a.per_nd), 0.0)  # 0: it never gets there
    return found | {"interval": list(percentiles(ratios, level))}


def _leading(a: LawFile, b: LawFile) -> tuple[Surface, Surface]:
    """Both in one form, the first of `a` that `b` has too; each in its own where they share none."""
    both = [(x, y) for x in a.forms for y in b.forms if x.form == y.form] or [(a.forms[0], b.forms[0])]
    return tuple(surface(np.array(one.theta)) for one in both[0])


def _paired(a: LawFile, b: LawFile) -> tuple[Surface, Surface]:
    """Replicates of both in random pairs of one form: what a form gets wrong it gets wrong for both."""
    pots = [{one.form: one.draws for one in law.forms if one.draws is not None} for law in (a, b)]
    shared = [form for form in pots[0] if form in pots[1]]
    pairs = [(pots[0][form], pots[1][form]) for form in shared] or [(a.draws, b.draws)]
    chosen = []
    for ours, theirs in pairs:
        count, random = min(len(ours), len(theirs)), np.random.RandomState(0)
        chosen.append([draws[random.permutation(len(draws))[:count]] for draws in (ours, theirs)])
    return tuple(surface(np.concatenate(draws)) for draws in zip(*chosen))
