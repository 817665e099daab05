"""Write report.md and its picture into a run directory."""

from pathlib import Path

from chinchilla_jax.commands import cli
from chinchilla_jax.config import require

SECTIONS = ()


def options(parser) -> None:
    """No flags of its own."""


def run(config, args) -> dict:
    """Write the page and say its main figures."""
    from chinchilla_jax.evaluation import report

    require(bool(args.run_dir), "name the run with --run-dir")
    run_dir = Path(args.run_dir)
    figures = report.write(run_dir)
    print(report.headline(figures))
    following = cli.line("generate", "--run-dir", args.run_dir, "--interactive")
    return {**figures, "wrote": [str(run_dir / "report.md"), str(run_dir / report.PICTURE)], "next": following}
