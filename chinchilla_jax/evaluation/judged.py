"""What a prediction is worth at a point that an attack has found, in figures that a softer output does not improve.

A plain model with a little of the unigram mixed into its predictions loses far less under attack, and is no more
robust: it is wrong as often. So every attack is judged by three figures a token, for the model as it is and for two
rows that are not trained at all:

loss       nats
capped     nats, at most those of the unigram: what an attack can take away of what the model knows
accuracy   whether the most likely piece is the target

plain         the model
mixture       (1 - MIXTURE) p + MIXTURE unigram
temperature   softmax(logits / T), T fitted on clean text that is not attacked
"""

import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.data.split import Split
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.losses import gold
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.parallel.tiles import over_tiles, tile_size
from chinchilla_jax.types import Batch

MIXTURE = 0.01
ROWS = ("plain", "mixture", "temperature")
FIGURES = ("loss", "capped", "accuracy")
READ = 10_000_000  # tokens that the unigram is counted on
TEMPERATURES = np.exp(np.linspace(-0.7, 0.7, 29)).astype(np.float32)


def unigram(split: Split, vocabulary: int) -> np.ndarray:
    """log p of every piece (V,) by its count in a stream, one added to each."""
    counts = np.bincount(np.asarray(split.tokens[: min(len(split.tokens), READ)]), minlength=vocabulary) + 1.0
    return np.log(counts / counts.sum()).astype(np.float32)


def _tiled(of, params, batch: Batch, cfg: ModelConfig, delta_BLD=None):
    """`of(logits (S, M, V), targets (S, M)) -> (S, M, ...)` at every token, tile by tile: (B, L, ...)."""
    hidden_BLD = transformer.apply(params, batch, cfg, delta_BLD=delta_BLD)

    def one(table_VD, tile):
        logits_SMV = jnp.einsum("smd,vd->smv", tile[0], table_VD, preferred_element_type=jnp.float32)
        return 0.0, (of(logits_SMV, tile[1]),)

    arrays = hidden_BLD, batch.targets
    return over_tiles(one, transformer.unembedding(params), arrays, tile_size(cfg, ObjectiveConfig()))[1][0]


@partial(jax.jit, static_argnames="cfg")
def judge(params, batch: Batch, delta_BLD, log_u_V, temperature, *, cfg: ModelConfig) -> jax.Array:
    """The figures of each row of the batch, summed over its tokens: (B, ROWS, FIGURES)."""

    def of(logits_SMV, targets_SM):
        logp_SMV = jax.nn.log_softmax(logits_SMV)
        mixed_SMV = jnp.logaddexp(logp_SMV + jnp.log1p(-MIXTURE), log_u_V + jnp.log(MIXTURE))
        rows = logp_SMV, mixed_SMV, jax.nn.log_softmax(logits_SMV / temperature)
        most = -gold(jnp.broadcast_to(log_u_V, logits_SMV.shape), targets_SM)
        figures = [
            jnp.stack([lost, jnp.minimum(lost, most), 1.0 * (jnp.argmax(x, -1) == targets_SM)], -1)
            for x in rows
            for lost in [-gold(x, targets_SM)]
        ]
        return jnp.stack(figures, axis=-2)

    return constrain(jnp.einsum("bl,blrf->brf", batch.weights, _tiled(of, params, batch, cfg, delta_BLD)), None)


@partial(jax.jit, static_argnames="cfg")
def tempered(params, batch: Batch, temperatures_K, *, cfg: ModelConfig) -> jax.Array:
    """Summed loss of a batch at every temperature (K,)."""

    def of(logits_SMV, targets_SM):
        gold_SM = jnp.sum(jnp.where(jnp.arange(logits_SMV.shape[-1]) == targets_SM[..., None], logits_SMV, 0.0), -1)
        norms = jax.lax.map(lambda t: jax.nn.logsumexp(logits_SMV / t, -1) - gold_SM / t, temperatures_K)
        return jnp.moveaxis(norms, 0, -1)

    return constrain(jnp.einsum("bl,blk->k", batch.weights, _tiled(of, params, batch, cfg)), None)


def temperature(params, batches: Iterable[Batch], cfg: ModelConfig) -> float:
    """The one of TEMPERATURES with the least loss, refined by the parabola through its neighbours in ln T."""
    losses = sum(np.asarray(tempered(params, batch, TEMPERATURES, cfg=cfg), np.float64) for batch in batches)
    best = int(np.clip(np.argmin(losses), 1, len(losses) - 2))
    left, middle, right = losses[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = np.clip(0.5 * (left - right) / bend, -1, 1) if bend > 0 else 0.0
    return float(TEMPERATURES[best] * np.exp(shift * np.log(TEMPERATURES[1] / TEMPERATURES[0])))


def mean_and_error(sums_B: np.ndarray, weights_B: np.ndarray) -> tuple[float, float]:
    """Mean a token, and its standard error by windows, which are what was drawn: that of a ratio of sums.

    One window does not say how windows differ: its error is not-a-number, null in JSON.
    """
    total, n = weights_B.sum(), int((weights_B > 0).sum())
    mean = sums_B.sum() / total
    left = sums_B - mean * weights_B
    return float(mean), float(np.sqrt(np.square(left).sum() * n / (n - 1)) / total) if n > 1 else math.nan
