"""Weights that multiply: every node against the array that it amounts to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.model import transformer, weights
from chinchilla_jax.model.linear import dense
from tests import tiny


def draw(*shape, seed=0, scale=0.3):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def low_rank(kernel=None, dropout=0.0):
    kernel = draw(2, 6, 4, 5) if kernel is None else kernel
    return weights.LowRank(kernel, draw(2, 6, 3, seed=1), draw(2, 3, 4, 5, seed=2), None, 1.5, dropout)


def test_a_low_rank_weight_multiplies_as_its_merge_does():
    w, x = low_rank(), draw(7, 6, seed=3)
    layer = jax.tree.map(lambda leaf: leaf[1], w)
    expected = np.einsum("mi,ihk->mhk", x, w.kernel[1] + 1.5 * np.einsum("ir,rhk->ihk", w.a[1], w.b[1]))
    np.testing.assert_allclose(dense(x, layer, "reference"), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(dense(x, layer.merge(), "reference"), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(w.merge()[1], layer.merge())
    assert w.shape == (2, 6, 4, 5) and w.ndim == 4 and w.dtype == jnp.float32


def layer_of(w, i=1):
    return jax.tree.map(lambda leaf: leaf[i], w)


def test_a_decomposed_weight_is_a_direction_and_a_magnitude():
    plain, m = low_rank(), jnp.abs(draw(2, 4, 5, seed=4)) + 0.5
    w, x = weights.Decomposed(plain.kernel, plain.a, plain.b, None, 1.5, 0.0, m), draw(7, 6, seed=3)
    v = np.asarray(plain.kernel[1] + 1.5 * np.einsum("ir,rhk->ihk", plain.a[1], plain.b[1]))
    expected = np.asarray(m[1]) * v / np.sqrt((v**2).sum(0))
    np.testing.assert_allclose(layer_of(w).merge(), expected, rtol=1e-5)
    np.testing.assert_allclose(w.merge()[1], expected, rtol=1e-5)
    np.testing.assert_allclose(dense(x, layer_of(w), "reference"), np.einsum("mi,ihk->mhk", x, expected), atol=1e-5)

    def held(b):  # the norm is a constant of the gradient
        factor = np.asarray(m[1]) / np.sqrt((v**2).sum(0))
        moved = plain.kernel[1] + 1.5 * jnp.einsum("ir,rhk->ihk", plain.a[1], b)
        return jnp.sum(jnp.sin(factor * jnp.einsum("mi,ihk->mhk", x, moved)))

    def ours(b):
        return jnp.sum(jnp.sin(dense(x, dataclasses.replace(layer_of(w), b=b), "reference")))

    np.testing.assert_allclose(jax.grad(ours)(plain.b[1]), jax.grad(held)(plain.b[1]), rtol=1e-4, atol=1e-5)
    assert w.astype(jnp.bfloat16).m.dtype == jnp.float32


def test_triplets_scale_their_factors():
    plain, e, x = low_rank(), draw(2, 3, seed=5), draw(7, 6, seed=3)
    w = weights.Triplets(plain.kernel, plain.a, plain.b, None, 1.5, 0.0, e)
    expected = plain.kernel[1] + 1.5 * np.einsum("ir,r,rhk->ihk", plain.a[1], e[1], plain.b[1])
    np.testing.assert_allclose(layer_of(w).merge(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(w.merge()[1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dense(x, layer_of(w), "reference"), np.einsum("mi,ihk->mhk", x, expected), atol=1e-5)


def products(x, w):
    """A layer's product with the node, with the layer merged, and with all layers merged."""
    layer = layer_of(w)
    return [dense(x, other, "reference") for other in (layer, layer.merge(), w.merge()[1])]


def test_nodes_are_pytrees_by_name_and_hold_anything():
    w = low_rank()
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(w)
    ]
    assert names == ["kernel", "a", "b"]
    assert jax.tree.map(lambda _: "x", w).a == "x" and jax.tree.structure(w) == jax.tree.structure(
        w.astype(jnp.bfloat16)
    )
    outline = weights.LowRank.outline(("layers",), ("embed",), ("heads", "head_dim"), "rank")
    assert outline == {"a": ("layers", "embed", "rank"), "b": ("layers", "rank", "heads", "head_dim")}


def test_the_model_sees_a_node_as_its_merge():
    cfg = tiny.MODERN
    params, batch = tiny.spiced(cfg), tiny.packed([[9, 7], [16]], 16, cfg.vocab_size)
    query = params["blocks"]["attention"]["query"]["kernel"]
    node = weights.LowRank(query, draw(2, 20, 3, seed=1), draw(2, 3, 4, 6, seed=2), None, 1.5, 0.0)
    attention = params["blocks"]["attention"] | {"query": {"kernel": node}}
    adapted = params | {"blocks": params["blocks"] | {"attention": attention}}
    run = tiny.jit(lambda params: transformer.apply(params, batch, cfg))
    found, expected, plain = run(adapted), run(weights.merged(adapted)), run(params)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found - plain).max() > 0.1


def test_dropout_takes_a_key_a_layer_and_none_without():
    w, key = {"w": low_rank(dropout=0.5)}, jax.random.key(0)
    held = weights.keyed(w, key)["w"]
    assert held.key.shape == (2,) and weights.keyed(w, None)["w"].key is None
    assert weights.keyed({"w": low_rank()}, key)["w"].key is None
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], held) for i in range(2)]
    x = jnp.ones((400, 6))
    change = [np.asarray(dense(x, layer, "reference") - dense(x, layer.kernel, "reference")) for layer in layers]
    assert len(np.unique(change[0][:, 0, 0].round(4))) > 10, "every row has a mask of its own"
    whole = 1.5 * np.einsum("ir,rhk->hk", layers[0].a, layers[0].b)
    np.testing.assert_allclose(change[0].mean(0), whole, atol=0.25)
