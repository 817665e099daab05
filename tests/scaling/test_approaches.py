"""Approaches 1 and 2: the known bias of the parabola, and designs that have no optimum refused."""

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import approaches
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.runs import table

ROUNDED = Surface(np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28)
SYMMETRIC = Surface(np.log(400), np.log(400), np.log(1.69), 0.31, 0.31)


def design(law, span, per=15, budgets=5, centre=1.0):
    """Noise-free isoFLOP runs at 1e17 to 1e21, `span` round `centre` times the optimum."""
    C = np.repeat(np.geomspace(1e17, 1e21, budgets), per)
    N = centre * law.optimum(C)[0] * np.tile(np.geomspace(1 / span, span, per), budgets)
    D = C / 6 / N
    return table(N, D, law.loss(N, D))


@pytest.mark.parametrize(("span", "error"), [(2, -0.33), (4, -1.30), (8, -2.90), (16, -5.10)])
def test_bias_of_the_parabola(span, error):
    """T16: Czech et al. 2026, noise-free, extrapolated to 1e24; the exponent stays exact."""
    runs = design(ROUNDED, span)
    line, budgets = approaches.isoflop(runs)
    assert 100 * (
        1e24 / 6 / np.exp(line.intercept) / 1e24**line.exponent / ROUNDED.optimum(1e24)[1] - 1
    ) == pytest.approx(error, abs=0.005)
    assert 1 - line.exponent == pytest.approx(0.548387, abs=1e-6)
    # What the surface predicts of the shift is what happened.
    shift = approaches.vertex_shift(ROUNDED, budgets[0].C, runs.N[:15])
    assert np.log(budgets[0].N / ROUNDED.optimum(budgets[0].C)[0]) == pytest.approx(shift, abs=1e-9)


def test_symmetric_surface_has_no_bias():
    line, budgets = approaches.isoflop(design(SYMMETRIC, 16))
    assert line.exponent == pytest.approx(0.5, abs=1e-9)
    assert line.intercept / np.log(10) == pytest.approx(-0.389076, abs=1e-6)
    assert budgets[2].akima == pytest.approx(budgets[2].N, rel=2e-3)


def test_akima_is_less_biased():
    _, budgets = approaches.isoflop(design(ROUNDED, 16))
    true = ROUNDED.optimum(budgets[0].C)[0]
    assert abs(budgets[0].akima / true - 1) < 0.01 < abs(budgets[0].N / true - 1)


@pytest.mark.parametrize(("centre", "fix"), [(30, "smaller"), (1 / 30, "larger")])
def test_no_interior_minimum(centre, fix):
    with pytest.raises(UserError, match=f"row .*, column loss: .*end of its sizes.*{fix}"):
        approaches.isoflop(design(ROUNDED, 4, centre=centre))


def test_downward_parabola():
    runs = design(ROUNDED, 4)
    with pytest.raises(UserError, match="opens downward"):
        approaches.isoflop(table(runs.N, runs.D, 6 - runs.loss))


def test_budgets_with_one_size():
    C = np.geomspace(1e17, 1e21, 5)
    N = ROUNDED.optimum(C)[0]
    with pytest.raises(UserError, match=r"row 1, column n_total: the budget of 1e\+17 FLOPs has 1 size; .*needs 3"):
        approaches.isoflop(table(N, C / 6 / N, ROUNDED.loss(N, C / 6 / N)))


def test_envelope_warns_and_finds_the_slope():
    line = approaches.envelope(design(SYMMETRIC, 16, per=41, budgets=9))
    assert line.exponent == pytest.approx(0.5, abs=0.02) and "leans to where the runs are" in line.warnings[0]
