"""Tune a trained model on examples, or train one on items from nothing; or go on where the last checkpoint stands."""

import argparse
import contextlib
from pathlib import Path

from chinchilla_jax.commands import hints
from chinchilla_jax.config import flag, require

SECTIONS = (
    "task", "tune", "model", "objective", "adversarial", "corruption", "optimizer", "mesh", "train", "checkpoint",
)  # fmt: skip


def options(parser) -> None:
    """Flags of this command."""
    parser.set_defaults(defaults={"optimizer.warmup_steps": 0})  # until the examples tell how many steps there are
    parser.add_argument("--from", dest="tune.base", default=argparse.SUPPRESS, metavar="RUN", help="the run to start "
        "from, its best or newest checkpoint; the same as --tune.base")  # fmt: skip
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N records as they train: [[trained]]")
    parser.add_argument("--dry-run", action="store_true", help="compile, print what the run costs, and train nothing")
    parser.add_argument("--allow-changes", action="store_true", help="go on although settings of the run have changed")


def run(config, args) -> dict:
    """Read the examples, then show them, or say what tuning would cost, or tune."""
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import HOW
    from chinchilla_jax.training.program import use_compile_cache
    from chinchilla_jax.tuning.start import start

    require(bool(args.run_dir), "finetune needs --run-dir, the folder that the tuned run is to live in")
    require(args.show >= 0, "--show must not be negative")
    own = config.task.valid or config.task.test
    require(
        config.task.split != "time" or not own,
        "--task.split time cuts --task.train into three; leave it out, or leave --task.valid and --task.test out",
    )
    host.keep_freed_memory()
    use_compile_cache(config.train.compile_cache)
    shape = {name for name in vars(args) if name.startswith("model.")} - {f"model.{name}" for name in HOW}
    require(
        not (shape and config.tune.base),
        f"{flag(min(shape, default=''))}: the model is that of {config.tune.base}; leave the setting out",
    )
    given = {name for name in vars(args) if "." in name} | getattr(args, "told", set())
    with start(config, Path(args.run_dir), given) as job:
        for line in [*warnings(job.config, Path(args.run_dir)), *job.data.summary()]:
            print(line)
        if args.show:
            return show(job, args)
        return cost(job) if args.dry_run else train(job, args)


def warnings(config, run_dir: Path) -> list[str]:
    """What the user should know of the base: that zeros are filled, or that a head stays behind."""
    from chinchilla_jax.optim.sparsefile import FILE
    from chinchilla_jax.tasks.kinds.table import heads
    from chinchilla_jax.training.load import find_base
    from chinchilla_jax.training.resume import own_config

    if not config.tune.base:
        return []
    base = find_base(config.tune.base, run_dir)
    own, found = own_config(base), []
    if config.tune.method == "full" and (
        own.sparsity.method != "off" or any((base / name).exists() for name in (FILE, "prune.json"))
    ):
        found.append(
            f"warning: {base} is sparse and --tune.method full fills its zeros, so that the tuned run is dense; take "
            "an adapter, such as --tune.method lora, or `prune` the tuned run"
        )
    if heads(own):
        found.append(f"note: {base} has a head for {own.task.kind}, which stays behind; a head of this run starts anew")
    return found


def show(job, args) -> dict:
    """Some records as they are trained."""
    from chinchilla_jax.tasks.show import shown

    lines = shown(job.data, args.show)
    print("\n".join(lines))
    return {"shown": lines}


def cost(job) -> dict:
    """What trains, and what a step needs."""
    from chinchilla_jax.training.load import base_of
    from chinchilla_jax.training.program import Program
    from chinchilla_jax.tuning.start import figures, table

    program = Program(job.config, base=base_of(job.config, job.run_dir))
    found = figures(program, program.step(job.config.train.batch_size))
    print(table(found))
    return found


def train(job, args) -> dict:
    """Lock the directory, tune, and say which step is best."""
    import jax

    from chinchilla_jax.disk import write_json
    from chinchilla_jax.training.metrics import Terminal
    from chinchilla_jax.training.rundir import lock
    from chinchilla_jax.tuning import report, run

    first = jax.process_index() == 0
    terminal = Terminal(active=first)
    with lock(job.run_dir) if first else contextlib.nullcontext():
        found = run.finetune(job, terminal, allow_changes=args.allow_changes)
        if first:
            write_json(job.run_dir / report.FOUND, found)
            report.write(job.run_dir)
    print(report.headline(found))
    chat = ["--chat"] if job.data.kind.keeps_template and job.data.renderer.template.several else []
    what = ["generate" if job.data.kind.generates else "report"]
    wrote = [str(job.run_dir / name) for name in ("", "report.md", run.PREDICTIONS) if (job.run_dir / name).exists()]
    return {**found, "wrote": wrote, "next": hints.line(*what, "--run-dir", str(job.run_dir), *chat)}
