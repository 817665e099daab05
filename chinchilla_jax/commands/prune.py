"""Prune a trained run in one shot; the pruned model is a run directory of its own."""

import math
import re

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require
from chinchilla_jax.disk import write_json

SECTIONS = (
    "data.store", "mesh", "train.batch_size", "train.microbatches", "train.seq_len", "train.eval_batches",
    "checkpoint.verify",
)  # fmt: skip
METHODS = ("magnitude", "wanda", "sparsegpt")
CLUSTER = True


def options(parser) -> None:
    """Flags of this command."""
    add = parser.add_argument
    add("--out", metavar="DIR", help="folder of the pruned run; must not exist")
    add("--method", default="wanda", choices=METHODS, help="how the weights that go are chosen [wanda]")
    add("--target", type=float, metavar="S", help="share of the weights of each projection that goes [0.5]")
    add("--pattern", default="unstructured", metavar="P", help="unstructured, or N:M such as 2:4 [unstructured]")
    add("--calibration-tokens", type=int, default=32768, metavar="N", help="training tokens whose activations count "
        "[32768]")  # fmt: skip


def run(config, args) -> dict:
    """Prune the best or newest checkpoint, and say what that did to the loss on the validation set."""
    target, groups = goal(args.target, args.pattern)
    out = cli.fresh(args.out, "--out")
    require(args.calibration_tokens > 0, f"--calibration-tokens {args.calibration_tokens} must be at least 1")

    import jax

    from chinchilla_jax.data.store import TokenStore
    from chinchilla_jax.evaluation import pruned_run
    from chinchilla_jax.evaluation.likelihood import Likelihood
    from chinchilla_jax.evaluation.prune import prune
    from chinchilla_jax.optim.sparsity import sparsity_report
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training import mirror
    from chinchilla_jax.training.load import load, run_folder
    from chinchilla_jax.training.metrics import Terminal

    host.keep_freed_memory()
    run_dir, terminal = run_folder(args.run_dir), Terminal()
    store = TokenStore.open(config.data.store)
    loaded = load(config, args.run_dir, whole_mesh=True)
    require(
        store.tokenizer_sha256 == loaded.tokenizer.sha256,
        f"{config.data.store} was made with another tokenizer than the run's; point --data.store at the run's own",
    )
    for note in loaded.notes:
        terminal.say(f"warning: {note}")
    beside = run_dir.name if mirror.of(run_dir) else run_dir  # what is written is local
    check(loaded.program.recipe, args.run_dir, beside)
    model, rows = loaded.program.config.model, loaded.program.microbatch
    batches = pruned_run.calibration(config.train, store, rows, args.calibration_tokens)
    likelihood = Likelihood(loaded.program, store.valid, max(0, config.train.eval_batches))

    def poll(done):
        terminal.show(f"pruned {done} of {model.layers} layers")

    with jax.set_mesh(loaded.program.mesh):
        placed = [likelihood.placed(batch) for batch in batches]
        pruned = prune(loaded.params, model, placed, args.method, target, groups, poll)
    report = {
        "step": loaded.step,
        "method": args.method,
        "pattern": args.pattern,
        "target": target,
        "calibration_tokens": sum(int(batch.weights.sum()) for batch in batches),
        "before": likelihood(loaded.params),
        "after": likelihood(pruned),
        "sparsity": sparsity_report(pruned),
    }
    with cli.whole(out):
        pruned_run.write(out, run_dir, loaded, pruned, store, config.data.store)
        if cli.speaks():
            write_json(out / "prune.json", {"run": loaded.folder, **report})
    for line in table(report):
        terminal.say(line)
    return {**report, "wrote": [str(out)], "next": hints.line("evaluate", "--run-dir", str(out))}


def check(recipe, run_dir: str, beside) -> None:
    """Refuse what is no plain model."""
    require(
        not recipe.heads,
        f"{run_dir} has a head of its own, which a pruned run has no place for; prune its base, and tune that one",
    )
    require(
        recipe.plain,
        f"{run_dir} holds an adapter beside its base; merge it first: "
        + hints.line("merge", "--run-dir", run_dir, "--out", f"{beside}-merged"),
    )


def table(report: dict) -> list[str]:
    """What pruning did, for a reader."""
    lines = []
    for name, digits in (("loss_nats_per_token", 4), ("perplexity", 2), ("bits_per_byte", 4)):
        old, new = report["before"][name], report["after"][name]
        lines.append(f"{name:<22} {old:,.{digits}f} -> {new:,.{digits}f}")
    return [*lines, f"{'density':<22} {report['sparsity']['density']:.4f} of the weight matrices"]


def goal(target: float | None, pattern: str) -> tuple[float, tuple[int, int] | None]:
    """The share that goes and (N, M); a pattern N:M says the share itself."""
    if pattern == "unstructured":
        target = 0.5 if target is None else target
        require(0 <= target < 1, f"--target {target} must lie in [0, 1)")
        return target, None
    require(
        bool(re.fullmatch(r"[0-9]+:[0-9]+", pattern)), f"--pattern {pattern!r} is neither unstructured nor N:M, as 2:4"
    )
    n, m = map(int, pattern.split(":"))
    require(0 < n < m, f"--pattern {pattern} keeps {n} of {m} neighbours; N must lie between 0 and M")
    require(
        target is None or math.isclose(target, 1 - n / m),
        f"--pattern {pattern} leaves out {1 - n / m:g} of the weights, not --target {target}; drop one of the two",
    )
    return 1 - n / m, (n, m)
