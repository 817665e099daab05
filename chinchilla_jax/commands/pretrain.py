"""Train a model on a token store, or go on where the run directory's last checkpoint stands."""

import math
import os
import shutil
import sys
import time
from pathlib import Path

from chinchilla_jax.commands import hints
from chinchilla_jax.config import Config, from_dict, replace, require, to_dict
from chinchilla_jax.disk import write_json

SECTIONS = (
    "model", "data.store", "data.weights", "data.sources", "objective", "adversarial", "corruption", "optimizer",
    "sparsity", "tune", "mesh", "train", "checkpoint",
)  # fmt: skip

CLUSTER = True
LEAST_MINUTES = 1.0


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--plan", default="", metavar="FILE", help="run the config of a plan.json as it is")
    parser.add_argument("--minutes", type=float, metavar="M", help="plan for this machine, train, and end in time")
    parser.add_argument("--from", default="", metavar="RUN", dest="base", help="start from the best or newest "
        "checkpoint of a run, imported or trained, and train all of it: continued pretraining")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="compile, print what the run costs, and train nothing")
    parser.add_argument("--topology", metavar="NAME", help="with --dry-run: compile for v5e:4x4, h100:8, ...")
    parser.add_argument("--allow-changes", action="store_true", help="go on although settings of the run have changed")


def run(config, args) -> dict:
    """Train, or with --dry-run say what training would cost."""
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.program import use_compile_cache

    args.began = time.monotonic()
    host.keep_freed_memory()
    use_compile_cache(config.train.compile_cache)
    require(
        args.minutes is None or not (args.plan or args.dry_run),
        "--minutes plans a model for this machine and trains it; leave --plan and --dry-run out, or see plan --minutes",
    )
    if args.dry_run:
        return dry_run(config, args)
    require(not args.topology, "--topology compiles for devices that are not here; give --dry-run with it")
    require(bool(args.run_dir), "pretrain needs --run-dir, the folder that the run is to live in")
    return train(config, Path(args.run_dir), args)


def dry_run(config, args) -> dict:
    """What the config costs, from the compiled step; needs the token store only where it tells the vocabulary."""
    from chinchilla_jax.aot.advice import table
    from chinchilla_jax.aot.compile import report
    from chinchilla_jax.training.load import tuned

    config = tuned(continued(config, args), Path(args.run_dir or os.devnull))  # in which there is no run
    if not config.model.vocab_size:
        config, _ = open_store(config)
    found = report(config, args.topology)
    print(table(found))
    return found


def open_store(config):
    """The token store, and the config with the vocabulary and the pieces without text that its tokenizer gives."""
    from chinchilla_jax.data.store import TokenStore

    store = TokenStore.open(config.data.store).mixed(config.data.weights)
    pieces = store.manifest["tokenizer"]["pieces"]
    vocabulary = config.model.vocab_size or pieces
    require(
        vocabulary >= pieces,
        f"the tokenizer of {config.data.store} has {pieces} pieces, more than --model.vocab-size {vocabulary}; "
        f"set --model.vocab-size {pieces}, or prepare with --data.vocab-size {vocabulary}",
    )
    warn_of_other_text(config.data, store.manifest["settings"])
    found = {"model.vocab_size": vocabulary}
    if config.adversarial.special is None:
        found["adversarial.special"] = store.tokenizer.special
    return replace(config, found), store


def warn_of_other_text(data, made: dict) -> None:
    """Say which settings of the text were given that the store was not made with: it is used as it is."""
    default, now = to_dict(type(data)()), to_dict(data)
    given = {name for name in made.keys() & now.keys() if now[name] != default[name]}
    for name in sorted(name for name in given if now[name] != made[name]):
        print(
            f"warning: {data.store} was prepared with data.{name} {made[name]!r}, not {now[name]!r}; it is used as it "
            "is, `prepare` makes another",
            file=sys.stderr,
        )


def train(config, run_dir: Path, args) -> dict:
    """Lock the directory, wire validation and samples to the loop, and run it."""
    import contextlib

    import jax

    from chinchilla_jax.training.load import tuned
    from chinchilla_jax.training.loop import pretrain
    from chinchilla_jax.training.metrics import Terminal
    from chinchilla_jax.training.rundir import lock

    config, store = open_store(tuned(continued(config, args), run_dir))
    check_tokenizer(config, store, run_dir)
    first = jax.process_index() == 0
    terminal = Terminal(active=first)
    for line in mixture(store, config.train):
        terminal.say(line)
    with lock(run_dir) if first else contextlib.nullcontext():
        if args.minutes is not None:
            last = train_for(config, run_dir, store, args, terminal)
        else:

            def begun(program, store) -> list:
                """The hooks; by now the run is not refused any more, so that its plan may be replaced."""
                keep_plan(args.plan, run_dir, first)
                return hooks(program, store)

            last = pretrain(config, run_dir, store, begun, terminal, allow_changes=args.allow_changes)
    following = hints.line("evaluate", "--run-dir", str(run_dir))
    return {"run_dir": str(run_dir), **last, "wrote": [str(run_dir)], "next": following}


def continued(config, args):
    """The config with what --from says."""
    require(
        args.minutes is None or not (args.base or config.tune.base),
        "--from has a model, and --minutes plans one; give --train.steps instead",
    )
    if not args.base:
        return config
    other = config.tune.base not in ("", args.base)
    require(not other, f"--from {args.base} and --tune.base {config.tune.base} are two runs; give one of them")
    method = "full" if config.tune.method == "off" else config.tune.method
    return replace(config, {"tune.base": args.base, "tune.method": method})


def check_tokenizer(config, store, run_dir: Path) -> None:
    """Refuse to start a model on ids that mean something else to it."""
    from chinchilla_jax.data.tokenizers import open_tokenizer
    from chinchilla_jax.training.load import find_base

    if not config.tune.base or (run_dir / "config.json").exists():
        return
    base = find_base(config.tune.base, run_dir)
    require(
        open_tokenizer(base).sha256 == store.tokenizer_sha256,
        f"{config.data.store} was made with another tokenizer than that of {base}; prepare the text for it with "
        f"--data.tokenizer {base}",
    )


def mixture(store, train) -> list[str]:
    """What the run reads of each source of a weighted mixture."""
    from chinchilla_jax.data.batches import of_text

    if not store.weights:
        return []
    mixed = of_text(store, train).windows.mixture
    epochs = mixed.epochs(train.rows_before(train.steps))
    return [f"{name}: {share:.1%} of the rows, {epochs[name]:.2f} epochs" for (name, share) in mixed.shares.items()]


def keep_plan(path: str, run_dir: Path, first: bool) -> None:
    """Put the plan that a run follows into its directory."""
    if path and first and Path(path).resolve() != (run_dir / "plan.json").resolve():
        shutil.copyfile(path, run_dir / "plan.json")


def train_for(config, run_dir: Path, store, args, terminal) -> dict:
    """Plan a model for this machine and `--minutes`, unless the run has one, and train it until the time is up."""
    import jax

    from chinchilla_jax.commands.plan import measured, table
    from chinchilla_jax.planning import asked as question
    from chinchilla_jax.planning import plan as planning
    from chinchilla_jax.training.timed import TRAINING_SHARE, pretrain_for

    seconds, asked = 60 * args.minutes, config
    enough = LEAST_MINUTES <= args.minutes < math.inf
    require(enough, f"--minutes {args.minutes:g}: a number, and getting ready takes half of one; give 2")
    if not (run_dir / "config.json").exists():
        text, devices = len(store.train.tokens), jax.device_count()
        said = question.timed(seconds * TRAINING_SHARE, text, devices, args)
        planned = planning.plan(config, said, measured)
        terminal.say(table(planned))
        write_json(run_dir / "plan.json", planned)
        config = replace(from_dict(Config, planned["config"]), {"train.eval_every": 0, "train.sample_every": 0})
    return pretrain_for(seconds, args.began, config, run_dir, store, hooks, terminal, asked)


def hooks(program, store) -> list:
    """What happens now and then while the model trains: validation, and a sample of its writing."""
    from chinchilla_jax.evaluation import density, ranks
    from chinchilla_jax.evaluation.likelihood import Likelihood, affordable
    from chinchilla_jax.evaluation.report import LAST
    from chinchilla_jax.inference.sampling import Sampling
    from chinchilla_jax.inference.text import Completer
    from chinchilla_jax.training.hooks import Hook

    train = program.config.train
    likelihood = Likelihood(program, store.valid, affordable(train))
    completer = Completer(program.config.model, store.tokenizer, Sampling(0.8, top_p=0.95))

    def validate(state, poll):
        figures = likelihood(program.evaluated(state), poll)
        by_source = {f"{LAST['loss_nats_per_token']}/{name}": loss for name, loss in likelihood.by_source.items()}
        return {row: figures[name] for name, row in LAST.items() if name in figures} | by_source

    def sample(state, poll):
        prompt, new = train.sample_prompt, train.sample_tokens
        weights = completer.prepare(program.evaluated(state))
        return {"sample": prompt + completer.complete(weights, [prompt], new, [train.seed], poll)[0]}

    return [
        Hook(train.eval_every, validate, "validation"),
        *([Hook(train.sample_every, sample, "sample")] if train.sample_tokens else []),
        *density.hooks(program),
        *ranks.hooks(program),
    ]
