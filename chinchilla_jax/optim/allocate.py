"""AdaLoRA's budget: which singular values of all adapters stay, by how much the loss would miss them.

Zhang et al. 2023, with the conventions of peft 0.21. After every update, with p the new parameters and g the clipped
gradient, every entry of a, e and b has a sensitivity I = |p g|, its average I' = beta I' + (1 - beta) I, the average U'
of |I - I'|, and the score I' U'. A triplet's score is that of e_r plus the means of those of a_r and b_r. The budget

    b(t) = int(b_T + (b_0 - b_T) (1 - (t - first) / (last - first))^3)     between first and last

is what is kept of all triplets together, every so many updates; from `last` on the final choice stands.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chinchilla_jax.optim.dynamic import landing
from chinchilla_jax.optim.masks import keep_largest_of_all
from chinchilla_jax.optim.paths import named

FACTORS = ("a", "e", "b")
Leaves = dict[str, jax.Array]


class Schedule(NamedTuple):
    """Triplets at first and at last, and the updates (counted from 0) between which the budget falls."""

    whole: int
    final: int
    first: int
    last: int
    every: int

    def budget(self, count):
        """Triplets that may live after update `count`; rounded down, as in peft."""
        return self.whole - jnp.searchsorted(jnp.asarray(self.falls), count, side="right").astype(jnp.int32)

    @property
    def falls(self) -> np.ndarray:
        """The updates at which the budget falls by one; in float64, since a rounded cube would be cut elsewhere."""
        count = np.arange(self.first + 1, self.last + 1)
        left = (1 - (count - self.first) / (self.last - self.first)) ** 3
        budget = np.floor((self.whole - self.final) * left + self.final).astype(int)
        return np.repeat(count, -np.diff(budget, prepend=self.whole)).astype(np.int32)

    def due(self, count):
        """Whether the choice is made anew after update `count`."""
        between = (count > self.first) & (count < self.last) & (count % self.every == 0)
        return between | (count == self.last)


class AllocationState(NamedTuple):
    """Updates that were applied, averages by the name of their parameter, which triplets live, the inner optimizer."""

    count: jax.Array
    sensitivity: Leaves
    uncertainty: Leaves
    alive: Leaves
    inner: Any


def allocate(
    inner: optax.GradientTransformation, schedule: Schedule, beta: float, *, held: bool
) -> optax.GradientTransformationExtraArgs:
    """`inner` with the budget of `schedule` over every a, e, b that lie side by side among the parameters.

    With `held` a triplet that went stays 0 until a later choice brings it back, so that the rank is what the budget
    says; without, as in peft, it trains on in between. A dead one is scored by what its e would be.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        scored, values = _factors(params)
        zeros = {name: jnp.zeros_like(p) for name, p in scored.items()}
        alive = {name: jnp.ones(scored[name].shape, bool) for name in values}
        copies = jax.tree.map(jnp.copy, zeros)
        return AllocationState(jnp.zeros((), jnp.int32), zeros, copies, alive, inner.init(params))

    def update(grads, state, params, **extra):
        updates, following = inner.update(grads, state.inner, params, **extra)
        scored, values = _factors(params)
        g, u, count = named(grads), named(updates), state.count
        moved = {name: jnp.abs((p + u[name]) * g[name]) for name, p in scored.items()}
        averaging = count < schedule.last
        sensitivity, uncertainty = {}, {}
        for name, now in moved.items():
            mean = beta * state.sensitivity[name] + (1 - beta) * now
            spread = beta * state.uncertainty[name] + (1 - beta) * jnp.abs(now - mean)
            sensitivity[name] = jnp.where(averaging, mean, state.sensitivity[name])
            uncertainty[name] = jnp.where(averaging, spread, state.uncertainty[name])

        def chosen():
            scores = [_score(name, sensitivity, uncertainty) for name in values]
            return dict(zip(values, keep_largest_of_all(scores, schedule.budget(count))))

        due = schedule.due(count)
        alive = jax.lax.cond(due, chosen, lambda: state.alive)
        enforced = True if held else due | (count > schedule.last)
        masks = {name: alive[name] | ~jnp.asarray(enforced) for name in values}
        updates = landing(updates, scored, masks)
        return updates, AllocationState(count + 1, sensitivity, uncertainty, alive, following)

    return optax.GradientTransformationExtraArgs(init, update)


def allocation(opt_state: Any) -> AllocationState | None:
    """The state of the link inside an optimizer's, or None where there is none."""
    found = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_allocation) if _is_allocation(s)]
    return found[0] if found else None


def _is_allocation(state) -> bool:
    return isinstance(state, AllocationState)


def _factors(params) -> tuple[Leaves, list[str]]:
    """The factors among parameters by name, and the names of the singular values."""
    parameters = named(params)
    owners = sorted(name.removesuffix("/e") for name in parameters if name.endswith("/e"))
    return {f"{owner}/{x}": parameters[f"{owner}/{x}"] for owner in owners for x in FACTORS}, [f"{o}/e" for o in owners]


def _score(value: str, sensitivity: Leaves, uncertainty: Leaves) -> jax.Array:
    """Scores (N, R) of the triplets of an adapter: a is (N, *I, R), b (N, R, *O)."""
    owner = value.removesuffix("/e")
    a, e, b = (sensitivity[f"{owner}/{x}"] * uncertainty[f"{owner}/{x}"] for x in FACTORS)
    lead = e.ndim - 1
    return e + a.mean(range(lead, a.ndim - 1)) + b.mean(range(lead + 1, b.ndim))
