"""Attacks against closed forms, against each other, and on one device and eight."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.evaluation import robustness
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives import perturb
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel.sharding import batch_sharding, replicated
from chinchilla_jax.parallel.tiles import Tiling
from tests import tiny

SPECIAL = (0, 1, 2, 3)
UNIGRAM = np.log(np.full(61, 1 / 61, np.float32))
HOW = {"special": SPECIAL, "log_unigram": UNIGRAM, "temperature": 1.5}


@pytest.fixture(scope="module")
def report(model, batch):
    cfg, params = model
    radii = (0.02, 0.1, 0.5)
    return robustness.attack_report(params, cfg, [batch, batch], radii, jax.random.key(1), **HOW)


def ascend(model, batch, delta, size, stride, steps, special=SPECIAL):
    cfg, params = model
    return robustness.ascend(params, batch, delta, size, stride, steps, aim=robustness.language(cfg), special=special)


def points(model, batch, seed=0):
    return robustness.sphere(jax.random.key(seed), 0, batch, model[0].d_model)


def test_clean_is_the_plain_loss(model, batch, report):
    cfg, params = model

    @tiny.jit
    def summed(params):
        hidden = transformer.apply(params, batch, cfg)
        return tiny.naive_loss(hidden, transformer.unembedding(params), batch.targets, batch.weights)

    loss = summed(params)
    assert report["clean"] == pytest.approx(float(loss / batch.weights.sum()), rel=1e-5)
    assert report["tokens"] == 2 * int(batch.weights.sum())


def test_stronger_attacks_do_more(report):
    for rho in report["absolute"]:
        rand, fgm, pgd5, pgd20 = (report[name][rho] for name in ("rand", "fgm", "pgd5", "pgd20"))
        assert rand < fgm <= pgd5 <= pgd20 and report["clean"] < fgm and report["ordered"][rho]
    assert report["area"] == pytest.approx(np.mean([x - report["clean"] for x in report["pgd20"].values()]))
    assert report["pgd20"][0.5] > report["pgd20"][0.1] > report["pgd20"][0.02]


def test_a_masked_gradient_is_seen():
    assert robustness.ordered([1.0, 2.0, 2.0, 3.0]) and robustness.ordered([2.0, 2.0 - 1e-6])
    assert not robustness.ordered([2.0, 1.9, 3.0, 3.0]) and not robustness.ordered([1.0, 2.0, 3.0, 2.9])


def test_fgm_and_pgd_are_exact_where_the_loss_is_linear(model, batch, monkeypatch):
    """max over ||d_t|| <= r of sum_t w_t . d_t is r sum_t ||w_t||, at d_t = r w_t / ||w_t||."""
    draw = np.random.default_rng(0)
    w_BLD = jnp.asarray(draw.standard_normal((*batch.tokens.shape, 20)) * 10.0 ** draw.integers(-30, 3, (8, 16, 1)))

    def linear(params, batch, delta_BLD, aim):
        return w_BLD, jnp.broadcast_to(jnp.sum(w_BLD * delta_BLD, axis=(1, 2))[:, None], batch.tokens.shape)

    monkeypatch.setattr(robustness, "slope", linear)
    move = partial(robustness.ascend.__wrapped__, None, batch, aim=None, special=SPECIAL)
    allowed_BL = perturb.allowed(batch, SPECIAL)[..., 0]
    best_B1 = 0.3 * jnp.sum(allowed_BL * jnp.linalg.norm(w_BLD, axis=-1), axis=1, keepdims=True)
    best_BL = np.broadcast_to(best_B1, batch.tokens.shape)
    delta_BLD, fgm_BL, *_ = move(jnp.zeros(w_BLD.shape), 0.3, 0.3, 1)
    np.testing.assert_allclose(fgm_BL, best_BL, rtol=1e-5)
    sphere_BLD = points(model, batch)
    np.testing.assert_allclose(move(delta_BLD, 0.3, 0.15, 5)[2], best_BL, rtol=1e-5)
    np.testing.assert_allclose(move(0.3 * sphere_BLD, 0.3, 2.5 * 0.3 / 20, 20)[2], best_BL, rtol=0.05)
    np.testing.assert_allclose(move(0.3 * sphere_BLD, 0.3, 2.5 * 0.3 / 20, 100)[2], best_BL, rtol=1e-4)


def test_deltas_lie_on_the_sphere_where_they_may(model, batch):
    """Real tokens that are no control pieces at the radius, all others at 0; PGD stays inside."""
    size, there = 0.37, np.asarray((batch.segments > 0) & (batch.tokens > 3))
    assert 0 < there.sum() < batch.tokens.size and (np.asarray(batch.tokens)[np.asarray(batch.segments) > 0] <= 3).any()
    zero = jnp.zeros((*batch.tokens.shape, 20))
    aim = robustness.language(model[0])
    slope_BLD = tiny.jit(lambda params: robustness.slope(params, batch, zero, aim)[0])(model[1])
    needed = there & (np.abs(slope_BLD).max(-1) > 0)  # a last token without a loss of its own moves nothing
    length_BL = np.linalg.norm(ascend(model, batch, zero, size, size, 1)[0], axis=-1)
    np.testing.assert_allclose(length_BL[needed], size, rtol=1e-6)
    random_BL = np.linalg.norm(ascend(model, batch, size * points(model, batch), size, 0.0, 0)[0], axis=-1)
    np.testing.assert_allclose(random_BL[there], size, rtol=1e-6)
    pgd_BL = np.linalg.norm(ascend(model, batch, size * points(model, batch), size, size / 2, 5)[0], axis=-1)
    assert (pgd_BL <= size * (1 + 1e-6)).all()
    assert all((lengths[~there] == 0).all() for lengths in (length_BL, random_BL, pgd_BL))


def test_random_points_are_uniform_on_the_sphere(model, batch):
    """Coordinates have mean 0 and variance 1/D, and a token's point has nothing to do with its neighbour's."""
    points_ND = np.asarray(points(model, batch)).reshape(-1, 20)
    assert abs(points_ND.mean()) < 4 / np.sqrt(points_ND.size * 20) and np.isclose((points_ND**2).mean(), 1 / 20)
    near_N = np.sum(points_ND[1:] * points_ND[:-1], axis=1)
    assert abs(near_N.mean()) < 4 / np.sqrt(20 * len(near_N))


def test_no_attack_leaks_between_documents(model, batch):
    """What is done to the first document does not depend on the second's text."""
    zero = jnp.zeros((*batch.tokens.shape, 20))
    other = jnp.where(batch.segments == 1, batch.tokens, (batch.tokens + 7) % 61)
    changed = jax.tree.map(lambda x: x, batch)
    changed.tokens = other
    first = np.asarray(batch.segments == 1)
    for steps in (1, 5):
        one, two = (np.asarray(ascend(model, b, zero, 0.4, 0.2, steps)[0]) for b in (batch, changed))
        np.testing.assert_allclose(one[first], two[first], atol=1e-6)
        assert not np.allclose(one[~first], two[~first], atol=1e-3)


def test_it_does_not_form_gradients_of_parameters(model, batch):
    """Two thirds of a training step's FLOPs, within what attention and the norms add."""
    cfg = dataclasses.replace(model[0], layers=1)
    params, delta = tiny.spiced(cfg), jnp.zeros((*batch.tokens.shape, cfg.d_model))

    def flops(f, *args):
        return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]

    def whole(params, delta):
        hidden, table = transformer.apply(params, batch, cfg, delta_BLD=delta), transformer.unembedding(params)
        return robustness.cross_entropy(hidden, table, batch.targets, batch.weights, 0.0, Tiling(99999))

    aim = robustness.language(cfg)
    full = flops(jax.grad(whole), params, delta)
    slope = flops(lambda params, delta: robustness.slope(params, batch, delta, aim), params, delta)
    forward = flops(lambda params, delta: robustness.slope(params, batch, delta, aim)[1], params, delta)
    assert slope < 0.75 * full and forward < 0.4 * full


def test_the_same_key_gives_the_same_figures(model, batch, report):
    cfg, params = model
    again = robustness.attack_report(params, cfg, [batch, batch], (0.1,), jax.random.key(1), **HOW)
    other = robustness.attack_report(params, cfg, [batch, batch], (0.1,), jax.random.key(2), **HOW)
    assert all(again[name][0.1] == report[name][0.1] for name in ("rand", "fgm", "pgd5", "pgd20"))
    assert again["rand"] != other["rand"] and again["fgm"] == other["fgm"]


def test_a_radius_that_is_named_twice_is_one(model, batch):
    cfg, params = model
    given = params, cfg, [batch]
    once, twice = (
        robustness.attack_report(*given, radii, jax.random.key(1), log_unigram=UNIGRAM)
        for radii in ((0.1,), (0.1, 0.1))
    )
    assert once == twice


def test_eight_devices_give_what_one_gives(model, batch, report):
    cfg, params = model
    mesh = meshes.build(MeshConfig(data=4, fsdp=2))
    placed = jax.device_put(params, replicated(mesh)), jax.device_put(batch, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        found = robustness.attack_report(placed[0], cfg, [placed[1]] * 2, (0.1,), jax.random.key(1), **HOW)
    for name in ("rand", "fgm", "pgd5", "pgd20"):
        assert found[name][0.1] == pytest.approx(report[name][0.1], rel=1e-5)


def test_it_attacks_in_float32_what_was_trained_in_bfloat16(batch, model, report):
    cfg, params = model
    rough = dataclasses.replace(cfg, dtype="bfloat16")
    found = robustness.attack_report(params, rough, [batch, batch], (0.1,), jax.random.key(1), **HOW)
    assert found["pgd20"][0.1] == report["pgd20"][0.1]
