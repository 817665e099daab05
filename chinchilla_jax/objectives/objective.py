"""The shape of an objective, like an optax transformation's."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Objective(NamedTuple):
    """What is minimised; the step does not know which one it runs.

    `init(params) -> carry`: what the objective keeps between steps.
    `gradients(params, batch, key, step, carry) -> grads, Sums, carry`: gradients of the *sum* of the loss.
    `evaluate(params, batch) -> Sums`: the plain loss that validation reports; without prices, penalties and attacks.
    `loss(params, batch, key, delta_BLD=None, head=..., priced=True, held=False) -> sum, aux`: what a wrapper
    differentiates; `delta_BLD` is added to the embeddings, `head` is what becomes of the hidden states, `priced` adds
    the price of activations, and `held` lets no gradient reach the lookup of the embeddings. None where there is
    nothing to wrap.
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
