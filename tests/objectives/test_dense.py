"""Tiled cross-entropy against the naive one and finite differences, never all logits; a price on activations."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import cross_entropy, dense
from chinchilla_jax.parallel.tiles import Tiling
from chinchilla_jax.training.step import accumulate
from chinchilla_jax.types import Batch
from tests import tiny
from tests.model import twin
from tests.objectives import oracle

B, L, D, V = 3, 14, 8, 50
DRAW = np.random.default_rng(0)
HIDDEN, TABLE = (DRAW.standard_normal(shape).astype(np.float32) for shape in ((B, L, D), (V, D)))
TARGETS = DRAW.integers(0, V, (B, L))
WEIGHTS = (DRAW.random((B, L)) * (DRAW.random((B, L)) < 0.7)).astype(np.float32)

TWELVE = Tiling(12)


@functools.cache
def naive(z_loss: float):
    return tiny.jit(jax.value_and_grad(tiny.naive_loss, argnums=(0, 1)))(HIDDEN, TABLE, TARGETS, WEIGHTS, z_loss)


def tiled(z_loss: float, tiling: Tiling, dtype=jnp.float32, logits: str = "float32"):
    ours = tiny.jit(jax.value_and_grad(cross_entropy, argnums=(0, 1)), static_argnums=(4, 5, 6))
    return ours(jnp.asarray(HIDDEN, dtype), TABLE, TARGETS, WEIGHTS, z_loss, tiling, logits)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("trained, kernels", [(False, "reference"), (True, "reference"), (False, "cpu")])
@pytest.mark.parametrize("tokens", [1, 9, 12, 42, 1000])
def test_tiles_equal_the_naive_loss(tokens, trained, kernels, z_loss):
    assert tiny.worst(tiled(z_loss, Tiling(tokens, trained, kernels)), naive(z_loss)) < 1e-5


def test_the_value_alone_is_the_same_number():
    alone = tiny.jit(cross_entropy, static_argnums=(4, 5))(HIDDEN, TABLE, TARGETS, WEIGHTS, 0.1, TWELVE)
    assert float(alone) == pytest.approx(float(tiled(0.1, TWELVE)[0]), rel=1e-6)


def test_a_factor_outside_reaches_the_gradients():
    def scaled(hidden_BLD, table_VD):
        return -3.0 * cross_entropy(hidden_BLD, table_VD, TARGETS, WEIGHTS, 0.0, TWELVE)

    found = tiny.jit(jax.grad(scaled, argnums=(0, 1)))(HIDDEN, TABLE)
    assert tiny.worst(found, jax.tree.map(lambda g: -3 * g, naive(0.0)[1])) < 1e-5


def test_tokens_without_weight_get_exactly_no_gradient():
    _, (dx_BLD, _) = tiled(0.1, TWELVE)
    assert (WEIGHTS == 0).any() and not np.asarray(dx_BLD)[WEIGHTS == 0].any()


@pytest.mark.parametrize("logits", ["float32", "compute"])
def test_bfloat16_operands_stay_close_and_the_table_gets_float32(logits):
    loss, (dx_BLD, dtable_VD) = tiled(0.0, TWELVE, jnp.bfloat16, logits)
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
    run = tiny.jit(jax.value_and_grad(cross_entropy, argnums=(0, 1)), static_argnums=(4, 5))
    loss, grads = run(HIDDEN * 1e4, TABLE, TARGETS, WEIGHTS, 0.0, TWELVE)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in grads)


def test_the_model_descends_by_finite_differences():
    cfg = oracle.TIED
    objective = dense(cfg, ObjectiveConfig(z_loss=0.01, tile_tokens=9))
    batch, params, along = (
        tiny.packed([[6, 7], [13]], 13, oracle.V),
        tiny.spiced(cfg),
        tiny.spiced(cfg, seed=9, scale=1.0),
    )

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
    batch, params = tiny.packed([[6, 7], [13]], 13, oracle.V), tiny.spiced(oracle.MODERN)
    plain, wild = (
        tiny.jit(dense(oracle.MODERN, ObjectiveConfig(z_loss=z)).evaluate)(params, batch) for z in (0.0, 1.0)
    )
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
    cfg = dataclasses.replace(oracle.MODERN, vocab_size=700)
    batch = tiny.packed([[64]] * 4, 64, 700)
    objective = dense(cfg, ObjectiveConfig(tile_tokens=tile_tokens))
    jaxpr = jax.make_jaxpr(jax.jit(objective.gradients))(tiny.spiced(cfg), batch, jax.random.key(0), 0, ())
    assert (max(sizes(jaxpr.jaxpr)) >= 4 * 64 * 700) == whole


def test_microbatches_of_unequal_weight_sum_to_the_whole():
    cfg = oracle.TIED
    batch = tiny.packed([[13], [3], [6, 7], [9, 1]], 13, oracle.V)
    batch.weights[2] = 0
    objective, params = dense(cfg, ObjectiveConfig(tile_tokens=9)), tiny.spiced(cfg)

    def gradients(parts):
        return tiny.jit(accumulate(objective, parts))(params, batch, jax.random.key(0), 0, ())[:2]

    whole = gradients(1)
    assert float(whole[1].weight) == batch.weights.sum()
    assert tiny.worst(gradients(4), whole, floor=1.0) < 1e-5


# Under a perturbation of the embeddings


@functools.cache
def slope(cfg):
    """d(sum of weighted losses)/d(delta) of given weights."""
    objective, params = dense(cfg, ObjectiveConfig(tile_tokens=20)), tiny.spiced(cfg)

    def loss(delta_BLD, weights_BL):
        batch = dataclasses.replace(oracle.BATCH, weights=weights_BL)
        return objective.loss(params, batch, None, delta_BLD)[0]

    return tiny.jit(jax.grad(loss))


@pytest.mark.parametrize("cfg", [oracle.TIED, oracle.MODERN], ids=["chinchilla", "modern"])
def test_an_attack_does_not_leak_into_another_document(cfg):
    """The loss of document A has a gradient of exactly 0 with respect to what is added to document B."""
    batch, second = oracle.BATCH, oracle.BATCH.segments == 2
    g = np.asarray(slope(cfg)(np.full((*second.shape, cfg.d_model), 0.1, np.float32), batch.weights * second))
    assert g[second].any() and not g[~second].any()


@pytest.mark.parametrize("cfg", [oracle.TIED, oracle.MODERN], ids=["chinchilla", "modern"])
def test_the_gradient_of_delta_is_the_difference_quotient(cfg):
    """Central differences of the twin in float64, along the gradient itself and along random directions."""
    draw, batch = np.random.default_rng(1), oracle.BATCH
    delta = 0.1 * draw.standard_normal((*batch.tokens.shape, cfg.d_model)).astype(np.float32)
    g = np.asarray(slope(cfg)(delta, batch.weights), float)
    along = [g / np.linalg.norm(g), *draw.standard_normal((3, *delta.shape))]
    loss, h = lambda d: oracle.of(cfg).entropy(tiny.spiced(cfg), batch, d).value, 1e-5
    quotients = [(loss(delta + h * a) - loss(delta - h * a)) / (2 * h) for a in along]
    found = [float((g * a).sum()) for a in along]
    np.testing.assert_allclose(found, quotients, rtol=1e-6, atol=2e-6 * np.linalg.norm(g))


# A price on hidden activations, against the plain forward pass

PACKED = tiny.packed([[6, 4, 1], [13]], 13, oracle.V)
PRICE = 0.03
SQUARED = dataclasses.replace(oracle.TIED, mlp="relu2")


def hidden(monkeypatch, cfg, params):
    """What enters the last product of every layer, (B, L, F) each."""
    seen = []

    def affine(p, x, spec):
        seen.extend([x] if spec == "blf,fd->bld" else [])
        return plain(p, x, spec)

    plain = twin.affine
    monkeypatch.setattr(twin, "affine", affine)
    twin.forward(params, PACKED, cfg)
    monkeypatch.undo()
    assert len(seen) == cfg.layers
    return seen


def by_hand(monkeypatch, cfg, params):
    """sum over tokens of weight * (mean over layers of sum_j |h_j|)."""
    seen = hidden(monkeypatch, cfg, params)
    return sum(jnp.sum(PACKED.weights * jnp.abs(h_BLF).sum(-1)) for h_BLF in seen) / cfg.layers


@pytest.mark.parametrize("cfg", [oracle.RECTIFIED, SQUARED], ids=["reglu", "relu2"])
def test_the_loss_and_its_gradient_have_the_price(monkeypatch, cfg):
    params = tiny.spiced(cfg)
    plain, priced = (dense(cfg, ObjectiveConfig(activation_l1=weight)) for weight in (0.0, PRICE))
    (g0, s0, _), (g1, s1, _) = (
        tiny.jit(lambda p, o=o: o.gradients(p, PACKED, None, 0, ()))(params) for o in (plain, priced)
    )
    more, slope = tiny.jit(jax.value_and_grad(lambda p: PRICE * by_hand(monkeypatch, cfg, p)))(params)
    assert float(more) > 0.1
    np.testing.assert_allclose(s1.loss - s0.loss, more, rtol=1e-4)
    assert float(s1.weight) == float(s0.weight)
    assert tiny.worst(jax.tree.map(lambda a, b: a - b, g1, g0), slope, floor=1.0) < 1e-5
    one, other = (tiny.jit(objective.evaluate)(params, PACKED).loss for objective in (priced, plain))
    assert float(one) == float(other)


@pytest.mark.parametrize("cfg", [oracle.RECTIFIED, SQUARED, oracle.MODERN], ids=["reglu", "relu2", "swiglu"])
def test_validation_counts_the_zeros(monkeypatch, cfg):
    params = tiny.spiced(cfg)
    seen = tiny.jit(functools.partial(hidden, monkeypatch, cfg))(params)
    found = tiny.jit(dense(cfg, ObjectiveConfig()).evaluate)(params, PACKED).others
    share = (
        sum((PACKED.weights * (np.asarray(h_BLF) == 0).mean(-1)).sum() for h_BLF in seen)
        / cfg.layers
        / PACKED.weights.sum()
    )
    assert (share == 0) == (cfg.mlp == "swiglu") == (not found)
    for other in found.values():
        assert float(other.loss / other.weight) == pytest.approx(float(share), rel=1e-6)


def test_a_price_of_nothing_watches_nothing():
    """The step without a price has no |h|, which the one with it has."""
    cfg, params = oracle.RECTIFIED, tiny.spiced(oracle.RECTIFIED)

    def magnitudes(settings):
        objective = dense(cfg, settings)
        return str(jax.make_jaxpr(lambda p: objective.gradients(p, PACKED, None, 0, ()))(params)).count(" abs ")

    assert magnitudes(ObjectiveConfig()) == 0 < magnitudes(ObjectiveConfig(activation_l1=PRICE))


def test_the_same_under_remat():
    cfg, params = oracle.RECTIFIED, tiny.spiced(oracle.RECTIFIED)
    ways = [cfg, dataclasses.replace(cfg, remat="full"), dataclasses.replace(cfg, scan_unroll=2)]
    runs = [dense(way, ObjectiveConfig(activation_l1=PRICE)) for way in ways]
    grads = [tiny.jit(lambda p, o=o: o.gradients(p, PACKED, None, 0, ())[0])(params) for o in runs]
    assert tiny.worst(grads[1], grads[0], floor=1.0) < 1e-5 and tiny.worst(grads[2], grads[0], floor=1.0) < 1e-5


@pytest.mark.parametrize("cfg", [oracle.MODERN, oracle.TIED], ids=["swiglu", "gelu"])
def test_activations_that_are_never_zero_are_refused(cfg):
    with pytest.raises(UserError, match=r"set --model\.mlp reglu or relu2"):
        dense(cfg, ObjectiveConfig(activation_l1=0.1))
