"""A tree with two matrices that become sparse, a bias and a table that do not, and updates of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chinchilla_jax.config import SparsityConfig
from chinchilla_jax.optim.paths import named
from tests import tiny

UP, DOWN = "blocks/mlp/up/kernel", "blocks/mlp/down/kernel"
SHAPES = {"blocks": {"mlp": {"up": {"kernel": (2, 8, 12), "bias": (2, 12)}, "down": {"kernel": (2, 12, 8)}}},
          "embed": {"table": (7, 8)}}  # fmt: skip
STEPS = 12


def draw(seed: int, kind=np.float32):
    rng = np.random.default_rng(seed)
    make = lambda shape: jnp.asarray(rng.standard_normal(shape), kind)  # noqa: E731
    return jax.tree.map(make, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def sparsity(method: str, **changes) -> SparsityConfig:
    often = {} if method in ("l1", "group_lasso") else {"every": 2}
    return SparsityConfig(method=method, **often | changes)


def run(tx, steps: int = STEPS, kind=np.float32, place=lambda w: w):
    """Parameters and states after every update, from gradients that do not know the parameters."""

    @tiny.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, seen = jax.tree.map(place, draw(0, kind)), []
    state = tx.init(params)
    for number in range(steps):
        params, state = step(params, state, draw(number + 1, kind))
        seen.append((named(params), state))
    return seen


def zeros(leaf) -> float:
    return float((np.asarray(leaf, np.float32) == 0).mean())
