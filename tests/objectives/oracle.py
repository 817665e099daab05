"""Losses and their gradients in float64 over the plain twin of the model, each written out once and compiled once.

Attacked rows are those that have a weight: a batch with the others' weights at 0 is the same program.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)
from tests import tiny
from tests.model import twin

L, V, N, SPECIAL = 13, 23, 2, (0, 1, 2, 3)
SIZES = {"layers": 1, "d_model": 12, "heads": 2, "head_dim": 4, "d_ff": 20, "vocab_size": V}
TIED = ModelConfig(positions="relative", mlp="gelu", biases=True, tied=True, **SIZES, **tiny.PLAIN)
MODERN = ModelConfig(positions="rope", mlp="swiglu", biases=False, tied=False, kv_heads=1, **SIZES, **tiny.PLAIN)
RECTIFIED = dataclasses.replace(MODERN, mlp="reglu", tied=True)
BATCH = tiny.packed([[6, 7], [13], [5, 4, 2], [9, 4]], L, V)
KEY, RADIUS, WEIGHT = jax.random.key(5), 0.6, 0.7
FREE = ((BATCH.segments > 0) & ~np.isin(BATCH.tokens, SPECIAL))[..., None]  # of padding and control pieces


def config(cfg: ModelConfig = TIED, rows: int = 4, **attack) -> Config:
    """Half of the rows under attack from the start."""
    attack = {"start": 0.0, "weight": WEIGHT, "fraction": 0.5} | attack
    attack = ({"radius": RADIUS} if attack.get("method", "off") != "off" else {}) | attack
    return Config(
        model=cfg,
        objective=ObjectiveConfig(tile_tokens=20),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=10, seq_len=L, batch_size=rows),
        adversarial=AdversarialConfig(**attack),
    )


def only(batch, rows: slice):
    """The batch with weights in some rows alone."""
    weights = np.zeros_like(batch.weights)
    weights[rows] = batch.weights[rows]
    return dataclasses.replace(batch, weights=weights)


PART, REST = only(BATCH, slice(N)), only(BATCH, slice(N, None))


class Found(NamedTuple):
    """A sum, and its gradients in what trains and in what is added to the embeddings."""

    value: jax.Array
    grads: dict
    slope: jax.Array


def exact(tree):
    """In float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else None), tree)


def summed(*parts):
    """The weighted sum of trees, given as (weight, tree)."""
    return functools.reduce(
        lambda a, b: jax.tree.map(np.add, a, b), [jax.tree.map(lambda x, w=w: w * np.asarray(x), t) for w, t in parts]
    )


class Oracle:
    """`whole(trained)`: a model's parameters; `table(params)`: rows that predictions are told apart by."""

    def __init__(self, cfg: ModelConfig, whole=lambda trained: trained, table=None):
        tied = "embed" if cfg.tied else "unembed"
        self.cfg, self.whole, self.table = cfg, whole, table or (lambda params: params[tied]["table"])
        made = [jax.value_and_grad(f, (0, 1)) for f in (self._entropy, self._apart, self._margin)]
        self._programs = [jax.jit(f, compiler_options=tiny.QUICK) for f in made]

    def ends(self, params, batch, delta, held=0.0):
        """Hidden states at the end, and the rows they meet; `held`: no gradient reaches the look-up."""
        table = jax.tree.map(lambda x: held * jax.lax.stop_gradient(x) + (1 - held) * x, params["embed"])
        return twin.forward(params | {"embed": table}, batch, self.cfg, delta), self.table(params)

    def log_p(self, params, batch, delta, held=0.0):
        """Log-probabilities."""
        hidden, table = self.ends(params, batch, delta, held)
        return jax.nn.log_softmax(hidden @ table.T)

    def _entropy(self, trained, delta, batch):
        logp = self.log_p(self.whole(trained), batch, delta)
        return -(batch.weights * jnp.take_along_axis(logp, batch.targets[..., None], -1)[..., 0]).sum()

    def _apart(self, trained, delta, batch, other, forth, back, learns, held):
        clean = jax.tree.map(lambda x, y: learns * x + (1 - learns) * y, trained, other)
        logp, logq = self.log_p(self.whole(clean), batch, 0.0), self.log_p(self.whole(trained), batch, delta, held)
        apart = ((forth * jnp.exp(logp) - back * jnp.exp(logq)) * (logp - logq)).sum(-1)
        return (batch.weights * apart).sum()

    def _margin(self, trained, delta, batch):
        hidden, table = self.ends(self.whole(trained), batch, delta)
        length = jax.lax.stop_gradient(jnp.linalg.norm(table, axis=-1))[batch.targets]
        logits, hit = hidden @ table.T, np.arange(table.shape[0]) == batch.targets[..., None]
        gold = (logits * hit).sum(-1)
        low = jnp.where(gold > 0, RADIUS * length * jnp.linalg.norm(hidden, axis=-1), 0.0)
        return (batch.weights * (jax.nn.logsumexp(logits - hit * low[..., None], -1) - gold + low)).sum()

    def _run(self, program, trained, batch, delta, *more) -> Found:
        delta = np.zeros((*batch.tokens.shape, self.cfg.d_model)) if delta is None else delta
        with jax.enable_x64(True):
            value, (grads, slope) = program(exact(trained), np.asarray(delta, "f8"), exact(batch), *more)
            return Found(float(value), *jax.tree.map(np.asarray, (grads, slope)))

    def entropy(self, trained, batch, delta=None) -> Found:
        """sum of weight * -log p(target)."""
        return self._run(self._programs[0], trained, batch, delta)

    def apart(self, trained, batch, delta=None, *, other=None, forth=1.0, back=0.0, learns=0.0, held=0.0) -> Found:
        """forth KL(p||q) + back KL(q||p): p predicts from `other`, or clean and `learns`; q at delta."""
        other = exact(trained if other is None else other)
        return self._run(self._programs[1], trained, batch, delta, other, forth, back, learns, held)

    def margin(self, trained, batch) -> Found:
        """Cross-entropy with the target's logit lowered by RADIUS |row| |hidden| where it is positive."""
        return self._run(self._programs[2], trained, batch, None)


@functools.cache
def of(cfg: ModelConfig) -> Oracle:
    """The language model."""
    return Oracle(cfg)


# Where an attack goes, in numpy


def size(table, batch=BATCH):
    """RADIUS |e_t| of every token."""
    return RADIUS * np.linalg.norm(exact(table)[batch.tokens], axis=-1, keepdims=True)


def places(batch, norm: str):
    """What shares a ball: (row, positions), document by document."""
    for b, row in enumerate(batch.segments):
        for s in range(1, row.max() + 1):
            at = np.flatnonzero(row == s)
            yield from [(b, at)] if norm == "l2_sequence" else [(b, [one]) for one in at]


def unit(g, batch=BATCH, norm="l2_token", free=FREE):
    """The longest step of the unit ball along a gradient."""
    g = np.array(g * free, np.float64)
    if norm == "linf":
        return np.sign(g)
    for place in places(batch, norm):
        length = np.linalg.norm(g[place])
        g[place] = g[place] / length if length else 0
    return g


def mean(x, batch=BATCH):
    """Over every document, at each of its tokens."""
    x = np.array(x)
    for place in places(batch, "l2_sequence"):
        x[place] = x[place].mean()
    return x


def inside(delta, radius):
    """The nearest point of the ball of each token."""
    return delta * np.minimum(1, radius / np.maximum(np.linalg.norm(delta, axis=-1, keepdims=True), 1e-30))


def drawn(cfg, radius, rows, kind="uniform", example=0, examples=1, free=FREE):
    """Noise of the length of the radius in the first rows, by the documented key: U(-1, 1) or N(0, 1), / sqrt(D)."""
    key, shape = jax.random.split(jax.random.fold_in(KEY, 1), examples)[example], (rows, *radius.shape[1:-1])
    shape = (*shape, cfg.d_model)
    noise = jax.random.uniform(key, shape, minval=-1.0) if kind == "uniform" else jax.random.normal(key, shape)
    filled = np.zeros((*radius.shape[:-1], cfg.d_model))
    filled[:rows] = np.asarray(noise, np.float64)
    return filled * radius / np.sqrt(cfg.d_model) * free
