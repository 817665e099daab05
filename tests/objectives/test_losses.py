"""Divergences and the softmax margin, tile by tile, against the naive ones and against numerical maximisation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from chinchilla_jax.objectives.dense import cross_entropy
from chinchilla_jax.objectives.losses import divergence, margin, rdrop
from chinchilla_jax.parallel.tiles import Tiling, tiled
from tests import tiny

B, L, D, V = 3, 14, 8, 50
DRAW = np.random.default_rng(0)
Y, X, TABLE = (DRAW.standard_normal(shape).astype(np.float32) for shape in ((B, L, D), (B, L, D), (V, D)))
TARGETS = DRAW.integers(0, V, (B, L))
WEIGHTS = (DRAW.random((B, L)) * (DRAW.random((B, L)) < 0.7)).astype(np.float32)

NINE = Tiling(9)


def naive_divergence(y, x, table, kind, both):
    """The sums as they are defined; AD does the rest."""
    if not both:
        x, held = jax.lax.stop_gradient(x), jax.lax.stop_gradient(table)
    logp, logq = jax.nn.log_softmax(x @ (table if both else held).T), jax.nn.log_softmax(y @ table.T)
    forth, back = (jnp.exp(logp) * (logp - logq)).sum(-1), (jnp.exp(logq) * (logq - logp)).sum(-1)
    return (WEIGHTS * (forth + back if kind == "sym_kl" else forth)).sum()


def exactly(naive):
    """Value and gradients of a function of Y, X, TABLE, in float64."""
    with jax.enable_x64(True):
        wide = [np.asarray(x, np.float64) for x in (Y, X, TABLE)]
        return jax.tree.map(np.asarray, tiny.jit(jax.value_and_grad(naive, (0, 1, 2)))(*wide))


def apart(y, x, table, kind, both, tiling):
    moving, fixed = ((y, x), ()) if both else ((y,), ((x, jax.lax.stop_gradient(table)),))
    total, (entropies,) = tiled(partial(divergence, kind), moving, table, fixed, (TARGETS, WEIGHTS), tiling)
    return total, entropies


def margin_cross_entropy(x, table, targets, weights, lowered, z_loss, tiling):
    return tiled(partial(margin, z_loss), (x,), table, (), (targets, lowered, weights), tiling)


@pytest.mark.parametrize("kind", ["kl", "sym_kl"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("tiling", [NINE, Tiling(1000), Tiling(9, trained=True)])
def test_divergences_equal_the_naive_ones(kind, both, tiling):
    def ours(y, x, table):
        loss, entropies = apart(y, x, table, kind, both, tiling)
        return 3.0 * loss, entropies

    (loss, entropies), found = tiny.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(Y, X, TABLE)
    value, expected = exactly(lambda *a: 3 * naive_divergence(*a, kind, both))
    assert float(loss) == pytest.approx(float(value), rel=1e-5)
    assert tiny.worst(found, expected, floor=1e-3) < 1e-5
    plain = np.logaddexp.reduce(Y @ TABLE.T, -1) - np.take_along_axis(Y @ TABLE.T, TARGETS[..., None], -1)[..., 0]
    asked = (WEIGHTS != 0) | (not tiling.trained)
    np.testing.assert_allclose(entropies[asked], plain[asked], rtol=1e-4, atol=1e-5)


def test_rdrop_completes_the_first_cross_entropy():
    """(CE + CE') / 2 + a/2 symKL of Liang et al. 2021, less CE, in value and gradient."""

    def naive(y, x, table):
        logp = [jax.nn.log_softmax(h @ table.T) for h in (y, x)]
        ce = [-(WEIGHTS * jnp.take_along_axis(p, TARGETS[..., None], -1)[..., 0]).sum() for p in logp]
        return (ce[0] - ce[1] + 0.3 * naive_divergence(y, x, table, "sym_kl", True)) / 2

    def ours(y, x, table):
        return tiled(partial(rdrop, 0.3), (y, x), table, (), (TARGETS, WEIGHTS), NINE)[0]

    found, expected = tiny.jit(jax.value_and_grad(ours, (0, 1, 2)))(Y, X, TABLE), exactly(naive)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    assert tiny.worst(found[1], expected[1], floor=1e-3) < 1e-5


def test_a_prediction_does_not_diverge_from_itself():
    loss, _ = tiny.jit(lambda x, table: apart(x, x, table, "sym_kl", False, NINE))(X, TABLE)
    assert abs(float(loss)) < 1e-6


def naive_margin(x, table, margin, z_loss):
    """Wang et al. 2019, logits all at once."""
    logits = x @ table.T
    hit = np.arange(V) == TARGETS[..., None]
    gold = (logits * hit).sum(-1)
    low = jnp.where(gold > 0, margin * jnp.linalg.norm(x, axis=-1), 0.0)
    logits = logits - hit * low[..., None]
    norm = jax.nn.logsumexp(logits, -1)
    return (WEIGHTS * (norm - (logits * hit).sum(-1) + z_loss * norm**2)).sum()


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("tiling", [NINE, Tiling(1000), Tiling(9, trained=True)])
def test_the_margin_equals_the_naive_one_in_value_and_gradient(z_loss, tiling):
    margin = (0.4 * np.linalg.norm(TABLE, axis=1)[TARGETS]).astype(np.float32)

    def ours(x, table):
        return margin_cross_entropy(x, table, TARGETS, WEIGHTS, margin, z_loss, tiling)

    (loss, (losses, plain)), found = tiny.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(X, TABLE)
    value, expected = tiny.jit(jax.value_and_grad(lambda *a: naive_margin(*a, margin, z_loss), (0, 1)))(X, TABLE)
    assert float(loss) == pytest.approx(float(value), rel=1e-5) and tiny.worst(found, expected) < 1e-5
    without = tiny.jit(cross_entropy, static_argnums=(4, 5))(X, TABLE, TARGETS, WEIGHTS, z_loss, tiling)
    assert float((WEIGHTS * plain).sum()) == pytest.approx(float(without), rel=1e-5)
    assert float((WEIGHTS * losses).sum()) == pytest.approx(float(loss), rel=1e-5) and float(loss) > float(without)


@pytest.mark.parametrize("gap", [100.0, 300.0])
def test_a_large_margin_on_a_confident_token_stays_finite(gap):
    """The lowered logit was the largest, or lies far below what is."""
    x, table = np.float32([[[gap, 0.0]]]), np.float32([[1.0, 0.0], [0.0, 1.0]])
    one = np.ones((1, 1), np.float32)
    given = np.zeros((1, 1), np.int32), one
    ours = lambda x, table, low: margin_cross_entropy(x, table, *given, low, 0.0, NINE)  # noqa: E731
    run = tiny.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))
    for eps in (0.2, 0.9, 2.0):
        (loss, (_, plain)), grads = run(x, table, np.float32(eps) * one)
        assert float(loss) == pytest.approx(np.logaddexp(0, eps * gap - gap), rel=1e-6, abs=1e-6)
        assert float(plain[0, 0]) == pytest.approx(0, abs=1e-6)
        assert all(np.isfinite(g).all() for g in grads)


def test_the_margin_is_the_worst_perturbation_of_the_targets_vector():
    """Against SLSQP over the ball ||d|| <= eps ||w_y||, in float64, for tokens whose cosine is positive."""
    eps, tried = 0.3, 0
    margin = (eps * np.linalg.norm(TABLE, axis=1)[TARGETS]).astype(np.float32)
    run = tiny.jit(lambda x, table: margin_cross_entropy(x, table, TARGETS, WEIGHTS, margin, 0.0, NINE))
    losses = np.asarray(run(X, TABLE)[1][0])
    for b, token in np.argwhere((X * TABLE[TARGETS]).sum(-1) > 0)[:6]:
        h, y, table = X[b, token].astype(float), TARGETS[b, token], TABLE.astype(float)
        size, others = eps * np.linalg.norm(table[y]), np.delete(table @ h, y)

        def negative(d, h=h, y=y, table=table, others=others):
            logit = (table[y] + d) @ h
            return logit - np.logaddexp.reduce([*others, logit])

        inside = {"type": "ineq", "fun": lambda d, size=size: size**2 - d @ d}
        exact = {"ftol": 1e-14, "maxiter": 500}
        best = minimize(negative, np.zeros(D), method="SLSQP", constraints=inside, options=exact)
        assert float(losses[b, token]) == pytest.approx(-best.fun, rel=1e-6, abs=1e-6)
        tried += 1
    assert tried == 6


def test_the_weights_gradient_is_the_loss_of_a_token():
    found = tiny.jit(jax.grad(cross_entropy, 3), static_argnums=(4, 5))(X, TABLE, TARGETS, WEIGHTS, 0.1, NINE)
    logits = X.astype(float) @ TABLE.T.astype(float)
    norm = np.logaddexp.reduce(logits, -1)
    expected = norm - np.take_along_axis(logits, TARGETS[..., None], -1)[..., 0] + 0.1 * norm**2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
