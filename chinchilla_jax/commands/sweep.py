"""A ladder of small runs within a budget: what a scaling law of one's own is fitted to."""

from pathlib import Path

from chinchilla_jax.commands import cli
from chinchilla_jax.config import require

SECTIONS = ("model", "data", "objective", "optimizer", "mesh", "train", "checkpoint")
HALVINGS = (32, 16, 8, 4, 2, 1)  # the sizes that are taken where none are named, as parts of the config's own


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument(
        "--design",
        choices=("branches", "isoflop", "lshape"),
        default="branches",
        help="trunks at a constant rate with cooldowns, every size at every budget, or two arms of a grid [branches]",
    )
    parser.add_argument("--budget", type=float, metavar="FLOPS", help="6 N D over all runs, N with the embeddings")
    parser.add_argument("--minutes", type=float, metavar="M", help="instead: what this machine does in so long a time")
    parser.add_argument("--sizes", type=float, nargs="+", metavar="N", help="parameters, embeddings included")
    parser.add_argument("--lr-exponent", type=float, default=0.45, metavar="X", help="peak rate ~ N^-X [0.45]")
    parser.add_argument("--least-steps", type=int, default=500, metavar="N", help="steps of the shortest run [500]")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and train nothing")


def run(config, args) -> dict:
    """Show the ladder, then run what is left of it."""
    from chinchilla_jax.commands.pretrain import open_store
    from chinchilla_jax.evaluation.sweep import ROWS, sweep
    from chinchilla_jax.parallel import host
    from chinchilla_jax.scaling import counts, ladder
    from chinchilla_jax.training.metrics import Terminal
    from chinchilla_jax.training.program import use_compile_cache
    from chinchilla_jax.training.rundir import lock

    require((args.budget is None) != (args.minutes is None), "give the whole sweep's --budget FLOPS or its --minutes M")
    host.keep_freed_memory()
    config, store = open_store(config)
    rate = _rate()
    budget = args.budget or 60 * args.minutes * rate
    size = counts.parameters(config.model)
    sizes = args.sizes or [size / n for n in HALVINGS]
    plan = ladder.design(config, args.design, sizes, budget, args.lr_exponent, args.least_steps)
    print(_table(plan, rate))
    longest = max(run.tokens for run in plan.runs)
    there = len(store.train.tokens)
    if longest > there:
        print(f"warning: the longest run reads {longest:,} tokens and the store has {there:,}: some are read again")
    report = {
        "design": args.design,
        "budget_flops": budget,
        "flops_6ND_total": plan.total_flops,
        "expected_seconds": plan.total_flops / rate,
        "runs": [{"run_id": run.run_id, "n_total": run.params, "tokens": run.tokens} for run in plan.runs],
    }
    if args.dry_run:
        return {**report, "next": "the same command without --dry-run"}
    require(bool(args.run_dir), "sweep needs --run-dir, the folder that its runs are to live in")
    folder = Path(args.run_dir)
    use_compile_cache(config.train.compile_cache)
    with lock(folder):
        rows = sweep(plan, store, folder, Terminal())
    table = str(folder / ROWS)
    following = cli.line("fit", table)
    return {**report, "rows": len(rows), "wrote": [table], "next": following}


def _rate() -> float:
    """FLOP/s that may be expected of a training step here."""
    import jax

    from chinchilla_jax.parallel import devices

    rate = devices.expected_rate(jax.local_devices())
    require(rate is not None, f"nothing is known of {jax.local_devices()[0].device_kind}; give --budget on a CPU")
    return rate


def _table(plan, rate: float) -> str:
    """The plan, a line a run."""
    from chinchilla_jax.training.metrics import duration, si

    lines = ["run                    parameters  of them table   tokens  D/N    steps  peak rate  FLOPs (6ND)     time"]
    for run in plan.runs:
        train, model = run.config.train, run.config.model
        lines.append(
            f"{run.run_id:<22} {run.params:>10,} {model.vocab_size * model.d_model:>14,} {si(run.tokens):>8} "
            f"{run.tokens / run.params:>5.3g} {train.steps:>7,} {run.config.optimizer.peak_lr:>9.2e} "
            f"{run.flops:>12.3g} {duration(run.flops / rate):>8}"
        )
    ratios = [run.tokens / run.params for run in plan.runs]
    lines.append(
        f"{len(plan.runs)} runs, {plan.total_flops:.3g} FLOPs, about {duration(plan.total_flops / rate)}; "
        f"{min(ratios):.3g} to {max(ratios):.3g} tokens a parameter"
    )
    return "\n".join(lines)
