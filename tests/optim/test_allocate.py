"""AdaLoRA's budget against peft's own trace, and by itself."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chinchilla_jax.optim.allocate import AllocationState, Schedule, allocate, allocation

GOLDENS = Path(__file__).resolve().parents[3] / "shared/data/tasks/goldens"
SHAPES = {"q_proj": (16, 16), "v_proj": (16, 8), "down_proj": (32, 16)}  # inputs, outputs


def python_budget(s: Schedule, step: int) -> int:
    """peft's `budget_schedule`."""
    if step <= s.first:
        return s.whole
    if step > s.last:
        return s.final
    return int((s.whole - s.final) * (1 - (step - s.first) / (s.last - s.first)) ** 3 + s.final)


@pytest.mark.parametrize("schedule", [
    Schedule(864, 576, 200, 4500, 10), Schedule(24, 12, 3, 19, 2), Schedule(5040, 3360, 30, 210, 10),
    Schedule(7, 7, 0, 5, 1), Schedule(100, 1, 1, 3, 1),
])  # fmt: skip
def test_the_budget_is_that_of_peft_at_every_step(schedule):
    steps = range(schedule.last + 20)
    assert jax.vmap(schedule.budget)(jnp.arange(len(steps))).tolist() == [python_budget(schedule, t) for t in steps]


def test_the_published_schedule():
    """objectives.md 3.3: 864 -> 576 with t_i 200, t_f 500, T 5000."""
    schedule = Schedule(864, 576, 200, 4500, 10)
    found = [int(schedule.budget(t)) for t in (0, 200, 201, 1000, 2000, 3000, 4000, 4500, 4999)]
    assert found == [864, 864, 863, 731, 632, 588, 576, 576, 576]


def stacked(read) -> dict:
    """Their leaves by layer as ours."""

    def both(name, leaf):
        return np.stack([np.asarray(read(f"{layer}.{name}.lora_{leaf}")) for layer in (0, 1)])

    return {
        name: {"a": both(name, "A").swapaxes(1, 2), "b": both(name, "B").swapaxes(1, 2), "e": both(name, "E")[..., 0]}
        for name in SHAPES
    }


def told() -> optax.GradientTransformation:
    """An optimizer whose updates are given to it."""
    return optax.GradientTransformationExtraArgs(lambda params: (), lambda grads, state, params, given: (given, state))


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the shared goldens are not here")
def test_the_trace_of_peft():
    """24 steps of given gradients and updates: budget, what lives, pattern, scores and parameters are peft's."""
    trace = json.loads((GOLDENS / "adalora_trace.json").read_text())
    arrays = np.load(GOLDENS / "adalora_trace.npz")
    schedule = Schedule(24, 12, 3, 24 - 5, 2)
    link = allocate(told(), schedule, 0.85, held=False)
    params = jax.tree.map(jnp.asarray, stacked(lambda name: arrays[f"start/{name}"]))
    state, update = link.init(params), jax.jit(link.update)
    for row in trace["trace"]:
        t = row["step"]
        given, grads = (stacked(lambda name, k=k, t=t: arrays[f"{k}/{t}/{name}"]) for k in ("update", "grad"))
        updates, state = update(grads, state, params, given=given)
        params = optax.apply_updates(params, updates)
        assert int(schedule.budget(t)) == row["budget"]
        assert t == 19 or (bool(schedule.due(t)) or t > 19) == row["mask"], "peft forces a last choice"
        for name in SHAPES:
            kept = [row["kept"][f"{layer}.{name}.lora_E"] for layer in (0, 1)]
            np.testing.assert_array_equal(
                np.asarray(params[name]["e"]) != 0, np.array(kept) != 0, err_msg=f"{t} {name}"
            )
    end, ipt, unc = (stacked(lambda name, k=k: arrays[f"{k}/{name}"]) for k in ("end", "ipt", "unc"))
    for name in SHAPES:
        for leaf in "aeb":
            np.testing.assert_allclose(params[name][leaf], end[name][leaf], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(state.sensitivity[f"{name}/{leaf}"], ipt[name][leaf], rtol=2e-6, atol=1e-12)
            np.testing.assert_allclose(state.uncertainty[f"{name}/{leaf}"], unc[name][leaf], rtol=2e-6, atol=1e-12)
        pattern = [trace["rank_pattern"][f"{layer}.{name}.lora_E"] for layer in (0, 1)]
        np.testing.assert_array_equal(state.alive[f"{name}/e"], np.array(pattern, bool))


def test_what_went_stays_zero_until_it_is_chosen_again():
    """With `held` the rank is the budget after every update from the first choice on, and the choices differ."""
    schedule = Schedule(24, 10, 2, 18, 4)
    link = optax.chain(optax.clip_by_global_norm(1.0), allocate(optax.sgd(0.5), schedule, 0.5, held=True))
    draw = np.random.default_rng(0)
    params = {
        name: {"a": draw.normal(size=(2, i, 4)), "e": np.zeros((2, 4)), "b": draw.normal(size=(2, 4, o))}
        for name, (i, o) in SHAPES.items()
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state, update, alive = link.init(params), jax.jit(link.update), []
    for t in range(24):
        grads = jax.tree.map(lambda p: jnp.asarray(draw.normal(size=p.shape), jnp.float32), params)
        for name in SHAPES:  # as the product's own gradient: nothing reaches a and b through an e of 0
            e = params[name]["e"]
            loud = 1e4 * (e == 0) if 8 < t <= 12 else 1.0  # what is gone matters now
            grads[name] |= {"e": grads[name]["e"] * loud}
            grads[name] |= {"a": grads[name]["a"] * e[:, None], "b": grads[name]["b"] * e[..., None]}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        alive.append(np.concatenate([np.asarray(params[name]["e"]).ravel() != 0 for name in SHAPES]))
        if t >= 4:
            last = t if t in (4, 8, 12, 16, 18) else max(c for c in (4, 8, 12, 16, 18) if c < t)
            assert alive[-1].sum() == python_budget(schedule, last)
    assert (alive[4] & ~alive[8]).any() and (~alive[11] & alive[12]).any(), "some went, and some came back"
    assert isinstance(allocation(state), AllocationState) and allocation(optax.adam(0.1).init(params)) is None
