"""Objectives over an adapter and a label head: gradients of what trains alone; attacks on them, written out naively."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    TuneConfig,
)
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.model.weights import merged
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives import perturb
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.types import Batch
from tests import tiny
from tests.model import twin

C, L, SPECIAL = 5, 12, (0, 1, 2, 3)
HEADS = {"labels/table": (C, 20)}
KEY, RADIUS, WEIGHT, PROXIMITY = jax.random.key(5), 0.5, 0.7, 0.4
CFG = tiny.MODERN


def batch() -> Batch:
    """Records whose last token carries the label."""
    rows = tiny.packed([[5, 7], [12], [4, 4, 4], [9]], L, CFG.vocab_size)
    last = np.zeros_like(rows.weights)
    last[:, :-1] = (rows.segments[:, :-1] > 0) & (rows.segments[:, :-1] != rows.segments[:, 1:])
    last[:, -1] = rows.segments[:, -1] > 0
    return Batch(rows.tokens, rows.targets % C, last.astype(np.float32), rows.segments, rows.positions)


BATCH = batch()


def labels(config, binding):
    return binding.bind(dense(config.model, config.objective, lambda params: params["heads"]["labels"]["table"]))


def config(cfg=CFG, **attack) -> Config:
    return Config(
        model=cfg,
        objective=ObjectiveConfig(tile_tokens=20),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=10, seq_len=L, batch_size=4),
        adversarial=AdversarialConfig(**{"start": 0.0, "fraction": 1.0, "radius": RADIUS, "weight": WEIGHT} | attack),
    )


@functools.cache
def made(method: str):
    tune = TuneConfig(method=method, **({} if method == "full" else {"rank": 3}))
    one = recipe(CFG, tune, HEADS)
    base = tiny.spiced(CFG, scale=0.1)
    start = tiny.jit(one.start)(jax.random.key(1), base)
    trained = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), start)
    return one, trained, one.freeze(base)


def ours(tuned: str, carry=(), **attack):
    one, trained, frozen = made(tuned)

    def run(trained, frozen, carry):
        binding = one.binding(frozen, one.axes()[0])
        return objectives.build(config(**attack), binding, labels).gradients(trained, BATCH, KEY, 3, carry)

    return tiny.jit(run)(trained, frozen, carry)


def exact(tree):
    """In float64, in which gradients are expected."""
    return jax.tree.map(lambda x: jnp.asarray(x, "float64"), tree)


def slopes(naive, *args):
    """The gradient of a loss of what trains, in float64."""
    noise("uniform"), noise("gaussian")  # drawn in float32
    with jax.enable_x64(True):
        return jax.jit(jax.grad(lambda trained: naive(trained, *args)))(exact(made("lora")[1]))


def logits(trained, method, delta=0.0):
    one, _, frozen = made(method)
    dtype = jax.tree.leaves(trained)[0].dtype
    params = merged(one.join(trained, jax.tree.map(lambda x: x.astype(dtype), frozen)))
    return twin.forward(params, BATCH, CFG, delta) @ params["heads"]["labels"]["table"].T, params


def cross_entropy(scores):
    logp = jax.nn.log_softmax(scores)
    return -(BATCH.weights * jnp.take_along_axis(logp, BATCH.targets[..., None], -1)[..., 0]).sum()


def symmetric(p, q):
    p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return (BATCH.weights * ((jnp.exp(p) - jnp.exp(q)) * (p - q)).sum(-1)).sum()


def size(params):
    return RADIUS * jnp.linalg.norm(params["embed"]["table"][BATCH.tokens], axis=-1, keepdims=True)


@functools.cache
def noise(kind: str):
    """Given to both: a draw is no formula."""
    key = jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]
    _, params = logits(made("lora")[1], "lora")
    drawn = perturb.draw(key, BATCH, CFG.d_model, size(params), "l2_token", kind)
    return np.asarray(drawn * perturb.allowed(BATCH, SPECIAL))


def inside(delta, params):
    length = jnp.linalg.norm(delta, axis=-1, keepdims=True)
    return delta * jnp.minimum(1.0, size(params) / jnp.maximum(length, 1e-30))


def climb(loss, delta, params, step):
    g = jax.grad(loss)(delta) * perturb.allowed(BATCH, SPECIAL)
    return inside(
        delta + step * size(params) * g / jnp.maximum(jnp.linalg.norm(g, axis=-1, keepdims=True), 1e-30), params
    )


def naive_freelb(trained, method):
    """The mean of the losses at zero and after one step of length 1 (2 / 2)."""
    _, params = logits(trained, method)
    moved = climb(lambda d: cross_entropy(logits(trained, method, d)[0]), 0.0 * noise("uniform"), params, 1.0)
    moved = jax.lax.stop_gradient(moved)
    return WEIGHT / 2 * (cross_entropy(logits(trained, method)[0]) + cross_entropy(logits(trained, method, moved)[0]))


def naive_smart(trained, method, before=None):
    clean, params = logits(trained, method)
    fixed, there = jax.lax.stop_gradient((clean, trained))
    moved = climb(
        lambda d: symmetric(fixed, logits(there, method, d)[0]), inside(noise("gaussian"), params), params, 1.0
    )
    far = symmetric(clean, logits(trained, method, jax.lax.stop_gradient(moved))[0])
    apart = symmetric(jax.lax.stop_gradient(logits(before, method)[0]), clean)
    return cross_entropy(clean) + WEIGHT * far + PROXIMITY * apart


def test_gradients_of_what_trains_and_of_nothing_else():
    for method in ("lora", "dora", "houlsby", "full"):
        trained = made(method)[1]
        grads, sums, _ = ours(method, method="off")
        if method == "houlsby":  # has no merged form; its values are those of the nodes
            assert jax.tree.structure(grads) == jax.tree.structure(trained)
            continue
        value, expected = jax.value_and_grad(lambda t, m=method: cross_entropy(logits(t, m)[0]))(trained)
        assert float(sums.loss) == pytest.approx(float(value), rel=1e-5)
        assert jax.tree.structure(grads) == jax.tree.structure(trained)
        if method == "lora":
            expected = slopes(lambda t: cross_entropy(logits(t, "lora")[0]))
            assert tiny.worst(grads, expected, floor=0.1) < 1e-5


def test_freelb_on_a_label_head_over_an_adapter():
    grads, sums, _ = ours("lora", method="freelb", steps=2, step_size=1.0, init="zeros")
    assert tiny.worst(grads, slopes(naive_freelb, "lora"), floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(float(cross_entropy(logits(made("lora")[1], "lora")[0])), rel=1e-5)


def test_r3f_on_a_label_head_over_an_adapter():
    grads, _, _ = ours("lora", method="r3f", init="uniform")

    def naive(trained):
        clean, _ = logits(trained, "lora")
        return cross_entropy(clean) + WEIGHT * symmetric(clean, logits(trained, "lora", noise("uniform"))[0])

    assert tiny.worst(grads, slopes(naive), floor=0.1) < 1e-5


def test_smart_on_a_label_head_over_an_adapter():
    """The Bregman term is against the running average of what trains; the average moves with the step."""
    trained = made("lora")[1]
    before = jax.tree.map(lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), trained)
    how = {"method": "smart", "proximity": PROXIMITY, "momentum": 0.9, "step_size": 1.0}
    grads, sums, carry = ours("lora", {"before": before}, **how)
    expected = slopes(lambda t: naive_smart(t, "lora", exact(before)))
    assert tiny.worst(grads, expected, floor=0.1) < 1e-5
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before, trained)
    assert tiny.worst(carry["before"], moved) < 1e-6
    assert {"loss_attacked"} == set(sums.others)


def test_a_sum_of_terms_on_a_label_head_over_an_adapter():
    """FGM with labels and a trust region, the clean pass pulled back twice."""
    trained = made("lora")[1]
    before = jax.tree.map(lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), trained)
    grads, sums, _ = ours("lora", {"before": before}, method="fgm", loss="ce", proximity=PROXIMITY)

    def naive(t):
        clean, params = logits(t, "lora")
        there, zeros = jax.lax.stop_gradient(t), jnp.zeros((4, L, CFG.d_model))
        moved = climb(lambda d: cross_entropy(logits(there, "lora", d)[0]), zeros, params, 1.0)
        attacked = cross_entropy(logits(t, "lora", jax.lax.stop_gradient(moved))[0])
        apart = symmetric(jax.lax.stop_gradient(logits(exact(before), "lora")[0]), clean)
        return cross_entropy(clean) + WEIGHT * attacked + PROXIMITY * apart

    assert tiny.worst(grads, slopes(naive), floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(float(cross_entropy(logits(trained, "lora")[0])), rel=1e-5)


@pytest.mark.parametrize("method", ["fgm", "vat", "pgd", "noise", "freelb", "r3f", "smart", "softmax_margin"])
def test_every_attack_stands_on_every_tree(method):
    """Shapes alone: no attack asks the trained tree for a table that it does not hold."""
    delayed = [{}, {"delayed": True, "fraction": 0.5}] if method == "fgm" else [{}]
    for tuned in ("ia3", "prompt", "head", "top"):
        one = recipe(CFG, TuneConfig(method=tuned), HEADS)
        base = jax.eval_shape(lambda: tiny.spiced(CFG))
        trained, frozen = jax.eval_shape(one.start, KEY, base), jax.eval_shape(one.freeze, base)
        for more in delayed:
            objective = objectives.build(config(method=method, **more), one.binding(frozen, one.axes()[0]), labels)

            def run(trained, frozen, more=more, one=one):
                binding = one.binding(frozen, one.axes()[0])
                objective = objectives.build(config(method=method, **more), binding, labels)
                return objective.gradients(trained, BATCH, KEY, 3, objective.init(trained))[0]

            grads = jax.eval_shape(run, trained, frozen)
            assert jax.tree.structure(grads) == jax.tree.structure(trained), (tuned, method)
            jax.tree.map(lambda x, axes: x, jax.eval_shape(objective.init, trained), objective.carry_axes)


WIDE = ModelConfig(**tiny.PLAIN | {"scan_unroll": 2}, layers=2, d_model=128, heads=4, head_dim=32, d_ff=512,
                   vocab_size=64, mlp="gelu")  # fmt: skip


@functools.cache
def flops(**attack) -> float:
    """Of one gradient of full tuning with a label head of 8."""
    one = recipe(WIDE, TuneConfig(method="full"), {"labels/table": (8, 128)})
    rows = jax.eval_shape(lambda: tiny.packed([[16]] * 32, 16, 8))
    settled = config(WIDE, **attack)
    settled = Config(**vars(settled) | {"objective": ObjectiveConfig(tile_tokens=512)})
    objective = objectives.build(settled, one.binding({}, one.axes()[0]), labels)
    trained = jax.eval_shape(one.start, KEY, one.abstract_base())
    carry = jax.eval_shape(objective.init, trained)
    lowered = tiny.jit(objective.gradients).lower(trained, rows, KEY, jax.ShapeDtypeStruct((), "int32"), carry)
    return lowered.compile().cost_analysis()["flops"]


@pytest.mark.parametrize("bar, attack", [
    (2.05, {"method": "freelb", "steps": 2}), (2.05, {"method": "r3f"}), (3.1, {"method": "smart"})
])  # fmt: skip
def test_what_an_attack_on_a_label_head_costs(bar, attack):
    found = flops(**attack) / flops(method="off")
    assert bar - 0.2 < found <= bar
    assert flops(**attack | {"radius": 0.0}) == flops(method="off")
