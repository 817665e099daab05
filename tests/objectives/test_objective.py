"""Objectives over an adapter and a label head: gradients of what trains alone, and attacks on them by formula."""

import functools

import jax
import numpy as np
import pytest

from chinchilla_jax.config import ModelConfig, TuneConfig, replace
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.model.weights import merged
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.types import Batch
from tests import tiny
from tests.objectives import oracle
from tests.objectives.oracle import KEY, WEIGHT, drawn, inside, summed

C, CFG, PROXIMITY = 5, oracle.MODERN, 0.4
HEADS = {"labels/table": (C, CFG.d_model)}


def batch() -> Batch:
    """Records whose last token carries the label."""
    rows = tiny.packed([[5, 8], [13], [4, 4, 4], [9]], oracle.L, CFG.vocab_size)
    last = (rows.segments > 0) & (np.diff(rows.segments, axis=1, append=0) != 0)
    return Batch(rows.tokens, rows.targets % C, last.astype(np.float32), rows.segments, rows.positions)


BATCH = batch()
FREE = ((BATCH.segments > 0) & ~np.isin(BATCH.tokens, oracle.SPECIAL))[..., None]


def labels(config, binding):
    return binding.bind(dense(config.model, config.objective, lambda params: params["heads"]["labels"]["table"]))


def config(cfg=CFG, **attack):
    return oracle.config(cfg, **{"fraction": 1.0} | attack)


@functools.cache
def made(method: str):
    tune = TuneConfig(method=method, **({} if method == "full" else {"rank": 3}))
    one = recipe(CFG, tune, HEADS)
    base = tiny.spiced(CFG, scale=0.3)
    start, draw = tiny.jit(one.start)(jax.random.key(1), base), np.random.default_rng(1)
    trained = jax.tree.map(lambda x: np.asarray(x) + 0.1 * draw.standard_normal(x.shape, "f4"), start)
    return one, trained, one.freeze(base)


def ours(tuned: str, carry=(), **attack):
    one, trained, frozen = made(tuned)

    def run(trained, frozen, carry):
        binding = one.binding(frozen, one.axes()[0])
        return objectives.build(config(**attack), binding, labels).gradients(trained, BATCH, KEY, 3, carry)

    return tiny.jit(run)(trained, frozen, carry)


@functools.cache
def naive(method: str) -> oracle.Oracle:
    one, _, frozen = made(method)

    def whole(trained):
        dtype = jax.tree.leaves(trained)[0].dtype
        return merged(one.join(trained, jax.tree.map(lambda x: x.astype(dtype), frozen)))

    return oracle.Oracle(CFG, whole, lambda params: params["heads"]["labels"]["table"])


TWIN, TRAINED = naive("lora"), made("lora")[1]
BEFORE = jax.tree.map(lambda x: x + 0.05 * np.sin(np.arange(x.size, dtype="f4")).reshape(x.shape), TRAINED)
SIZE = oracle.size(made("lora")[2]["embed"]["table"], BATCH)


def unit(found):
    return oracle.unit(found.slope, BATCH, free=FREE)


@functools.cache
def clean():
    return TWIN.entropy(TRAINED, BATCH)


def check(expected, grads, sums, loss=None):
    assert tiny.worst(grads, expected, floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(clean().value if loss is None else loss, rel=1e-5)
    assert float(sums.weight) == 7 == float(sums.others["loss_attacked"].weight) and len(sums.others) == 1


def test_gradients_of_what_trains_and_of_nothing_else():
    for method in ("lora", "dora", "houlsby", "full"):
        trained = made(method)[1]
        grads, sums, _ = ours(method, method="off")
        assert jax.tree.structure(grads) == jax.tree.structure(trained)
        if method == "houlsby":  # has no merged form; its values are those of the nodes
            continue
        expected = naive(method).entropy(trained, BATCH)
        assert float(sums.loss) == pytest.approx(expected.value, rel=1e-5)
        assert tiny.worst(grads, expected.grads, floor=0.1) < 1e-5


def test_vat():
    """The direction is the divergence's own gradient at a small probe; no label is used for it."""
    probe = 0.5 * SIZE * oracle.unit(drawn(CFG, SIZE, 4, "gaussian", free=FREE), BATCH, free=FREE)
    apart = TWIN.apart(TRAINED, BATCH, SIZE * unit(TWIN.apart(TRAINED, BATCH, probe)))
    grads, sums, _ = ours("lora", method="vat", probe=0.5)
    check(summed((1, clean().grads), (WEIGHT, apart.grads)), grads, sums)


def test_pgd():
    """Two steps of 2/2 of the ball; the last point trains."""
    start = drawn(CFG, SIZE, 4, free=FREE)
    end, first = start, TWIN.entropy(TRAINED, BATCH, start).value
    for _ in range(2):
        end = inside(end + SIZE * unit(TWIN.entropy(TRAINED, BATCH, end)), SIZE)
    grads, sums, _ = ours("lora", method="pgd", steps=2, init="uniform")
    check(summed((WEIGHT, TWIN.entropy(TRAINED, BATCH, end).grads)), grads, sums, first)


def test_noise():
    """U(-1, 1) times the radius / sqrt(D); the mean loss is the noisy one."""
    there = TWIN.entropy(TRAINED, BATCH, drawn(CFG, SIZE, 4, free=FREE))
    grads, sums, _ = ours("lora", method="noise", init="uniform", weight=1.0)
    check(there.grads, grads, sums, there.value)


def test_softmax_margin():
    """The logit of the label is lowered, in units of the head's own rows."""
    grads, sums, _ = ours("lora", method="softmax_margin")
    check(summed((WEIGHT, TWIN.margin(TRAINED, BATCH).grads)), grads, sums)


def test_freelb():
    """The mean of the losses at a start and after one step of length 1 (2 / 2)."""
    start = drawn(CFG, SIZE, 4, free=FREE)
    points = [TWIN.entropy(TRAINED, BATCH, start)]
    points.append(TWIN.entropy(TRAINED, BATCH, inside(start + SIZE * unit(points[0]), SIZE)))
    grads, sums, _ = ours("lora", method="freelb", steps=2, init="uniform")
    check(summed(*((WEIGHT / 2, point.grads) for point in points)), grads, sums, points[0].value)


def test_r3f():
    noise = drawn(CFG, SIZE, 4, free=FREE)
    apart = TWIN.apart(TRAINED, BATCH, noise, back=1.0, learns=1.0, held=1.0)
    grads, sums, _ = ours("lora", method="r3f", init="uniform")
    check(summed((1, clean().grads), (WEIGHT, apart.grads)), grads, sums)


def test_smart():
    """The Bregman term is against the running average of what trains; the average moves with the step."""
    both = {"forth": 1.0, "back": 1.0}
    start = inside(drawn(CFG, SIZE, 4, "gaussian", free=FREE), SIZE)
    delta = inside(start + SIZE * unit(TWIN.apart(TRAINED, BATCH, start, **both)), SIZE)
    far = TWIN.apart(TRAINED, BATCH, delta, learns=1.0, **both)
    apart = TWIN.apart(TRAINED, BATCH, other=BEFORE, **both)
    how = {"method": "smart", "proximity": PROXIMITY, "momentum": 0.9, "step_size": 1.0}
    grads, sums, carry = ours("lora", {"before": BEFORE}, **how)
    check(summed((1, clean().grads), (WEIGHT, far.grads), (PROXIMITY, apart.grads)), grads, sums)
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, BEFORE, TRAINED)
    assert tiny.worst(carry["before"], moved) < 1e-6


def test_a_sum_of_terms():
    """FGM with labels and a trust region, the clean pass pulled back twice."""
    there = TWIN.entropy(TRAINED, BATCH, inside(SIZE * unit(clean()), SIZE))
    apart = TWIN.apart(TRAINED, BATCH, other=BEFORE, back=1.0)
    grads, sums, _ = ours("lora", {"before": BEFORE}, method="fgm", loss="ce", proximity=PROXIMITY)
    check(summed((1, clean().grads), (WEIGHT, there.grads), (PROXIMITY, apart.grads)), grads, sums)


@pytest.mark.parametrize("method", ["fgm", "vat", "pgd", "noise", "freelb", "r3f", "smart", "softmax_margin"])
def test_every_attack_stands_on_every_tree(method):
    """Shapes alone: no attack asks the trained tree for a table that it does not hold."""
    delayed = [{}, {"delayed": True, "fraction": 0.5}] if method == "fgm" else [{}]
    for tuned in ("ia3", "prompt", "head", "top"):
        one = recipe(CFG, TuneConfig(method=tuned, **({"top": 1} if tuned == "top" else {})), HEADS)
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


WIDE = ModelConfig(**tiny.PLAIN, layers=1, d_model=128, heads=4, head_dim=32, d_ff=512,
                   vocab_size=64, mlp="gelu")  # fmt: skip


@functools.cache
def lowered(**attack):
    """One gradient of full tuning with a label head of 8."""
    one = recipe(WIDE, TuneConfig(method="full"), {"labels/table": (8, 128)})
    rows = jax.eval_shape(lambda: tiny.packed([[16]] * 32, 16, 8))
    settled = replace(config(WIDE, **attack), {"objective.tile_tokens": 512})
    objective = objectives.build(settled, one.binding({}, one.axes()[0]), labels)
    trained = jax.eval_shape(one.start, KEY, one.abstract_base())
    carry = jax.eval_shape(objective.init, trained)
    return tiny.jit(objective.gradients).lower(trained, rows, KEY, jax.ShapeDtypeStruct((), "int32"), carry)


def flops(**attack) -> float:
    return lowered(**attack).cost_analysis()["flops"]


@pytest.mark.parametrize("bar, attack", [
    (2.05, {"method": "freelb", "steps": 2}), (2.05, {"method": "r3f"}), (3.1, {"method": "smart"})
])  # fmt: skip
def test_what_an_attack_on_a_label_head_costs(bar, attack):
    """And a radius of 0 is the plain program; in SMART the Bregman term, 0 then too, is a term of its own.

    What is counted is what is run: tests/planning/test_attacks.py.
    """
    found = flops(**attack) / flops(method="off")
    assert max(1.9, bar - 0.2) < found <= bar
    assert lowered(**attack | {"radius": 0.0}).as_text() == lowered(method="off").as_text()
