"""Straight-through N:M sparsity against SGD by hand."""

import numpy as np
import optax

from chinchilla_jax.optim.paths import named
from chinchilla_jax.optim.sparsity import sparsify
from tests.optim.matrices import STEPS, UP, draw, run, sparsity


def test_straight_through_keeps_dense_weights_and_shows_masked_ones():
    """SGD by hand in float64: W moves by the gradient at E * W and decay (1 - E) W; E holds the 2 largest of 4."""
    decay, rate = 0.1, 0.05
    cfg = sparsity("n_m", pattern="2:4", start=0.0, stop=0.7, every=3, decay=decay)
    (tx,) = sparsify([optax.sgd(rate)], cfg, lambda s: rate, STEPS)
    dense = np.asarray(named(draw(0))[UP], np.float64)
    for count, (params, state) in enumerate(run(tx)):
        if count in (0, 3, 6, 8):  # the window ends with update round(0.7 * 12)
            groups = np.abs(dense).reshape(2, 2, 4, 12)
            keep = (np.argsort(np.argsort(-groups, axis=2), axis=2) < 2).reshape(dense.shape)
        dense = dense - rate * (np.asarray(named(draw(count + 1))[UP]) + decay * ~keep * dense)
        np.testing.assert_array_equal(state.masks[UP], keep)
        np.testing.assert_allclose(state.dense[UP], dense, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(params[UP]) != 0, keep)
        np.testing.assert_allclose(params[UP], keep * dense, rtol=1e-5, atol=1e-6)
