"""Write report.md and its picture into a run directory."""

from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require

SECTIONS = ()


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--out", metavar="DIR", help="folder of the page, where the run may only be read [--run-dir]")


def run(config, args) -> dict:
    """Write the page and say its main figures."""
    from chinchilla_jax.evaluation import report

    require(bool(args.run_dir), "name the run with --run-dir")
    run_dir, out = Path(args.run_dir), Path(args.out or args.run_dir)
    cli.writable(out, "--out")
    if (run_dir / "task.json").exists() and (run_dir / "metrics.jsonl").exists():  # and no imported adapter
        return tuned(run_dir, out)
    figures = report.write(run_dir, out)
    print(report.headline(figures))
    written = (out / "report.md", out / report.PICTURE)
    following = hints.line("generate", "--run-dir", args.run_dir, "--interactive")
    return {**figures, "wrote": [str(path) for path in written if path.exists()], "next": following}


def tuned(run_dir: Path, out: Path) -> dict:
    """The page of a run of finetune."""
    from chinchilla_jax.training.resume import own_config
    from chinchilla_jax.tuning import report

    figures = report.write(run_dir, out)
    print(report.headline(figures))
    following = hints.use(own_config(run_dir), str(run_dir))
    return {**figures, "wrote": [str(out / "report.md"), str(out / report.PICTURE)], "next": following}
