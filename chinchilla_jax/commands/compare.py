"""Two recipes side by side: how much less compute one needs to reach what the other does, and how sure that is."""

import math

from chinchilla_jax.commands import hints
from chinchilla_jax.config import require

SECTIONS = ()


def options(parser) -> None:
    """Flags of this command."""
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="a law by name, a law.json of `fit`, or a table of runs")
    parser.add_argument("--floor", type=float, metavar="E", help="loss that no compute gets below, for tables")
    parser.add_argument(
        "--flops", nargs="+", type=float, default=[], metavar="C", help="budgets of B [the shared range]"
    )
    parser.add_argument("--level", type=float, default=0.9, help="of the intervals [0.9]")


def run(config, args) -> dict:
    """Compare and print."""
    from chinchilla_jax.scaling.compare import TABLES, compare, opened

    require(0 < args.level < 1, f"--level {args.level:g}: a share between 0 and 1, such as 0.9")
    for flops in args.flops:
        require(0 < flops < math.inf, f"--flops {flops:g} must be a positive number, such as 1e21")
    a, b = (opened(text, args.floor) for text in (args.a, args.b))
    found = compare(a, b, tuple(args.flops), args.level)
    print(f"{a.name} over {b.name}, {args.level:.0%} interval, losses in {found['unit']}")
    print(f"{'FLOPs of ' + b.name:<28}{'loss':>8}{'speed-up':>10}")
    for row in found["rows"]:
        between = "unknown" if row["interval"] is None else "{:.3g} to {:.3g}".format(*row["interval"])
        beyond = "" if row["inside"] else "  beyond the runs"
        print(f"{row['flops']:<28.3g}{row['loss']:>8.4f}{row['speed_up']:>10.3g}   {between}{beyond}")
    for line in found["warnings"]:
        print(f"warning: {line}")
    tables = [text for text in (args.a, args.b) if text.endswith(TABLES)]
    words = ["fit", tables[0], "--out", "DIR"] if tables else ["plan", "--law", args.a, "--flops", "1e21"]
    return {**found, "next": hints.line(*words)}
