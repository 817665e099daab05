"""Published laws against the tables of their papers."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import counts, fit, runs
from chinchilla_jax.scaling import published as laws
from chinchilla_jax.scaling.lawfile import DEFAULT, shipped
from chinchilla_jax.scaling.published import PUBLISHED, published

ROOT = Path(__file__).resolve().parents[2]


GADRE = ROOT.parent / "shared" / "data" / "gadre_redpajama.csv"


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
