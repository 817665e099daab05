"""Tiled cross-entropy against the naive one, finite differences and its promise never to hold all logits."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import cross_entropy, dense
from chinchilla_jax.training.step import accumulate
from chinchilla_jax.types import Batch
from tests import tiny

B, L, D, V = 3, 14, 8, 50
DRAW = np.random.default_rng(0)
HIDDEN, TABLE = (DRAW.standard_normal(shape).astype(np.float32) for shape in ((B, L, D), (V, D)))
TARGETS = DRAW.integers(0, V, (B, L))
WEIGHTS = (DRAW.random((B, L)) * (DRAW.random((B, L)) < 0.7)).astype(np.float32)


@functools.cache
def naive(z_loss: float):
    return tiny.jit(jax.value_and_grad(tiny.naive_loss, argnums=(0, 1)))(HIDDEN, TABLE, TARGETS, WEIGHTS, z_loss)


def tiled(z_loss: float, tile_tokens: int, dtype=jnp.float32, logits: str = "float32"):
    ours = tiny.jit(jax.value_and_grad(cross_entropy, argnums=(0, 1)), static_argnums=(4, 5, 6))
    return ours(jnp.asarray(HIDDEN, dtype), TABLE, TARGETS, WEIGHTS, z_loss, tile_tokens, logits)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("tile_tokens", [1, 9, 12, 42, 1000])
def test_tiles_equal_the_naive_loss(tile_tokens, z_loss):
    assert tiny.worst(tiled(z_loss, tile_tokens), naive(z_loss)) < 1e-5


def test_the_value_alone_is_the_same_number():
    alone = cross_entropy(HIDDEN, TABLE, TARGETS, WEIGHTS, 0.1, 12)
    assert float(alone) == pytest.approx(float(tiled(0.1, 12)[0]), rel=1e-6)


def test_a_factor_outside_reaches_the_gradients():
    def scaled(hidden_BLD, table_VD):
        return -3.0 * cross_entropy(hidden_BLD, table_VD, TARGETS, WEIGHTS, 0.0, 12)

    found = tiny.jit(jax.grad(scaled, argnums=(0, 1)))(HIDDEN, TABLE)
    assert tiny.worst(found, jax.tree.map(lambda g: -3 * g, naive(0.0)[1])) < 1e-5


def test_tokens_without_weight_get_exactly_no_gradient():
    _, (dx_BLD, _) = tiled(0.1, 12)
    assert (WEIGHTS == 0).any() and not np.asarray(dx_BLD)[WEIGHTS == 0].any()


@pytest.mark.parametrize("logits", ["float32", "compute"])
def test_bfloat16_operands_stay_close_and_the_table_gets_float32(logits):
    loss, (dx_BLD, dtable_VD) = tiled(0.0, 12, jnp.bfloat16, logits)
    assert (loss.dtype, dx_BLD.dtype, dtable_VD.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    assert tiny.worst((loss, (dx_BLD, dtable_VD)), naive(0.0)) < 0.03


def test_rounded_logits_are_an_option_that_cards_take_in_training_alone():
    def products(kernels, logits, what):
        objective = dense(dataclasses.replace(tiny.MODERN, kernels=kernels), ObjectiveConfig(logits=logits))
        hidden = jax.ShapeDtypeStruct((B, L, D), jnp.bfloat16)
        batch = Batch(TARGETS, TARGETS, WEIGHTS, TARGETS, TARGETS)
        text = str(jax.make_jaxpr(lambda x, table: objective.head(x, table, batch, **what)[0])(hidden, TABLE))
        return re.findall(rf"(\w+)\[1,\d+,{V}\] = dot_general", text)

    assert products("cuda", "auto", {}) == products("reference", "compute", {}) == ["bf16"]
    assert products("reference", "auto", {}) == products("cuda", "float32", {}) == ["f32"]


def test_extreme_logits_stay_finite():
    loss, grads = jax.value_and_grad(cross_entropy, argnums=(0, 1))(HIDDEN * 1e4, TABLE, TARGETS, WEIGHTS, 0.0, 12)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in grads)


def test_the_model_descends_by_finite_differences():
    cfg = tiny.CHINCHILLA
    objective = dense(cfg, ObjectiveConfig(z_loss=0.01, tile_tokens=9))
    batch, params, along = tiny.packed([[6, 7], [13]], 13, 61), tiny.spiced(cfg), tiny.spiced(cfg, seed=9, scale=1.0)

    @tiny.jit
    def slope(params):
        grads, _, _ = objective.gradients(params, batch, None, 0, ())
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, along)))

    @tiny.jit
    def loss(size):
        moved = jax.tree.map(lambda p, a: p + size * a, params, along)
        hidden_BLD = transformer.apply(moved, batch, cfg)
        return tiny.naive_loss(hidden_BLD, transformer.unembedding(moved), batch.targets, batch.weights, 0.01)

    h = 1e-3
    difference = (float(loss(h)) - float(loss(-h))) / (2 * h)
    assert float(slope(params)) == pytest.approx(difference, rel=5e-3)


def test_evaluate_is_the_plain_loss_and_its_tokens():
    batch, params = tiny.packed([[6, 7], [13]], 13, 61), tiny.spiced(tiny.MODERN)
    plain, wild = (tiny.jit(dense(tiny.MODERN, ObjectiveConfig(z_loss=z)).evaluate)(params, batch) for z in (0.0, 1.0))
    assert float(plain.loss) == float(wild.loss) and float(plain.weight) == batch.weights.sum()


def sizes(jaxpr) -> list[int]:
    """Elements of every floating-point value in a jaxpr and in all that it calls."""
    found = [var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars if jnp.issubdtype(var.aval.dtype, jnp.floating)]
    for inner in below(jaxpr):
        found += sizes(inner)
    return found


def below(jaxpr):
    """The jaxprs that a jaxpr's equations carry."""
    for eqn in jaxpr.eqns:
        for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            leaf = getattr(leaf, "jaxpr", leaf)
            if hasattr(leaf, "eqns"):
                yield leaf


@pytest.mark.parametrize("tile_tokens, whole", [(32, False), (256, True)])
def test_logits_of_all_tokens_never_exist(tile_tokens, whole):
    cfg = dataclasses.replace(tiny.MODERN, vocab_size=700)
    batch = tiny.packed([[64]] * 4, 64, 700)
    objective = dense(cfg, ObjectiveConfig(tile_tokens=tile_tokens))
    jaxpr = jax.make_jaxpr(jax.jit(objective.gradients))(tiny.spiced(cfg), batch, jax.random.key(0), 0, ())
    assert (max(sizes(jaxpr.jaxpr)) >= 4 * 64 * 700) == whole


def test_microbatches_of_unequal_weight_sum_to_the_whole():
    cfg = tiny.CHINCHILLA
    batch = tiny.packed([[13], [3], [6, 7], [9, 1]], 13, 61)
    batch.weights[2] = 0
    objective, params = dense(cfg, ObjectiveConfig(tile_tokens=9)), tiny.spiced(cfg)

    def gradients(parts):
        return tiny.jit(accumulate(objective, parts))(params, batch, jax.random.key(0), 0, ())[:2]

    whole = gradients(1)
    assert float(whole[1].weight) == batch.weights.sum()
    assert tiny.worst(gradients(4), whole, floor=1.0) < 1e-5
