"""Masks in the optimizer's state: exact zeros with every optimizer, schedules by formula, growth by sorting."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax.contrib import muon, schedule_free_adamw

from chinchilla_jax.optim.masks import erk
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.sparsity import sparsify
from tests import tiny
from tests.optim.matrices import DOWN, STEPS, UP, draw, run, sparsity, zeros

OPTIMIZERS = {
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "lion": optax.lion(0.01),
    "adafactor": optax.adafactor(0.01),
    "adafactor_factored": optax.adafactor(0.01, min_dim_size_to_factor=4),
    "sgd_momentum": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "muon": muon(0.01),
    "schedule_free": schedule_free_adamw(0.01),
    "multi_steps": optax.MultiSteps(optax.adamw(0.01), 2).gradient_transformation(),
    "masked": optax.masked(optax.adamw(0.01), {"blocks": True, "embed": False}),
    "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=0.01),
}


@pytest.mark.parametrize("method", ["magnitude", "rigl"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_and_their_moments_are_zero_with_every_optimizer(name, method):
    (tx,) = sparsify([OPTIMIZERS[name]], sparsity(method), lambda step: 0.01, STEPS)
    checked, moved, seen = 0, False, run(tx)
    for (_, before), (params, state) in itertools.pairwise(seen):
        stayed = {path: mask & before.masks[path] for path, mask in state.masks.items()}
        moved |= any((stayed[path] != before.masks[path]).any() for path in stayed)
        outside = map_followers(lambda x, m: np.asarray(x)[~np.asarray(m)], (params, state.inner), stayed, lambda x: ())
        found = jax.tree.leaves(outside)
        assert not any(leaf.any() for leaf in found), "a weight, or a moment of what was dropped or grown"
        checked += sum(leaf.size for leaf in found) - sum((~np.asarray(mask)).sum() for mask in stayed.values())
    assert moved and all(zeros(params[path]) >= 0.75 for path in (UP, DOWN))
    assert name == "adafactor_factored" or checked, "no moment was found by its path"


def test_a_float32_parameter_with_bfloat16_updates_cancels_exactly():
    (tx,) = sparsify([optax.sgd(0.1)], sparsity("magnitude", start=0.0, stop=0.0), lambda step: 0.1, STEPS)
    params, grads = draw(0), draw(1, jnp.bfloat16)
    updates, state = tx.update(grads, tx.init(params), params)
    landed = named(optax.apply_updates(params, updates))
    np.testing.assert_array_equal(np.asarray(landed[UP])[~np.asarray(state.masks[UP])], 0)
    assert zeros(landed[UP]) == 0.75


@pytest.mark.parametrize("every", [1, 3])
def test_the_cubic_schedule_and_when_it_acts(every):
    steps, target = 20, 0.6
    (tx,) = sparsify([optax.sgd(0.01)], sparsity("magnitude", target=target, every=every), lambda s: 0.01, steps)
    first, last, current = 5, 15, 0.0
    for count, (params, _) in enumerate(run(tx, steps)):
        if first <= count <= last and ((count - first) % every == 0 or count == last):
            current = target * (1 - (1 - (count - first) / (last - first)) ** 3)
        for path in (UP, DOWN):  # 96 weights a layer
            found = (np.asarray(params[path]) == 0).reshape(2, -1).sum(1)
            assert abs(found - 96 * current).max() <= 1, (count, found / 96, current)


def test_what_is_pruned_is_the_smallest_of_each_layer_and_stays():
    (tx,) = sparsify([optax.sgd(0.001)], sparsity("magnitude", start=0.5, stop=0.5), lambda s: 0.001, 10)
    seen = run(tx, 10)
    before, after = np.asarray(seen[4][0][UP]), np.asarray(seen[5][0][UP])
    for layer in range(2):
        cut = np.sort(np.abs(before[layer]).ravel())[72]
        np.testing.assert_array_equal(after[layer] != 0, np.abs(before[layer]) >= cut)
    np.testing.assert_array_equal(np.asarray(seen[-1][0][UP]) != 0, after != 0)


@pytest.mark.parametrize("distribution", ["uniform", "erk", "global"])
def test_the_target_is_shared_as_asked(distribution):
    shapes = {"blocks": {"mlp": {"up": {"kernel": (1, 8, 40)}, "down": {"kernel": (1, 40, 8)}},
                         "attention": {"query": {"kernel": (1, 8, 2, 4)}}}}  # fmt: skip
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda s: rng.standard_normal(s, np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple))
    cfg = sparsity("magnitude", start=0.0, stop=0.0, target=0.5, distribution=distribution)
    (tx,) = sparsify([optax.sgd(0.0)], cfg, lambda s: 0.0, 5)
    masks = tx.update(params, tx.init(params), params)[1].masks
    density = {path: float(np.mean(mask)) for path, mask in masks.items()}
    if distribution == "global":
        scaled = {path: np.abs(w) / np.linalg.norm(w) for path, w in named(params).items()}
        kept = np.concatenate([np.asarray(masks[path]).ravel() for path in scaled])
        score = np.concatenate([w.ravel() for w in scaled.values()])
        assert kept.sum() == 352 and score[kept].min() > 0.99 * score[~kept].max()
    elif distribution == "uniform":
        assert set(density.values()) == {0.5}
    else:
        expected = dict(zip(masks, erk([(8, 8) if "query" in path else (8, 40) for path in masks], 0.5)))
        assert density == pytest.approx(expected, abs=0.51 / 64)


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest():
    (tx,) = sparsify([optax.sgd(0.01)], sparsity("rigl", start=0.0, target=0.5), lambda s: 0.01, STEPS)
    seen = run(tx)
    count, share = 2, 0.3 / 2 * (1 + np.cos(np.pi * 2 / 9))
    (before, old), (after, new) = seen[count - 1], seen[count]
    for path in (UP, DOWN):
        gradient = np.asarray(named(draw(count + 1))[path])
        for layer in range(2):
            w, m = np.asarray(before[path])[layer].ravel(), np.asarray(old.masks[path])[layer].ravel()
            g = np.abs(gradient[layer]).ravel()
            moving = int(share * m.sum())
            dropped = np.flatnonzero(m)[np.argsort(np.abs(w[m]))[:moving]]
            grown = np.flatnonzero(~m)[np.argsort(-g[~m])[:moving]]
            expected = m.copy()
            expected[dropped], expected[grown] = False, True
            found = np.asarray(new.masks[path])[layer].ravel()
            np.testing.assert_array_equal(found, expected)
            assert moving > 5 and not np.asarray(after[path])[layer].ravel()[grown].any(), "what grows starts from 0"
    assert all(np.mean(mask) == 0.5 for _, state in seen for mask in state.masks.values())
    np.testing.assert_array_equal(seen[9][1].masks[UP], seen[-1][1].masks[UP])


@pytest.mark.parametrize("changes", [
    {"method": "magnitude", "distribution": "global", "pattern": "block:4x4"}, {"method": "magnitude"},
    {"method": "set", "start": 0.0}, {"method": "n_m", "pattern": "2:4"},
], ids=["global_blocks", "magnitude", "set", "n_m"])  # fmt: skip
def test_masks_do_not_depend_on_where_the_weights_lie(changes):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    (tx,) = sparsify([optax.adam(0.01)], sparsity(**changes), lambda step: 0.01, STEPS)
    masks = []
    for spec in (None, PartitionSpec(None, "x", "y")):
        place = lambda w, spec=spec: jax.device_put(w, NamedSharding(mesh, spec)) if spec and w.ndim == 3 else w  # noqa: E731
        seen = run(tx, 8, place=place)
        masks.append([named(state.masks) for _, state in seen])
    for one, eight in zip(*masks):
        jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert not all(np.asarray(mask).all() for mask in one.values())


def test_set_grows_at_random_and_the_seed_decides():
    masks = []
    for seed in (0, 0, 1):
        (tx,) = sparsify([optax.sgd(0.01)], sparsity("set", start=0.0, target=0.5), lambda s: 0.01, STEPS, seed)
        seen = run(tx, 3)
        masks.append(np.asarray(seen[-1][1].masks[UP]))
        grown = masks[-1] & ~np.asarray(seen[1][1].masks[UP])
        assert grown.sum() == 2 * int(0.3 / 2 * (1 + np.cos(np.pi * 2 / 9)) * 48)
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()


def test_extra_arguments_arrive():
    seen = []

    def update(updates, state, params, *, value):
        seen.append(value)
        return updates, state

    link = optax.GradientTransformationExtraArgs(lambda params: (), update)
    (tx,) = sparsify([link], sparsity("magnitude"), lambda step: 0.01, STEPS)
    tx.update(draw(1), tx.init(draw(0)), draw(0), value=7)
    assert seen == [7]


def test_a_longer_run_brings_nothing_back():
    """A run that had ended goes on: the schedule of the longer one asks for less zeros than there are."""
    short, long = (
        sparsify([optax.sgd(0.1)], sparsity("magnitude"), lambda step: 0.1, n)[0] for n in (STEPS, 9 * STEPS)
    )
    params, state = draw(0), short.init(draw(0))
    for number, tx in enumerate([short] * STEPS + [long] * 3 * STEPS):
        before = state.masks
        updates, state = tiny.jit(tx.update)(draw(number), state, params)
        params = optax.apply_updates(params, updates)
        assert all(not (state.masks[name] & ~before[name]).any() for name in before)
    assert zeros(named(params)[UP]) == 0.75


@pytest.mark.parametrize("pattern, most", [("neurons", 11), ("rows", 7)])
def test_a_layer_keeps_a_unit_whatever_the_target(pattern, most):
    cfg = sparsity("magnitude", pattern=pattern, target=0.99, start=0.0, stop=0.0, include=(UP, DOWN))
    (tx,) = sparsify([optax.sgd(0.1)], cfg, lambda step: 0.1, STEPS)
    _, state = tx.update(draw(1), tx.init(draw(0)), draw(0))
    gone = ~np.asarray(state.masks[UP]).reshape(2, 8, 12)
    assert (gone.all(1) if pattern == "neurons" else gone.all(2)).sum(-1).tolist() == [most, most]
