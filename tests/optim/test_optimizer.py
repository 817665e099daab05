"""The chain against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chinchilla_jax.config import OptimizerConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.optim import optimizer
from chinchilla_jax.optim.schedules import schedule
from tests import tiny

SHAPES = {
    "a": {"kernel": (3, 4), "bias": (4,), "content_bias": (2,)},
    "embed": {"table": (5, 3)},
    "norm": {"scale": (3,)},
}
DECAYED = {"kernel", "table"}


def draw(seed: int, size: float = 1.0):
    rng = np.random.default_rng(seed)
    make = lambda shape: (size * rng.standard_normal(shape)).astype(np.float32)  # noqa: E731
    return jax.tree.map(make, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def numpy_adamw(cfg, rates, params, gradients):
    """clip -> moments -> bias correction -> decay -> step, and the running average; float64, leaf by leaf."""
    norms = [np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in jax.tree.leaves(grads))) for grads in gradients]
    factors = [min(1, cfg.clip_norm / norm) if cfg.clip_norm else 1 for norm in norms]
    finals, averages = {}, {}
    for path, p in jax.tree_util.tree_flatten_with_path(params)[0]:
        a, b = (key.key for key in path)
        p, average = p.astype(np.float64), p.astype(np.float64)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, (rate, factor, grads) in enumerate(zip(rates, factors, gradients), 1):
            g = factor * grads[a][b].astype(np.float64)
            m, v = cfg.b1 * m + (1 - cfg.b1) * g, cfg.b2 * v + (1 - cfg.b2) * g**2
            adam = m / (1 - cfg.b1**t) / (np.sqrt(v / (1 - cfg.b2**t)) + cfg.eps)
            p = p - rate * (adam + cfg.weight_decay * p * (b in DECAYED))
            average = cfg.ema_decay * average + (1 - cfg.ema_decay) * p
        finals.setdefault(a, {})[b], averages.setdefault(a, {})[b] = p, average
    return finals, averages


@pytest.mark.parametrize("clip_norm", [0.0, 2.0])
def test_the_chain_is_clipped_adamw_with_masked_decay_and_an_average(clip_norm):
    cfg = OptimizerConfig(peak_lr=0.03, weight_decay=0.3, clip_norm=clip_norm, ema_decay=0.8, warmup_steps=2)
    rate = schedule(cfg, 6)
    chain, params = optimizer.build(cfg, rate), draw(0)
    gradients = [draw(step, size) for step, size in enumerate([1.0, 0.1, 5.0, 0.01, 1.0, 1.0], 1)]

    @jax.jit
    def step(params, state, grads):
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    ours, state = params, chain.init(params)
    for grads in gradients:
        ours, state = step(ours, state, grads)
    theirs, average = numpy_adamw(cfg, [float(rate(n)) for n in range(6)], params, gradients)
    assert tiny.worst(ours, theirs) < 1e-5
    assert tiny.worst(optimizer.averaged(state), average) < 1e-5


def test_no_average_is_kept_unasked():
    params = draw(0)
    assert optimizer.averaged(optimizer.build(OptimizerConfig(), lambda step: 0.1).init(params)) is None


@pytest.mark.parametrize("cfg", [tiny.CHINCHILLA, tiny.MODERN], ids=tiny.FAMILIES)
def test_matrices_decay_and_vectors_do_not(cfg):
    params = transformer.abstract(cfg)
    masks = jax.tree_util.tree_flatten_with_path(optimizer.by_path(params, optimizer.DECAY_RULES))[0]
    for path, decays in masks:
        assert decays == (path[-1].key in DECAYED)


@pytest.mark.parametrize("rules", [((r"/kernel$", 1),), ((r"/kernel$", 1), (r"/", 2))], ids=["none", "two"])
def test_a_leaf_without_exactly_one_rule_is_named(rules):
    with pytest.raises(UserError, match=r"a/bias is matched by 0|a/kernel is matched by 2"):
        optimizer.by_path({"a": {"kernel": jnp.zeros(2), **({"bias": jnp.zeros(2)} if len(rules) == 1 else {})}}, rules)


def test_the_average_passes_updates_through():
    link = optimizer.average_parameters(0.5)
    params, updates = {"w": jnp.ones(3)}, {"w": jnp.full(3, 2.0)}
    passed, state = link.update(updates, link.init(params), params)
    assert passed is updates
    np.testing.assert_array_equal(state.average["w"], np.full(3, 2.0))
