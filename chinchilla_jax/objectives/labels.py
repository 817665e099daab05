"""Heads in the place of the vocabulary: a row of weights a label, and what of the hidden states they score.

A head is `head(hidden_BLD, table_CD, batch) -> sum, hidden_BLD`, a sum over tokens of weight * loss, so that whatever
wraps the dense objective wraps these: the loss under any `delta_BLD`, and the loss of every token by d/dweight.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Binding, Objective, plain
from chinchilla_jax.types import Batch, Sums

LEAF, BIAS = "kernel", "bias"


def head_rows(config: Config) -> dict[str, tuple[int, ...]]:
    """Shape of a head of labels: no biases, as in transformers' classifiers."""
    return {f"labels/{LEAF}": (len(config.task.labels), config.model.d_model)}


def biased_rows(name: str, rows: Callable[[Config], int]) -> Callable[[Config], dict[str, tuple[int, ...]]]:
    """Shapes of a head with biases."""
    return lambda config: {
        f"{name}/{LEAF}": (rows(config), config.model.d_model),
        f"{name}/{BIAS}": (rows(config),),
    }


def rows(params, name: str = "labels"):
    """The head of a model's parameters: (C, D), or (C, D + 1) with its biases behind."""
    head = params["heads"][name]
    return jnp.concatenate([head[LEAF], head[BIAS][:, None]], -1) if BIAS in head else head[LEAF]


def widened(hidden_BLD, table_CD):
    """Hidden states with a 1 behind, where the table has biases."""
    if table_CD.shape[-1] == hidden_BLD.shape[-1]:
        return hidden_BLD
    return jnp.concatenate([hidden_BLD, jnp.ones_like(hidden_BLD[..., :1])], -1)


def logits(hidden_BLD, table_CD) -> jax.Array:
    """Scores of every label at every token, in float32: (B, L, C)."""
    x_BLD = widened(hidden_BLD, table_CD)
    return jnp.einsum("bld,cd->blc", x_BLD, table_CD.astype(x_BLD.dtype), preferred_element_type=jnp.float32)


def labels(config: Config, binding: Binding) -> Objective:
    """Cross-entropy of labels; targets are their numbers, and weights choose the position that predicts them."""
    return binding.bind(dense(config.model, config.objective, rows))._replace(weighs="records")


def tags(config: Config, binding: Binding) -> Objective:
    """Cross-entropy of a tag at every token that has a weight, with biases."""
    inner = dense(config.model, config.objective, partial(rows, name="tags"))

    def loss(params, batch, key, delta_BLD=None, head=inner.head, priced=True, held=False):
        def wide(hidden_BLD, table_CD, batch):
            return head(widened(hidden_BLD, table_CD), table_CD, batch)

        return inner.loss(params, batch, key, delta_BLD, wide, priced, held)

    return _of(inner, binding, loss, partial(inner.head, z_loss=0.0))._replace(weighs="words")


def own_head(head: Callable, name: str) -> Callable[[Config, Binding], Objective]:
    """The objective of a head that is no softmax over rows, so that no divergence of it is defined: no `table`."""

    def make(config: Config, binding: Binding) -> Objective:
        inner = dense(config.model, config.objective, partial(rows, name=name))

        def loss(params, batch, key, delta_BLD=None, head=head, priced=True, held=False):
            return inner.loss(params, batch, key, delta_BLD, head, priced, held)

        return _of(inner._replace(head=head, table=None), binding, loss, head)._replace(weighs="records")

    return make


def _of(inner: Objective, binding: Binding, loss: Callable, plainly: Callable) -> Objective:
    def evaluate(params, batch: Batch) -> Sums:
        return Sums(loss(params, batch, None, head=plainly, priced=False)[0], jnp.sum(batch.weights))

    return binding.bind(inner._replace(loss=loss, gradients=plain(loss), evaluate=evaluate))
