"""What of a model is exactly zero, while it trains and afterwards."""

from typing import Any

from chinchilla_jax.optim.sparsity import sparsity_report
from chinchilla_jax.training.hooks import Hook
from chinchilla_jax.training.program import Program

FIGURES = ("density", "zeros", "packed_bytes", "densities")


def hooks(program: Program) -> list[Hook]:
    """A row of density at every validation, if the run makes zeros."""
    every = program.config.train.eval_every
    on = program.config.sparsity.method != "off"
    return [Hook(every, lambda state, poll: figures(program.evaluated(state)), "density")] if on else []


def figures(params: Any) -> dict[str, Any]:
    """Density of the weight matrices, exact zeros, bytes when packed (bfloat16 values and a bit a weight), by layer."""
    found = sparsity_report(params)
    return {name: found[name] for name in FIGURES}
