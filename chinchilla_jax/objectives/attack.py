"""What the adversarial methods are made of: when, how large, where to, and a training pass."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.config import AdversarialConfig, Config
from chinchilla_jax.objectives import losses, perturb
from chinchilla_jax.objectives.dense import tile_size
from chinchilla_jax.objectives.losses import tiled
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.rows import Rows
from chinchilla_jax.types import Batch


@dataclass(frozen=True)
class Attack:
    """A settled config over the dense objective. Letter: n attacked rows, the first ones of a microbatch."""

    base: Objective
    config: Config
    cfg: AdversarialConfig
    axes: Any = ()  # logical axes of what trains

    @property
    def rows(self) -> Rows:
        """Which rows are attacked."""
        return Rows(self.config, self.cfg.fraction)

    def active(self, step) -> bool | jax.Array:
        """Whether `step` attacks; plainly True, so that nothing has to be decided, where every step does."""
        begin = self.cfg.first(self.config.train.steps)
        if begin == 0 and self.cfg.every == 1:
            return True
        return (step >= begin) & ((step - begin) % self.cfg.every == 0)

    def hit(self, batch: Batch) -> jax.Array:
        """1 in the attacked rows, 0 in the others: (B, 1)."""
        rows = len(batch.tokens)
        return (jnp.arange(rows) < self.rows.count(rows)).astype(jnp.float32)[:, None]

    def weighted(self, batch: Batch, active, weight: float) -> Batch:
        """The batch with the weights of attacked rows times `weight`."""
        return dataclasses.replace(batch, weights=batch.weights * (1 + self.hit(batch) * active * (weight - 1)))

    # How large, and where to

    def size(self, params, part: Batch) -> jax.Array:
        """The radius at every token: (n, L, 1), or one number for all."""
        unit = perturb.unit(self.cfg.unit, self.base.embedding(params), part, self.cfg.norm)
        return self.cfg.radius * (1.0 if self.cfg.unit == "absolute" else self.config.model.embed_scale) * unit

    def noise(self, params, part: Batch, key) -> jax.Array:
        """Where an ascent starts, or the whole of a method's noise."""
        width, size = self.config.model.d_model, self.size(params, part)
        delta_nLD = perturb.draw(key, part, width, size, self.cfg.norm, self.cfg.init)
        return delta_nLD * perturb.allowed(part, self.cfg.control)

    def start(self, params, part: Batch, key) -> jax.Array:
        """The same, inside the ball."""
        return perturb.project(self.noise(params, part, key), part.segments, self.size(params, part), self.cfg.norm)

    def along(self, g_nLD: jax.Array, part: Batch) -> jax.Array:
        """The point of the unit ball that a gradient points to."""
        return perturb.steepest(g_nLD * perturb.allowed(part, self.cfg.control), part.segments, self.cfg.norm)

    def moved(self, params, delta_nLD, g_nLD, part: Batch) -> jax.Array:
        """One step of projected ascent: delta <- project(delta + step_size * size * steepest(g))."""
        size = self.size(params, part)
        delta_nLD = delta_nLD + self.cfg.step_size * size * self.along(g_nLD, part)
        return perturb.project(delta_nLD, part.segments, size, self.cfg.norm)

    # Passes

    def keys(self, key) -> list[jax.Array]:
        """A key for the randomness of every example; dropout has another, the same in all passes."""
        return list(jax.random.split(jax.random.fold_in(key, 1), self.cfg.examples))

    @property
    def tile_tokens(self) -> int:
        """Tokens of a tile of the products with the vocabulary."""
        return tile_size(self.config.model, self.config.objective)

    def apart(self, params, clean_nLD, part: Batch, key, delta_nLD, weight=1.0, learns=False, held=False):
        """Weighted divergence of perturbed rows from the clean prediction, and the perturbed cross-entropy (n, L).

        Priced with nothing, so that the divergence is all there is. The clean prediction is a constant unless it
        `learns`; `held`: no gradient reaches the look-up of the perturbed branch, though it does the head's table.
        """
        whole_VD = self.base.table(params) if held else None

        def head(moved_nLD, own_VD, part):
            table_VD = whole_VD if held else own_VD
            moving, fixed = (moved_nLD,), ((clean_nLD, jax.lax.stop_gradient(table_VD)),)
            if learns:
                moving, fixed = (moved_nLD, clean_nLD), ()
            arrays = part.targets, part.weights * weight
            total, (losses_nL,) = tiled(
                partial(losses.divergence, self.cfg.loss), moving, table_VD, fixed, arrays, self.tile_tokens
            )
            return total, losses_nL

        return self.base.loss(params, part, key, delta_nLD, head, priced=False, held=held)

    def uphill(self, params, clean_nLD, part: Batch, key, delta_nLD) -> jax.Array:
        """The gradient of that divergence in the perturbation."""
        return jax.grad(lambda delta_nLD: self.apart(params, clean_nLD, part, key, delta_nLD)[0])(delta_nLD)

    def everything(self, params, part: Batch, key, delta_nLD, weights_nL, head=None):
        """Gradients of sum(weights * loss) in params and in delta, the loss of every token (n, L), hidden states.

        One pass: a loss that is linear in its weights has the losses for its gradient.
        """

        def loss(params, delta_nLD, weights_nL):
            weighted = dataclasses.replace(part, weights=weights_nL)
            return self.base.loss(params, weighted, key, delta_nLD, head or self.base.head)

        total, pull, hidden_nLD = jax.vjp(loss, params, delta_nLD, weights_nL, has_aux=True)
        return *pull(jnp.ones_like(total)), hidden_nLD
