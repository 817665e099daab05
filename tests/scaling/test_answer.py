"""Questions asked of a law: what is given comes out, intervals, other sizes."""

import numpy as np
import pytest

from chinchilla_jax.scaling import lawfile, published
from chinchilla_jax.scaling.answer import Question, answer, other_sizes, price, solve

LAW = published.published("epoch-exact").surface


@pytest.mark.parametrize("name, value", [("params", 7e10), ("tokens", 1e12), ("loss", 2.0)])
def test_what_is_asked_for_is_what_comes_out(name, value):
    N, D = solve(LAW, Question(**{name: value}))
    got = {"params": N, "tokens": D, "loss": LAW.loss(N, D)}
    assert got[name] == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose((N, D), LAW.optimum(6 * N * D), rtol=1e-4)


def test_two_budgets_leave_only_the_loss():
    assert solve(LAW, Question(flops=6e20, params=1e9)) == (1e9, 1e11)
    N, D = solve(LAW, Question(flops=6e20, ratio=100))
    assert pytest.approx(100) == D / N and pytest.approx(6e20) == 6 * N * D


def test_intervals_are_the_bootstraps():
    """Besiroglu et al.'s replicates: D/N at 5.88e23 is 17.91, 80 % interval (9.9, 29.0)."""
    found = answer(lawfile.shipped()["epoch-exact"], Question(flops=5.88e23), level=0.8)
    assert found["tokens_per_param"]["value"] == pytest.approx(17.91, abs=0.01)
    np.testing.assert_allclose(found["tokens_per_param"]["interval"], (9.9, 29.0), rtol=0.03)
    low, high = found["loss"]["interval"]
    assert low < found["loss"]["value"] < high


def test_being_off_the_optimum_costs_more_the_farther():
    law = lawfile.default()
    found = other_sizes(law, *law.surface.optimum(1e21))
    rows = {row["params_factor"]: row for row in found["rows"]}
    for what in ("loss_percent", "compute_percent"):
        assert 0 < rows[0.5][what] < rows[0.25][what] and 0 < rows[2.0][what] < rows[4.0][what]
    N, D = law.surface.optimum(1e21)
    same = law.surface.loss(rows[2.0]["params"], rows[2.0]["tokens"])
    assert same == pytest.approx(law.surface.loss(N, D), rel=1e-12)
    low, high = found["within_1_percent"]
    for end in (low, high):
        tokens = law.surface.tokens(end, law.surface.loss(N, D))
        assert 6 * end * tokens == pytest.approx(1.01e21, rel=1e-6)
    assert low < N < high


EXACT = published.published("epoch-exact").surface


def test_harms_law():
    """Half the parameters: the tokens that reach the optimum's loss, by his closed form and by ours."""
    law, alpha, beta = published.published("epoch-exact"), EXACT.alpha, EXACT.beta
    for C in (1e20, 1e24):
        N, D = map(float, EXACT.optimum(C))
        for size in (0.5, 0.25, 2.0):
            tokens = (1 - (size**-alpha - 1) * beta / alpha) ** (-1 / beta)
            assert price(law, N, D, size) == pytest.approx((tokens * D, size * tokens), rel=1e-9)
        assert price(law, N, D, 1.0) == pytest.approx((D, 1.0))
        assert price(law, N, D, 0.147) == (np.inf, np.inf), "too small ever to reach it"
        assert 20 < price(law, N, D, 0.148)[1] < np.inf
