"""The table of runs that a law is fitted to: one row per loss, checked whole, float64.

Columns (CSV with a header, or JSONL): run_id, cluster_id, seed, n_total, n_nonembed, n_matmul, n_active, tokens,
unique_tokens, batch_tokens, steps, flops_<accounting>, loss, loss_kind, unit, bytes_per_token, schedule, decayed, lr,
optimizer, dataset, tokenizer. Needed: a count of parameters, tokens or FLOPs, loss. Every refusal names row and column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling.cells import DONE, PRESETS, RUN, STATE, Cells, Preset, condition, holds, number, rows_of

COUNTS = ("n_total", "n_nonembed", "n_matmul", "n_active")
ONE_OF_A_KIND = ("unit", "dataset", "tokenizer", "loss_kind", "decayed")  # a law speaks of one value of each
COLUMNS = (*COUNTS, "tokens", "flops", "loss", "run_id", "cluster_id", *ONE_OF_A_KIND)  # those that are read
PER_ND = 6.0  # training FLOPs per parameter and token where the table says nothing else
POSSIBLE = 1.0, 60.0  # C / (N D) of any accounting
OFF_MEDIAN = 5.0  # C / (N D) of a row over the table's median, at most
NAMED = 0.05  # how far C may be off what the accounting's own name says
RATIOS = 1e-3, 1e7  # tokens per parameter of any run
MOST_LOSS = 100.0  # in nats or bits of a token: a uniform guess among all of Unicode has 20


@dataclass(frozen=True)
class Runs:
    """Rows of a table as float64 arrays of one length, and what they have in common.

    `N` parameters by `count`, `D` tokens, `C` FLOPs by `accounting`, `loss` in `unit`; `cluster` numbers the
    independent runs, `row` the places in the file. `dropped` lists what the user asked to leave out, one line each.
    """

    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    loss: np.ndarray
    cluster: np.ndarray
    row: np.ndarray
    count: str = "n_total"
    accounting: str = "6ND"
    unit: str = "nats_token"
    dataset: str = "unnamed"
    tokenizer: str = "unnamed"
    source: str = "arrays"
    dropped: tuple[str, ...] = ()

    @property
    def clusters(self) -> int:
        """Independent runs."""
        return len(np.unique(self.cluster))

    @property
    def per_nd(self) -> float:
        """C / (N D), the geometric mean over the rows."""
        return float(np.exp(np.mean(np.log(self.C / self.N / self.D))))

    @property
    def per_nd_spread(self) -> float:
        """Largest over smallest C / (N D): 1 where the accounting is a multiple of N D."""
        ratio = self.C / self.N / self.D
        return float(ratio.max() / ratio.min())

    def take(self, chosen: np.ndarray, *dropped: str) -> "Runs":
        """The rows of a mask, with a line for each reason that others are left out."""
        rows = {name: getattr(self, name)[chosen] for name in ("N", "D", "C", "loss", "cluster", "row")}
        return replace(self, **rows, dropped=self.dropped + dropped)


def table(N: Any, D: Any, loss: Any, cluster: Any = None, C: Any = None, row: Any = None, **common: Any) -> Runs:
    """`Runs` from arrays, upcast to float64; `C` = 6 N D and every row a run of its own unless told otherwise."""
    N, D, loss = (np.asarray(values, np.float64).ravel() for values in (N, D, loss))
    C = PER_ND * N * D if C is None else np.asarray(C, np.float64).ravel()
    cluster = np.arange(len(N)) if cluster is None else _numbered(cluster)
    require(
        len({len(N), len(D), len(loss), len(C), len(cluster)}) == 1,
        "N, D, loss, C and cluster have to be of one length: one entry per row",
    )
    row = np.arange(1, len(N) + 1) if row is None else np.asarray(row)
    runs = Runs(N, D, C, loss, cluster, row, **common)
    for name in ("N", "D", "C", "loss"):
        bad = ~(np.isfinite(getattr(runs, name)) & (getattr(runs, name) > 0))
        at = int(np.argmax(bad))
        require(
            not bad.any(),
            f"{runs.source} row {runs.row[at]}, column {name}: {getattr(runs, name)[at]} is no positive finite number",
        )
    _sane(runs)
    return enough(replace(runs, cluster=_merged(runs)))


def _numbered(names: Any) -> np.ndarray:
    """Names as numbers in the order of their first appearance, which seeded resamples follow."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in np.asarray(names).ravel().tolist()], int)


def _sane(runs: Runs) -> None:
    """`UserError` for a row whose compute cannot be: a unit or a digit is wrong somewhere in it."""
    ratio = runs.C / runs.N / runs.D
    usual = float(np.median(ratio))
    for bad, why in (
        ((ratio < POSSIBLE[0]) | (ratio > POSSIBLE[1]), f"outside {POSSIBLE[0]:g} to {POSSIBLE[1]:g}; is it in FLOPs?"),
        (np.abs(np.log(ratio / usual)) > np.log(OFF_MEDIAN), f"where the table's median is {usual:.3g}"),
    ):
        i = int(np.argmax(bad))
        require(
            not bad.any(),
            f"{runs.source} row {runs.row[i]}, column {runs.accounting}: C = {runs.C[i]:.3g} is {ratio[i]:.3g} N D, "
            f"{why}",
        )
    i = int(np.argmax(runs.loss))
    told = f"{runs.source} row {runs.row[i]}, column loss: {runs.loss[i]:.4g} is no loss; is it a perplexity?"
    require(runs.loss[i] < MOST_LOSS, told)
    bad = (RATIOS[0] * runs.N > runs.D) | (RATIOS[1] * runs.N < runs.D)
    i = int(np.argmax(bad))
    tokens = f"{runs.D[i]:.3g} tokens for {runs.N[i]:.3g} parameters"
    require(not bad.any(), f"{runs.source} row {runs.row[i]}, column tokens: {tokens} cannot be; are FLOPs in FLOPs?")


def _merged(runs: Runs) -> np.ndarray:
    """Clusters in which rows of equal N, D and loss are one: a run that is listed twice is one run."""
    first: dict[tuple, int] = {}
    parent: dict[int, int] = {}
    for key, cluster in zip(zip(runs.N, runs.D, runs.loss), runs.cluster.tolist()):
        own, other = (_root(parent, c) for c in (cluster, first.setdefault(key, cluster)))
        parent[max(own, other)] = min(own, other)
    return _numbered([_root(parent, c) for c in runs.cluster.tolist()])


def _root(parent: dict[int, int], cluster: int) -> int:
    while parent.get(cluster, cluster) != cluster:
        cluster = parent[cluster]
    return cluster


def enough(runs: Runs) -> Runs:
    """The same rows, or `UserError` where no law can be read off them: one run, one size, one length."""
    require(len(runs.N) > 0, f"{runs.source} has no rows; a law needs runs of several sizes and lengths")
    require(
        runs.clusters > 1,
        f"{runs.source} row {runs.row[0]}, column run_id: all {len(runs.N)} rows are one run; "
        "a law needs runs of several sizes",
    )
    for name, column, what in (("N", runs.count, "size"), ("D", "tokens", "length"), ("loss", "loss", "loss")):
        values = getattr(runs, name)
        require(
            np.ptp(np.log(values)) > 1e-9,
            f"{runs.source} row {runs.row[0]}, column {column}: all {len(values)} rows have one {what}, "
            f"{values[0]:.6g}; a law needs several",
        )
    return runs


def read(
    path: Path,
    columns: Mapping[str, str] = {},
    where: Sequence[str] = (),
    count: str = "",
    source: str = "",
    drop_failed: bool = False,
) -> Runs:
    """The table in a CSV or JSONL file.

    `columns` maps the schema's names to the file's (`flops` may stand for a FLOP column of any accounting), `where`
    keeps the rows with NAME=VALUE (or !=, <, >) and lists the others, `count` names the parameter count (default: the
    first there is), `source` the code base whose columns these are, `drop_failed` leaves out rows whose loss is no
    number. `UserError` names row and column of whatever is missing, not positive, mixed or impossible.
    """  # fmt: skip
    rows, header = rows_of(path)
    require(source in ("", *PRESETS), f"--from {source}: one of {', '.join(PRESETS)}{closest(source, PRESETS)}")
    preset = PRESETS[source] if source else Preset({})
    there = {name: [own for own in names if own in header] for name, names in preset.columns.items()}
    require(not source or any(there.values()), f"{path}: row 1 has no column that --from {source} knows; leave it out")
    columns = {name: own[0] for name, own in there.items() if own} | dict(columns)
    for name, own in columns.items():
        require(own in header, f"{path}: row 1 has no column {own!r} for {name}{closest(own, header)}")
    kept, dropped = _filter(path, rows, header, columns, where)
    if source:
        kept, dropped = _finished(kept, dropped, header, columns.get("loss", "loss"))
    if preset.steps and {*preset.steps} <= {*header} and "tokens" not in columns:
        header, (step, each) = [*header, "tokens"], preset.steps
        kept = [(at, row | {"tokens": (1 + number(row.get(step))) * number(row.get(each))}) for at, row in kept]
    if drop_failed:
        kept, dropped = _with_loss(kept, dropped, columns.get("loss", "loss"))
    require(bool(kept), f"{path}: no rows" + (f" with {' '.join(where)}" if where else "; a law needs runs"))
    return _table(Cells(path, kept, header, columns, preset), count, dropped)


def _table(cells: Cells, count: str, dropped: tuple[str, ...]) -> Runs:
    count = count or next((name for name in COUNTS if cells.has(name)), "n_total")
    N, loss = cells.numbers(count), cells.numbers("loss")
    flops = _flops_column(cells, count)
    C = cells.numbers(flops) if flops else None
    require(
        cells.has("tokens") or flops is not None,
        f"{cells.path}: row 1 has neither a column tokens nor one of FLOPs; name one with --columns tokens=NAME",
    )
    D = cells.numbers("tokens") if cells.has("tokens") else C / PER_ND / N
    told = {name: cells.only(name) for name in ONE_OF_A_KIND}
    accounting = f"6ND_{count.removeprefix('n_')}" if flops is None else cells.named(flops).removeprefix("flops_")
    if flops and accounting.lower().startswith("6nd"):
        _named_six(cells, accounting, cells.named(flops), count, C, D)
    common = {name: told[name] or "unnamed" for name in ("dataset", "tokenizer")}
    common |= {"unit": told["unit"] or "nats_token, assumed", "count": count, "accounting": accounting}
    common |= {"source": str(cells.path), "dropped": dropped}
    return table(N, D, loss, _clusters(cells), C, [at for at, _ in cells.rows], **common)


def _named_six(cells: Cells, accounting: str, column: str, count: str, C: np.ndarray, D: np.ndarray) -> None:
    """`UserError` where a column named after 6 N D holds something else."""
    own = f"n_{accounting.lower().removeprefix('6nd').strip('_')}"
    own = count if own == "n_" else own
    if not cells.has(own):
        return
    N = cells.numbers(own)
    bad = np.abs(np.log(C / (PER_ND * N * D))) > np.log1p(NAMED)
    i = int(np.argmax(bad))
    said = f"{C[i]:.4g} is not 6 {own} tokens = {PER_ND * N[i] * D[i]:.4g} to {NAMED:.0%}"
    require(not bad.any(), f"{cells.path} row {cells.rows[i][0]}, column {column}: {said}")


def without_outliers(runs: Runs, k: int) -> Runs:
    """Rows whose loss is strictly below the k-th highest, as Besiroglu et al. 2024 cut five; the others are listed."""
    if k <= 0:
        return runs
    require(k < len(runs.loss), f"--drop-outliers {k}: {runs.source} has {len(runs.loss)} rows")
    keep = runs.loss < np.sort(runs.loss)[-k]
    lines = [
        f"row {runs.row[i]}: loss {runs.loss[i]:.4f} (N {runs.N[i]:.3g}, D {runs.D[i]:.3g}) is among the {k} highest"
        for i in np.flatnonzero(~keep)
    ]
    return enough(runs.take(keep, *lines))


def _filter(path: Path, rows: list, header: list[str], columns: Mapping[str, str], where: Sequence[str]):
    conditions = []
    for name, sign, value in map(condition, where):
        own = columns.get(name, name)
        require(own in header, f"{path}: row 1 has no column {own!r}{closest(own, header)}")
        conditions.append((name, own, sign, value))
    kept, dropped = [], []
    for at, row in rows:
        off = [name for name, own, sign, value in conditions if not holds(path, at, own, row.get(own), sign, value)]
        if off:
            dropped.append(f"row {at}: {off[0]} is {row.get(columns.get(off[0], off[0]), '')!r}")
        else:
            kept.append((at, row))
    return kept, tuple(dropped)


def _finished(kept: list, dropped: tuple, header: list[str], loss: str):
    """The last row with a loss of every run that finished; its empty cells are as rows before it say, or after."""
    state, run = (next((name for name in names if name in header), None) for names in (STATE, RUN))
    good = [(at, row) for at, row in kept if row.get(state, DONE) == DONE]
    lines = [f"row {at}: {state} is {row[state]!r}" for at, row in kept if row.get(state, DONE) != DONE]
    if run is None:
        return good, (*dropped, *lines)
    told, last = {}, {}
    for at, row in good:
        name = str(row.get(run))
        cells = told.setdefault(name, {})
        cells |= {own: cell for own, cell in row.items() if cell not in ("", None)} | {loss: row.get(loss)}
        if row.get(loss) not in ("", None) or name not in last:
            last[name] = at, dict(cells)
    lines += [f"row {at}: not the last of run {row.get(run)!r}" for at, row in good if at != last[str(row.get(run))][0]]
    return sorted((at, told[name] | cells) for name, (at, cells) in last.items()), (*dropped, *lines)


def _with_loss(kept: list, dropped: tuple, loss: str):
    """The rows whose loss is a positive number; the others are listed."""
    failed = {at: row.get(loss) for at, row in kept if not 0 < number(row.get(loss)) < np.inf}
    lines = [f"row {at}: the run failed, its loss is {cell or 'nothing'}" for at, cell in failed.items()]
    return [(at, row) for at, row in kept if at not in failed], (*dropped, *lines)


def _flops_column(cells: Cells, count: str) -> str | None:
    """The column of FLOPs: the one that is named, 6ND's of the same count, or the only one there is."""
    if "flops" in cells.columns or "flops" in cells.header:
        return "flops"
    there = [name for name in cells.header if name.lower().startswith("flops_")]
    own = [name for name in there if name.lower() == f"flops_6nd_{count.removeprefix('n_')}"]
    require(
        len(there) < 2 or bool(own),
        f"{cells.path}: row 1 has the FLOP columns {', '.join(there)}; choose one with --columns flops=NAME",
    )
    return (own or there or [None])[0]


def _clusters(cells: Cells) -> list[str] | None:
    """A name for each row's independent run: its cluster, else its run, else the row itself."""
    runs, clusters = cells.texts("run_id"), cells.texts("cluster_id")
    of_run: dict[str, str] = {}
    names = []
    for (at, _), run, cluster in zip(cells.rows, runs, clusters):
        name = f"cluster {cluster}" if cluster else f"run {run}" if run else f"row {at}"
        first = of_run.setdefault(run, name) if run else name
        require(
            first == name,
            f"{cells.path} row {at}, column {cells.named('cluster_id')}: run {run} is in {name} and in {first}",
        )
        names.append(name)
    return names
