"""What of a model is exactly zero, while it trains and afterwards."""

from pathlib import Path
from typing import Any

from chinchilla_jax.optim.sparsefile import FILE
from chinchilla_jax.optim.sparsity import sparsity_report
from chinchilla_jax.training import mirror
from chinchilla_jax.training.hooks import Hook
from chinchilla_jax.training.integrity import list_files
from chinchilla_jax.training.program import Program

FIGURES = ("density", "zeros", "densities")


def hooks(program: Program) -> list[Hook]:
    """A row of density at every validation, if the run makes zeros."""
    every = program.config.train.eval_every
    on = program.config.sparsity.method != "off"
    return [Hook(every, lambda state, poll: figures(program.evaluated(state)), "density")] if on else []


def figures(params: Any) -> dict[str, Any]:
    """Density of the weight matrices, exact zeros, by layer."""
    found = sparsity_report(params)
    return {name: found[name] for name in FIGURES}


def stored_bytes(run_dir: Path, step: int) -> int:
    """Bytes on the disk of what a run was loaded from: a packed file, or a checkpoint with whatever it holds."""
    if (packed := run_dir / FILE).exists():
        return packed.stat().st_size
    return sum(list_files(mirror.checkpoints(run_dir) / str(step)).values())
