"""Replaced input tokens: how many, which, by what; in place and beside the clean rows."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    CorruptionConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives import corruption
from tests import tiny
from tests.objectives import oracle

L, V, CONTROL, KEY = 13, 61, (0, 1, 2, 3, 40), jax.random.key(5)
BATCH = tiny.packed([[6, 7], [13], [5, 4, 2], [9, 4]], L, V)
LONG = tiny.packed([[100] * 20] * 8, 2000, V)
CFG = dataclasses.replace(oracle.MODERN, vocab_size=V)
PARAMS, TWIN = tiny.spiced(CFG, scale=0.3), oracle.of(CFG)


def config(attack=None, **settings) -> Config:
    return Config(
        model=CFG,
        objective=ObjectiveConfig(tile_tokens=20),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=100, seq_len=L, batch_size=4),
        adversarial=AdversarialConfig(special=CONTROL, **(attack or {})),
        corruption=CorruptionConfig(**settings),
    )


@pytest.mark.parametrize("kind", ["uniform", "unigram", "mask"])
def test_a_share_of_what_may_be_touched_is_replaced_and_nothing_else(kind):
    batch = dataclasses.replace(LONG, tokens=np.where(np.arange(2000) % 7 == 0, 20, LONG.tokens))
    made = corruption.replaced(
        config(share=0.15, kind=kind, **{"mask_piece": 7} if kind == "mask" else {}), batch, KEY, 3
    )
    free = ~np.isin(batch.tokens, CONTROL) & (batch.segments > 0)
    changed, new = np.asarray(made.tokens) != batch.tokens, np.asarray(made.tokens)
    assert not changed[~free].any() and not np.isin(new[changed], CONTROL).any()
    same = {"uniform": 1 / (V - len(CONTROL)), "unigram": ((np.bincount(batch.tokens[free]) / free.sum()) ** 2).sum()}
    same["mask"] = (batch.tokens[free] == 7).mean()
    assert changed[free].mean() == pytest.approx(0.15 * (1 - same[kind]), abs=0.01)
    for name in ("targets", "weights", "segments", "positions"):
        assert getattr(made, name) is getattr(batch, name)
    share_of_20 = (new[changed] == 20).mean()
    if kind == "uniform":
        assert share_of_20 < 0.05 and len(set(new[changed].tolist())) == V - len(CONTROL)
    if kind == "unigram":
        assert share_of_20 == pytest.approx((batch.tokens[free] == 20).mean(), abs=0.08)


def test_the_schedule():
    of = lambda step, **how: float(corruption.share(config(share=0.2, **how), step))  # noqa: E731
    assert [of(s, start=0.1, ramp=0.2, stop=0.9) for s in (0, 9, 10, 20, 30, 89, 90)] == pytest.approx(
        [0, 0, 0, 0.1, 0.2, 0.2, 0]
    )
    assert of(0) == of(99) == pytest.approx(0.2)


def found(made: Config, params=PARAMS, step=3):
    return tiny.jit(objectives.build(made).gradients)(params, BATCH, KEY, step, ())


def test_in_place_is_the_plain_loss_of_the_replaced_batch():
    made = config(share=0.4, start=0.02)
    run = tiny.jit(objectives.build(made).gradients)
    before, (grads, sums, _) = run(PARAMS, BATCH, KEY, 1, ())[0], run(PARAMS, BATCH, KEY, 3, ())
    batch = corruption.replaced(made, BATCH, KEY, 3)
    expected = TWIN.entropy(PARAMS, batch)
    assert float(sums.loss) == pytest.approx(expected.value, rel=1e-6)
    assert tiny.worst(grads, expected.grads, 0.1) < 1e-5
    assert float(sums.weight) == BATCH.weights.sum() and not sums.others
    plain = TWIN.entropy(PARAMS, BATCH).grads
    assert tiny.worst(before, plain, 1e-2) < 1e-4 < tiny.worst(grads, plain, 1e-2)


def first(rows):
    """The first rows, and the slopes of their embeddings."""
    return jax.tree.map(lambda x: x[:rows], BATCH), TWIN.entropy(PARAMS, BATCH).slope[:rows]


def filled(part):
    """As a batch of all rows, of which the others have no weight."""
    return jax.tree.map(lambda x, y: np.concatenate([x, 0 * y[len(x) :]]), part, BATCH)


@pytest.mark.parametrize("copies", [0.0, 0.5])
def test_the_worst_of_the_drawn_pieces(copies):
    """HotFlip: of the row's candidates the one with the largest e_c . dL/de, looked for one by one."""
    made = config(share=1.0, kind="gradient", candidates=5, copies=copies)
    part, g = first(2 if copies else 4)
    table = np.asarray(PARAMS["embed"]["table"])
    _, which = jax.random.split(jax.random.fold_in(KEY, 2))
    drawn = np.asarray(corruption.pieces(made, which, (len(part.tokens), 5)))
    wanted = np.array(part.tokens)
    for b, t in np.argwhere(np.asarray(corruption.free(made, part))):
        wanted[b, t] = max(drawn[b], key=lambda c: table[c] @ np.asarray(g[b, t]))
    worst = TWIN.entropy(PARAMS, filled(dataclasses.replace(part, tokens=wanted)))
    grads, sums, _ = found(made)
    beside = [(1, TWIN.entropy(PARAMS, BATCH).grads)] if copies else []
    assert tiny.worst(grads, oracle.summed((1, worst.grads), *beside), 0.1) < 1e-5
    if copies:
        assert float(sums.others["loss_corrupted"].loss) == pytest.approx(worst.value, rel=1e-5)


def test_copies_stand_beside_an_attack_and_a_trust_region():
    """The sum of three terms and the clean loss, each written out."""
    made = config({"method": "fgm", "loss": "ce", "radius": 0.3, "start": 0.0, "fraction": 0.5, "proximity": 0.4},
                  share=0.5, copies=0.25, weight=0.6)  # fmt: skip
    before = jax.tree.map(lambda x: x + 0.05 * np.sin(np.arange(x.size, dtype="f4")).reshape(x.shape), PARAMS)
    grads, sums, carry = tiny.jit(objectives.build(made).gradients)(PARAMS, BATCH, KEY, 3, {"before": before})
    part, g = first(2)
    free = np.asarray(corruption.free(made, part))[..., None]
    length = np.linalg.norm(np.asarray(PARAMS["embed"]["table"], "f8")[part.tokens], axis=-1, keepdims=True)
    delta = 0.3 * length * free * g / np.maximum(np.linalg.norm(g * free, axis=-1, keepdims=True), 1e-30)
    copy = corruption.replaced(made, jax.tree.map(lambda x: x[:1], BATCH), KEY, 3)
    clean, two = TWIN.entropy(PARAMS, BATCH), oracle.only(BATCH, slice(2))
    there = TWIN.entropy(PARAMS, two, np.pad(delta, [(0, 2), (0, 0), (0, 0)]))
    apart, corrupt = TWIN.apart(PARAMS, BATCH, other=before, back=1.0), TWIN.entropy(PARAMS, filled(copy))
    expected = oracle.summed((1, clean.grads), (1, there.grads), (0.4, apart.grads), (0.6, corrupt.grads))
    assert tiny.worst(grads, expected, 0.1) < 1e-5
    assert set(sums.others) == {"loss_attacked", "loss_corrupted"} and set(carry) == {"before"}
    assert float(sums.loss) == pytest.approx(clean.value, rel=1e-5)


@pytest.mark.parametrize("beside", [{}, {"method": "fgm", "start": 0.0, "proximity": 0.4}], ids=["alone", "fgm"])
def test_no_copies_are_trained_outside_their_window(beside):
    """Clean rows would have twice their weight: the gradients there are those without copies."""
    of = {"share": 0.4, "copies": 1.0, "start": 0.02, "stop": 0.5}
    with_copies, without = (objectives.build(config(beside, **how)) for how in (of, {}))
    run, plain = (tiny.jit(one.gradients) for one in (with_copies, without))
    carry = without.init(PARAMS)
    for step, same in ((1, True), (2, False), (49, False), (50, True)):
        (grads, sums, _), (expected, _, _) = (
            run(PARAMS, BATCH, KEY, step, carry),
            plain(PARAMS, BATCH, KEY, step, carry),
        )
        assert (tiny.worst(grads, expected, 0.1) < 1e-5) == same
        assert (float(sums.others["loss_corrupted"].weight) == 0) == same


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"share": 1.2}, "must lie in [0, 1]"),
        ({"share": 0.1, "candidates": 4}, "goes with --corruption.kind gradient"),
        ({"share": 0.1, "weight": 0.5}, "goes with --corruption.copies above 0"),
        ({"start": 0.5, "stop": 0.5}, "in order"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(UserError, match="--corruption") as refused:
        CorruptionConfig(**settings)
    assert said in str(refused.value)


def test_no_copies_beside_what_alters_the_main_pass():
    with pytest.raises(UserError, match="corrupts in place"):
        config({"method": "pgd"}, share=0.1, copies=0.5)
