"""Laws against the tables of their papers, finite differences, and solvers that know no closed form."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar

from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import zeros
from chinchilla_jax.scaling import conditions, counts, fit, runs
from chinchilla_jax.scaling import published as laws
from chinchilla_jax.scaling.answer import price
from chinchilla_jax.scaling.conditions import Conditions, Repeated
from chinchilla_jax.scaling.law import Law, Surface
from chinchilla_jax.scaling.lawfile import DEFAULT, shipped
from chinchilla_jax.scaling.published import PUBLISHED, published

ROOT = Path(__file__).resolve().parents[2]
GADRE = ROOT.parent / "shared" / "data" / "gadre_redpajama.csv"
EXACT = published("epoch-exact").surface
C4 = published("muennighoff-c4").surface
SKALING = Surface(7.0, 8.0, 0.4, 0.7, 0.9, 0.4)
BENT = {"skaling": SKALING, "sparse": zeros.frantar(0.75), "repeated": Repeated(C4, 1e9), "mixture": laws.mixture(8)}
SINGLE = {name: published(name).surface for name in PUBLISHED} | BENT


def slope(f, x: float, h: float = 1e-4) -> float:
    """df/dx by central differences in ln x, to fourth order."""
    at = [f(x * np.exp(n * h)) for n in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h) / x


# a, then N in billions, D / N and loss at 5.76e23, 5.88e23 and 1e21: computed from the published coefficients.
TABLE = {
    "hoffmann-rounded": (0.4516, 32.19, 92.65, 1.9307, 32.49, 92.83, 1.9300, 1.824, 50.08, 2.3289),
    "hoffmann-tex": (0.4565, 40.36, 58.93, 1.9184, 40.74, 59.04, 1.9177, 2.217, 33.91, 2.2955),
    "epoch-published": (0.5126, 72.25, 18.39, 1.9744, 73.02, 18.38, 1.9739, 2.778, 21.59, 2.3055),
    "epoch-exact": (0.5139, 73.19, 17.92, 1.9739, 73.97, 17.91, 1.9733, 2.792, 21.39, 2.3045),
}


@pytest.mark.parametrize("name", TABLE)
def test_optima_of_the_published_coefficients(name):
    law = published(name).surface
    found = [law.exponents[0]]
    for C in (5.76e23, 5.88e23, 1e21):
        N, D = law.optimum(C)
        assert np.prod([6, N, D]) == pytest.approx(C)
        found += [N / 1e9, D / N, law.loss(N, D)]
    digit = 10 ** (np.floor(np.log10(TABLE[name])) - 3)
    assert (np.abs(np.array(found) - TABLE[name]) <= digit).all(), "four digits"


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


def test_names_are_known_or_refused():
    assert DEFAULT in shipped()
    assert "40.4 B to 32.2 B" in published("hoffmann-rounded").label
    for name in PUBLISHED:
        row = published(name)
        assert row.accounting in counts.ACCOUNTINGS and row.label and row.dataset and len(row.ranges) == 4, name
    assert laws.law_of("kaplan").surface.k == pytest.approx(0.103)
    with pytest.raises(UserError, match="did you mean epoch-exact"):
        published("epoch-exakt")
    assert published("epoch-exact").inside(1e9, 2e10)
    assert not published("epoch-exact").inside(70e9, 1.4e12)


# Hoffmann et al. 2022, table 3 (approach 1) and table A3 (approach 2): parameters, FLOPs and tokens.
SIZES = (400e6, 1e9, 10e9, 67e9, 175e9, 280e9, 520e9, 1e12, 10e12)
TABLE_3 = {
    "hoffmann-1": (
        (1.92e19, 1.21e20, 1.23e22, 5.76e23, 3.85e24, 9.90e24, 3.43e25, 1.27e26, 1.30e28),
        (8.0e9, 20.2e9, 205.1e9, 1.5e12, 3.7e12, 5.9e12, 11.0e12, 21.2e12, 216.2e12),
    ),
    "hoffmann-2": (
        (1.84e19, 1.20e20, 1.32e22, 6.88e23, 4.54e24, 1.18e25, 4.19e25, 1.59e26, 1.75e28),
        (7.7e9, 20.0e9, 219.5e9, 1.7e12, 4.3e12, 7.1e12, 13.4e12, 26.5e12, 292.0e12),
    ),
}


@pytest.mark.parametrize("name", TABLE_3)
def test_table_3(name):
    C, D = map(np.array, TABLE_3[name])
    N, known = np.array(SIZES), laws.ALLOCATIONS[name]
    assert np.abs(C / (6 * N * D) - 1).max() < 0.05
    assert np.polyfit(np.log(C), np.log(N), 1)[0] == pytest.approx(known.a, abs=1e-4)
    assert np.polyfit(np.log(C), np.log(D), 1)[0] == pytest.approx(known.b, abs=1e-4)
    assert known.optimum(5.76e23)[0] / 1e9 == pytest.approx({"hoffmann-1": 67.8, "hoffmann-2": 63.4}[name], rel=2e-3)


def test_deepseeks_allocation():
    found = laws.ALLOCATIONS["deepseek-m"].optimum(1e20)
    assert found == pytest.approx((5.251e9, 1.905e10), rel=3e-4)
    assert np.prod(found) == pytest.approx(1e20, rel=1e-3), "C = M D"


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


def rows() -> list[dict]:
    if not GADRE.exists():
        pytest.skip("the runs of Gadre et al. are not here (shared/data/gadre_redpajama.csv)")
    with GADRE.open() as file:
        return list(csv.DictReader(file))


def columns(table: list[dict]) -> tuple[np.ndarray, ...]:
    return tuple(np.array([float(row[name]) for row in table]) for name in ("N", "D", "loss_c4_val"))


def test_gadres_predictions():
    """Five small runs predict 1.4 B at 640 tokens a parameter and 6.9 B at 20."""
    every = rows()
    five = [r for r in every if r["model"].startswith("d=") and float(r["cc"]) == 1]
    five += [r for r in every if r["model"] == "d=96_l=8_h=4" and float(r["cc"]) == 16]
    law = published("gadre-redpajama").surface
    again = fit.fit(runs.table(*columns(five)), "mse-level", form="tied").surface
    for name in ("a", "b", "e", "alpha", "beta"):
        assert getattr(again, name) == pytest.approx(getattr(law, name), rel=1e-6)
    N, D, L = columns([r for r in every if r["model"].startswith("open_lm")])
    errors = 100 * np.abs(law.loss(N, D) / L - 1)
    assert errors[D / N > 600] == pytest.approx([0.7103], abs=5e-5)
    assert errors[N > 6e9] == pytest.approx([0.7320], abs=5e-5)
    q, b = -0.2729, 366.7  # their code's form, digits as printed; then their paper's, in C and M = D / N
    assert law.loss(1e9, 2e10) == pytest.approx(166.2 * 1e9**q + b * 6 ** (q / 2) * (20 * 1e9) ** q + 1.8366, rel=1e-3)
    h = law.alpha / 2
    paper = np.exp(law.e) + 6**h * (np.exp(law.a) * 640**h + np.exp(law.b) * 640**-h) * 1e21**-h
    N = np.sqrt(1e21 / 6 / 640)
    assert law.loss(N, 640 * N) == pytest.approx(paper, rel=1e-12)


def test_sardanas_example():
    """A model of 13 B's quality that is to generate 2 T tokens: arXiv:2401.00448 with Hoffmann's digits."""
    law, T = published("sardana").surface, 2e12
    D = brentq(lambda d: law.params_for(d) - 13e9, 1e10, 1e14)
    quality, where = float(law.loss(13e9, D)), Conditions(generated=T)
    n, d = map(float, conditions.optimum(law, conditions.reach(law, "loss", quality, where=where), where=where))
    assert (n, d) == pytest.approx((6.97e9, 1.248e12), rel=5e-4) and law.loss(n, d) == pytest.approx(quality)
    assert 100 * (1 - (6 * n * d + 2 * n * T) / (6 * 13e9 * D + 2 * 13e9 * T)) == pytest.approx(17.45, abs=5e-3)
    best = minimize_scalar(lambda x: 6 * np.exp(x) * law.tokens(np.exp(x), quality) + 2 * np.exp(x) * T,
                           bounds=(np.log(4e9), np.log(2e10)), method="bounded", options={"xatol": 1e-10})  # fmt: skip
    assert 6 * n * d + 2 * n * T == pytest.approx(best.fun, rel=1e-10)


def test_harms_law():
    """Half the parameters: the tokens that reach the optimum's loss, by his closed form and by ours."""
    law, alpha, beta = published("epoch-exact"), EXACT.alpha, EXACT.beta
    for C in (1e20, 1e24):
        N, D = map(float, EXACT.optimum(C))
        for size in (0.5, 0.25, 2.0):
            tokens = (1 - (size**-alpha - 1) * beta / alpha) ** (-1 / beta)
            assert price(law, N, D, size) == pytest.approx((tokens * D, size * tokens), rel=1e-9)
        assert price(law, N, D, 1.0) == pytest.approx((D, 1.0))
        assert price(law, N, D, 0.147) == (np.inf, np.inf), "too small ever to reach it"
        assert 20 < price(law, N, D, 0.148)[1] < np.inf


@pytest.mark.parametrize(
    "experts, printed", [(1, (30.36, 0.1817, 53.98, 0.1965)), (8, (21.83, 0.1676, 119.91, 0.2338))]
)
def test_joint_law_of_mixtures(experts, printed):
    law = laws.mixture(experts)
    assert (np.exp(law.a), law.alpha, np.exp(law.b), law.beta) == pytest.approx(printed, rel=3e-3)
    assert np.exp(law.e) == pytest.approx(1.3637)
    with pytest.raises(UserError, match="at least 1"):
        laws.mixture(0.5)


def test_kaplans_limits():
    """Without end of tokens it is L(N) with the joint fit's N_c; the two terms weigh alike at D_c, N_c."""
    law = published("kaplan").surface
    assert law.loss(1e9, np.inf) == pytest.approx((6.4e13 / 1e9) ** 0.076)
    assert law.loss(np.inf, 1e10) == pytest.approx((1.8e13 / 1e10) ** 0.103)


# Dense equivalents of sparse models over their dense size, by law: computed from each paper's form.
EQUIVALENTS = {
    0.5: (0.793, 0.886, 0.688, 0.871),
    0.75: (0.539, 0.567, 0.531, None),
    0.8: (0.464, 0.474, 0.500, None),
    0.875: (0.329, 0.314, 0.453, None),
}


@pytest.mark.parametrize("S", EQUIVALENTS)
def test_sparse_equivalents(S):
    found = zeros.sparse_equivalent(1e9, S)
    table = dict(zip(("frantar", "frantar-refit", "average", "compression"), EQUIVALENTS[S]))
    for name, share in found.laws.items():
        assert share / 1e9 == pytest.approx(table[name], abs=1.1e-3), name
    assert found.low == min(found.laws.values()) and found.high == max(found.laws.values())
    assert found.low <= found.value <= found.high and found.agreed == (S <= 0.8)
    assert zeros.sparse_equivalent(1e9, 0.0).laws["frantar"] == pytest.approx(1e9)


def test_plan_finds_the_same_optima():
    """The solver under conditions, and that of `Repeated` by its own bisection."""
    where = Conditions(unique_tokens=2e9)
    for C in (1e18, 1e21, 1e23):
        assert conditions.optimum(C4, C, where=where) == pytest.approx(Repeated(C4, 2e9).optimum(C), rel=1e-8)
    half = conditions.optimum(C4, 1e21, where=Conditions(dense_equivalent=0.5))
    assert half == pytest.approx(conditions.optimum(C4, 1e21, where=Conditions(1e30, 0.5)), rel=1e-8)


@pytest.mark.parametrize("name", ["frantar", "frantar-refit"])
def test_sparse_equivalent_has_the_loss_of_the_sparse_model(name):
    share = zeros.sparse_equivalent(1.0, 0.75).laws[name]
    sparse, dense = zeros.frantar(0.75, name), zeros.frantar(0.0, name)
    assert dense.loss(share * 1e8, 1e10) == pytest.approx(sparse.loss(0.25 * 1e8, 1e10), rel=1e-12)
    a, b, c = 0.5678, 0.7216, 1.5227
    by_hand = (a * 0.25**b + c) * 25**-0.2451 + 0.6336 * (1e10 / (1e5 * 65536)) ** -0.2027 + 0.6507
    assert name != "frantar" or sparse.loss(25e6, 1e10) == pytest.approx(by_hand, rel=1e-12)


def test_average_parameters_by_adding_up():
    t = (np.arange(100_000) + 0.5) / 100_000
    rise = np.clip((t - 0.1) / 0.5, 0, 1)
    nonzeros = 1 - 0.9 * (1 - (1 - rise) ** 3)
    assert zeros.average_params(1.0, 0.9, 0.1, 0.6) == pytest.approx(nonzeros.mean(), rel=1e-8)
    assert zeros.average_params(8.0, 0.5) == 8 * (1 - 0.625 * 0.5)
    with pytest.raises(UserError, match="in order"):
        zeros.average_params(1.0, 0.5, 0.8, 0.2)
    with pytest.raises(UserError, match=r"sparsity 1 must lie in \[0, 1\)"):
        zeros.sparse_equivalent(1e9, 1.0)


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


def test_laws_and_counts_do_without_jax():
    """`plan` answers in under two seconds, and importing JAX takes half of that."""
    code = "import sys, chinchilla_jax.planning.plan, chinchilla_jax.scaling.analysis; print('jax' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False"
