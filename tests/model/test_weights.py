"""Weights that multiply: every node against the array that it amounts to."""

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.model import transformer, weights
from chinchilla_jax.model.linear import dense
from tests import tiny


def draw(*shape, seed=0, scale=0.3):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def low_rank(kernel=None, rate=0.0):
    kernel = draw(2, 6, 4, 5) if kernel is None else kernel
    return weights.LowRank(kernel, draw(2, 6, 3, seed=1), draw(2, 3, 4, 5, seed=2), None, 1.5, rate)


def test_a_low_rank_weight_multiplies_as_its_merge_does():
    w, x = low_rank(), draw(7, 6, seed=3)
    layer = jax.tree.map(lambda leaf: leaf[1], w)
    expected = np.einsum("mi,ihk->mhk", x, w.kernel[1] + 1.5 * np.einsum("ir,rhk->ihk", w.a[1], w.b[1]))
    np.testing.assert_allclose(dense(x, layer, "reference"), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(dense(x, layer.merge(), "reference"), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(w.merge()[1], layer.merge())
    assert w.shape == (2, 6, 4, 5) and w.ndim == 4 and w.dtype == jnp.float32


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
    w, key = {"w": low_rank(rate=0.5)}, jax.random.key(0)
    held = weights.keyed(w, key)["w"]
    assert held.key.shape == (2,) and weights.keyed(w, None)["w"].key is None
    assert weights.keyed({"w": low_rank()}, key)["w"].key is None
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], held) for i in range(2)]
    x = jnp.ones((400, 6))
    change = [np.asarray(dense(x, layer, "reference") - dense(x, layer.kernel, "reference")) for layer in layers]
    assert len(np.unique(change[0][:, 0, 0].round(4))) > 10, "every row has a mask of its own"
    whole = 1.5 * np.einsum("ir,rhk->hk", layers[0].a, layers[0].b)
    np.testing.assert_allclose(change[0].mean(0), whole, atol=0.25)
