"""Proximal sparsity as the last link of a chain: decoupled from the moments, as AdamW's decay is.

The update u becomes prox(p + u) - p, with the threshold rate * strength; what the prox makes 0 lands on exactly 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.optim.dynamic import landing
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.patterns import Site
from chinchilla_jax.optim.window import Window

# (sites, weights by name, threshold) -> shrunk weights by name
Prox = Callable[[tuple[Site, ...], dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


class ProximalState(NamedTuple):
    """Updates that were applied."""

    count: jax.Array


def proximal(
    prox: Prox,
    find: Callable[[dict[str, Any]], tuple[Site, ...]],
    window: Window,
    rate: optax.Schedule,
    strength: float,
) -> optax.GradientTransformation:
    """The link; outside the window it shrinks nothing, and after it what is 0 stays so and the rest is free."""

    def init(params):
        find(named(params))  # refuse what does not fit before the first step
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(updates, state, params):
        count, parameters = state.count, named(params)
        sites = find(parameters)
        names = [name for site in sites for name in site.names]
        steps = {name: u.astype(jnp.float32) for name, u in named(updates).items() if name in names}
        arrived = {name: parameters[name].astype(jnp.float32) + u for name, u in steps.items()}
        shrunk = prox(sites, arrived, jnp.where(window.open(count), rate(count) * strength, 0.0))
        # u less what the prox took away, rather than prox - p: it rounds once, and is u where nothing was taken.
        updates = map_followers(lambda u, change: u + change, updates, {n: shrunk[n] - arrived[n] for n in names})
        stay = {n: (shrunk[n] != 0) & ((parameters[n] != 0) | (count <= window.last)) for n in names}
        return landing(updates, parameters, stay), ProximalState(count + 1)

    return optax.GradientTransformation(init, update)


def l1(sites: tuple[Site, ...], weights: dict[str, jax.Array], threshold) -> dict[str, jax.Array]:
    """soft(w, t) = sign(w) max(|w| - t, 0)."""
    del sites
    return {name: w - jnp.clip(w, -threshold, threshold) for name, w in weights.items()}


def group_lasso(sites: tuple[Site, ...], weights: dict[str, jax.Array], threshold) -> dict[str, jax.Array]:
    """w_g max(1 - t sqrt(n_g) / |w_g|, 0) for every unit g of n_g weights (Yuan & Lin 2006)."""
    shrunk = {}
    for site in sites:
        norm = site.scores(weights)
        factor = jnp.maximum(1 - threshold * jnp.sqrt(1.0 * site.unit_size) / jnp.maximum(norm, 1e-30), 0.0)
        shrunk |= {name: factor * weights[name] for name, factor in site.spread(factor, weights).items()}
    return shrunk
