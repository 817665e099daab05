"""The one matrix product against einsum, in value and gradient; weights laid and joined for decoding; dropout."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.model import linear
from chinchilla_jax.model.transformer import table_logits
from tests import tiny


@pytest.mark.parametrize("dtype, most", [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("kernels", linear.PRODUCTS)
@pytest.mark.parametrize("shape, contract, equation", [((5, 7), 1, "abd,df->abf"), ((5, 3, 2), 1, "abd,dhk->abhk"),
                                                       ((4, 5, 3), 2, "ahd,hdf->af")])  # fmt: skip
def test_dense_is_an_einsum(kernels, shape, contract, equation, dtype, most):
    draw = np.random.default_rng(0)
    x, w = (jnp.asarray(draw.standard_normal(s), dtype).astype("float32") for s in ((6, 4, 5), shape))

    def both(product):
        return tiny.jit(jax.value_and_grad(lambda x, w: jnp.mean(jnp.sin(product(x, w))), argnums=(0, 1)))(x, w)

    def ours(x, w):
        return linear.dense(x.astype(dtype), w.astype(dtype), kernels, contract).astype("float32")

    assert tiny.worst(both(ours), both(lambda x, w: jnp.einsum(equation, x, w))) < most


def test_a_weight_laid_for_decoding_has_the_same_product():
    """With few rows and with many, and of inputs in two dimensions; other platforms keep the array."""
    draw = np.random.default_rng(1)
    for shape, contract in (((5, 3, 2), 1), ((4, 5, 3), 2)):
        w = jnp.asarray(draw.standard_normal(shape), jnp.float32)
        laid = linear.packed(w, "cpu", contract)
        assert laid.shape == shape and laid.w_PD.shape[1] == np.prod(shape[:contract])
        for rows in (1, linear.FEW_ROWS + 1):
            x = jnp.asarray(draw.standard_normal((rows, *shape[:contract])), jnp.float32)
            expected = np.tensordot(x, w, contract)
            np.testing.assert_allclose(linear.dense(x, laid, "cpu", contract), expected, atol=1e-5)
        assert linear.packed(w, "tpu", contract) is w


@pytest.mark.parametrize("rows", [1, 2, linear.FEW_ROWS + 1])
def test_bfloat16_laid_for_decoding_is_multiplied_as_it_is(rows):
    """Where a CPU has units for it: XLA would make float32 of the whole weight at every product otherwise."""
    D, P = 64, 96
    whole = rf"f32\[(1,)?({D},{P}|{P},{D})\]"

    def text(product, *args):
        return tiny.jit(product).lower(*args).compile().as_text()

    x, w = jnp.ones((2, D), jnp.bfloat16), jnp.ones((P, D), jnp.bfloat16)
    bare = text(lambda w, x: jax.lax.dot_general(w, x, (((1,), (1,)), ((), ()))), w, x)
    if re.search(whole, bare):
        pytest.skip("XLA multiplies no bfloat16 on this CPU")
    laid, x = linear.Packed(w, (D, P)), jnp.ones((rows, D), jnp.bfloat16)
    assert not re.search(whole, text(lambda x, w: linear.dense(2 * x, w, "cpu"), x, laid))
    assert not re.search(whole, text(lambda x, w: table_logits(w, 2 * x), x, laid))
    draw = np.random.default_rng(3)
    x, w = (jnp.asarray(draw.standard_normal(shape), jnp.bfloat16) for shape in (x.shape, w.shape))
    expected = np.float32(x) @ np.float32(w).T
    laid = linear.Packed(w, (D, P))
    np.testing.assert_allclose(np.float32(linear.dense(x, laid, "cpu")), expected, rtol=0.01, atol=0.1)
    np.testing.assert_allclose(table_logits(laid, x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(linear.look_up(laid, np.array([[3, 0]])), w[np.array([[3, 0]])])


def test_weights_joined_for_decoding_come_apart_with_their_biases():
    draw = np.random.default_rng(2)
    ws = [jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in ((5, 4, 2), (5, 2, 2), (5, 7))]
    biases = [None, jnp.ones((2, 2)), None]
    x = jnp.asarray(draw.standard_normal((3, 5)), jnp.float32)
    one = linear.joined([linear.packed(w, "cpu") for w in ws])
    layers = [linear.Affine(w, bias) for w, bias in zip(one, biases)]
    for found, w, bias in zip(linear.side_by_side(x, layers, "cpu"), ws, biases):
        expected = np.tensordot(x, w, 1) + (0 if bias is None else 1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [w.whole is None for w in one] == [False, True, True], "the product is kept once"
    assert one[0].astype(jnp.bfloat16).whole.w_PD.dtype == jnp.bfloat16 and one[1].astype(jnp.bfloat16).whole is None


def test_dropout_keeps_the_mean_and_is_nothing_without_a_key():
    x = jnp.ones((200, 300))
    key = jax.random.key(0)
    assert linear.drop(x, 0.3, None) is x
    dropped = linear.drop(x, 0.3, key)
    assert np.allclose(dropped[dropped > 0], 1 / 0.7)
    assert dropped.mean() == pytest.approx(1, abs=5 * np.sqrt(0.3 / 0.7 / x.size))
    assert (dropped != linear.drop(x, 0.3, jax.random.key(1))).mean() > 0.3
