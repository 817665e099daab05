"""Merge an adapter into its base: the tuned model becomes a run directory that needs no other."""

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require

SECTIONS = ("mesh", "checkpoint")


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--out", metavar="DIR", help="folder of the merged run; must not exist")


def run(config, args) -> dict:
    """Merge in float32, check it on probe rows, write the run."""
    out = cli.fresh(args.out, "--out")

    from chinchilla_jax.evaluation import merging
    from chinchilla_jax.optim.sparsity import filled_warning
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import load, run_folder
    from chinchilla_jax.training.resume import own_config

    host.keep_freed_memory()
    run_dir = run_folder(args.run_dir)
    require(
        not own_config(run_dir).tune.whole,
        f"{args.run_dir} is a whole model and has nothing to merge; copy the folder, or export it in another format",
    )
    loaded = load(config, args.run_dir, whole_mesh=False)
    for note in loaded.notes:
        print(f"warning: {note}")
    params, found = merging.whole(loaded)
    with cli.whole(out):
        merging.write(out, run_dir, loaded, params)
    print(
        f"merged at step {loaded.step}: logits of {merging.ROWS} probe rows differ by at most "
        f"{found['largest_difference']:.2g} (the largest is {found['largest_logit']:.3g})"
    )
    for line in filled_warning(found["filled_zeros"]):
        print(f"warning: {line}")
    following = hints.line("generate", "--run-dir", str(out), "--prompt", "Once upon a time")
    return {"step": loaded.step, **found, "wrote": [str(out)], "next": following}
