"""The step: the same on every mesh, in any number of parts, and unmoved by what is not finite."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.model.presets import FAMILIES
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.training import step as steps
from chinchilla_jax.training.program import Program, cost
from chinchilla_jax.training.state import TrainState
from chinchilla_jax.types import Batch, Sums
from tests import tiny

SHAPE = {"layers": 2, "d_model": 16, "heads": 8, "head_dim": 4, "d_ff": 24, "vocab_size": 64, "scan_unroll": 1}
MODELS = {
    "chinchilla": ModelConfig(**FAMILIES["chinchilla"], **SHAPE),
    "modern": ModelConfig(**FAMILIES["modern"], **SHAPE, tied=False, kv_heads=4),
}
STEPS, LENGTH = 20, 16
FULL = ((1, 1, 1), (2, 2, 2))


@functools.cache
def program(family: str, mesh: tuple[int, int, int] = (1, 1, 1), microbatches: int = 1) -> Program:
    config = Config(
        model=MODELS[family],
        mesh=MeshConfig(*mesh),
        optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=4, ema_decay=0.9),
        train=TrainConfig(steps=STEPS, seq_len=LENGTH, batch_size=8, microbatches=microbatches),
    )
    return Program(config, meshes.build(config.mesh, jax.devices()[: np.prod(mesh)]))


@functools.cache
def compiled(program: Program, rows: int = 8):
    """The step; on most meshes compiled in half the time, without XLA's later passes."""
    if program.config.model.positions == "rope" and program.mesh.devices.shape in FULL and rows == 8:
        return program.step(rows)
    quick = functools.partialmethod(jax.stages.Lowered.compile, tiny.QUICK)
    with mock.patch.object(jax.stages.Lowered, "compile", quick):
        return program.step(rows)


@functools.cache
def first(family: str):
    """A fresh state as numpy."""
    return jax.tree.map(np.asarray, program(family).initial())


def fresh(program: Program):
    """A state of its own on the program's mesh."""
    return jax.device_put(
        first("modern" if program.config.model.positions == "rope" else "chinchilla"), program.state_shardings
    )


def batch(step: int, rows: int = 8) -> Batch:
    """Packed rows whose weights differ from row to row."""
    documents = [[16], [3, 9], [5, 5, 5], [1], [16], [8, 8], [2, 14], [10]] * (rows // 8)
    return tiny.packed(documents, LENGTH, 64, seed=step)


def place(program: Program, whole: Batch) -> Batch:
    return program.place(lambda rows: jax.tree.map(lambda x: x[rows], whole), len(whole.tokens))


@functools.cache
def trained(program: Program):
    """Losses and gradient norms of 20 steps, and the parameters after them, as numpy."""
    state, step, rows = fresh(program), compiled(program), []
    for number in range(STEPS):
        state, metrics = step(state, place(program, batch(number % 4)))
        rows.append([metrics["loss"], metrics["grad_norm"]])
    return np.array(rows, np.float64), jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize("family, mesh, microbatches", [
    ("modern", (8, 1, 1), 1), ("modern", (1, 8, 1), 1), ("modern", (2, 2, 2), 2),
    ("chinchilla", (2, 1, 4), 1),
])  # fmt: skip
def test_twenty_steps_are_the_same_on_every_mesh(family, mesh, microbatches):
    rows, params = trained(program(family))
    rows2, params2 = trained(program(family, mesh, microbatches))
    np.testing.assert_allclose(rows2[:, 0], rows[:, 0], rtol=1e-5, err_msg="loss")
    np.testing.assert_allclose(rows2[:, 1], rows[:, 1], rtol=1e-4, err_msg="norm of the gradient")
    assert tiny.worst(params2, params, floor=0.02) < 1e-3


@pytest.mark.parametrize("family", MODELS)
def test_a_repeated_text_is_learned(family):
    losses = trained(program(family))[0][:, 0]
    assert abs(losses[0] - np.log(64)) < 0.1 and losses[-1] < losses[0] - 0.1


def test_a_fresh_state_is_the_same_on_every_mesh():
    state = program("modern", (2, 2, 2), 2).initial()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), state, first("modern"))


def test_a_larger_batch_of_the_ramp_is_the_two_halves_together():
    """16 rows in 4 parts on eight devices against two times 8 rows on one, all from the same parameters."""
    whole, one, eight = batch(0, 16), program("modern"), program("modern", (2, 2, 2), 2)
    _, metrics = compiled(eight, 16)(fresh(eight), place(eight, whole))
    halves = []
    for rows in (slice(0, 8), slice(8, 16)):
        half = jax.tree.map(lambda x, rows=rows: x[rows], whole)
        _, found = compiled(one)(fresh(one), place(one, half))
        halves.append((float(found["loss"]), float(found["tokens"])))
    assert float(metrics["tokens"]) == whole.weights.sum() and halves[0][1] != halves[1][1]
    expected = sum(loss * tokens for loss, tokens in halves) / whole.weights.sum()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_changes_nothing(poison):
    """Through the whole model: the poison sits in a weight of the batch."""
    run = program("modern")
    step = compiled(run)
    state, _ = step(fresh(run), place(run, batch(0)))
    before, bad = jax.tree.map(np.array, state), batch(1)
    bad.weights[3, 0] = poison
    state, metrics = step(state, place(run, bad))
    for name in ("params", "opt_state", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(before, name))
    assert [int(x) for x in (state.step, state.skipped, state.bad)] == [2, 1, 1]
    assert int(metrics["skipped"]) == 1 and int(metrics["bad"]) == 1
    state, metrics = step(state, place(run, batch(1)))
    assert [int(x) for x in (state.step, state.skipped, state.bad)] == [3, 1, 0]
    assert float(metrics["lr"]) == float(run.rate(1)), "a skipped step does not advance the schedule"
    assert np.isfinite(metrics["loss"])


def toy(gradient_is_bad):
    """A step on one number whose carry counts; loss w^2, gradient as told."""

    def gradients(params, batch, key, step, carry):
        grads = {"kernel": jnp.where(gradient_is_bad(step), jnp.nan, 2 * params["kernel"])}
        return grads, Sums(params["kernel"] ** 2, jnp.float32(1)), carry + 1

    objective = Objective(lambda params: jnp.int32(0), gradients, lambda params, batch: Sums.zero())
    optimizer, rate = optax.sgd(0.25), lambda step: 0.25
    params = {"kernel": jnp.float32(8)}
    zero = jnp.int32(0)
    state = TrainState(zero, zero, zero, params, optimizer.init(params), objective.init(params))
    return jax.jit(steps.build(lambda frozen: objective, optimizer, rate, parts=1, seed=0)), state


def test_counters_of_bad_steps_and_the_carry():
    step, state = toy(lambda step: (step >= 1) & (step <= 3))
    seen = []
    for _ in range(6):
        state, _ = step(state, batch(0), {})
        seen.append([int(state.skipped), int(state.bad), int(state.carry), float(state.params["kernel"])])
    assert seen == [[0, 0, 1, 4], [1, 1, 1, 4], [2, 2, 1, 4], [3, 3, 1, 4], [3, 0, 2, 2], [3, 0, 3, 1]]


def test_a_batch_without_any_weight_is_skipped():
    run = program("modern")
    empty = batch(0)
    empty.weights[:] = 0
    state, metrics = compiled(run)(fresh(run), place(run, empty))
    assert int(metrics["bad"]) == 1 and all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_the_state_is_donated():
    run = program("modern")
    old = fresh(run)
    state, _ = compiled(run)(old, place(run, batch(0)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params)), "two copies of the state would be held"
    compiled(run)(state, place(run, batch(1)))


def test_parts_take_every_row_once_and_spread_over_the_shards():
    whole = batch(0)
    parts = steps.split(whole, 4)
    assert parts.tokens.shape == (4, 2, LENGTH)
    np.testing.assert_array_equal(parts.tokens[1], whole.tokens[[1, 5]])


def test_cost_counts_the_whole_run():
    run = program("modern")
    figures = cost(run, compiled(run))
    leaves = jax.tree.leaves(run.abstract.params)
    assert figures["parameters"] == sum(leaf.size for leaf in leaves)
    assert figures["parameters_non_embedding"] == figures["parameters"] - 2 * 64 * 16
    assert figures["memory_state_bytes"] >= 4 * 4 * figures["parameters"], "parameters, two moments, an average"
    assert figures["memory_bytes"] >= figures["memory_state_bytes"] + figures["memory_temporary_bytes"]
    assert figures["tokens"] == STEPS * 8 * LENGTH
