"""The state of a run: what a checkpoint holds and a step replaces."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import transformer
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


def create(key: jax.Array, cfg: ModelConfig, objective: Objective, optimizer: optax.GradientTransformation):
    """A state at step 0; run it under `jit` with out_shardings."""
    params = transformer.init(key, cfg)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, zero, params, optimizer.init(params), objective.init(params))


def abstract(cfg: ModelConfig, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh):
    """Shapes, types and shardings of the state on a mesh; whatever follows a parameter is laid out as it is."""
    shapes = jax.eval_shape(lambda: create(jax.random.key(0), cfg, objective, optimizer))
    whole = sharding.replicated(mesh)
    placed = sharding.shardings(mesh, shapes.params, transformer.logical_axes(cfg))
    followed = named(jax.tree.map(_at, shapes.params, placed))
    opt_placed = map_followers(lambda _, p: p.sharding, shapes.opt_state, followed, otherwise=lambda _: whole)
    carry_placed = sharding.shardings(mesh, shapes.carry, objective.carry_axes)
    tree = TrainState(whole, whole, whole, placed, opt_placed, carry_placed)
    return jax.tree.map(_at, shapes, tree)


def evaluated(state: TrainState) -> Any:
    """The averaged parameters where the run keeps them, else the parameters."""
    average = averaged(state.opt_state)
    return state.params if average is None else average


def _at(leaf, where) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
