"""Write report.md and its picture into a run directory."""

import shlex
from pathlib import Path

from chinchilla_jax.config import require

SECTIONS = ()


def options(parser) -> None:
    pass


def run(config, args) -> dict:
    from chinchilla_jax.evaluation import report

    require(bool(args.run_dir), "name the run with --run-dir")
    run_dir = Path(args.run_dir)
    figures = report.write(run_dir)
    print(report.headline(figures))
    following = f"python -m chinchilla_jax generate --run-dir {shlex.quote(args.run_dir)} --interactive"
    return {**figures, "wrote": [str(run_dir / "report.md"), str(run_dir / report.PICTURE)], "next": following}
