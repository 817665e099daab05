"""AdaLoRA's settings as a schedule, and its penalty against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning import budget
from chinchilla_jax.finetuning.targets import site

ADALORA = TuneConfig(method="adalora", rank=4)


@pytest.mark.parametrize("changes, steps, expected", [
    ({}, 100, (7 * 6, 7 * 4, 10, 70, 10)),  # 1.5 times the rank at the start, a tenth and three tenths of the run
    ({}, 5000, (7 * 6, 7 * 4, 500, 3500, 50)),
    ({"start_rank": 9, "every": 3}, 100, (7 * 9, 7 * 4, 10, 70, 3)),
    ({"begin": 0.0, "finish": 0.0}, 10, (7 * 6, 7 * 4, 0, 9, 9)),  # a step for the final ranks; one choice, at its end
])  # fmt: skip
def test_the_budget_of_a_run(changes, steps, expected):
    tune = TuneConfig(**{"method": "adalora", "rank": 4} | changes)
    found = budget.schedule(tune, 7, steps)
    assert tuple(found) == expected
    assert (int(found.budget(found.first)), int(found.budget(steps))) == (found.whole, found.final)


def test_a_run_too_short_for_a_budget_is_refused():
    with pytest.raises(UserError, match=r"in 1 steps; raise --train\.steps"):
        budget.schedule(ADALORA, 7, 1)


def test_the_penalty_is_the_mean_distance_from_orthogonal_factors():
    """Over all layers, matrices and both factors; with two dimensions of outputs, and a table without layers."""
    draw = np.random.default_rng(0)
    shapes = {
        "blocks/attention/query/kernel": ((2, 6, 3), (2, 3, 4, 5)),
        "blocks/attention/out/kernel": ((2, 4, 5, 3), (2, 3, 6)),
        "unembed/table": ((9, 3), (3, 6)),
    }
    norms, adapters = [], []
    for name, (a, b) in shapes.items():
        here, a, b = site(name), draw.standard_normal(a), draw.standard_normal(b)
        leaves = {"a": a, "b": b, "e": np.zeros((*a.shape[: here.lead], 3))}
        adapters.append((here, {key: jnp.asarray(leaf, jnp.float32) for key, leaf in leaves.items()}))
        for one_a, one_b in zip(a, b) if here.lead else [(a, b)]:
            one_a, one_b = one_a.reshape(-1, 3), one_b.reshape(3, -1)
            norms += [np.linalg.norm(one_a.T @ one_a - np.eye(3)), np.linalg.norm(one_b @ one_b.T - np.eye(3))]
    assert float(budget.orthogonality(adapters)) == pytest.approx(np.mean(norms), rel=1e-5)


def test_orthogonal_factors_pay_nothing():
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 3)))[0]
    leaves = {"a": jnp.asarray(q), "b": jnp.asarray(q.T), "e": jnp.zeros(3)}
    assert float(budget.orthogonality([(site("embed/table"), leaves)])) < 1e-5
