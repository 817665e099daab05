"""The price on hidden activations against the plain forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives.dense import dense
from tests import tiny
from tests.model import twin

BATCH = tiny.packed([[6, 4, 1], [13]], 13, 61)
WEIGHT = 0.03


def hidden(monkeypatch, cfg, params):
    """What enters the last product of every layer, (B, L, F) each."""
    seen = []

    def affine(p, x, spec):
        seen.extend([x] if spec == "blf,fd->bld" else [])
        return plain(p, x, spec)

    plain = twin.affine
    monkeypatch.setattr(twin, "affine", affine)
    twin.forward(params, BATCH, cfg)
    monkeypatch.undo()
    assert len(seen) == cfg.layers
    return seen


def by_hand(monkeypatch, cfg, params):
    """sum over tokens of weight * (mean over layers of sum_j |h_j|)."""
    seen = hidden(monkeypatch, cfg, params)
    return sum(jnp.sum(BATCH.weights * jnp.abs(h_BLF).sum(-1)) for h_BLF in seen) / cfg.layers


@pytest.mark.parametrize("cfg", [tiny.RECTIFIED, tiny.SQUARED], ids=["reglu", "relu2"])
def test_the_loss_and_its_gradient_have_the_price(monkeypatch, cfg):
    params = tiny.spiced(cfg)
    plain, priced = (dense(cfg, ObjectiveConfig(activation_l1=weight)) for weight in (0.0, WEIGHT))
    (g0, s0, _), (g1, s1, _) = (
        tiny.jit(lambda p, o=o: o.gradients(p, BATCH, None, 0, ()))(params) for o in (plain, priced)
    )
    more, slope = jax.value_and_grad(lambda p: WEIGHT * by_hand(monkeypatch, cfg, p))(params)
    assert float(more) > 0.1
    np.testing.assert_allclose(s1.loss - s0.loss, more, rtol=1e-4)
    assert float(s1.weight) == float(s0.weight)
    assert tiny.worst(jax.tree.map(lambda a, b: a - b, g1, g0), slope, floor=1.0) < 1e-5
    assert float(priced.evaluate(params, BATCH).loss) == float(plain.evaluate(params, BATCH).loss)


@pytest.mark.parametrize("cfg", [tiny.RECTIFIED, tiny.SQUARED, tiny.MODERN], ids=["reglu", "relu2", "swiglu"])
def test_validation_counts_the_zeros(monkeypatch, cfg):
    params = tiny.spiced(cfg)
    seen = hidden(monkeypatch, cfg, params)
    found = dense(cfg, ObjectiveConfig()).evaluate(params, BATCH).others
    share = sum((BATCH.weights * (h_BLF == 0).mean(-1)).sum() for h_BLF in seen) / cfg.layers / BATCH.weights.sum()
    assert (share == 0) == (cfg.mlp == "swiglu") == (not found)
    for other in found.values():
        assert float(other.loss / other.weight) == pytest.approx(float(share), rel=1e-6)


def test_a_price_of_nothing_watches_nothing():
    """The step without a price has no |h|, which the one with it has."""
    cfg, params = tiny.RECTIFIED, tiny.spiced(tiny.RECTIFIED)

    def magnitudes(settings):
        objective = dense(cfg, settings)
        return str(jax.make_jaxpr(lambda p: objective.gradients(p, BATCH, None, 0, ()))(params)).count(" abs ")

    assert magnitudes(ObjectiveConfig()) == 0 < magnitudes(ObjectiveConfig(activation_l1=WEIGHT))


def test_the_same_under_remat():
    cfg, params = tiny.RECTIFIED, tiny.spiced(tiny.RECTIFIED)
    ways = [cfg, dataclasses.replace(cfg, remat="full"), dataclasses.replace(cfg, scan_unroll=2)]
    runs = [dense(way, ObjectiveConfig(activation_l1=WEIGHT)) for way in ways]
    grads = [tiny.jit(lambda p, o=o: o.gradients(p, BATCH, None, 0, ())[0])(params) for o in runs]
    assert tiny.worst(grads[1], grads[0], floor=1.0) < 1e-5 and tiny.worst(grads[2], grads[0], floor=1.0) < 1e-5


@pytest.mark.parametrize("cfg", [tiny.MODERN, tiny.CHINCHILLA], ids=["swiglu", "gelu"])
def test_activations_that_are_never_zero_are_refused(cfg):
    with pytest.raises(UserError, match=r"set --model\.mlp reglu or relu2"):
        dense(cfg, ObjectiveConfig(activation_l1=0.1))
