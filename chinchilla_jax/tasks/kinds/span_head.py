"""The two distributions of a span head, over a segment's candidates for first and for last token of an answer."""

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.tasks.kinds import heads
from chinchilla_jax.types import Batch

CANDIDATE, START, END = 1, 2, 4  # bits of a token's target in a span head


def likeliest(log_p_C2: np.ndarray, longest: int) -> tuple[float, int, int]:
    """(score, first, last) of the best span of at most so many tokens: log p(first) + log p(last)."""
    begin_C, end_C = log_p_C2.T
    best = (-np.inf, 0, 0)
    for more in range(min(longest, len(begin_C))):
        scores = begin_C[: len(begin_C) - more] + end_C[more:]
        at = int(scores.argmax())
        best = max(best, (float(scores[at]), at, at + more))
    return best


def within(batch: Batch) -> jax.Array:
    """Which tokens an answer may begin or end at: (B, L)."""
    return (batch.targets & CANDIDATE) > 0


def span_log_p(hidden_BLD, table_2D, batch: Batch) -> jax.Array:
    """Log-probabilities over a segment's candidates that the answer begins, and ends, at a token: (B, L, 2)."""
    z_BL2 = jnp.where(within(batch)[..., None], heads.logits(hidden_BLD, table_2D), -1e30)
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
