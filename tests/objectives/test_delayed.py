"""Delayed rows: two steps by hand, what is carried, and a run that is killed in the middle of it."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    replace,
)
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.training.resume import check_config
from chinchilla_jax.training.step import accumulate
from tests import runs, tiny
from tests.model import twin
from tests.objectives import oracle

L, N, WEIGHT, RADIUS, CFG = 13, 2, 0.7, 0.6, oracle.TIED
BATCHES = [tiny.packed([[6, 7], [13], [5, 4, 2], [9, 4], [13], [1, 12]], L, oracle.V, seed) for seed in range(3)]
KEY = jax.random.key(0)


def objective(rows=6, microbatches=1, **settings):
    attack = {"method": "fgm", "delayed": True, "radius": RADIUS, "fraction": N / 6, "weight": WEIGHT, "start": 0.0}
    return objectives.build(
        Config(
            model=CFG,
            objective=ObjectiveConfig(tile_tokens=30),
            optimizer=OptimizerConfig(warmup_steps=0),
            train=TrainConfig(steps=10, seq_len=L, batch_size=rows, microbatches=microbatches),
            adversarial=AdversarialConfig(**attack | settings),
        )
    )


def part(batch, rows):
    return jax.tree.map(lambda x: x[rows], batch)


def exact(params):
    """In float64, in which all that is expected here is computed."""
    return jax.tree.map(lambda x: jnp.asarray(x, "float64"), params)


@tiny.jit
def of_plain(params, batch):
    return jax.grad(lambda p, d: twin.loss(p, batch, CFG, d), (0, 1))(
        params, jnp.zeros((*batch.tokens.shape, CFG.d_model))
    )


def slopes(params, batch):
    """Of the plain loss: gradients of the parameters and of what is added to the embeddings."""
    with jax.enable_x64(True):
        return of_plain(exact(params), batch)


@functools.partial(tiny.jit, static_argnums=5)
def mixed(params, older, fresh, kept, delta, kind):
    """Gradients of CE(fresh) + w A(kept + delta), and the cross-entropies of both.

    A is CE, or KL from the hidden states that the rows had under the `older` parameters, with the table of today.
    """
    hidden = twin.forward(older, kept, CFG)

    def log_p(p, hidden):
        return jax.nn.log_softmax(twin.logits(p, hidden, CFG))

    def loss(p):
        clean, attacked = twin.loss(p, fresh, CFG), twin.loss(p, kept, CFG, delta)
        logp, logq = log_p(jax.lax.stop_gradient(p), hidden), log_p(p, twin.forward(p, kept, CFG, delta))
        kl = (kept.weights[..., None] * jnp.exp(logp) * (logp - logq)).sum()
        return clean + WEIGHT * (attacked if kind == "ce" else kl), (clean, attacked)

    return jax.grad(loss, has_aux=True)(params)


def by_hand(params, before, now, kind="ce", older=None):
    """The step on `now`, given that `before` was the plain step: rows 2 and 3 of that come in place of rows 0 and 1."""
    older = older or params
    kept = part(before, slice(N, 2 * N))
    g = np.asarray(slopes(older, before)[1])[N : 2 * N]
    g = g * ((kept.segments > 0) & (kept.tokens > 3))[..., None]
    length = np.linalg.norm(g, axis=-1, keepdims=True)
    size = RADIUS * np.linalg.norm(np.asarray(params["embed"]["table"], "f8")[kept.tokens], axis=-1, keepdims=True)
    delta = size * np.divide(g, length, out=np.zeros_like(g), where=length > 0)
    with jax.enable_x64(True):
        return mixed(exact(params), exact(older), part(now, slice(N, None)), kept, delta, kind)


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_the_kept_rows_come_in_place_of_fresh_ones(kind):
    made, older = objective(loss=kind), tiny.spiced(CFG, scale=0.3)
    params = jax.tree.map(lambda w: 1.03 * w, older)  # the step between the two
    step = tiny.jit(made.gradients)
    grads, sums, carry = step(older, BATCHES[0], KEY, 0, made.init(older))
    assert tiny.worst(grads, slopes(older, BATCHES[0])[0], floor=0.1) < 1e-5, "nothing is kept yet: a plain step"
    assert float(sums.weight) == BATCHES[0].weights.sum() and float(sums.others["loss_attacked"].weight) == 0
    jax.tree.map(np.testing.assert_array_equal, carry["batch"], part(BATCHES[0], slice(N, 2 * N)))

    grads, sums, carry = step(params, BATCHES[1], KEY, 1, carry)
    expected, (clean, attacked) = by_hand(params, BATCHES[0], BATCHES[1], kind, older)
    assert tiny.worst(grads, expected, floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(float(clean), rel=1e-5)
    assert float(sums.weight) == BATCHES[1].weights[N:].sum()
    assert float(sums.others["loss_attacked"].loss) == pytest.approx(float(attacked), rel=1e-5)
    assert float(sums.others["loss_attacked"].weight) == BATCHES[0].weights[N : 2 * N].sum()
    jax.tree.map(np.testing.assert_array_equal, carry["batch"], part(BATCHES[1], slice(N, 2 * N)))


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_between_microbatches_there_is_no_staleness(kind):
    """A step of two microbatches is the two steps by hand with the same weights."""
    made, params = objective(rows=12, microbatches=2, loss=kind), tiny.spiced(CFG, scale=0.3)
    both = jax.tree.map(lambda a, b: np.stack([a, b], 1).reshape(12, L), *BATCHES[:2])
    grads, sums, _ = tiny.jit(accumulate(made, 2))(params, both, KEY, 0, made.init(params))
    second, _ = by_hand(params, *BATCHES[:2], kind)
    assert tiny.worst(grads, jax.tree.map(np.add, slopes(params, BATCHES[0])[0], second), floor=0.1) < 1e-5
    assert float(sums.weight) == BATCHES[0].weights.sum() + BATCHES[1].weights[N:].sum()


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_before_the_start_rows_are_kept_and_not_used(kind):
    made, params = objective(start=0.2, loss=kind), tiny.spiced(CFG, scale=0.3)
    step = tiny.jit(made.gradients)
    _, sums, carry = step(params, BATCHES[0], KEY, jnp.int32(0), made.init(params))
    grads, sums, carry = step(params, BATCHES[1], KEY, jnp.int32(1), carry)
    assert tiny.worst(grads, slopes(params, BATCHES[1])[0], floor=0.1) < 1e-5, "a plain step"
    assert float(sums.weight) == BATCHES[1].weights.sum() and bool(carry["valid"])
    _, sums, _ = step(params, BATCHES[2], KEY, jnp.int32(2), carry)
    assert float(sums.weight) == BATCHES[2].weights[N:].sum() and float(sums.others["loss_attacked"].weight) > 0


def test_too_few_rows_to_keep_are_refused():
    with pytest.raises(UserError, match=r"microbatch of 1 .*--adversarial.fraction"):
        objective(rows=6, microbatches=6)


SETTINGS = {"adversarial.method": "fgm", "adversarial.delayed": "true", "adversarial.start": 0.2}
SETTINGS |= {"train.steps": 10, "train.eval-every": 0, **runs.SILENT}


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("kind, leaves", [("ce", 7), ("kl", 8)])
def test_a_run_killed_between_delayed_rows_goes_on_to_the_same_bytes(kind, leaves, tiny_store, tmp_path):
    """Two of eight rows, which eight devices do not divide; forgotten back to step 5 and resumed."""
    settings = {**SETTINGS, "adversarial.loss": kind, "adversarial.fraction": 0.25}
    whole = runs.trained(tmp_path / "whole", tiny_store, **settings)
    cut = shutil.copytree(whole, tmp_path / "cut")
    runs.forget(cut, 5)
    with pytest.raises(UserError, match=r"train.microbatches was 1 and is 2"):  # the carry has a microbatch's shape
        check_config(cut, replace(runs.config(cut), {"train.microbatches": 2}), False)
    code, said = runs.pretrain(cut, tiny_store, **settings)
    assert code == 0 and "resumed from step 5, verified\n" in said
    runs.assert_same_run(cut, whole, 10)
    carried = [name for name in runs.leaves(whole, 5) if name.startswith("carry/")]
    assert len(carried) == leaves and runs.state(whole, 5).carry["direction"].any()
    rows = runs.rows(whole)
    assert all((row["loss_attacked"] is None) == (row["step"] <= 2) for row in rows if "loss" in row)
