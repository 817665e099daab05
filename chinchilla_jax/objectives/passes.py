"""A pass over rows of a microbatch: what it reads and gives, whether it is attacked, how far and where its tokens move.

A perturbation is added after the look-up, never to the tied output matrix; it is 0 on padding and control pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import AdversarialConfig, Config, whole_rows
from chinchilla_jax.objectives import losses, perturb
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.parallel.sharding import first_rows, spread
from chinchilla_jax.parallel.tiles import tile_size, tiled
from chinchilla_jax.types import Batch, Sums


@dataclass(frozen=True)
class Pass:
    """The arguments of `Objective.gradients` (`cfg` with nothing left to choose), what else a pass reads, what it gave.

    `delta_nLD` is added to the embeddings of its first rows, `head` stands in for the base's; `hidden_BLD` is what the
    head returned, `slope_nLD` dCE/d(embedding) of those rows, and `shows(losses_BL, hidden_BLD) -> Sums` the metrics,
    from the loss of every token. The first n rows are the attacked ones, so that dropout masks of a pass over n rows
    are those that the same rows have in a pass over all.
    """

    base: Objective
    config: Config
    cfg: AdversarialConfig
    params: Any
    batch: Batch
    key: jax.Array
    step: jax.Array
    carry: Any
    delta_nLD: jax.Array | None = None
    head: Callable | None = None
    hidden_BLD: Any = None
    slope_nLD: jax.Array | None = None
    shows: Callable[..., Sums] | None = None

    @property
    def active(self) -> bool | jax.Array:
        """Whether this step attacks; plainly True, so that nothing has to be decided, where every step does."""
        begin = self.cfg.first(self.config.train.steps)
        if begin == 0 and self.cfg.every == 1:
            return True
        return (self.step >= begin) & ((self.step - begin) % self.cfg.every == 0)

    def count(self) -> int:
        """n, the attacked rows."""
        return whole_rows(self.cfg.fraction, len(self.batch.tokens))

    def rows(self, n: int) -> "Pass":
        """The first rows alone."""
        names = "batch", "hidden_BLD", "delta_nLD", "slope_nLD"
        return replace(self, **{name: first_rows(getattr(self, name), n) for name in names})

    def hit(self, active: bool | jax.Array) -> jax.Array:
        """1 in the rows that are attacked, if any are, 0 in the others: (B, 1)."""
        return (jnp.arange(len(self.batch.tokens)) < self.count()).astype(jnp.float32)[:, None] * active

    def weighted(self, active: bool | jax.Array, weight: float) -> "Pass":
        """With the weights of attacked rows times `weight`."""
        weights_BL = self.batch.weights * (1 + self.hit(active) * (weight - 1))
        return replace(self, batch=replace(self.batch, weights=weights_BL))

    def keys(self) -> jax.Array:
        """A key for the randomness of every example; dropout has another, the same in all passes."""
        return jax.random.split(jax.random.fold_in(self.key, 1), self.cfg.examples)

    # How far, and where to: float32
    def size(self) -> jax.Array:
        """The radius at every token: (B, L, 1), or one number for all."""
        unit = perturb.unit(self.cfg.unit, self.base.embedding(self.params), self.batch, self.cfg.norm)
        return self.cfg.radius * (1.0 if self.cfg.unit == "absolute" else self.config.model.embed_scale) * unit

    def noise(self, key: jax.Array) -> jax.Array:
        """Where an ascent starts, or the whole of a method's noise."""
        cfg, width = self.cfg, self.config.model.d_model
        delta_BLD = perturb.draw(key, self.batch, width, self.size(), cfg.norm, cfg.init)
        return delta_BLD * perturb.allowed(self.batch, cfg.control, self.config.model.vocab_size)

    def inside(self, delta_BLD: jax.Array) -> jax.Array:
        """The nearest point of the ball."""
        return perturb.project(delta_BLD, self.batch.segments, self.size(), self.cfg.norm)

    def along(self, g_BLD: jax.Array) -> jax.Array:
        """The point of the unit ball that a gradient points to."""
        g_BLD = g_BLD * perturb.allowed(self.batch, self.cfg.control, self.config.model.vocab_size)
        return perturb.steepest(g_BLD, self.batch.segments, self.cfg.norm)

    def moved(self, delta_BLD: jax.Array, g_BLD: jax.Array) -> jax.Array:
        """One step of projected ascent: delta <- project(delta + step_size * size * steepest(g))."""
        return self.inside(delta_BLD + self.cfg.step_size * self.size() * self.along(g_BLD))

    # Losses
    def loss(self, delta_BLD: jax.Array) -> jax.Array:
        """The sum of the loss of perturbed rows."""
        return self.base.loss(self.params, self.batch, self.key, delta_BLD)[0]

    def pull(self):
        """(sum(weights * loss), what the head gives), and the way back to params, delta and weights.

        A loss that is linear in its weights has the losses of tokens (B, L) for its gradient in them.
        """

        def loss(params, delta_nLD, weights_BL):
            weighted = replace(self.batch, weights=weights_BL)
            delta_BLD = None if delta_nLD is None else spread(delta_nLD, len(weights_BL))
            return self.base.loss(params, weighted, self.key, delta_BLD, self.head or self.base.head)

        return jax.vjp(loss, self.params, self.delta_nLD, self.batch.weights)

    def everything(self, weight: float, delta_BLD: jax.Array | None = None):
        """Gradients of weight * the loss of perturbed rows in params and in delta, and the loss of every token."""
        weighted = replace(self.batch, weights=self.batch.weights * weight)
        (total, hidden_BLD), pull = replace(self, batch=weighted, delta_nLD=delta_BLD).pull()
        return pull((jnp.ones_like(total), jnp.zeros_like(hidden_BLD)))

    def divergence(self, delta_BLD: jax.Array) -> jax.Array:
        """The sum of the divergence of perturbed rows from the clean prediction, which is a constant."""
        return self.apart(self.params, self.hidden_BLD, delta_BLD)[0]

    def apart(self, params, clean_BLD, delta_BLD, weight: float = 1.0, learns: bool = False, held: bool = False):
        """That divergence, weighted, from a prediction that `learns` or not, and the perturbed cross-entropy (B, L).

        Priced with nothing, so that the divergence is all there is. `held`: no gradient reaches the look-up of the
        perturbed branch, though it does the head's table.
        """
        whole_VD = self.base.table(params) if held else None

        def head(moved_BLD, own_VD, batch):
            table_VD, of = whole_VD if held else own_VD, partial(losses.divergence, self.cfg.loss)
            moving = (moved_BLD, clean_BLD) if learns else (moved_BLD,)
            fixed = () if learns else ((clean_BLD, jax.lax.stop_gradient(table_VD)),)
            total, (losses_BL,) = self.tiled(of, moving, table_VD, fixed, batch.targets, batch.weights * weight)
            return total, losses_BL

        return self.base.loss(params, self.batch, self.key, delta_BLD, head, priced=False, held=held)

    def tiled(self, of: Callable, moving: tuple, table_VD, fixed: tuple, *arrays):
        """`parallel.tiles.tiled` in the tiles of this run."""
        return tiled(of, moving, table_VD, fixed, arrays, tile_size(self.config.model, self.config.objective))


class Term(NamedTuple):
    """What is added to the loss, as functions of a `Pass`, the one over all rows.

    `find(now) -> (gradients of the parameters, of the pass's hidden states), Sums`, the second of use if the term
    `learns`, that is moves them, and the Sums shown under the name `shows`; in steps that are `due`.
    `alter(now) -> Pass`, before it is made; so one term can at most. `takes`: examples of a row that it then takes.
    `slopes(now)`: rows whose dCE/d(embedding) the term needs. `follow(now) -> carry`, in every step, of the carry that
    `init(params)` starts and whose logical axes are `carry_axes`.
    """

    find: Callable[[Pass], Any] | None = None
    alter: Callable[[Pass], Pass] | None = None
    shows: str = "loss_attacked"
    learns: bool = False
    due: Callable[[Pass], bool | jax.Array] = lambda now: now.active
    takes: int = 0
    slopes: Callable[[Pass], int] = lambda now: 0
    follow: Callable[[Pass], Any] | None = None
    init: Callable[[Any], Any] | None = None
    carry_axes: Any = ()


def when(active: bool | jax.Array, yes: Callable, no: Callable):
    """yes() or no(), whichever is due; only that one is computed."""
    return yes() if active is True else jax.lax.cond(active, yes, no)


def repeat(times: int, one: Callable, start):
    """`one` applied so many times, written out where that is little; a loop of more compiles once."""
    if times > 4:
        return jax.lax.fori_loop(0, times, lambda _, x: one(x), start)
    return reduce(lambda x, _: one(x), range(times), start)
