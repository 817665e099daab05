"""The state of a run: what a checkpoint holds and a step replaces."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.optim.optimizer import averaged
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.parallel import sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """`step` completed steps, `skipped` of which were not applied, the last `bad` of them in a row."""

    step: jax.Array
    skipped: jax.Array
    bad: jax.Array
    params: Any
    opt_state: Any
    carry: Any


def create(params: Any, objective: Objective, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0 of what trains; run it under `jit` with out_shardings."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, zero, params, optimizer.init(params), objective.init(params))


def abstract(params: Any, axes: Any, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh):
    """Shapes, types and shardings of the state on a mesh, from the shapes and logical axes of what trains.

    Whatever follows a parameter is laid out as it is.
    """
    shapes = jax.eval_shape(lambda params: create(params, objective, optimizer), params)
    whole = sharding.replicated(mesh)
    placed = sharding.shardings(mesh, shapes.params, axes)
    followed = named(placed_on(shapes.params, placed))
    opt_placed = map_followers(lambda _, p: p.sharding, shapes.opt_state, followed, otherwise=lambda _: whole)
    carry_placed = sharding.shardings(mesh, shapes.carry, objective.carry_axes)
    return placed_on(shapes, TrainState(whole, whole, whole, placed, opt_placed, carry_placed))


def evaluated(state: TrainState) -> Any:
    """The averaged parameters where the run keeps them, else the parameters."""
    average = averaged(state.opt_state)
    return state.params if average is None else average


def placed_on(shapes: Any, where: Any) -> Any:
    """Shapes and types with shardings."""
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, where)
