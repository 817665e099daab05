"""Fit a scaling law to a table of runs: the law, how sure it is, and what other defensible choices would say."""

import dataclasses
import os
from pathlib import Path

from chinchilla_jax.commands import cli
from chinchilla_jax.config import require

SECTIONS = ()


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("runs", metavar="RUNS", help="table of runs: .csv with a header or .jsonl, one row per loss")
    parser.add_argument("--out", metavar="DIR", help="write law.json, fit.md and pictures there")
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME=OWN",
        help="the file's own names, such as n_total='Model Size' flops='Training FLOP'",
    )  # fmt: skip
    parser.add_argument("--where", nargs="+", default=[], metavar="NAME=VALUE", help="keep these rows, list the others")
    parser.add_argument("--count", default="", metavar="NAME", help="n_total, n_nonembed, n_matmul or n_active as N")
    parser.add_argument(
        "--drop-outliers", type=int, default=0, metavar="K", help="keep losses below the K-th highest [0]"
    )
    parser.add_argument("--objective", default="huber-log", help="huber-log, lad-log, mse-log, mse-level or asymmetric")
    parser.add_argument(
        "--delta", type=float, default=1e-3, help="where Huber's penalty turns linear, in ln loss [0.001]"
    )
    parser.add_argument("--form", default="chinchilla", help="chinchilla, tied, skaling (k free) or kaplan")
    parser.add_argument("--replicates", type=int, default=4000, help="of the bootstrap over independent runs [4000]")
    parser.add_argument("--seed", type=int, default=42, help="of the bootstrap [42]")
    parser.add_argument("--protocol", default="auto", help="resample, weights or epoch; auto: weights below 100 runs")
    parser.add_argument("--level", type=float, default=0.9, help="of the intervals [0.9]")
    parser.add_argument("--flops", nargs="+", type=float, default=[], metavar="C", help="budgets to answer for")
    parser.add_argument("--name", default="", help="name of the law [the table's]")
    parser.add_argument("--unit", default="", help="of the loss, where the table does not tell: nats_token or bpb")
    parser.add_argument("--dataset", default="", help="name of the text, where the table does not tell")
    parser.add_argument("--tokenizer", default="", help="name of the tokenizer, where the table does not tell")
    parser.add_argument(
        "--accounting", default="", help="name of the FLOP column's accounting, where the table does not tell"
    )
    parser.add_argument("--label", default="", help="what a reader of the law should know, in words")


def run(config, args) -> dict:
    """Fit, check, print; with --out write the law."""
    from chinchilla_jax.evaluation import scaling_report
    from chinchilla_jax.scaling.analysis import Settings, analyse
    from chinchilla_jax.scaling.runs import read

    table = read(Path(args.runs), _pairs(args.columns, "--columns"), _pairs(args.where, "--where"), args.count)
    table = _named(table, args)
    chosen = {f.name: getattr(args, f.name) for f in dataclasses.fields(Settings) if f.name != "workers"}
    chosen |= {"flops": tuple(args.flops), "name": args.name or Path(args.runs).stem}
    settings = Settings(**chosen, workers=os.cpu_count() or 1)
    found = analyse(table, settings)
    print(scaling_report.page(found))
    wrote = scaling_report.write(found, Path(args.out)) if args.out else []
    following = cli.line("plan", "--law", (wrote or [""])[0], "--flops", f"{found.settings.flops[-1]:.3g}")
    if not wrote:
        following = cli.line("fit", args.runs, "--out", "DIR") + "  # writes the law file that plan reads"
    return {**scaling_report.figures(found), "wrote": wrote, "next": following}


def _named(table, args):
    """The table with the names that it does not tell itself."""
    told = {name: getattr(args, name) for name in ("unit", "dataset", "tokenizer", "accounting") if getattr(args, name)}
    for name, value in told.items():
        own = getattr(table, name)
        silent = own == "unnamed" or own.endswith(", assumed") or name == "accounting"
        require(silent or own == value, f"--{name} {value}: {args.runs} says {own}; leave the flag out")
    return dataclasses.replace(table, **told)


def _pairs(given: list[str], flag: str) -> dict[str, str]:
    for pair in given:
        require("=" in pair, f"{flag} {pair}: write NAME=VALUE")
    return dict(pair.split("=", 1) for pair in given)
