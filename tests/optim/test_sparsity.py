"""Sparsity as links: exact zeros with every optimizer, schedules by formula, proximal points by other means."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax.contrib import muon, schedule_free_adamw
from sklearn.linear_model import Lasso

from chinchilla_jax.config import OptimizerConfig, SparsityConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.optim import optimizer
from chinchilla_jax.optim.masks import erk
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.sparsity import sparsify, sparsity_report
from chinchilla_jax.optim.window import window
from tests import tiny

UP, DOWN = "blocks/mlp/up/kernel", "blocks/mlp/down/kernel"
SHAPES = {"blocks": {"mlp": {"up": {"kernel": (2, 8, 12), "bias": (2, 12)}, "down": {"kernel": (2, 12, 8)}}},
          "embed": {"table": (7, 8)}}  # fmt: skip
STEPS = 12


def draw(seed: int, kind=np.float32):
    rng = np.random.default_rng(seed)
    make = lambda shape: jnp.asarray(rng.standard_normal(shape), kind)  # noqa: E731
    return jax.tree.map(make, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def sparsity(method: str, **changes) -> SparsityConfig:
    often = {} if method in ("l1", "group_lasso") else {"every": 2}
    return SparsityConfig(method=method, **often | changes)


def run(tx, steps: int = STEPS, kind=np.float32, place=lambda w: w):
    """Parameters and states after every update, from gradients that do not know the parameters."""

    @tiny.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, seen = jax.tree.map(place, draw(0, kind)), []
    state = tx.init(params)
    for number in range(steps):
        params, state = step(params, state, draw(number + 1, kind))
        seen.append((named(params), state))
    return seen


def zeros(leaf) -> float:
    return float((np.asarray(leaf, np.float32) == 0).mean())


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


@pytest.mark.parametrize("changes", [
    {"method": "magnitude"}, {"method": "magnitude", "pattern": "2:4"}, {"method": "magnitude", "pattern": "neurons"},
    {"method": "rigl", "start": 0.0}, {"method": "set", "start": 0.0}, {"method": "n_m", "pattern": "1:4"},
    {"method": "l1", "strength": 3.0}, {"method": "group_lasso", "pattern": "block:4x4", "strength": 2.5},
], ids=lambda c: "-".join(map(str, c.values())))  # fmt: skip
def test_bfloat16_and_the_average_land_on_exact_zeros(changes):
    """Every method: the same zeros in parameters and average, none of them where the mask says otherwise."""
    cfg = OptimizerConfig(ema_decay=0.5, weight_decay=0.3)
    tx = optimizer.build(cfg, lambda step: 0.05, sparsity(**changes), steps=STEPS)
    for params, state in run(tx, kind=jnp.bfloat16)[-3:]:
        average = named(optimizer.averaged(state))
        for path in (UP, DOWN):
            assert params[path].dtype == jnp.bfloat16
            gone = np.asarray(params[path], np.float32) == 0
            assert 0.1 < gone.mean() < 1
            np.testing.assert_array_equal(np.asarray(average[path], np.float32) == 0, gone)
        masks = getattr(state[0], "masks", {})
        assert all(not np.asarray(params[path], np.float32)[~np.asarray(mask)].any() for path, mask in masks.items())
        assert zeros(params["embed/table"]) == zeros(params["blocks/mlp/up/bias"]) == 0


def test_a_float32_parameter_with_bfloat16_updates_cancels_exactly():
    (tx,) = sparsify([optax.sgd(0.1)], sparsity("magnitude", start=0.0, stop=0.0), lambda step: 0.1, STEPS)
    params, grads = draw(0), draw(1, jnp.bfloat16)
    updates, state = tx.update(grads, tx.init(params), params)
    landed = named(optax.apply_updates(params, updates))
    np.testing.assert_array_equal(np.asarray(landed[UP])[~np.asarray(state.masks[UP])], 0)
    assert zeros(landed[UP]) == 0.75


def test_off_is_the_plain_chain():
    cfg, rate = OptimizerConfig(ema_decay=0.9), lambda step: 0.01
    links = [optax.clip_by_global_norm(1.0), optimizer.scale_by_adam(cfg)]
    links += [optax.add_decayed_weights(0.1, mask=lambda p: optimizer.by_path(p, optimizer.DECAY_RULES))]
    plain = optax.chain(*links, optax.scale_by_learning_rate(rate), optimizer.average_parameters(0.9))
    programs = []
    for tx in (plain, optimizer.build(cfg, rate), optimizer.build(cfg, rate, SparsityConfig(), steps=9, seed=3)):
        state = tx.init(draw(0))
        programs.append(jax.jit(tx.update).lower(draw(1), state, draw(0)).as_text())
    assert programs[0] == programs[1] == programs[2]


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


def test_straight_through_keeps_dense_weights_and_shows_masked_ones():
    """SGD by hand in float64: W moves by the gradient at E * W and decay (1 - E) W; E holds the 2 largest of 4."""
    decay, rate = 0.1, 0.05
    cfg = sparsity("n_m", pattern="2:4", start=0.0, stop=0.7, every=3, decay=decay)
    (tx,) = sparsify([optax.sgd(rate)], cfg, lambda s: rate, STEPS)
    dense = np.asarray(named(draw(0))[UP], np.float64)
    for count, (params, state) in enumerate(run(tx)):
        if count in (0, 3, 6, 8):  # the window ends with update round(0.7 * 12)
            groups = np.abs(dense).reshape(2, 2, 4, 12)
            keep = (np.argsort(np.argsort(-groups, axis=2), axis=2) < 2).reshape(dense.shape)
        dense = dense - rate * (np.asarray(named(draw(count + 1))[UP]) + decay * ~keep * dense)
        np.testing.assert_array_equal(state.masks[UP], keep)
        np.testing.assert_allclose(state.dense[UP], dense, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(params[UP]) != 0, keep)
        np.testing.assert_allclose(params[UP], keep * dense, rtol=1e-5, atol=1e-6)


def descend(tx, gradient, start, steps):
    """`steps` of an optimizer on the one matrix `start`, compiled as a loop."""
    tree = lambda w: {"blocks": {"mlp": {"up": {"kernel": w}}}}  # noqa: E731

    def body(_, carry):
        params, state = carry
        w = named(params)[UP]
        updates, state = tx.update(tree(gradient(w)), state, params)
        return optax.apply_updates(params, updates), state

    params = tree(jnp.asarray(start, jnp.float32))
    return np.asarray(named(jax.jit(partial(jax.lax.fori_loop, 0, steps, body))((params, tx.init(params)))[0])[UP])


def test_l1_finds_the_lasso_and_its_support():
    """argmin |X w - y|^2 / (2 n) + strength |w|_1, as scikit-learn finds it."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 24)) @ (np.eye(24) + 0.2 * rng.standard_normal((24, 24)))
    y = X[:, :5] @ np.array([3.0, -2, 1.5, 1, -1]) + 0.5 * rng.standard_normal(60)
    strength, n, steps = 0.4, 60, 6000
    expected = Lasso(strength, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_
    rate = 1 / np.linalg.norm(X.T @ X / n, 2)
    cfg = sparsity("l1", strength=strength, start=0.0, stop=1.0)
    tx = optax.chain(*sparsify([optax.sgd(rate)], cfg, lambda s: rate, steps))
    X32, y32 = jnp.asarray(X, jnp.float32), jnp.asarray(y, jnp.float32)
    found = descend(tx, lambda w: (X32.T @ (X32 @ w.ravel() - y32) / n).reshape(w.shape), np.zeros((1, 4, 6)), steps)
    np.testing.assert_allclose(found.ravel(), expected, atol=2e-5)
    np.testing.assert_array_equal(found.ravel() != 0, expected != 0)
    assert 4 < (expected != 0).sum() < 20


@pytest.mark.parametrize("pattern, axis", [("rows", 2), ("columns", 1)])
def test_group_lasso_is_its_closed_form_on_an_orthonormal_design(pattern, axis):
    """argmin |w - a|^2 / 2 + strength sum_g sqrt(n_g) |w_g| = a_g max(1 - strength sqrt(n_g) / |a_g|, 0)."""
    a = np.random.default_rng(4).standard_normal((1, 6, 5)) * np.outer(np.linspace(0.1, 2, 6), np.linspace(0.1, 2, 5))
    strength, steps = 0.5, 400
    norm = np.sqrt((a**2).sum(axis, keepdims=True))
    expected = a * np.maximum(1 - strength * np.sqrt(a.shape[axis]) / norm, 0)
    cfg = sparsity("group_lasso", pattern=pattern, strength=strength, start=0.0, stop=1.0)
    tx = optax.chain(*sparsify([optax.sgd(0.3)], cfg, lambda s: 0.3, steps))
    found = descend(tx, lambda w: w - jnp.asarray(a, jnp.float32), a, steps)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found != 0, expected != 0)
    assert 0 < (expected == 0).mean() < 1


def test_after_the_window_zeros_stay_and_the_rest_is_free():
    cfg = sparsity("l1", strength=5.0, start=0.0, stop=0.5)
    seen = run(optax.chain(*sparsify([optax.sgd(0.01)], cfg, lambda s: 0.01, STEPS)))
    assert zeros(seen[5][0][UP]) < zeros(seen[6][0][UP]) == zeros(seen[-1][0][UP]) < 1, "shrunk up to update 6"
    moved = np.asarray(seen[-2][0][UP]) - 0.01 * np.asarray(named(draw(STEPS))[UP])
    np.testing.assert_allclose(seen[-1][0][UP], np.where(np.asarray(seen[6][0][UP]) == 0, 0, moved), rtol=1e-6)


def test_extra_arguments_arrive():
    seen = []

    def update(updates, state, params, *, value):
        seen.append(value)
        return updates, state

    link = optax.GradientTransformationExtraArgs(lambda params: (), update)
    (tx,) = sparsify([link], sparsity("magnitude"), lambda step: 0.01, STEPS)
    tx.update(draw(1), tx.init(draw(0)), draw(0), value=7)
    assert seen == [7]


@pytest.mark.parametrize("start, stop, steps, expected", [
    (0.25, 0.75, 100, (25, 75)), (0.0, 1.0, 10, (0, 9)), (0.5, 0.5, 3, (2, 2)), (0.0, 0.0, 1, (0, 0)),
])  # fmt: skip
def test_the_window(start, stop, steps, expected):
    when = window(SparsityConfig(start=start, stop=stop), steps)
    assert (when.first, when.last) == expected
    assert float(when.share(when.last)) == 1 and bool(when.due(when.last))
    assert bool(when.open(when.last)) and not bool(when.open(when.last + 1))


@pytest.mark.parametrize("steps, expected", [(2442, 100), (120, 6), (8, 1), (1, 1)])
def test_short_runs_change_their_masks_often_enough(steps, expected):
    assert window(SparsityConfig(), steps).every == expected
    assert window(SparsityConfig(every=7), steps).every == 7


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


@pytest.mark.parametrize("settings, said", [
    ({"method": "l1", "strength": 1.0, "target": 0.9}, "target 0.9 is nothing that l1 with unstructured looks at"),
    ({"method": "n_m", "pattern": "2:4", "target": 0.7}, "--sparsity.target 0.7 is nothing that n_m with 2:4"),
    ({"method": "magnitude", "pattern": "2:4", "target": 0.7}, "--sparsity.target 0.7"),
    ({"method": "magnitude", "strength": 1.0}, "--sparsity.strength 1.0"),
    ({"method": "magnitude", "drop": 0.5}, "--sparsity.drop 0.5"),
    ({"method": "l1", "strength": 1.0, "every": 5}, "--sparsity.every 5"),
])  # fmt: skip
def test_a_setting_that_a_method_does_not_look_at_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        SparsityConfig(**settings)


def test_a_target_that_the_pattern_says_itself_may_be_given():
    assert SparsityConfig(method="n_m", pattern="2:4", target=0.5).pattern == "2:4"
    assert SparsityConfig(method="n_m", pattern="1:4").target == 0.75, "the default is no contradiction"


@pytest.mark.parametrize("changes, message", [
    ({"include": ("bananas",)}, "'bananas' matches no parameter"),
    ({"exclude": ("bananas",)}, "'bananas' matches no parameter"),
    ({"pattern": "block:5x4"}, f"block:5x4 does not divide {DOWN}, which is 12x8"),
    ({"include": ("bias",)}, "blocks/mlp/up/bias is no matrix"),
    ({"pattern": "rows", "distribution": "global"}, "cannot compare the rows of matrices of several shapes"),
    ({"pattern": "heads"}, "lies in attention"),
    ({"pattern": "block:12x8", "include": (DOWN,)}, "finds one unit a layer in blocks/mlp/down/kernel"),
])  # fmt: skip
def test_what_does_not_fit_is_said_by_init(changes, message):
    (tx,) = sparsify([optax.sgd(0.1)], sparsity("magnitude", **changes), lambda step: 0.1, STEPS)
    with pytest.raises(UserError, match=message):
        tx.init(draw(0))


def test_the_report_counts():
    params = draw(0)
    up = np.array(params["blocks"]["mlp"]["up"]["kernel"])
    up[0].ravel()[:72] = 0
    up[1].ravel()[:24] = 0
    params["blocks"]["mlp"]["up"]["kernel"] = jnp.asarray(up)
    found = sparsity_report(params)
    assert (found["zeros"], found["weights"], found["density"]) == (96, 384, 0.75)
    assert found["densities"] == {UP: [0.25, 0.75], DOWN: [1.0, 1.0]}
    table = params["embed"]["table"]
    whole = sparsity_report(params | {"embed": {"table": table.at[0].set(0)}})
    assert whole["zeros"] == 96 + table[0].size and whole["weights"] == 384 + table.size
    assert found["dense_bytes"] == 384 * 2
    assert found["packed_bytes"] == 192 * 2 + (96 * 16 + 192) // 8, "16 (1 - S) + 1 bits a weight where there are zeros"
