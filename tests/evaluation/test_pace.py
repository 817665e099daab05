"""What a ladder takes on this machine, from the pace of its smallest and its largest run."""

import pytest

from chinchilla_jax.evaluation import pace
from chinchilla_jax.planning import ladder
from tests.planning.test_ladder import BASE, SIZES


def test_minutes_are_turned_into_a_budget():
    measured = pace.Pace((25_000, 500_000), (1e10, 4e10), 2.0, 10_000)
    assert measured.tokens_per_second(25_000) == pytest.approx(1e10 / 6 / 25_000)
    assert measured.tokens_per_second(round((25_000 * 500_000) ** 0.5)) * 6 * 111_803 == pytest.approx(2e10, rel=1e-3)

    def design(budget):
        return ladder.design(BASE, "branches", SIZES, budget, 0.5)

    for minutes in (10, 100):
        plan = design(pace.budget_for(60 * minutes, measured, design))
        assert measured.total(plan) == pytest.approx(60 * minutes, rel=0.1)
    # Every step, validation and program once, counted anew for one branch.
    run = plan.runs[1]
    steps = run.config.train.steps - plan.runs[0].fork
    took = (steps * 512 + 10_000 / 3) / measured.tokens_per_second(run.params) + 3 * 2.0
    assert measured.seconds(run) == pytest.approx(took)
