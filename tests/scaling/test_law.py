"""Laws against the tables of their papers, finite differences, and solvers that know no closed form."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import zeros
from chinchilla_jax.scaling import published as laws
from chinchilla_jax.scaling.conditions import Repeated
from chinchilla_jax.scaling.law import Law, Surface
from chinchilla_jax.scaling.published import PUBLISHED, published

ROOT = Path(__file__).resolve().parents[2]
EXACT = published("epoch-exact").surface
C4 = published("muennighoff-c4").surface
SKALING = Surface(7.0, 8.0, 0.4, 0.7, 0.9, 0.4)
BENT = {"skaling": SKALING, "sparse": zeros.frantar(0.75), "repeated": Repeated(C4, 1e9), "mixture": laws.mixture(8)}
SINGLE = {name: published(name).surface for name in PUBLISHED} | BENT


def slope(f, x: float, h: float = 1e-4) -> float:
    """df/dx by central differences in ln x, to fourth order."""
    at = [f(x * np.exp(n * h)) for n in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h) / x


@pytest.mark.parametrize("name", SINGLE)
def test_gradients_by_finite_differences(name):
    law = SINGLE[name]
    for N, D in ((3e7, 5e8), (1e9, 5e8), (2e7, 7e9), (5e8, 7e9), (4e9, 3e11)):
        by_N, by_D = law.gradient(N, D)
        assert by_N == pytest.approx(slope(lambda n, D=D: law.loss(n, D), N), rel=1e-6, abs=1e-18)
        assert by_D == pytest.approx(slope(lambda d, N=N: law.loss(N, d), D), rel=1e-6, abs=1e-18)


@pytest.mark.parametrize("name", SINGLE)
def test_optimum_is_the_least_loss_of_the_budget(name):
    law, C = SINGLE[name], 1e20
    N, D = law.optimum(C)
    least = minimize_scalar(lambda x: float(law.loss(np.exp(x), C / 6 / np.exp(x))), bracket=(17, 20), tol=1e-12)
    assert law.loss(N, D) == pytest.approx(least.fun, rel=1e-12)
    assert np.log(N) == pytest.approx(least.x, abs=1e-5)
    assert law.optimum(C, per_nd=8.0)[0] == pytest.approx(law.optimum(0.75 * C)[0])


@pytest.mark.parametrize("name", SINGLE)
def test_inverses_undo_the_loss(name):
    law, C = SINGLE[name], 3e20
    N, D = law.optimum(C)
    loss = law.loss(N, D)
    assert law.compute(loss) == pytest.approx(C, rel=1e-8)
    assert law.tokens(N, loss) == pytest.approx(D, rel=1e-8)
    assert law.params(D, loss) == pytest.approx(N, rel=1e-8)
    floor = float(law.loss(np.inf, np.inf))
    for call in (law.compute, lambda loss: law.tokens(N, loss), lambda loss: law.params(D, loss)) if floor else ():
        with pytest.raises(UserError, match=r"nothing reaches a loss of .* ends at"):
            call(floor)


def test_closed_forms_agree_with_bisection():
    for law in (EXACT, SKALING):
        assert law.optimum(1e21) == pytest.approx(Law.optimum(law, 1e21), rel=1e-9)
        assert law.compute(2.3) == pytest.approx(Law.compute(law, 2.3), rel=1e-8)
        assert law.tokens(1e9, 2.6) == pytest.approx(Law.tokens(law, 1e9, 2.6), rel=1e-9)
        assert law.params(1e11, 2.6) == pytest.approx(Law.params(law, 1e11, 2.6), rel=1e-9)


def test_skaling_has_the_optimum_of_its_terms():
    plain = Surface(SKALING.a, SKALING.b, SKALING.e, SKALING.alpha, SKALING.beta)
    assert SKALING.optimum(1e21) == pytest.approx(plain.optimum(1e21))
    assert SKALING.loss(1e9, 1e10) != pytest.approx(plain.loss(1e9, 1e10))


def test_many_laws_at_once():
    many = Surface(
        *(np.array([getattr(law, x) for law in (EXACT, SKALING, C4)]) for x in ("a", "b", "e", "alpha", "beta", "k"))
    )
    N, D = many.optimum(1e21)
    for i, law in enumerate((EXACT, SKALING, C4)):
        assert (N[i], D[i]) == pytest.approx(law.optimum(1e21))
        assert many.loss(1e9, 2e10)[i] == pytest.approx(law.loss(1e9, 2e10))
        assert many.compute(2.5)[i] == pytest.approx(law.compute(2.5))
    assert np.isinf(many.compute(1.83)).tolist() == [False, False, True], "1.83 lies below C4's 1.869"
    assert np.isnan(many.loss(np.nan, 1e9)).all(), "a replicate without an answer does not stop the others"


@pytest.mark.parametrize("bad", [0.0, -1e9, np.nan])
def test_what_is_not_positive_is_refused(bad):
    calls = [
        lambda: EXACT.loss(bad, 1e9), lambda: EXACT.loss(1e9, np.array([1e9, bad])), lambda: EXACT.gradient(1e9, bad),
        lambda: EXACT.optimum(bad), lambda: EXACT.compute(bad), lambda: EXACT.tokens(bad, 3.0),
        lambda: Repeated(C4, bad).loss(1e9, 1e9), lambda: Repeated(C4, 1e9).optimum(bad),
        lambda: zeros.sparse_equivalent(bad, 0.5),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UserError, match="must be a positive number"):
            call()
    with pytest.raises(UserError, match="beta must be a positive number"):
        Surface(1.0, 1.0, 0.0, 0.3, -0.1).optimum(1e20)


def test_float32_is_computed_in_float64():
    assert EXACT.loss(np.float32(2**30), np.float32(2**34)) == EXACT.loss(2.0**30, 2.0**34)
    assert np.asarray(EXACT.loss(np.float32(1e9), 1e10)).dtype == np.float64


def test_laws_and_counts_do_without_jax():
    """`plan` answers in under two seconds, and importing JAX takes half of that."""
    code = "import sys, chinchilla_jax.planning.plan, chinchilla_jax.scaling.analysis; print('jax' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False"
