"""Figures at an attacked point against numpy, the fitted temperature, standard errors of windows."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.evaluation import judged, robustness
from chinchilla_jax.model import transformer
from tests import tiny


def points(model, batch, seed=0):
    return robustness.sphere(jax.random.key(seed), 0, batch, model[0].d_model)


def test_what_is_judged_equals_numpy(model, batch):
    """Loss, capped loss and accuracy of the model, of its mixture with the unigram and at a temperature, in float64."""
    cfg, params = model
    log_u = np.log(np.random.default_rng(3).dirichlet(np.ones(61))).astype(np.float32)
    delta = 0.1 * points(model, batch)
    found = judged.judge(params, batch, delta, log_u, 1.7, cfg=cfg)
    hidden = tiny.jit(lambda params: transformer.apply(params, batch, cfg, delta_BLD=delta))(params)
    logits = np.asarray(hidden, float) @ np.asarray(transformer.unembedding(params), float).T
    targets, weights = np.asarray(batch.targets), np.asarray(batch.weights, float)

    def log_p(x):
        return x - np.logaddexp.reduce(x, -1)[..., None]

    rows = log_p(logits), np.log(0.99 * np.exp(log_p(logits)) + 0.01 * np.exp(log_u)), log_p(logits / 1.7)
    for at, row in enumerate(rows):
        losses = -np.take_along_axis(row, targets[..., None], -1)[..., 0]
        three = losses, np.minimum(losses, -log_u[targets]), row.argmax(-1) == targets
        expected = np.stack([(weights * one).sum(1) for one in three], -1)
        np.testing.assert_allclose(found[:, at], expected, rtol=1e-4, atol=1e-4)


def test_the_temperature_is_the_best_one(model, batch):
    """Targets drawn at 1.4: found about there, and no neighbour has a smaller loss."""
    cfg, params = model
    logits = tiny.jit(lambda p: transformer.apply(p, batch, cfg) @ transformer.unembedding(p).T)(params)
    drawn = dataclasses.replace(batch, targets=jax.random.categorical(jax.random.key(0), logits / 1.4))
    fitted = judged.temperature(params, [drawn, drawn], cfg)
    losses = judged.tempered(params, drawn, np.float32([fitted * 0.97, fitted, fitted * 1.03]), cfg=cfg)
    assert losses[1] <= losses[0] and losses[1] <= losses[2] and fitted == pytest.approx(1.4, rel=0.25)


def test_standard_errors_are_those_of_windows():
    """Of equal windows sd / sqrt(n); of unequal ones near what drawing them again gives; empty ones count nothing."""
    draw = np.random.default_rng(0)
    sums, even = draw.standard_normal(40), np.full(40, 5.0)
    mean, error = judged.mean_and_error(np.append(sums, 0), np.append(even, 0))
    assert mean == pytest.approx(sums.mean() / 5) and error == pytest.approx(sums.std(ddof=1) / 5 / 40**0.5)
    mean, error = judged.mean_and_error(np.array([6.0, 0.0]), np.array([4.0, 0.0]))
    assert mean == 1.5 and np.isnan(error), "one window has a mean and no error"
    weights = draw.integers(1, 9, 200).astype(float)
    sums = weights * 3 + draw.standard_normal(200) * weights
    again = draw.integers(0, 200, (4000, 200))
    assert judged.mean_and_error(sums, weights)[1] == pytest.approx(
        (sums[again].sum(1) / weights[again].sum(1)).std(), rel=0.1
    )
