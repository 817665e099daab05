"""Approach 3: the published optimum to six digits, the bootstrap's printed digits, and the historic failures seen."""

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.fit import fit
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.runs import table
from tests.scaling.tables import ROUNDED, grid, noisy


def test_the_cut_is_listed(whole, epoch):
    assert (len(whole.N), len(epoch.N), len(epoch.dropped)) == (245, 240, 5)
    assert epoch.dropped[0].startswith("row 2: loss 5.0056")


def test_exact_optimum(best):
    """T6: scaling_laws.md 2.2, from 400 starts of another optimiser."""
    expected = [6.16924638, 7.67015673, 0.59730681, 0.347310, 0.367172, 0]
    np.testing.assert_allclose(best.theta, expected, rtol=0, atol=2e-5)
    assert 1e3 * best.value == pytest.approx(1.0182740178, abs=1e-9)
    assert best.converged and best.agreement == 1 and best.condition < 100 and not best.warnings()
    N, D = best.surface.optimum(5.88e23)
    assert pytest.approx(17.91, abs=0.005) == D / N


def test_smaller_delta_gives_epochs_published_values(epoch):
    """T10."""
    a, b, e, alpha, beta, _ = fit(epoch, delta=1e-5).theta
    assert np.exp(a) == pytest.approx(481.4, abs=0.05) and np.exp(b) == pytest.approx(2081.4, abs=0.05)
    assert np.exp(e) == pytest.approx(1.8167, abs=5e-5)
    assert (alpha, beta) == (pytest.approx(0.3477, abs=5e-5), pytest.approx(0.3658, abs=5e-5))


def test_noise_free_recovery():
    """T17."""
    N, D = grid()
    found = fit(table(N, D, ROUNDED.loss(N, D)))
    values = [*np.exp(found.theta[:3]), *found.theta[3:5]]
    np.testing.assert_allclose(values, [406.4, 410.7, 1.69, 0.34, 0.28], rtol=1e-6)
    assert found.converged


@pytest.mark.parametrize("k", [0.4, 0.7])
def test_noise_free_recovery_of_skaling(k):
    law = Surface(9.0, 10.0, 0.5, 0.5, 0.6, k)
    N, D = grid()
    found = fit(table(N, D, law.loss(N, D)), form="skaling")
    np.testing.assert_allclose(found.theta[3:], [0.5, 0.6, np.log(k)], rtol=1e-4)


def test_float32_is_upcast():
    """T18: the same rows in float32 give the float64 answer to what float32 says of the rows."""
    runs = noisy()
    single = table(*(v.astype(np.float32) for v in (runs.N, runs.D, runs.loss)))
    assert single.N.dtype == single.loss.dtype == np.float64
    np.testing.assert_allclose(fit(single).theta, fit(runs).theta, rtol=1e-3)
    assert fit(single).converged


def test_collinear_design_is_refused():
    N = np.geomspace(1e7, 1e10, 20)
    runs = table(N, 20 * N, ROUNDED.loss(N, 20 * N))
    with pytest.raises(UserError, match=r"20 tokens per parameter.*--form tied"):
        fit(runs)
    assert any("tokens follow parameters" in line for line in fit(runs, form="tied").warnings())
    with pytest.raises(UserError, match="separate exponents"):
        fit(table(N, 1e20 / N, ROUNDED.loss(N, 1e20 / N)))  # a single budget is a line as well


def test_too_few_sizes_or_rows():
    N, D = grid(2, 5)
    with pytest.raises(UserError, match="row 1, column n_total: 2 different sizes"):
        fit(table(N, D, ROUNDED.loss(N, D)))
    with pytest.raises(UserError, match="5 rows for 5 parameters"):
        fit(table(N[:5] * np.arange(1, 6), D[:5], ROUNDED.loss(N[:5], D[:5])))


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
