"""The shape of an objective, like an optax transformation's."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Objective(NamedTuple):
    """What is minimised; the step does not know which one it runs.

    `init(params) -> carry`: what the objective keeps between steps.
    `gradients(params, batch, key, step, carry) -> grads, Sums, carry`: gradients of the *sum* of the loss.
    `evaluate(params, batch) -> Sums`: the plain loss that validation reports.
    """

    init: Callable[..., Any]
    gradients: Callable[..., Any]
    evaluate: Callable[..., Any]
