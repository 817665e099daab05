"""Masks against sorting and brute force, ERK against its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.optim import masks
from tests import tiny

keep_largest = tiny.jit(masks.keep_largest, static_argnames="axes")
n_m = tiny.jit(masks.n_m, static_argnums=(1, 2, 3))


def draw(shape, seed=0, decimals=None):
    x = np.abs(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)
    return x if decimals is None else x.round(decimals)


def largest(x, count):
    """The mask of the `count` largest by a stable sort."""
    mask = np.zeros(x.size, bool)
    mask[np.argsort(-x.ravel(), kind="stable")[:count]] = True
    return mask.reshape(x.shape)


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["distinct", "ties", "mostly_ties"])
def test_bisection_is_a_stable_sort(decimals):
    x = draw((3, 9, 7), decimals=decimals)
    x[0, 0, :3] = 0.0, 1e-40, 3e38  # a denormal, and nearly the largest number
    for count in (0, 1, 31, 62, 63):
        found = np.asarray(keep_largest(x, count, axes=(1, 2)))
        np.testing.assert_array_equal(found, [largest(layer, count) for layer in x])
    together = tiny.jit(masks.keep_largest_of_all)([x, x[:, :4]], 70)
    flat = largest(np.concatenate([x.ravel(), x[:, :4].ravel()]), 70)
    np.testing.assert_array_equal(np.concatenate([one.ravel() for one in together]), flat)


def test_counts_may_differ_by_layer_and_along_other_axes():
    x = draw((2, 6, 5), decimals=1)
    found = np.asarray(keep_largest(x, jnp.array([4, 9]).reshape(2, 1, 1), axes=(1, 2)))
    np.testing.assert_array_equal(found, [largest(x[0], 4), largest(x[1], 9)])
    by_output = np.asarray(keep_largest(x, 2, axes=(1,)))
    for n, j in itertools.product(range(2), range(5)):
        np.testing.assert_array_equal(by_output[n, :, j], largest(x[n, :, j], 2))


def test_what_is_not_allowed_is_not_kept():
    x, allowed = draw((40,)), np.arange(40) % 3 == 0
    found = np.asarray(keep_largest(x, 5, allowed=allowed))
    np.testing.assert_array_equal(found, largest(np.where(allowed, x, -1), 5))
    np.testing.assert_array_equal(keep_largest(x, 30, allowed=allowed), allowed)


@pytest.mark.parametrize("spec", [(None, "x", None), (None, None, "x"), ("x",)])
def test_the_mask_does_not_depend_on_the_mesh(spec):
    x = draw((8, 16, 24), decimals=2)
    placed = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec(*spec)))
    program = jax.jit(lambda x: (masks.keep_largest(x, 99, axes=(1, 2)), masks.n_m(x, 2, 4, 1)))
    jax.tree.map(np.testing.assert_array_equal, program(placed), program(x))
    text = program.lower(placed).compile().as_text()
    assert "f32[8,16,24]" not in [line.split("=")[1].split("{")[0].strip() for line in text.splitlines()
                                  if "all-gather(" in line]  # fmt: skip


@pytest.mark.parametrize("n, m", [(1, 2), (2, 4), (4, 8)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_n_of_m_is_the_best_of_all_choices(n, m, axis):
    x = draw((16, 8, 8))
    found = np.moveaxis(np.asarray(n_m(x, n, m, axis)), axis, -1)
    groups = np.moveaxis(x, axis, -1).reshape(-1, m)
    choices = np.array([[i in chosen for i in range(m)] for chosen in itertools.combinations(range(m), n)])
    best = choices[np.argmax(groups @ choices.T.astype(np.float32), axis=1)]
    np.testing.assert_array_equal(found.reshape(-1, m), best)


def test_n_of_m_keeps_the_first_of_equals():
    np.testing.assert_array_equal(n_m(jnp.zeros(8), 2, 4, 0), [1, 1, 0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("density", [0.05, 0.25, 0.6, 0.95, 1.0])
def test_erk_keeps_the_density_and_the_proportions(density):
    shapes = [(10, 10), (1000, 300), (64, 64, 3), (20, 5)]
    found, sizes = np.array(masks.erk(shapes, density)), np.array([np.prod(s) for s in shapes])
    assert (found * sizes).sum() == pytest.approx(density * sizes.sum())
    assert (found <= 1).all() and (found > 0).all()
    free = found < 1
    raw = np.array([sum(s) / np.prod(s) for s in shapes])
    np.testing.assert_allclose(found[free] / raw[free], (found[free] / raw[free])[:1].repeat(free.sum()))
    if free.any():  # what was capped would have had more than 1
        assert (raw[~free] * (found[free] / raw[free])[0] >= 1).all()
