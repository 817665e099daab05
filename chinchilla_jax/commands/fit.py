"""Fit a scaling law to a table of runs: the law, how sure it is, and what other defensible choices would say."""

import dataclasses
import os
from pathlib import Path

from chinchilla_jax.commands import cli, config_files, hints
from chinchilla_jax.config import closest, require, to_dict
from chinchilla_jax.disk import read_json

SECTIONS = ()


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("runs", metavar="RUNS", help="table of runs: .csv with a header or .jsonl, one row per loss")
    parser.add_argument("--out", metavar="DIR", help="write law.json, fit.md and pictures there")
    reading = parser.add_argument_group("table", "which rows and columns")
    reading.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME=OWN",
        help="the file's own names, such as n_total='Model Size' flops='Training FLOP'",
    )  # fmt: skip
    reading.add_argument(
        "--from", default="", dest="source", metavar="NAME",
        help="columns and units of another code base: nanochat, levanter, maxtext, torchtitan or wandb",
    )  # fmt: skip
    reading.add_argument(
        "--where", nargs="+", default=[], metavar="NAME=VALUE", help="keep these rows (also !=, <, >), list the others"
    )
    reading.add_argument("--count", default="", metavar="NAME", help="n_total, n_nonembed, n_matmul or n_active as N")
    reading.add_argument(
        "--drop-outliers", type=int, default=0, metavar="K", help="keep losses below the K-th highest [0]"
    )
    reading.add_argument(
        "--drop-failed", action="store_true", help="leave out rows whose loss is no number, and list them"
    )
    for name, what in (
        ("unit", "of the loss: nats_token or bpb"), ("dataset", "name of the text"), ("tokenizer", "its name"),
        ("accounting", "name of the FLOP column's accounting"),
    ):  # fmt: skip
        reading.add_argument(f"--{name}", default="", help=f"{what}, where the table does not tell")
    fitting = parser.add_argument_group("fit", "how, and how sure")
    fitting.add_argument("--form", default="mixture", help="mixture, chinchilla, tied, skaling (k free) or kaplan")
    fitting.add_argument(
        "--objective", default="huber-log", help="huber-log, lad-log, mse-log, mse-level or asymmetric"
    )
    fitting.add_argument(
        "--delta", type=float, default=1e-3, help="where Huber's penalty turns linear, in ln loss [0.001]"
    )
    fitting.add_argument("--floor", type=float, metavar="E", help="loss that no compute gets below, held")
    fitting.add_argument("--replicates", type=int, default=4000, help="of the bootstrap over independent runs [4000]")
    fitting.add_argument("--seed", type=int, default=42, help="of the bootstrap [42]")
    fitting.add_argument("--protocol", default="auto", help="resample, weights or epoch; auto: weights below 100 runs")
    fitting.add_argument("--level", type=float, default=0.9, help="of the intervals [0.9]")
    fitting.add_argument("--flops", nargs="+", type=float, default=[], metavar="C", help="budgets to answer for")
    fitting.add_argument(
        "--budget-tolerance", type=float, default=0.09, metavar="X",
        help="runs whose ln FLOPs are at most so far apart have one budget, for approach 2 [0.09]",
    )  # fmt: skip
    fitting.add_argument("--name", default="", help="name of the law [the table's]")
    fitting.add_argument("--label", default="", help="what a reader of the law should know, in words")
    fitting.add_argument(
        "--recipe",
        default="",
        metavar="FILE",
        help="config of the runs, which plan --law then keeps [recipe.json beside RUNS]",
    )


def run(config, args) -> dict:
    """Fit, check, print; with --out write the law."""
    from chinchilla_jax.commands import fit_report
    from chinchilla_jax.scaling.analysis import Settings, analyse
    from chinchilla_jax.scaling.runs import read

    path = Path(args.runs)
    require(0 <= args.seed < 2**32, f"--seed {args.seed}: a whole number from 0 to 2^32 - 1")
    require(args.drop_outliers >= 0, f"--drop-outliers {args.drop_outliers} must not be negative")
    if args.out:
        cli.writable(Path(args.out), "--out")
    table = read(path, _pairs(args.columns, args.where), args.where, args.count, args.source, args.drop_failed)
    table = _named(table, args)
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Settings) if hasattr(args, f.name)}
    given |= {"flops": tuple(args.flops), "name": args.name or path.stem, "recipe": recipe_of(path, args.recipe)}
    found = analyse(table, Settings(**given, workers=os.cpu_count() or 1))
    print(fit_report.page(found))
    wrote = fit_report.write(found, Path(args.out)) if args.out else []
    following = hints.line("plan", "--law", (wrote or [""])[0], "--flops", f"{found.settings.flops[-1]:.3g}")
    if not wrote:
        following = hints.line("fit", args.runs, "--out", "DIR") + "  # writes the law file that plan reads"
    return {**fit_report.figures(found), "wrote": wrote, "next": following}


def recipe_of(table: Path, named: str) -> dict:
    """What the runs of a table kept: the config that is named, or what `sweep` left beside the table; else {}."""
    path = Path(named) if named else table.with_name("recipe.json")
    if not named and not path.exists():
        return {}
    if path.name == "recipe.json":
        fix = "write it again with sweep, or name the config"
        found = read_json(path, fix)
        require("config" in found, f"{path} holds no config; {fix}")
        return found
    return {"config": to_dict(config_files.load(path))}


def _named(table, args):
    """The table with the names that it does not tell itself."""
    told = {name: getattr(args, name) for name in ("unit", "dataset", "tokenizer", "accounting") if getattr(args, name)}
    for name, value in told.items():
        own = getattr(table, name)
        silent = own == "unnamed" or own.endswith(", assumed") or name == "accounting"
        require(silent or own == value, f"--{name} {value}: {args.runs} says {own}; leave the flag out")
    return dataclasses.replace(table, **told)


def _pairs(given: list[str], where: list[str]) -> dict[str, str]:
    from chinchilla_jax.scaling.runs import COLUMNS

    for pair in given:
        name, equals, _ = pair.partition("=")
        require(bool(equals), f"--columns {pair}: write NAME=VALUE")
        known = name in COLUMNS or any(text.startswith(name) for text in where)
        require(known, f"--columns {pair}: nothing reads {name}{closest(name, COLUMNS)}; known: {', '.join(COLUMNS)}")
    return dict(pair.split("=", 1) for pair in given)
