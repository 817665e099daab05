"""Write a run as a Hugging Face folder, a GGUF file, a PEFT adapter, or a run of fewer bytes: sparse, or sliced."""

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require

SECTIONS = ("data.store", "mesh", "checkpoint.verify")
FORMATS = ("hf", "gguf", "peft", "sparse", "sliced")
RUNS = ("sparse", "sliced")  # what is written is a run directory again
DTYPES = ("float32", "bfloat16", "float16", "q8_0")


def options(parser) -> None:
    """Flags of this command."""
    add = parser.add_argument
    add("--format", default="hf", choices=FORMATS, help="what to write; sparse: a run whose zeros take no "
        "room; sliced: a smaller dense run without dead neurons and heads [hf]")  # fmt: skip
    add("--out", metavar="PATH", help="folder to write (gguf: file); must not exist")
    add("--dtype", default="float32", choices=DTYPES, help="type of the weights (q8_0: gguf alone); says what "
        "rounding does to the loss [float32]")  # fmt: skip
    add("--shard-size", type=float, default=5.0, metavar="GB", help="most gigabytes of a file of weights [5]")
    add("--merge", action="store_true", help="write an adapter run as a whole model, its adapters merged")


def run(config, args) -> dict:
    """Load the newest checkpoint and write it, whole or not at all."""
    out = cli.fresh(args.out, "--out")
    require(args.shard_size > 0, f"--shard-size {args.shard_size} must be above 0")

    from chinchilla_jax.interop import exported
    from chinchilla_jax.training.load import run_folder
    from chinchilla_jax.training.metrics import Terminal

    terminal, run_dir = Terminal(), run_folder(args.run_dir)
    how = exported.How(args.format, args.dtype, int(args.shard_size * 1e9), args.merge)
    report = exported.export(config, run_dir, out, how, terminal.say)
    return {**report, "wrote": [str(out)], "next": report.get("next") or following(args.format, str(out))}


def following(form: str, out: str) -> str:
    """The next command."""
    if form in RUNS:
        return hints.line("evaluate", "--run-dir", out)
    return hints.line("import", out, "--run-dir", f"{out}-again", *(["--base", "BASE_RUN"] * (form == "peft")))
