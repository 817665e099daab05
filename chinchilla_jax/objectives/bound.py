"""An objective over the parameters that train, bound to those that do not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.model.weights import keyed
from chinchilla_jax.objectives.dense import plain
from chinchilla_jax.objectives.objective import Objective


@dataclass(frozen=True)
class Binding:
    """What a tree that trains has to be joined with: `join(trained, frozen)` is a whole model's parameters.

    `axes` are the logical axes of the trained tree, for what an objective keeps beside it; `base(frozen)` is the model
    before any training, where it is among the frozen.
    """

    frozen: Any = None
    join: Callable[[Any, Any], Any] | None = None
    axes: Any = ()
    base: Callable[[Any], Any] | None = None

    def bind(self, objective: Objective) -> Objective:
        """`objective` over the trained tree alone; where nothing is frozen as it is."""
        return bound(objective, self.frozen, self.join) if self.join else objective


WHOLE = Binding()


def bound(objective: Objective, frozen: Any, join: Callable[[Any, Any], Any]) -> Objective:
    """`objective` with `join(trained, frozen)` for parameters: gradients are those of the trained tree, and no others.

    Adapters with dropout get their keys here. `evaluate` keeps to whole parameters.
    """

    def loss(trained, batch, key, *args, **how):
        return objective.loss(keyed(join(trained, frozen), key), batch, key, *args, **how)

    return objective._replace(
        gradients=plain(loss),
        loss=loss,
        table=lambda trained: objective.table(join(trained, frozen)),
        embedding=lambda trained: objective.embedding(join(trained, frozen)),
    )
