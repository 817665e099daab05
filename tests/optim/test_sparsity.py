"""The links as a chain: every method lands on exact zeros, mistakes by message, the report's counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chinchilla_jax.config import OptimizerConfig, SparsityConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model.quantised import Int8
from chinchilla_jax.optim import optimizer
from chinchilla_jax.optim.paths import named
from chinchilla_jax.optim.sparsity import sparsify, sparsity_report
from tests.optim.matrices import DOWN, STEPS, UP, draw, run, sparsity, zeros


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


def test_what_needs_a_method_is_refused_without_one():
    """`plan --sparsity` chooses the method itself, so that it is no mistake before."""
    for name, value in (("pattern", "2:4"), ("strength", 0.3)):
        with pytest.raises(UserError, match=f"sparsity.{name}.* need a --sparsity.method"):
            sparsify([], SparsityConfig(**{name: value}), None, STEPS)


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


def test_a_model_in_few_bits_has_no_zeros_to_report():
    kernel = draw(0)["blocks"]["mlp"]["up"]["kernel"].at[0].set(0)
    found = sparsity_report({"blocks": {"mlp": {"up": {"kernel": Int8.of(kernel, range(1, 2))}}}})
    assert (found["zeros"], found["weights"], found["density"]) == (0, 0, 1.0)
