"""Kaplan's form of the law: no floor, and one term to a power."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fit import fit
from chinchilla_jax.scaling.runs import table

# Kaplan et al. 2020, L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, as printed beside figure 4.
ALPHA_N, ALPHA_D, N_C, D_C = 0.076, 0.103, 6.4e13, 1.8e13
N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 2e10, 5)))
LOSS = ((N_C / N) ** (ALPHA_N / ALPHA_D) + D_C / D) ** ALPHA_D


def test_the_published_law_is_found_again():
    found = fit(table(N, D, LOSS), form="kaplan")
    assert found.converged and found.value < 1e-12
    a, b, e, alpha, beta, kappa = found.theta
    assert np.exp(kappa) == pytest.approx(ALPHA_D, rel=1e-5) and alpha == pytest.approx(ALPHA_N / ALPHA_D, rel=1e-5)
    assert beta == 1 and np.exp(e) < 1e-5
    assert np.exp(a / alpha) == pytest.approx(N_C, rel=1e-3) and np.exp(b) == pytest.approx(D_C, rel=1e-3)
    np.testing.assert_allclose(found.surface.loss(1e10, 1e12), (6400 ** (ALPHA_N / ALPHA_D) + 18) ** ALPHA_D, rtol=1e-5)


def test_its_optimum_is_where_the_loss_is_least_at_a_budget():
    surface = fit(table(N, D, LOSS), form="kaplan").surface
    C = 1e20
    best, _ = surface.optimum(C, 6.0)
    sizes = np.geomspace(best / 3, best * 3, 2001)
    assert sizes[np.argmin(surface.loss(sizes, C / 6 / sizes))] == pytest.approx(best, rel=2e-3)


def test_other_forms_cannot_follow_it():
    runs = table(N, D, LOSS)
    assert fit(runs, "mse-log").value > 100 * fit(runs, "mse-log", form="kaplan").value
