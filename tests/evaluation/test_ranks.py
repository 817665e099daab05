"""Ranks under a budget: what is reported, and a budget that was not kept ends with a line."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import ranks
from chinchilla_jax.optim.allocate import AllocationState, Schedule

WHEN = Schedule(whole=12, final=5, first=2, last=6, every=2)


def state(count: int, alive: list, values: list):
    """A state of one adapter over two layers, rank 3, and of one on a table."""
    names = ("adapters/blocks/up/e", "adapters/unembed/table/e")
    living = {name: jnp.asarray(one, bool) for name, one in zip(names, alive)}
    params = {"adapters": {"blocks": {"up": {"e": np.array(values[0], float), "a": np.zeros(9)}},
                           "unembed": {"table": {"e": np.array(values[1], float)}}}}  # fmt: skip
    return SimpleNamespace(params=params, opt_state=(AllocationState(jnp.int32(count), {}, {}, living, ()),))


FIVE = [[[1, 0, 1], [0, 1, 1]], [0, 0, 1]]


def hook(schedule=WHEN):
    config = SimpleNamespace(train=SimpleNamespace(steps=9, eval_every=4))
    return ranks.hooks(SimpleNamespace(config=config, recipe=SimpleNamespace(schedule=lambda steps: schedule)))


def test_a_method_without_a_budget_reports_nothing():
    assert hook(None) == []


def test_ranks_are_counted_by_matrix_and_layer():
    found = ranks.ranks(state(3, FIVE, FIVE))
    assert found == {"adapters/blocks/up": [2, 2], "adapters/unembed/table": [1]}
    [one] = hook()
    assert one.every == 4
    # After 3 updates the budget is that of update 2, where it has not begun to fall.
    assert one.run(state(3, FIVE, FIVE), None) == {"triplets": 5, "budget": 12}
    assert one.run(state(9, FIVE, FIVE), None) == {"triplets": 5, "budget": 5}


@pytest.mark.parametrize("alive, values", [
    ([[[1, 0, 1], [0, 1, 1]], [1, 0, 1]], FIVE),  # one too many lives
    (FIVE, [[[1, 0, 1], [0, 1, 1]], [0.5, 0, 1]]),  # as many live, and another singular value is not 0
])  # fmt: skip
def test_a_budget_that_was_not_kept_is_an_error_at_its_end_alone(alive, values):
    [one] = hook()
    one.run(state(6, alive, values), None)
    with pytest.raises(UserError, match="triplets are left after 7 updates, and the budget is 5"):
        one.run(state(7, alive, values), None)
