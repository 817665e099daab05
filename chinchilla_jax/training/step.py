"""The train step. The loss is injected: the step does not know which objective it runs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.training.state import TrainState
from chinchilla_jax.types import Batch, Sums

Metrics = dict[str, jax.Array]


def split(batch: Batch, parts: int) -> Batch:
    """(B, L) -> (parts, B / parts, L), every part spread over all devices that share the batch."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, x.shape[-1]).swapaxes(0, 1), batch)


def accumulate(objective: Objective, parts: int) -> Callable:
    """`objective.gradients` over `parts` microbatches: sums of gradients and of losses, divided by nobody yet."""
    if parts == 1:
        return objective.gradients

    def gradients(params, batch, key, step, carry):
        def one(so_far, part):
            grads, sums, carry = so_far
            new, more, carry = objective.gradients(params, part[0], part[1], step, carry)
            return (jax.tree.map(jnp.add, grads, new), sums + more, carry), None

        start = jax.tree.map(jnp.zeros_like, params), Sums.zero(objective.others), carry
        return jax.lax.scan(one, start, (split(batch, parts), jax.random.split(key, parts)))[0]

    return gradients


def build(
    bind: Callable[[Any], Objective],
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    *,
    parts: int,
    seed: int,
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]:
    """train_step(state, batch, frozen) -> state, metrics; one whose loss or gradients are not finite changes nothing.

    `bind(frozen)` is the objective over what trains, which is all that the state, the gradients and `optimizer` know.
    """

    def train_step(state: TrainState, batch: Batch, frozen: Any):
        objective = bind(frozen)
        gradients = accumulate(objective, parts)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, sums, carry = gradients(state.params, batch, key, state.step, state.carry)
        grads = jax.tree.map(lambda g: g / sums.weight, grads)
        grad_norm = optax.tree.norm(grads)
        ok = jnp.isfinite(sums.loss) & jnp.isfinite(grad_norm)

        def updated():
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return optax.apply_updates(state.params, updates), opt_state, carry

        params, opt_state, carry = jax.lax.cond(ok, updated, lambda: (state.params, state.opt_state, state.carry))
        metrics = {
            "loss": sums.loss / sums.weight,
            objective.weighs: sums.weight,
            "grad_norm": grad_norm,
            "lr": rate(state.step - state.skipped),
            **{name: other.loss / other.weight for name, other in sums.others.items()},
        }
        skipped = state.skipped + ~ok
        bad = jnp.where(ok, 0, state.bad + 1)
        state = dataclasses.replace(
            state, step=state.step + 1, skipped=skipped, bad=bad, params=params, opt_state=opt_state, carry=carry
        )
        return state, metrics | {"skipped": skipped, "bad": bad}

    return train_step
