"""A label head: a row of weights a label (C, D) in the place of the vocabulary, and the loss of every record alike."""

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.bound import Binding
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Objective

LEAF = "kernel"  # the one leaf of the head: no biases


def head_rows(config: Config) -> dict[str, tuple[int, ...]]:
    """Shape of the head."""
    return {f"labels/{LEAF}": (len(config.task.labels), config.model.d_model)}


def rows(params):
    """The head of a model's parameters: (C, D)."""
    return params["heads"]["labels"][LEAF]


def labels(config: Config, binding: Binding) -> Objective:
    """Cross-entropy of labels; targets are their numbers, and weights choose the position that predicts them."""
    return binding.bind(dense(config.model, config.objective, rows))._replace(weighs="records")
