"""Masks that live in the optimizer's state: gradual magnitude pruning, RigL and SET round any optimizer.

What is masked gets no gradient, so that it neither clips nor decays what is left; its moments, whatever the optimizer
calls them, are 0; and the update takes it to exactly 0: p + (-p).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.config import SparsityConfig
from chinchilla_jax.optim.masks import erk, keep_largest, keep_largest_of_all, n_m
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.patterns import Site
from chinchilla_jax.optim.window import Window, cosine, cubic

Masks = dict[str, jax.Array]


class MaskState(NamedTuple):
    """Updates that were applied, the masks (True stays) by the name of their parameter, and the inner optimizer."""

    count: jax.Array
    masks: Masks
    inner: Any


def masked(
    inner: optax.GradientTransformation,
    find: Callable[[dict[str, Any]], tuple[Site, ...]],
    window: Window,
    change: Callable[..., Masks],
) -> optax.GradientTransformationExtraArgs:
    """`inner` with masks on the parameters of the sites that `find` names.

    `change(sites, count, masks, params, grads) -> masks` runs in the updates that are due and in no other; params and
    grads are dicts by name, grads dense. A weight that comes back starts from 0, with moments of 0, in the next update.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        parameters = named(params)
        masks = everything(parameters, find(parameters))
        return MaskState(jnp.zeros((), jnp.int32), masks, inner.init(params))

    def update(grads, state, params, **extra):
        parameters, gradients = named(params), named(grads)
        sites = find(parameters)

        def changed(masks):
            return change(sites, state.count, masks, parameters, gradients)

        masks = jax.lax.cond(window.due(state.count), changed, lambda masks: masks, state.masks)
        active = {name: state.masks[name] & mask for name, mask in masks.items()}
        updates, following = inner.update(map_followers(zeroed, grads, active), state.inner, params, **extra)
        updates = landing(updates, parameters, active)
        return updates, MaskState(state.count + 1, masks, map_followers(zeroed, following, active))

    return optax.GradientTransformationExtraArgs(init, update)


def everything(parameters: dict[str, jax.Array], sites: tuple[Site, ...]) -> Masks:
    """The masks of a dense model."""
    return {name: jnp.ones(parameters[name].shape, bool) for site in sites for name in site.names}


def zeroed(x, mask):
    """`x` where the mask stands, exactly 0 elsewhere."""
    return jnp.where(mask, x, jnp.zeros_like(x))


def landing(updates, parameters: dict[str, jax.Array], masks: Masks):
    """`updates` that take what is masked to exactly 0 in any float type."""
    pairs = {name: _Pair(parameters[name], mask) for name, mask in masks.items()}
    # The parameter's own type is kept, if it is the wider one: a rounded -p would not cancel.
    return map_followers(lambda u, pair: jnp.where(pair.mask, u, -pair.p), updates, pairs)


class _Pair(NamedTuple):
    p: jax.Array
    mask: jax.Array

    @property
    def shape(self):
        return self.p.shape


def prune(cfg: SparsityConfig, sites: tuple[Site, ...], weights: dict[str, jax.Array], ramp) -> Masks:
    """Masks that keep the largest units: of the target's zeros (of M - N in every M) the share `ramp`, 0 to 1."""
    scores = [site.scores(weights) for site in sites]
    if sites[0].n_m:
        kept = [_n_m(score, *site.n_m, ramp) for site, score in zip(sites, scores)]
    else:
        kept = DISTRIBUTIONS[cfg.distribution](sites, scores, cfg.target, ramp)
    return {name: mask for site, units in zip(sites, kept) for name, mask in site.spread(units, weights).items()}


def _n_m(score, n: int, m: int, ramp):
    return n_m(score, m - jnp.round((m - n) * ramp), m, axis=1)


def _by_layer(sites, scores, densities, ramp):
    """Every layer of every site by itself: ramp (1 - density) of its units are zero, and at least one is not."""
    kept = []
    for site, score, density in zip(sites, scores, densities):
        zeros = jnp.round(ramp * min(round(site.units * (1 - density)), site.units - 1))
        kept.append(keep_largest(score, site.units - zeros, axes=range(1, score.ndim)))
    return kept


def _uniform(sites, scores, target, ramp):
    return _by_layer(sites, scores, [1 - target] * len(sites), ramp)


def _erk(sites, scores, target, ramp):
    shapes = [site.matrix[1:] for site in sites for _ in range(site.matrix[0])]
    by_shape = dict(zip(shapes, erk(shapes, 1 - target)))
    return _by_layer(sites, scores, [by_shape[site.matrix[1:]] for site in sites], ramp)


def _global(sites, scores, target, ramp):
    """One threshold over all layers; scores over the norm of their layer, as in jaxpruner.

    The norm is rounded to 8 bits, so that the order of its sum, and with it the mesh, is not seen in the mask.
    """

    def normalised(score):
        norm = jnp.sqrt(jnp.sum(jnp.square(score), range(1, score.ndim), keepdims=True))
        return score / jnp.maximum(jax.lax.reduce_precision(norm, 8, 7), 1e-30)

    units = sum(site.matrix[0] * site.units for site in sites)
    return keep_largest_of_all([normalised(score) for score in scores], units - jnp.round(ramp * round(units * target)))


DISTRIBUTIONS = {"auto": _uniform, "uniform": _uniform, "erk": _erk, "global": _global}


def magnitude(cfg: SparsityConfig, window: Window, seed: int):
    """Gradual pruning: the cubic schedule's share of the smallest is zero, and zeros stay zero.

    Also where a run that had ended goes on as a longer one, whose schedule asks for less than there is.
    """
    del seed

    def change(sites, count, masks, params, grads):
        del grads
        kept = prune(cfg, sites, params, cubic(window.share(count)))
        return {name: mask & masks[name] for name, mask in kept.items()}

    return change


def moving(cfg: SparsityConfig, window: Window, attraction: Callable):
    """First the largest weights; then the smallest of them go, and as many grow where `attraction` is largest.

    A share drop / 2 (1 + cos(pi t / T)) of the active weights of a layer moves, at most as many as are inactive.
    """

    def move(sites, count, masks, params, grads):
        moved = {}
        for number, site in enumerate(sites):
            alive = site.alive(masks)
            axes = tuple(range(1, alive.ndim))
            active = jnp.sum(alive, axes, dtype=jnp.uint32, keepdims=True)
            share = cfg.drop * cosine(window.share(count))
            going = jnp.minimum(jnp.floor(share * active).astype(jnp.uint32), site.units - active)
            kept = keep_largest(site.scores(params), active - going, axes=axes, allowed=alive)
            pull = attraction(site, grads, count, number)
            units = kept | keep_largest(pull, going, axes=axes, allowed=~alive)
            moved |= site.spread(units, params)
        return moved

    def change(sites, count, masks, params, grads):
        return jax.lax.cond(
            count == window.first,
            lambda: prune(cfg, sites, params, 1.0),
            lambda: move(sites, count, masks, params, grads),
        )

    return change


def rigl(cfg: SparsityConfig, window: Window, seed: int):
    """RigL: what has the largest gradient grows (Evci et al. 2020)."""
    del seed
    return moving(cfg, window, lambda site, grads, count, number: site.scores(grads))


def random_growth(cfg: SparsityConfig, window: Window, seed: int):
    """SET: anything grows (Mocanu et al. 2018)."""

    def attraction(site, grads, count, number):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), number)
        return jax.random.uniform(key, jax.eval_shape(site.scores, grads).shape)

    return moving(cfg, window, attraction)
