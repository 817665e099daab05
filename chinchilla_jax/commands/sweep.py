"""A ladder of small runs within a budget: what a scaling law of one's own is fitted to."""

import contextlib
import math
from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import differences, require, stored, to_dict
from chinchilla_jax.disk import read_json, write_json

SECTIONS = ("model", "data.store", "data.sources", "objective", "optimizer", "mesh", "train", "checkpoint")
RECIPE = "recipe.json"  # what `fit` puts into the law beside the table, and `plan --law` keeps
PARTS = (32, 16, 8, 4, 2, 1)  # of the config's own size: the sizes that are taken where none are named
CLUSTER = LOCAL_RUNS = True


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
    ahead = parser.add_argument_group("next", "the runs whose losses tell most of tokens a parameter, by a law so far")
    ahead.add_argument("--next", type=int, default=0, metavar="N", help="name N more runs of --budget FLOPs together")
    ahead.add_argument("--law", default="", metavar="LAW", help="law.json of `fit` on the runs so far")
    ahead.add_argument("--flops", type=float, metavar="C", help="budget to plan for [100 x the law's largest run]")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and train nothing")


def run(config, args) -> dict:
    """Show the ladder, then run what is left of it; with --next name the runs to add."""
    require(args.next >= 0, f"--next {args.next} must not be negative")
    if args.next:
        return following(args)
    require(not args.law and args.flops is None, "--law and --flops belong to --next N; leave them out")
    from chinchilla_jax.commands.pretrain import open_store
    from chinchilla_jax.evaluation.sweep import ROWS, sweep
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.metrics import Terminal
    from chinchilla_jax.training.program import use_compile_cache
    from chinchilla_jax.training.rundir import lock

    require((args.budget is None) != (args.minutes is None), "give the whole sweep's --budget FLOPS or its --minutes M")
    require(args.minutes is None or 0 < args.minutes < math.inf, f"--minutes {args.minutes} must be a positive number")
    require(args.dry_run or bool(args.run_dir), "sweep needs --run-dir, the folder that its runs are to live in")
    if not args.dry_run:
        cli.writable(Path(args.run_dir), "--run-dir")
    host.keep_freed_memory()
    config, store = open_store(config)
    use_compile_cache(config.train.compile_cache)
    plan, pace = planned(config, args, store)
    print(table(plan, pace))
    if max(run.tokens for run in plan.runs) > len(store.train.tokens):
        print(f"warning: the store has {len(store.train.tokens):,} tokens; the longest runs read some of them again")
    report = {
        "design": args.design,
        "flops_6ND_total": plan.total_flops,
        "expected_seconds": pace.total(plan),
        "runs": [
            {"run_id": run.run_id, "n_total": run.params, "tokens": run.tokens, "seconds": pace.seconds(run)}
            for run in plan.runs
        ],
    }
    if args.dry_run:
        return {**report, "next": "the same command without --dry-run"}
    folder = Path(args.run_dir)
    with lock(folder) if cli.speaks() else contextlib.nullcontext():
        if cli.speaks():
            keep_recipe(folder, config, args.lr_exponent, store.fingerprint)
        rows = sweep(plan, store, folder, Terminal())
    wrote = str(folder / ROWS)
    return {
        **report,
        "rows": len(rows),
        "wrote": [wrote],
        "next": hints.line("fit", wrote, "--out", str(folder / "fit")),
    }


def keep_recipe(folder: Path, config, lr_exponent: float, data: str) -> None:
    """Write what the runs have in common; a `UserError` where those that are there had something else."""
    from chinchilla_jax.evaluation.sweep import PLAN
    from chinchilla_jax.training.resume import refuse_harmful

    path, kept = folder / RECIPE, {"config": to_dict(config), "lr_exponent": lr_exponent, "data": data}
    if path.exists() and (folder / PLAN).exists():
        off = differences(read_json(path, "choose another --run-dir"), kept)
        # None: a setting that the version which began it did not have.
        changed = {name.removeprefix("config."): pair for name, pair in off.items() if pair[0] is not None}
        refuse_harmful(folder, changed, config, "choose another --run-dir, or give the settings it was begun with")
    write_json(path, kept)


def following(args) -> dict:
    """The next runs by a law, and a config of each where the law has its recipe; trains nothing, and needs no JAX."""
    from chinchilla_jax.commands.plan import amount
    from chinchilla_jax.planning.next_run import next_runs
    from chinchilla_jax.planning.plan import followed
    from chinchilla_jax.scaling.published import law_of

    require(bool(args.law), "--next needs --law, the law.json of `fit` on the runs so far")
    alone = args.budget is not None and args.minutes is None
    require(alone, "--next needs --budget, the FLOPs of the next runs together, and no --minutes")
    law = law_of(args.law)
    target = args.flops or 100 * law.ranges["C"][1]
    before, found = next_runs(law, target, args.budget, args.next)
    wrote, words = [], []
    print(f"ln D/N at {target:.3g} FLOPs is known to {before:.3f}; after each run to")
    for i, run in enumerate(found, 1):
        print(f"  {amount(run.N)} parameters on {amount(run.D)} tokens, {run.flops:.3g} FLOPs: {run.left:.3f}")
        if law.recipe and args.run_dir:
            path = Path(args.run_dir, f"next_{i}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            base = stored.from_json(law.recipe["config"])
            write_json(path, to_dict(followed(base, law, run.N, run.D)))
            wrote.append(str(path))
            words = words or ["pretrain", "--config", str(path), "--run-dir", str(Path(args.run_dir, f"next_{i}"))]
    rows = [vars(run) for run in found]
    return {
        "flops": target,
        "sd_ln_ratio": before,
        "runs": rows,
        "wrote": wrote,
        "next": hints.line(*words) if words else "",
    }


def planned(config, args, store):
    """The ladder and the pace of this machine."""
    from chinchilla_jax.evaluation import pace as paces
    from chinchilla_jax.planning import ladder
    from chinchilla_jax.scaling import counts

    sizes = args.sizes or [counts.parameters(config.model) / part for part in PARTS]

    def design(budget: float):
        return ladder.design(config, args.design, sizes, budget, args.lr_exponent, args.least_steps)

    plan = design(args.budget) if args.budget is not None else None
    ends = [ladder.rung(config.model, n) for n in (min(sizes), max(sizes))]
    small, large = (ladder.configured(config, model, 1000, [1000], args.lr_exponent) for model in ends)
    pace = paces.measure(small, large, len(store.valid.tokens))
    if plan is None:
        plan = design(paces.budget_for(60 * args.minutes, pace, design))
    return plan, pace


def table(plan, pace) -> str:
    """The plan, a line a run."""
    from chinchilla_jax.training.metrics import duration, si

    lines = [
        f"{'run':<22} {'parameters':>10} {'in the table':>12} {'tokens':>8} {'D/N':>6} {'steps':>7} {'peak rate':>9} "
        f"{'6 N D added':>11} {'time':>8}"
    ]
    for run in plan.runs:
        train, model = run.config.train, run.config.model
        lines.append(
            f"{run.run_id:<22} {run.params:>10,} {model.vocab_size * model.d_model:>12,} {si(run.tokens):>8} "
            f"{run.tokens / run.params:>6.3g} {train.steps:>7,} {run.config.optimizer.peak_lr:>9.2e} "
            f"{run.flops:>11.3g} {duration(pace.seconds(run)):>8}"
        )
    ratios = [run.tokens / run.params for run in plan.runs]
    lines.append(
        f"{len(plan.runs)} runs, {plan.total_flops:.3g} FLOPs, about {duration(pace.total(plan))}; "
        f"{min(ratios):.3g} to {max(ratios):.3g} tokens a parameter"
    )
    return "\n".join(lines)
