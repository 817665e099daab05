"""Write a run as a Hugging Face folder, a GGUF file, a PEFT adapter, or a run of fewer bytes: sparse, or sliced."""

from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require

SECTIONS = ("data.store", "mesh", "checkpoint.verify")
FORMATS = ("hf", "gguf", "peft", "sparse", "sliced")
RUNS = ("sparse", "sliced")  # what is written is a run directory again
SHARD = 5.0  # gigabytes
DTYPES = ("float32", "bfloat16", "float16", "q8_0")


def options(parser) -> None:
    """Flags of this command."""
    add = parser.add_argument
    add("--format", default="hf", choices=FORMATS, help="what to write; sparse: a run whose zeros take no "
        "room; sliced: a smaller dense run without dead neurons and heads [hf]")  # fmt: skip
    add("--out", metavar="PATH", help="folder to write (gguf: file); must not exist")
    add("--dtype", default="float32", choices=DTYPES, help="type of the weights (q8_0: gguf alone); says what "
        "rounding does to the loss [float32]")  # fmt: skip
    add("--shard-size", type=float, default=SHARD, metavar="GB", help="most gigabytes of a file (hf alone) [5]")
    add("--merge", action="store_true", help="write an adapter run as a whole model, its adapters merged")


def run(config, args) -> dict:
    """Load the best or newest checkpoint and write it, whole or not at all."""
    out = cli.fresh(args.out, "--out")
    require(0 < args.shard_size < 1e9, f"--shard-size {args.shard_size} must be above 0 and finite")
    require(args.shard_size == SHARD or args.format == "hf", f"--format {args.format} has no shards; omit --shard-size")

    from chinchilla_jax.interop import exported
    from chinchilla_jax.training.load import run_folder
    from chinchilla_jax.training.metrics import Terminal

    terminal, run_dir = Terminal(), run_folder(args.run_dir)
    how = exported.How(args.format, args.dtype, int(args.shard_size * 1e9), args.merge)
    report = exported.export(config, run_dir, out, how, terminal.say)
    return {**report, "wrote": [str(out)], "next": following(config, args, run_dir)}


def following(config, args, run_dir: Path) -> str:
    """The next command: a run is evaluated where there is its text, and anything else comes back in."""
    from chinchilla_jax.disk import is_remote
    from chinchilla_jax.training.resume import own_config
    from chinchilla_jax.training.rundir import is_store

    if args.format in RUNS:
        store = config.data.store
        if not is_remote(store) and not is_store(Path(store)):  # that of an imported run
            return hints.use(own_config(run_dir), args.out)
        named = ["--data.store", store] if "data.store" in vars(args) else []
        return hints.line("evaluate", "--run-dir", args.out, *named)
    base = ["--base", own_config(run_dir).tune.base] if args.format == "peft" else []
    return hints.line("import", args.out, "--run-dir", f"{args.out}-again", *base)
