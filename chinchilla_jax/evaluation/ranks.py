"""The ranks that AdaLoRA's budget leaves, while it trains and at the end."""

from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.finetuning.trees import flat
from chinchilla_jax.optim.allocate import allocation
from chinchilla_jax.training.hooks import Hook
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.state import TrainState


def hooks(program: Program) -> list[Hook]:
    """A row of triplets at every validation, if the run has a budget; the last one asserts that it was kept exactly."""
    schedule = program.recipe.schedule(program.config.train.steps)
    if schedule is None:
        return []

    def run(state: TrainState, poll) -> dict[str, Any]:
        alive = ranks(state)
        count, living = int(allocation(state.opt_state).count), sum(map(sum, alive.values()))
        require(
            count <= schedule.last or living == schedule.final == nonzero(state),
            f"{living} triplets are left after {count} updates, and the budget is {schedule.final}",
        )
        return {"triplets": living, "budget": int(schedule.budget(max(0, count - 1)))}

    return [Hook(program.config.train.eval_every, run, "ranks")]


def ranks(state: TrainState) -> dict[str, list[int]]:
    """Matrix -> the rank of every layer."""
    alive = allocation(state.opt_state).alive
    return {name.removesuffix("/e"): np.atleast_2d(np.asarray(x)).sum(-1).tolist() for name, x in alive.items()}


def nonzero(state: TrainState) -> int:
    """Singular values that are not 0."""
    return sum(int((np.asarray(x) != 0).sum()) for name, x in flat(state.params).items() if name.endswith("/e"))
