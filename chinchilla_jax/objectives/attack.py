"""What the adversarial methods are made of: which rows, how large, where to, and a training pass."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.config import AdversarialConfig, Config
from chinchilla_jax.objectives import perturb
from chinchilla_jax.objectives.dense import tile_size
from chinchilla_jax.objectives.divergence import divergence
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Batch, Sums

UNROLLED = 4  # ascent steps that are written out; a loop of more compiles once


@dataclass(frozen=True)
class Attack:
    """A settled config over the dense objective. The attacked rows are always the first n of a microbatch.

    The first, and not every so manieth: so the dropout masks of a pass over n rows are those that the same rows have in
    a pass over all of them. n is rounded down, to 1 at least, in every microbatch. Letter: n attacked rows.
    """

    base: Objective
    config: Config
    cfg: AdversarialConfig
    axes: Any = ()  # logical axes of what trains

    # Which rows

    def active(self, step) -> bool | jax.Array:
        """Whether `step` attacks; plainly True, so that nothing has to be decided, where every step does."""
        begin = self.cfg.first(self.config.train.steps)
        if begin == 0 and self.cfg.every == 1:
            return True
        return (step >= begin) & ((step - begin) % self.cfg.every == 0)

    def count(self, rows: int) -> int:
        """n of so many rows."""
        return max(1, int(self.cfg.fraction * rows + 1e-6))

    def rows(self, batch: Batch) -> int:
        """n of a microbatch."""
        return self.count(len(batch.tokens))

    def hit(self, batch: Batch) -> jax.Array:
        """1 in the attacked rows, 0 in the others: (B, 1)."""
        return (jnp.arange(len(batch.tokens)) < self.rows(batch)).astype(jnp.float32)[:, None]

    def share(self, batch: Batch, active, weight: float) -> jax.Array:
        """The factor of every row's weights: `weight` for the rows that are attacked, else 1: (B, 1)."""
        return 1 + self.hit(batch) * active * (weight - 1)

    @property
    def shards(self) -> int:
        """Devices that share the rows of a batch."""
        return abs(self.config.mesh.data * self.config.mesh.fsdp)

    def filled(self, n: int) -> int:
        """The rows of a pass over n: as many more, empty ones, as it takes until the shards divide them."""
        return n + -n % self.shards

    def take(self, tree, n: int):
        """The first n rows of every array, filled up."""
        filling = self.filled(n) - n

        def one(x):
            x = jnp.pad(x[:n], [(0, filling)] + [(0, 0)] * (x.ndim - 1))
            return constrain(x, "batch", *[None] * (x.ndim - 1))

        return jax.tree.map(one, tree)

    def spread(self, delta_nLD: jax.Array, n: int, rows: int) -> jax.Array:
        """The perturbation of n rows as one of all of them, nothing being added to the others."""
        delta_BLD = jnp.pad(delta_nLD[:n], [(0, rows - n), (0, 0), (0, 0)])
        return constrain(delta_BLD, "batch", None, None)

    # How large, and where to

    def size(self, params) -> jax.Array:
        """The radius in units of the embeddings."""
        return self.cfg.radius * self.config.model.embed_scale * perturb.mean_norm(self.base.embedding(params))

    def noise(self, params, part: Batch, key) -> jax.Array:
        """Where an ascent starts, or the whole of a method's noise."""
        width, size = self.config.model.d_model, self.size(params)
        delta_nLD = perturb.draw(key, part, width, size, self.cfg.norm, self.cfg.init)
        return delta_nLD * perturb.allowed(part, self.cfg.special)

    def start(self, params, part: Batch, key) -> jax.Array:
        """The same, inside the ball."""
        return perturb.project(self.noise(params, part, key), part.segments, self.size(params), self.cfg.norm)

    def along(self, g_nLD: jax.Array, part: Batch) -> jax.Array:
        """The point of the unit ball that a gradient points to."""
        return perturb.steepest(g_nLD * perturb.allowed(part, self.cfg.special), part.segments, self.cfg.norm)

    def moved(self, params, delta_nLD, g_nLD, part: Batch) -> jax.Array:
        """One step of projected ascent: delta <- project(delta + step_size * size * steepest(g))."""
        size = self.size(params)
        delta_nLD = delta_nLD + self.cfg.step_size * size * self.along(g_nLD, part)
        return perturb.project(delta_nLD, part.segments, size, self.cfg.norm)

    # Passes

    def copies(self, key) -> list[jax.Array]:
        """A key for the randomness of every example; dropout has another, the same in all passes."""
        return list(jax.random.split(jax.random.fold_in(key, 1), self.cfg.examples))

    @property
    def tile_tokens(self) -> int:
        """Tokens of a tile of the products with the vocabulary."""
        return tile_size(self.config.model, self.config.objective)

    def diverged(self, perturbed_nLD, clean_nLD, table_VD, targets_nL, weights_nL):
        """Sum of the divergences from the clean prediction, and the cross-entropy of every perturbed token (n, L)."""
        arrays = perturbed_nLD, jax.lax.stop_gradient(clean_nLD), table_VD, targets_nL, weights_nL
        return divergence(*arrays, self.cfg.loss, False, self.tile_tokens)

    def apart(self, params, part: Batch, key, delta_nLD, clean_nLD):
        """`diverged` of a pass over perturbed rows; without any price, so that the divergence is all there is."""

        def head(perturbed_nLD, table_VD, part):
            return self.diverged(perturbed_nLD, clean_nLD, table_VD, part.targets, part.weights)

        return self.base.loss(params, part, key, delta_nLD, head, priced=False)

    def everything(self, params, part: Batch, key, delta_nLD, weights_nL, head=None):
        """One pass of the dense loss, or of `head`, which has that in it and hands the hidden states on.

        Gradients of the parameters and of delta, the loss of every token (n, L), and the hidden states (n, L, D).
        """

        def loss(params, delta_nLD, weights_nL):
            weighted = dataclasses.replace(part, weights=weights_nL)
            return self.base.loss(params, weighted, key, delta_nLD, head or self.base.head)

        total, pull, hidden_nLD = jax.vjp(loss, params, delta_nLD, weights_nL, has_aux=True)
        return *pull(jnp.ones_like(total)), hidden_nLD

    def train(self, params, part: Batch, key, delta_nLD, clean_nLD):
        """Gradients of the weighted loss of perturbed rows, and the Sums of their cross-entropy."""
        weights_nL = part.weights * (self.cfg.weight / self.cfg.examples)
        if self.cfg.loss == "ce":
            grads, _, losses_nL, _ = self.everything(params, part, key, delta_nLD, weights_nL)
        else:
            weighted = dataclasses.replace(part, weights=weights_nL)
            grads, losses_nL = jax.grad(self.apart, has_aux=True)(params, weighted, key, delta_nLD, clean_nLD)
        return grads, sums(losses_nL, part.weights)


def sums(losses_BL: jax.Array, weights_BL: jax.Array) -> Sums:
    """The weighted sum of token losses, and the weight."""
    return Sums(jnp.sum(weights_BL * losses_BL), jnp.sum(weights_BL))


def add(a, b):
    """The sum of two trees."""
    return jax.tree.map(jnp.add, a, b)


def when(active: bool | jax.Array, yes: Callable, no: Callable):
    """yes() or no(), whichever is due; only that one is computed."""
    return yes() if active is True else jax.lax.cond(active, yes, no)


def nothing(yes: Callable, *args):
    """Zeros in the shape of yes(*args), of which nothing is computed."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(yes, *args))


def repeat(times: int, one: Callable, start):
    """`one` applied so many times, written out where that is little."""
    if times <= UNROLLED:
        for _ in range(times):
            start = one(start)
        return start
    return jax.lax.fori_loop(0, times, lambda _, x: one(x), start)
