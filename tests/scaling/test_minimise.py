"""The minimiser: slopes by finite differences, an early stop, and another minimiser that finds nothing lower."""

import numpy as np
import pytest
from scipy.optimize import minimize

from chinchilla_jax.scaling import doubt
from chinchilla_jax.scaling import minimise as numerics
from chinchilla_jax.scaling.fit import fit
from chinchilla_jax.scaling.minimise import TABLE, objective
from tests.scaling.tables import convergence, noisy


def test_early_stop_is_seen(epoch, best):
    """T7: the loss averaged instead of summed, scipy's L-BFGS-B defaults, from Hoffmann's values: two iterations."""
    x, z, y = np.log(epoch.N), np.log(epoch.D), np.log(epoch.loss)

    def averaged(t):
        U, V, E = np.exp(t[0] - t[3] * x), np.exp(t[1] - t[4] * z), np.exp(t[2])
        slope = np.clip(r := np.log(U + V + E) - y, -1e-3, 1e-3)
        by = slope / (U + V + E)
        g = [by @ U, by @ V, by.sum() * E, -(by * U) @ x, -(by * V) @ z]
        return (slope * (r - slope / 2)).mean(), np.array(g) / len(x)

    stopped = minimize(averaged, doubt.TEX, jac=True, method="L-BFGS-B")
    assert stopped.success and stopped.nit <= 3
    seen = convergence(stopped.x, epoch)
    assert not seen.converged and "UNCONVERGED" in seen.warnings()[0]
    assert convergence(best.theta, epoch).converged
    assert not fit(epoch, most=2).converged


def test_gradient_by_finite_differences(best):
    at, J = best.at, None
    theta = numerics.centred(best.theta, best.at)[None]
    theta[0, 5] = -0.4
    _, J = numerics.differentiated(theta, at)
    for i in range(6):
        step = np.zeros((1, 6))
        step[0, i] = 1e-6
        ends = [numerics.differentiated(theta + sign * step, at, False)[0] for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(J[..., i], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_penalties_agree_with_their_slopes(name):
    goal, r = objective(name, 1e-3), np.linspace(-0.01, 0.01, 100)
    found = goal(r)
    slope = (goal(r + 1e-9).value - goal(r - 1e-9).value) / 2e-9
    np.testing.assert_allclose(found.slope, slope, atol=1e-6)
    np.testing.assert_allclose(found.weight * r, found.slope, atol=1e-15)


@pytest.mark.parametrize("name", TABLE)
def test_other_minimiser_finds_nothing_lower(name):
    """scipy's Nelder-Mead, started at the fit, does not get below it."""
    runs = noisy()
    found = fit(runs, name)
    at = found.at

    def value(theta):
        return found.goal(numerics.residuals(np.append(theta, 0)[None], at, found.goal)).value.sum()

    start = numerics.centred(found.theta, at)[:5]
    other = minimize(value, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 4000})
    assert found.value <= other.fun * (1 + 1e-9)
    assert found.converged
