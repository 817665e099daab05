"""Representations that scale, follow a product, or stand beside the rows of a table: each against plain arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import adapted, weights
from chinchilla_jax.model.linear import dense, look_up


def draw(*shape, seed=0, scale=0.3):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def layer_of(w, i=1):
    return jax.tree.map(lambda leaf: leaf[i], w)


def products(x, w):
    """A layer's product with the node, with the layer merged, and with all layers merged."""
    layer = layer_of(w)
    return [dense(x, other, "reference") for other in (layer, layer.merge(), w.merge()[1])]


def test_scaling_of_inputs_and_of_outputs():
    kernel, x = draw(2, 6, 4, 5), draw(7, 6, seed=3)
    out = adapted.Scaled(kernel, draw(2, 4, 5, seed=1), 2)
    inward = adapted.Scaled(kernel, draw(2, 6, seed=2), 0)
    expected = np.einsum("mi,ihk,hk->mhk", x, kernel[1], out.factors[1])
    for found in products(x, out):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    expected = np.einsum("mi,i,ihk->mhk", x, inward.factors[1], kernel[1])
    for found in products(x, inward):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_bottleneck_follows_the_product_and_does_not_merge():
    kernel, x = draw(6, 5), draw(7, 6, seed=3)
    w = adapted.Bottleneck(kernel, draw(5, 2, seed=1), draw(2, seed=2), draw(2, 5, seed=4), draw(5, seed=5))
    z = np.asarray(x @ kernel)
    h = z @ w.down + w.down_shift
    expected = z + (h / (1 + np.exp(-h))) @ w.up + w.up_shift
    np.testing.assert_allclose(dense(x, w, "reference"), expected, atol=1e-6)
    with pytest.raises(UserError, match="no merged form"):
        weights.merged({"w": w})


def test_tables_with_rows_and_a_prompt():
    table, tokens = jnp.asarray(draw(9, 4)), jnp.array([[0, 8, 10], [3, 9, 3]])
    rows = adapted.Rows(table, draw(2, 4, seed=1), (3, 8))
    soft = adapted.Prompt(rows, draw(2, 4, seed=2))
    whole = np.array(table)
    whole[[3, 8]] += np.asarray(rows.rows_nD)
    np.testing.assert_allclose(weights.array(soft), whole, atol=1e-6)
    expected = np.concatenate([whole, soft.prompt_PD])[np.asarray(tokens)]
    np.testing.assert_allclose(look_up(soft, tokens), expected, atol=1e-6)
    grown = weights.LowRank(table, draw(9, 2, seed=3), draw(2, 4, seed=4), None, 1.5, 0.0)
    np.testing.assert_allclose(look_up(grown, tokens % 9), grown.merge()[tokens % 9], atol=1e-6)
    with pytest.raises(UserError, match="no merged form"):
        weights.merged({"w": soft})
