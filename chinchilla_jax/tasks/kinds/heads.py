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
from chinchilla_jax.objectives.objective import Binding, Objective

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
    """Hidden states with a 1 behind, where the table has biases and they have none yet."""
    if table_CD.shape[-1] == hidden_BLD.shape[-1]:
        return hidden_BLD
    return jnp.concatenate([hidden_BLD, jnp.ones_like(hidden_BLD[..., :1])], -1)


def logits(hidden_BLD, table_CD) -> jax.Array:
    """Scores of every label at every token, in float32: (B, L, C)."""
    x_BLD = widened(hidden_BLD, table_CD)
    return jnp.einsum("bld,cd->blc", x_BLD, table_CD.astype(x_BLD.dtype), preferred_element_type=jnp.float32)


def headed(name: str, own: Callable | None = None, weighs: str = "records") -> Callable[[Config, Binding], Objective]:
    """The objective of a head: cross-entropy of labels, whose numbers are the targets, or a head of its `own`."""

    def make(config: Config, binding: Binding) -> Objective:
        made = dense(config.model, config.objective, partial(rows, name=name), widened, own)
        return binding.bind(made)._replace(weighs=weighs)

    return make


labels, tags = headed("labels"), headed("tags", weighs="words")
