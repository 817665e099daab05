"""AdaLoRA's settings as a schedule, and its penalty."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.config import TuneConfig, require
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.optim.allocate import Schedule, allocate
from chinchilla_jax.optim.sparsity import Links


def schedule(tune: TuneConfig, matrices: int, steps: int) -> Schedule:
    """From the start rank to the final one, in the mean over so many matrices, in a run of `steps` updates."""
    start, final = tune.ranks(0)
    first, last = round(tune.begin * steps), steps - max(1, round(tune.finish * steps))
    require(
        0 <= first < last < steps,
        f"--tune.method adalora cannot lower its budget in {steps} steps; raise --train.steps",
    )
    return Schedule(matrices * start, matrices * final, first, last, tune.every or min(max(10, steps // 100), last))


def links(tune: TuneConfig, when: Schedule, links: Links) -> Links:
    """The optimizer's links under a budget."""
    return [allocate(optax.chain(*links), when, tune.beta, held=tune.compat == "ours")]


def orthogonality(adapters: list[tuple[Site, dict[str, Any]]]) -> jax.Array:
    """The mean over all a and b of |a^T a - 1|, |b b^T - 1| in the Frobenius norm, which peft does not square."""
    norms = []
    for site, leaves in adapters:
        lead, rank = leaves["e"].shape[: site.lead], leaves["e"].shape[-1]
        a = leaves["a"].reshape(*lead, -1, rank)
        b = leaves["b"].reshape(*lead, rank, -1).swapaxes(-1, -2)
        for factor in (a, b):
            gram = jnp.einsum("...ir,...is->...rs", factor, factor) - jnp.eye(rank)
            norms.append(jnp.sqrt(jnp.sum(jnp.square(gram), (-2, -1)) + 1e-30).reshape(-1))
    return jnp.mean(jnp.concatenate(norms))
