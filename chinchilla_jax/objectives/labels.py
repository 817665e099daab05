"""Heads in the place of the vocabulary: a row of weights a label, and what of the hidden states they score.

A head is `head(hidden_BLD, table_CD, batch) -> sum, hidden_BLD`, a sum over tokens of weight * loss, so that whatever
wraps the dense objective wraps these: the loss under any `delta_BLD`, and the loss of every token by d/dweight.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.bound import Binding
from chinchilla_jax.objectives.dense import dense, plain
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.types import Batch, Sums

LEAF, BIAS = "kernel", "bias"
BITS = 31  # labels that the target of one token holds, where a record has several


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


def words_of(labels: int) -> int:
    """Tokens whose targets it takes to hold a set of labels."""
    return -(-labels // BITS)


def sets(targets_BL, labels: int) -> jax.Array:
    """Which labels a record has, told at its last token by the targets of its last tokens, `BITS` each: (B, L, C)."""
    words_BLW = jnp.stack([jnp.roll(targets_BL, word, axis=1) for word in range(words_of(labels))], -1)
    bits_BLWK = (words_BLW[..., None] >> jnp.arange(BITS)) & 1
    return bits_BLWK.reshape(*targets_BL.shape, -1)[..., :labels]


def binary_head(hidden_BLD, table_CD, batch: Batch):
    """The sum over labels of -log p(there) or -log p(not there), each decided by itself: nats a record."""
    z_BLC = logits(hidden_BLD, table_CD)
    y_BLC = sets(batch.targets, len(table_CD)).astype(jnp.float32)
    losses_BL = jnp.sum(jax.nn.softplus(z_BLC) - y_BLC * z_BLC, axis=-1)
    return jnp.sum(batch.weights * losses_BL), hidden_BLD


CANDIDATE, START, END = 1, 2, 4  # bits of a token's target in a span head


def within(batch: Batch) -> jax.Array:
    """Which tokens an answer may begin or end at: (B, L)."""
    return (batch.targets & CANDIDATE) > 0


def span_log_p(hidden_BLD, table_2D, batch: Batch) -> jax.Array:
    """Log-probabilities over a segment's candidates that the answer begins, and ends, at a token: (B, L, 2)."""
    z_BL2 = jnp.where(within(batch)[..., None], logits(hidden_BLD, table_2D), -1e30)
    most = batch.tokens.shape[1] + 1

    def norm(z_L2, segments_L):
        largest_S2 = jax.lax.stop_gradient(jax.ops.segment_max(z_L2, segments_L, most))
        sums_S2 = jax.ops.segment_sum(jnp.exp(z_L2 - largest_S2[segments_L]), segments_L, most)
        return (largest_S2 + jnp.log(sums_S2))[segments_L]

    return z_BL2 - jax.vmap(norm)(z_BL2, batch.segments)


def span_head(hidden_BLD, table_2D, batch: Batch):
    """The mean of -log p of an answer's first and of its last token; the weight of each of the two is a half."""
    log_p_BL2 = span_log_p(hidden_BLD, table_2D, batch)
    hit_BL2 = jnp.stack([batch.targets & START, batch.targets & END], -1) > 0
    share_BL = batch.weights / jnp.maximum(hit_BL2.sum(-1), 1)
    return -jnp.sum(share_BL[..., None] * jnp.where(hit_BL2, log_p_BL2, 0.0)), hidden_BLD


multilabel = own_head(binary_head, "labels")
spans = own_head(span_head, "spans")
