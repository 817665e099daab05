"""How many losses of larger runs the intervals of smaller ones hold: every form, on every table of runs at hand.

    python tools/coverage.py                         # tables in ../shared/data, and our own sweep
    python tools/coverage.py --out docs/scaling      # coverage.json and coverage.png as well

Of each table the fifth of the runs of most compute is left out; the law of the others predicts their losses. A nominal
90 % interval is to hold nine in ten of them.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chinchilla_jax.scaling import analysis, runs  # noqa: E402
from chinchilla_jax.scaling.doubt import largest  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
LEVELS = (0.8, 0.9)
FORMS = ("mixture", "chinchilla", "skaling", "kaplan", "tied")
ISOFLOP = {"n_total": "params", "flops": "budget"}


def tables(folder: Path = SHARED) -> dict[str, runs.Runs]:
    """Every table that is there, by name."""
    found = {"debian (own)": runs.read(ROOT / "docs/scaling/runs.jsonl")}
    for path in sorted((folder / "scaling").glob("*.csv")):
        found[path.stem.split("__")[0]] = runs.read(path, ISOFLOP, ["outlier!=True"])
    if (path := folder / "epoch_chinchilla.csv").exists():
        whole = runs.read(path, {"n_total": "Model Size", "flops": "Training FLOP"})
        found["epoch"] = runs.without_outliers(whole, 5)
    if (path := folder / "gadre_redpajama.csv").exists():
        found["gadre"] = runs.read(path, {"n_total": "N", "tokens": "D", "loss": "loss_c4_val"}, count="n_total")
    return found


def coverage(table: runs.Runs, form: str, levels: tuple[float, ...] = LEVELS, share: float = 0.2) -> dict:
    """Shares of the held-out losses inside the intervals, by level, and the mean width of the last, in per cent."""
    out = largest(table, share)
    law = analysis.law_of(table.take(~out), analysis.Settings(form=form, replicates=400))
    found: dict = {"losses": int(out.sum())}
    for level in levels:
        edges = np.array([law.predict_loss(N, D, level)[1:] for N, D in zip(table.N[out], table.D[out])])
        inside = (edges[:, 0] <= table.loss[out]) & (table.loss[out] <= edges[:, 1])
        found[f"{level:g}"] = float(inside.mean())
        found["width_percent"] = float(100 * np.log(edges[:, 1] / edges[:, 0]).mean())
    return found


def draw(found: dict[str, dict[str, dict]], path: Path) -> None:
    """Coverage at 90 % by form, a dot a table and a bar for their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for i, form in enumerate(FORMS):
        values = [100 * rows[form]["0.9"] for rows in found.values()]
        axes.bar(i, np.mean(values), width=0.6, color="tab:blue" if form == "mixture" else "tab:gray", alpha=0.5)
        axes.plot(np.full(len(values), i), values, "k.", markersize=5)
    axes.axhline(90, color="tab:red", linewidth=1, label="nominal")
    axes.set_xticks(range(len(FORMS)), FORMS)
    axes.set(
        ylabel="held-out losses inside, %", ylim=(0, 103), title="nominal 90 %: the fifth of most compute, predicted"
    )
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table of coverage; with --out keep it and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the tables")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {name: {form: coverage(table, form) for form in FORMS} for name, table in tables(args.data).items()}
    print(f"{'':<16}{'losses':>7}" + "".join(f"{form:>20}" for form in FORMS))
    for name, rows in found.items():
        print(f"{name:<16}{rows['mixture']['losses']:>7}" + "".join(_cell(rows[form]) for form in FORMS))
    keys = ("0.8", "0.9", "width_percent")
    mean = {form: {k: float(np.mean([rows[form][k] for rows in found.values()])) for k in keys} for form in FORMS}
    print(f"{'mean':<23}" + "".join(_cell(mean[form]) for form in FORMS))
    print("(inside the nominal 80 % / 90 % interval, and the width of the latter)")
    if args.out:
        (args.out / "coverage.json").write_text(json.dumps({"tables": found, "mean": mean}, indent=1) + "\n")
        draw(found, args.out / "coverage.png")


def _cell(row: dict) -> str:
    return f"{100 * row['0.8']:>6.0f}/{100 * row['0.9']:.0f} %, {row['width_percent']:>4.1f} %".rjust(20)


if __name__ == "__main__":
    main()
