"""Frozen weights in 8 and 4 bits."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.model import quantised, weights
from chinchilla_jax.model.linear import dense
from tests import tiny


def draw(*shape, seed=0, scale=0.3):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def low_rank(kernel=None, dropout=0.0):
    kernel = draw(2, 6, 4, 5) if kernel is None else kernel
    return weights.LowRank(kernel, draw(2, 6, 3, seed=1), draw(2, 3, 4, 5, seed=2), None, 1.5, dropout)


def layer_of(w, i=1):
    return jax.tree.map(lambda leaf: leaf[i], w)


def test_a_low_rank_weight_on_eight_bits():
    w = low_rank(quantised.Int8.of(draw(2, 6, 4, 5), range(1, 2)))
    x = draw(7, 6, seed=3)
    expected = dense(x, layer_of(dataclasses.replace(w, kernel=w.kernel.merge())), "reference")
    np.testing.assert_allclose(dense(x, layer_of(w), "reference"), expected, atol=1e-6)
    slope = jax.grad(lambda x, w: jnp.sum(jnp.sin(dense(x, w, "reference"))))
    np.testing.assert_allclose(slope(x, layer_of(w)), slope(x, layer_of(w).merge()), atol=1e-5)
    assert w.kernel.q.dtype == jnp.int8 and w.astype(jnp.bfloat16).kernel.q.dtype == jnp.int8


def test_int4_wants_groups_of_32():
    with pytest.raises(UserError, match="multiples of 32"):
        recipe(tiny.MODERN, TuneConfig(method="lora", weights="int4")).freeze(tiny.spiced(tiny.MODERN))


def int4_by_hand(w_IO: np.ndarray) -> np.ndarray:
    """Every 32 inputs of an output share a bfloat16 scale that takes the largest weight to -8; 4 bits from there."""
    groups = w_IO.reshape(-1, 32, w_IO.shape[-1])
    largest = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)
    scale = np.float32(jnp.asarray(largest / -8, jnp.bfloat16))
    q = np.clip(np.rint(groups / np.where(scale == 0, 1, scale)), -8, 7)
    return (q * scale).reshape(w_IO.shape)


@pytest.mark.parametrize("shape, inputs", [((2, 64, 5), range(1, 2)), ((2, 4, 16, 5), range(1, 3))])
def test_int4_is_the_nearest_of_sixteen_steps_by_hand(shape, inputs):
    """Of stacked kernels, and of the projection out of attention, which contracts two dimensions."""
    w = np.array(draw(*shape, seed=9))
    w[..., 0] = 0  # a group of nothing but zeros has the scale 0
    node = quantised.Int4.of(jnp.asarray(w), inputs)
    size = math.prod(shape[i] for i in inputs)
    lead = shape[: inputs.start]
    flat = w.reshape(-1, size, math.prod(shape) // math.prod(lead) // size)
    expected = np.stack([int4_by_hand(layer) for layer in flat]).reshape(shape)
    np.testing.assert_array_equal(node.merge(), expected)
    assert node.shape == shape and node.q.dtype == jnp.uint8
    assert node.q.nbytes + node.scale.nbytes == w.size * (1 / 2 + 2 / 32)


@pytest.mark.parametrize("kind", [quantised.Int8, quantised.Int4])
def test_rows_of_a_table_are_rows_of_what_it_amounts_to(kind):
    table = draw(9, 64, seed=8)
    node, tokens = kind.of(table, range(1, 2)), jnp.array([[0, 8], [3, 3]])
    np.testing.assert_array_equal(node.rows(tokens), node.merge()[tokens])
    assert node.shape == (9, 64) and np.abs(node.merge() - table).max() < 0.15
    if kind is quantised.Int8:  # a scale a row: half a step of it, and bfloat16's rounding of the scale
        most = np.abs(table).max(1, keepdims=True) / 127
        assert (np.abs(node.merge() - table) <= 1.01 * most).all()
