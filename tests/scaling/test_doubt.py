"""How sure a fit is: replicates, profiles, subsamples, and what the literature disagrees on."""

import numpy as np
import pytest

from chinchilla_jax.scaling import doubt
from chinchilla_jax.scaling.fit import fit, surface
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.runs import table
from tests.scaling.tables import ROUNDED, grid, noisy


@pytest.fixture(scope="module")
def again(best):
    """4,000 replicates, each converged."""
    return doubt.bootstrap(best)


def test_bootstrap_of_converged_replicates(again):
    """T8's spread of A and B to four digits, of E and the exponents as printed; no replicate stopped early."""
    values = np.concatenate([np.exp(again.theta[:, :3]), again.theta[:, 3:5]], 1)
    assert again.converged == 1
    np.testing.assert_allclose(values.std(0, ddof=1), [124.5223, 1293.284, 0.0257, 0.0154, 0.0206], rtol=2e-3)
    expected = [(285.214, 743.626), (1042.357, 5810.344), (1.769, 1.871), (0.317, 0.373), (0.331, 0.415)]
    np.testing.assert_allclose(np.percentile(values, [2.5, 97.5], axis=0).T, expected, rtol=4e-3)


@pytest.mark.slow
def test_bootstrap_as_epoch_ran_it(best):
    """T8: every digit that Besiroglu et al. print, by their optimiser on the same resamples."""
    theta = doubt.bootstrap(best, protocol="epoch", workers=2).theta
    values = np.concatenate([np.exp(theta[:, :3]), theta[:, 3:5]], 1)
    assert [f"{v:.{d}f}" for v, d in zip(values.std(0, ddof=1), (4, 3, 4, 4, 4))] == [
        "124.5223", "1293.284", "0.0257", "0.0154", "0.0206"]  # fmt: skip
    low, high = np.percentile(values, [2.5, 97.5], axis=0).round(3)
    np.testing.assert_allclose(low, [285.214, 1042.357, 1.769, 0.317, 0.331], atol=1.1e-3)
    np.testing.assert_allclose(high, [743.626, 5810.344, 1.871, 0.373, 0.415], atol=1.1e-3)
    assert (theta[:, 4] / (theta[:, 3] + theta[:, 4])).std(ddof=1) == pytest.approx(0.0200, abs=5e-5)


@pytest.mark.parametrize("drawn_in", [False, True])
def test_decision_interval(best, again, drawn_in):
    """T9: D/N at 5.88e23, as it comes and as the law files have it."""
    N, D = surface(doubt.calibrated(best, again) if drawn_in else again.theta).optimum(5.88e23)
    found = np.percentile(D / N, [10, 90, 2.5, 97.5])
    np.testing.assert_allclose(found, [9.9, 29.0, 7.6, 35.9], rtol=0.03)


def test_checkpoints_of_one_run_do_not_shrink_the_interval():
    """Ten copies of every loss, as one run or as they are: the same replicates; as runs of their own: a third."""
    runs = noisy()
    tenfold = [np.repeat(v, 10) for v in (runs.N, runs.D, runs.loss)]
    alone = doubt.bootstrap(fit(runs), 200)
    together = doubt.bootstrap(fit(table(*tenfold, cluster=np.repeat(np.arange(30), 10))), 200)
    copies = doubt.bootstrap(fit(table(*tenfold)), 200)
    own = [values * (1 + 1e-9 * np.arange(300)) for values in tenfold]
    apart = doubt.bootstrap(fit(table(*own)), 200)
    np.testing.assert_allclose(together.theta, alone.theta, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(copies.theta, alone.theta, rtol=1e-4, atol=1e-6)
    assert apart.theta[:, 3].std() < 0.5 * alone.theta[:, 3].std()


def test_subsample_interval_of_converged_fits(best):
    """Hoffmann's own recipe, 80 % subsamples: a's 10-90 % range is (0.499, 0.526), not the printed (0.454, 0.455)."""
    theta = doubt.bootstrap(best, 400, share=0.8).theta
    low, high = np.percentile(theta[:, 4] / (theta[:, 3] + theta[:, 4]), [10, 90])
    assert low == pytest.approx(0.499, abs=0.005) and high == pytest.approx(0.526, abs=0.005)


def test_profile_is_close_to_the_bootstrap_where_rows_are_independent():
    found = fit(noisy(sizes=10, lengths=12), "mse-log")
    low, high = doubt.profile(found, "alpha", 0.9)
    many = np.percentile(doubt.bootstrap(found, 1000).theta[:, 3], [5, 95])
    assert low < found.theta[3] < high
    assert high - low == pytest.approx(many[1] - many[0], rel=0.35)


def test_interval_of_known_laws_covers():
    """A tenth of tools/calibrate_fit.py: 60 seeds of 30 runs; nominal 90 %, and 80 to 98 % is what 60 can tell."""
    truth = np.divide(*ROUNDED.optimum(1e22)[::-1])
    hits = 0
    for seed in range(60):
        found = fit(noisy(seed))
        sizes, lengths = surface(doubt.calibrated(found, doubt.bootstrap(found, 150, seed))).optimum(1e22)
        low, high = np.percentile(lengths / sizes, [5, 95])
        hits += low <= truth <= high
    assert 48 <= hits <= 59


def test_sensitivity_spans_what_the_literature_disagrees_on(whole, best):
    rows = {row.what: row.tokens_per_param for row in doubt.sensitivity(whole, best, 5, 5.88e23)}
    assert rows["as chosen"] == pytest.approx(17.91, abs=0.01)
    assert rows["form tied"] == pytest.approx(24, abs=0.5) and rows["objective mse-level"] == pytest.approx(10, abs=0.5)
    assert rows["objective lad-log"] == pytest.approx(18.33, abs=0.05) and rows["outlier cut 0"] == pytest.approx(
        7, abs=0.3
    )


def test_rollout_predicts_the_largest():
    N, D = grid()
    rows = doubt.rollout(fit(table(N, D, ROUNDED.loss(N, D))))
    assert [(row.fitted_on, row.predicted) for row in rows] == [(27, 3), (24, 6), (21, 9), (15, 15)]
    assert all(row.C_predicted > row.C_fitted and abs(row.worst_error) < 1e-6 for row in rows if not row.note)


TRUTHS = {
    "chinchilla": ROUNDED,
    "tied": Surface(6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596),
    "skaling": Surface(9.0, 10.0, 0.5, 0.5, 0.6, 0.4),
    "kaplan": Surface(23.5, 30.5, -12.0, 0.738, 1.0, 0.103),
}


@pytest.mark.parametrize("form", TRUTHS)
@pytest.mark.parametrize("design", ["grid", "corner"])
def test_noise_free_tables_answer_with_the_true_law(form, design):
    """By the mixture, profile and all: whichever form the truth has leads, and the answer is exact."""
    law = TRUTHS[form]
    N, D = grid() if design == "grid" else (
        np.r_[np.geomspace(3e7, 3e9, 10), np.full(10, 1e8)], np.r_[np.full(10, 2e9), np.geomspace(5e8, 1e11, 10)]
    )  # fmt: skip
    found = doubt.members(table(N, D, law.loss(N, D)), "mixture", "huber-log", 1e-3)
    lead = found[0].fit
    assert lead.form == {"tied": "chinchilla"}.get(form, form) and lead.converged
    np.testing.assert_allclose(lead.surface.optimum(1e22), law.optimum(1e22), rtol=1e-6)
    assert lead.surface.loss(1e10, 1e12) == pytest.approx(law.loss(1e10, 1e12), rel=1e-6)
    low, high = doubt.profile(lead, "alpha", 0.9, points=11)
    assert low == pytest.approx(high, rel=1e-2)
