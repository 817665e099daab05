"""One optax chain: clip, AdamW with masks by path, schedule, average of the parameters."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.config import OptimizerConfig, SparsityConfig, require
from chinchilla_jax.optim.sparsity import Links, share_zeros, sparsify

# Which parameters decay: every leaf's path matches exactly one pattern.
DECAY_RULES = (
    (r"/kernel$", True),
    (r"^(?!rows/).*/table$", True),
    (r"(/|_)bias$", False),
    (r"/scale$", False),
    (r"^(adapters|rows)/", False),  # their leaves have names of their own
)


def by_path(params, rules: tuple[tuple[str, Any], ...]):
    """The tree of values that `rules`, (pattern, value) pairs, give the leaves of `params`.

    A leaf that no pattern or more than one matches is a `UserError` that names it.
    """

    def one(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = [value for pattern, value in rules if re.search(pattern, name)]
        require(len(found) == 1, f"parameter {name} is matched by {len(found)} of the rules {[p for p, _ in rules]}")
        return found[0]

    return jax.tree_util.tree_map_with_path(one, params)


class AverageState(NamedTuple):
    """The running average of the parameters."""

    average: Any


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keep average <- decay * average + (1 - decay) * (params + updates); updates pass through unchanged."""

    def update(updates, state, params):
        def one(mean, p, u):
            return decay * mean + (1 - decay) * (p + u)

        return updates, AverageState(jax.tree.map(one, state.average, params, updates))

    return optax.GradientTransformation(lambda params: AverageState(jax.tree.map(jnp.copy, params)), update)


def averaged(opt_state):
    """The averaged parameters inside an optimizer state, or None where none are kept."""
    found = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_average) if _is_average(s)]
    return found[0].average if found else None


def _is_average(state) -> bool:
    return isinstance(state, AverageState)


def scale_by_adam(cfg: OptimizerConfig) -> optax.GradientTransformation:
    """optax's, with the moments settled before anything is made of them.

    XLA:CPU would otherwise compute them again where parameters are updated, from copies of the old ones.
    """
    adam = optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps)

    def update(grads, state, params=None):
        _, state = adam.update(grads, state, params)
        mu, nu = jax.lax.optimization_barrier((state.mu, state.nu))
        state = state._replace(mu=mu, nu=nu)
        mu = optax.tree.bias_correction(state.mu, cfg.b1, state.count)
        nu = optax.tree.bias_correction(state.nu, cfg.b2, state.count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + cfg.eps), mu, nu), state

    return optax.GradientTransformation(adam.init, update)


Around = Callable[[Links, int], Links]


def as_they_are(links: Links, steps: int) -> Links:
    """The links themselves."""
    return links


def build(
    cfg: OptimizerConfig,
    rate: optax.Schedule,
    sparsity: SparsityConfig = SparsityConfig(),  # noqa: B008
    *,
    steps: int = 1,
    seed: int = 0,
    around: Around = as_they_are,
) -> optax.GradientTransformation:
    """clip -> Adam moments -> decoupled decay -> -rate -> zeros -> average (Loshchilov & Hutter 2019).

    `steps`, the updates of the run, and `seed` matter to `sparsity` alone. `around(links, steps)` is what a method of
    tuning makes of the links behind the clip.
    """
    links = [optax.clip_by_global_norm(cfg.clip_norm)] if cfg.clip_norm else []
    moving = [
        scale_by_adam(cfg),
        optax.add_decayed_weights(cfg.weight_decay, mask=lambda params: by_path(params, DECAY_RULES)),
        optax.scale_by_learning_rate(rate),
    ]
    links = sparsify([*links, *around(moving, steps)], sparsity, rate, steps, seed)
    links += [share_zeros(average_parameters(cfg.ema_decay), sparsity)] if cfg.ema_decay else []
    return optax.chain(*links)
