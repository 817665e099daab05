"""N:M sparsity with a straight-through gradient: the model sees masked weights, the optimizer keeps dense ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.optim.dynamic import Masks, everything, landing
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.patterns import Site
from chinchilla_jax.optim.window import Window


class DenseState(NamedTuple):
    """Updates that were applied, the masks and the dense weights by the name of their parameter, the inner state."""

    count: jax.Array
    masks: Masks
    dense: dict[str, jax.Array]
    inner: Any


def straight_through(
    inner: optax.GradientTransformation,
    find: Callable[[dict[str, Any]], tuple[Site, ...]],
    window: Window,
    prune: Callable[[tuple[Site, ...], dict[str, jax.Array]], Masks],
    decay: float,
) -> optax.GradientTransformationExtraArgs:
    """SR-STE (Zhou et al. 2021): the parameters are E * W, and W, kept here, moves by g(E * W) + decay (1 - E) W.

    E, the masks, are `prune(sites, W)` in the updates that are due and stand between them; the decay is added to the
    gradient before the inner optimizer, as Hu et al. (2024) do for Adam. Kept parameters equal W to a rounding.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        parameters = named(params)
        masks = everything(parameters, find(parameters))
        dense = {name: jnp.copy(parameters[name]) for name in masks}
        return DenseState(jnp.zeros((), jnp.int32), masks, dense, inner.init(params))

    def update(grads, state, params, **extra):
        parameters, dense = named(params), state.dense
        sites = find(parameters)
        due = window.due(state.count)
        masks = jax.lax.cond(due, lambda _: prune(sites, dense), lambda masks: masks, state.masks)
        pull = {name: jnp.where(masks[name], 0, decay * w).astype(w.dtype) for name, w in dense.items()}
        grads = map_followers(lambda g, more: g + more, grads, pull)
        moving = map_followers(lambda _, w: w, params, dense)
        updates, following = inner.update(grads, state.inner, moving, **extra)
        landed = {name: w for name, w in named(optax.apply_updates(moving, updates)).items() if name in dense}
        steps = {name: w - parameters[name] for name, w in landed.items()}
        updates = landing(map_followers(lambda _, step: step, updates, steps), parameters, masks)
        return updates, DenseState(state.count + 1, masks, landed, following)

    return optax.GradientTransformationExtraArgs(init, update)
