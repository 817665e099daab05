"""The shape of an objective, like an optax transformation's, and how one is bound to parameters that do not train."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.model.weights import keyed
from chinchilla_jax.types import Sums


class Objective(NamedTuple):
    """What is minimised; the step does not know which one it runs.

    `init(params) -> carry`: what the objective keeps between steps.
    `gradients(params, batch, key, step, carry) -> grads, Sums, carry`: gradients of the *sum* of the loss.
    `evaluate(params, batch) -> Sums`: the plain loss that validation reports; without prices, penalties and attacks.
    `loss(params, batch, key, delta_BLD=None, head=..., priced=True, held=False) -> sum, aux`: what a wrapper
    differentiates, or None; `delta_BLD` is added to the embeddings, `head` is what becomes of the hidden states,
    `priced` adds the price of activations, and `held` lets no gradient reach the lookup of the embeddings.
    `head(hidden_BLD, table_VD, batch) -> sum, aux`: the head of `loss` unless told otherwise, with hidden_BLD as aux.
    `table(params) -> table_VD`: the output table that `head` is given; `embedding(params) -> table_VD`: the one that
    tokens are looked up in. `params` are those that train, whatever stands for the others.
    `carry_axes`: logical axes of every leaf of the carry, so that the state lays it out on the mesh.
    `others`: names of the further figures in `Sums.others`. `weighs`: what the weight of a loss counts, records where
    each has the same say however long it is.
    """

    init: Callable[..., Any]
    gradients: Callable[..., Any]
    evaluate: Callable[..., Any]
    loss: Callable[..., Any] | None = None
    head: Callable[..., Any] | None = None
    table: Callable[[Any], Any] | None = None
    embedding: Callable[[Any], Any] | None = None
    carry_axes: Any = ()
    others: tuple[str, ...] = ()
    weighs: str = "tokens"


def plain(loss: Callable) -> Callable:
    """`Objective.gradients` of a loss over which nothing is wrapped."""

    def gradients(params, batch, key, step, carry):
        (total, _), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key)
        return grads, Sums(total, jnp.sum(batch.weights)), carry

    return gradients


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
        """`objective` over the trained tree alone, and as it is where there is nothing to join.

        Adapters with dropout get their keys here. `evaluate` keeps to whole parameters.
        """
        if not self.join:
            return objective

        def whole(trained):
            return self.join(trained, self.frozen)

        def loss(trained, batch, key, delta_BLD=None, head=objective.head, priced=True, held=False):
            total, aux = objective.loss(keyed(whole(trained), key), batch, key, delta_BLD, head, priced, held)
            if self.penalty and priced:
                total += self.penalty(trained) * jnp.sum(batch.weights)
            return total, aux

        return objective._replace(
            gradients=plain(loss),
            loss=loss,
            table=objective.table and (lambda trained: objective.table(whole(trained))),
            embedding=lambda trained: objective.embedding(whole(trained)),
        )


WHOLE = Binding()  # nothing is frozen
