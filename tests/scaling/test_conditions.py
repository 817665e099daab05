"""The optimum under conditions: scarce text, zeros, tokens that are to be generated."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar

from chinchilla_jax.scaling import conditions, published
from chinchilla_jax.scaling.conditions import Conditions, Repeated, loss, optimum

LAW = published.published("epoch-exact").surface


@pytest.mark.parametrize("name", ["epoch-exact", "hoffmann-tex", "muennighoff-c4", "kaplan"])
@pytest.mark.parametrize("C", [1e13, 1e21, 5.88e23])
def test_without_conditions_it_is_the_closed_form(name, C):
    law = published.published(name).surface
    np.testing.assert_allclose(optimum(law, C), law.optimum(C), rtol=1e-5)


def test_repeated_text_is_worth_less_and_asks_for_more_passes_than_one():
    few = Conditions(unique_tokens=25e9)
    law = published.published("muennighoff-c4").surface
    assert float(loss(law, 6.34e9, 242e9, few)) == pytest.approx(2.2256440889984477, abs=1e-12)
    N, D = optimum(law, 1e22, where=few)
    grid = np.exp(np.linspace(np.log(N / 5), np.log(N * 5), 2001))
    best = grid[np.argmin(loss(law, grid, 1e22 / 6 / grid, few))]
    assert pytest.approx(best, rel=3e-3) == N and D > 25e9


def test_a_sparse_model_is_chosen_larger():
    N, _ = optimum(LAW, 1e20)
    sparse, _ = optimum(LAW, 1e20, where=Conditions(dense_equivalent=0.54))
    assert sparse > N


C4 = published.published("muennighoff-c4").surface


def test_muennighoffs_value():
    assert Repeated(C4, 25e9).loss(6.34e9, 242e9) == pytest.approx(2.2256440889984477, abs=1e-12)


def test_repetition_fades():
    law = Repeated(C4, 1e9)
    assert law.worth(1e6, 4e9)[1] / 1e9 == pytest.approx(3.7257, abs=5e-5), "four epochs"
    assert law.worth(1e6, np.inf)[1] / 1e9 == pytest.approx(16.387756)
    assert law.loss(1e7, 1e9) == C4.loss(1e7, 1e9), "one epoch of a small model is Chinchilla's law"
    assert Repeated(C4, 1e12).optimum(1e20) == pytest.approx(C4.optimum(1e20), rel=1e-6), "enough text"
    N, D = law.optimum(1e22)
    assert C4.optimum(1e22)[0] > N and C4.optimum(1e22)[1] < D, "scarce text is read again by a smaller model"


def test_sardanas_example():
    """A model of 13 B's quality that is to generate 2 T tokens: arXiv:2401.00448 with Hoffmann's digits."""
    law, T = published.published("sardana").surface, 2e12
    D = brentq(lambda d: law.params_for(d) - 13e9, 1e10, 1e14)
    quality, where = float(law.loss(13e9, D)), Conditions(generated=T)
    n, d = map(float, conditions.optimum(law, conditions.reach(law, "loss", quality, where=where), where=where))
    assert (n, d) == pytest.approx((6.97e9, 1.248e12), rel=5e-4) and law.loss(n, d) == pytest.approx(quality)
    assert 100 * (1 - (6 * n * d + 2 * n * T) / (6 * 13e9 * D + 2 * 13e9 * T)) == pytest.approx(17.45, abs=5e-3)
    best = minimize_scalar(lambda x: 6 * np.exp(x) * law.tokens(np.exp(x), quality) + 2 * np.exp(x) * T,
                           bounds=(np.log(4e9), np.log(2e10)), method="bounded", options={"xatol": 1e-10})  # fmt: skip
    assert 6 * n * d + 2 * n * T == pytest.approx(best.fun, rel=1e-10)


def test_plan_finds_the_same_optima():
    """The solver under conditions, and that of `Repeated` by its own bisection."""
    where = Conditions(unique_tokens=2e9)
    for C in (1e18, 1e21, 1e23):
        assert conditions.optimum(C4, C, where=where) == pytest.approx(Repeated(C4, 2e9).optimum(C), rel=1e-8)
    half = conditions.optimum(C4, 1e21, where=Conditions(dense_equivalent=0.5))
    assert half == pytest.approx(conditions.optimum(C4, 1e21, where=Conditions(1e30, 0.5)), rel=1e-8)


def test_repeated_optimum_in_two_dimensions():
    """The constrained solve against a general solver of another kind."""
    law, C = Repeated(C4, 2e8), 1e20

    def penalised(x):
        return float(law.loss(np.exp(x[0]), np.exp(x[1]))) + 1e3 * max(0.0, x.sum() - np.log(C / 6)) ** 2

    found = minimize(
        penalised,
        np.log(law.optimum(C)) + 0.3,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000},
    )
    assert law.loss(*law.optimum(C)) == pytest.approx(found.fun, rel=1e-4)
