"""An objective over the parameters that train, bound to those that do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from chinchilla_jax.model.weights import keyed
from chinchilla_jax.objectives.dense import plain
from chinchilla_jax.objectives.objective import Objective


@dataclass(frozen=True)
class Binding:
    """What a tree that trains has to be joined with: `join(trained, frozen)` is a whole model's parameters.

    `base(frozen)` is the model before any training, where that is among the frozen; `penalty(trained)` is a price a
    token, beside the loss's own; `axes` are the logical axes of what trains, for what an objective keeps beside it.
    """

    frozen: Any = None
    join: Callable[[Any, Any], Any] | None = None
    axes: Any = ()
    base: Callable[[Any], Any] | None = None
    penalty: Callable[[Any], Any] | None = None

    def bind(self, objective: Objective) -> Objective:
        """`objective` over the trained tree alone; where nothing is frozen as it is."""
        return bound(objective, self.frozen, self.join, self.penalty) if self.join else objective


WHOLE = Binding()


def bound(
    objective: Objective, frozen: Any, join: Callable[[Any, Any], Any], penalty: Callable[[Any], Any] | None = None
) -> Objective:
    """`objective` with `join(trained, frozen)` for parameters: gradients are those of the trained tree, and no others.

    Adapters with dropout get their keys here. `evaluate` keeps to whole parameters.
    """

    def loss(trained, batch, key, delta_BLD=None, head=objective.head, priced=True, held=False):
        params = keyed(join(trained, frozen), key)
        total, aux = objective.loss(params, batch, key, delta_BLD, head, priced, held)
        return (total + penalty(trained) * jnp.sum(batch.weights) if penalty and priced else total), aux

    return objective._replace(
        gradients=plain(loss),
        loss=loss,
        table=objective.table and (lambda trained: objective.table(join(trained, frozen))),
        embedding=lambda trained: objective.embedding(join(trained, frozen)),
    )
