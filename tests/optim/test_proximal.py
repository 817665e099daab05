"""Proximal points by other means: scikit-learn's lasso, a closed form, and by hand after the window."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

from chinchilla_jax.optim.paths import named
from chinchilla_jax.optim.sparsity import sparsify
from tests.optim.matrices import STEPS, UP, draw, run, sparsity, zeros


def descend(tx, gradient, start, steps):
    """`steps` of an optimizer on the one matrix `start`, compiled as a loop."""
    tree = lambda w: {"blocks": {"mlp": {"up": {"kernel": w}}}}  # noqa: E731

    def body(_, carry):
        params, state = carry
        w = named(params)[UP]
        updates, state = tx.update(tree(gradient(w)), state, params)
        return optax.apply_updates(params, updates), state

    params = tree(jnp.asarray(start, jnp.float32))
    return np.asarray(named(jax.jit(partial(jax.lax.fori_loop, 0, steps, body))((params, tx.init(params)))[0])[UP])


def test_l1_finds_the_lasso_and_its_support():
    """argmin |X w - y|^2 / (2 n) + strength |w|_1, as scikit-learn finds it."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 24)) @ (np.eye(24) + 0.2 * rng.standard_normal((24, 24)))
    y = X[:, :5] @ np.array([3.0, -2, 1.5, 1, -1]) + 0.5 * rng.standard_normal(60)
    strength, n, steps = 0.4, 60, 6000
    expected = Lasso(strength, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_
    rate = 1 / np.linalg.norm(X.T @ X / n, 2)
    cfg = sparsity("l1", strength=strength, start=0.0, stop=1.0)
    tx = optax.chain(*sparsify([optax.sgd(rate)], cfg, lambda s: rate, steps))
    X32, y32 = jnp.asarray(X, jnp.float32), jnp.asarray(y, jnp.float32)
    found = descend(tx, lambda w: (X32.T @ (X32 @ w.ravel() - y32) / n).reshape(w.shape), np.zeros((1, 4, 6)), steps)
    np.testing.assert_allclose(found.ravel(), expected, atol=2e-5)
    np.testing.assert_array_equal(found.ravel() != 0, expected != 0)
    assert 4 < (expected != 0).sum() < 20


@pytest.mark.parametrize("pattern, axis", [("rows", 2), ("columns", 1)])
def test_group_lasso_is_its_closed_form_on_an_orthonormal_design(pattern, axis):
    """argmin |w - a|^2 / 2 + strength sum_g sqrt(n_g) |w_g| = a_g max(1 - strength sqrt(n_g) / |a_g|, 0)."""
    a = np.random.default_rng(4).standard_normal((1, 6, 5)) * np.outer(np.linspace(0.1, 2, 6), np.linspace(0.1, 2, 5))
    strength, steps = 0.5, 400
    norm = np.sqrt((a**2).sum(axis, keepdims=True))
    expected = a * np.maximum(1 - strength * np.sqrt(a.shape[axis]) / norm, 0)
    cfg = sparsity("group_lasso", pattern=pattern, strength=strength, start=0.0, stop=1.0)
    tx = optax.chain(*sparsify([optax.sgd(0.3)], cfg, lambda s: 0.3, steps))
    found = descend(tx, lambda w: w - jnp.asarray(a, jnp.float32), a, steps)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found != 0, expected != 0)
    assert 0 < (expected == 0).mean() < 1


def test_after_the_window_zeros_stay_and_the_rest_is_free():
    cfg = sparsity("l1", strength=5.0, start=0.0, stop=0.5)
    seen = run(optax.chain(*sparsify([optax.sgd(0.01)], cfg, lambda s: 0.01, STEPS)))
    assert zeros(seen[5][0][UP]) < zeros(seen[6][0][UP]) == zeros(seen[-1][0][UP]) < 1, "shrunk up to update 6"
    moved = np.asarray(seen[-2][0][UP]) - 0.01 * np.asarray(named(draw(STEPS))[UP])
    np.testing.assert_allclose(seen[-1][0][UP], np.where(np.asarray(seen[6][0][UP]) == 0, 0, moved), rtol=1e-6)
