"""int8 weights for decoding against the rounded weights in float64, and whole models against themselves."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling
from chinchilla_jax.model import adapted, int8
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model.linear import dense, look_up
from chinchilla_jax.model.transformer import table_logits
from tests import tiny

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("shape, contract", [((40, 24), 1), ((40, 4, 6), 1), ((4, 10, 24), 2)])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_product_has_the_error_of_the_weights_alone(shape, contract, rows):
    w = DRAW.standard_normal(shape).astype(np.float32)
    x = DRAW.standard_normal((rows, *shape[:contract])).astype(np.float32) * 10.0 ** DRAW.integers(-6, 6)
    packed = int8.Packed8.of(w, contract)
    assert packed.q_PD.dtype == "int8"
    rounded = (np.float64(packed.q_PD) * np.float64(packed.scale_P)[:, None]).T.reshape(shape)
    assert np.abs(rounded - w).max() <= np.abs(w).max() / 253
    expected = np.tensordot(np.float64(x), rounded, contract)
    found = tiny.jit(lambda x, w: dense(x, w, "cpu", contract))(x, packed)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_a_table_is_looked_up_and_multiplied():
    table = DRAW.standard_normal((30, 40)).astype(np.float32)
    table[7] = 0
    packed, x = int8.Packed8.of_table(table), DRAW.standard_normal((3, 40)).astype(np.float32)
    np.testing.assert_allclose(look_up(packed, np.array([[3, 7]]))[0], table[[3, 7]], atol=0.02)
    rounded = np.float64(packed.q_PD) * np.float64(packed.scale_P)[:, None]
    np.testing.assert_allclose(table_logits(packed, x), x @ rounded.T, atol=2e-3)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_model_in_int8_says_nearly_the_same(family):
    """Log-probabilities of a prompt, and every kernel and table in 8 bits."""
    cfg = dataclasses.replace(tiny.FAMILIES[family], layers=1, kernels="cpu")
    params, rows = tiny.spiced(cfg, scale=0.3), Rows.of(Sampling(0), [0])
    found, ids = {}, DRAW.integers(0, 61, 40).tolist()
    for form in ("float", "int8"):
        engine = Engine(cfg, 61, form=form)
        weights = engine.prepare(params)
        state = engine.start(engine.empty(weights, 1), 0, ids)
        _, _, prompt = engine.prefill(engine.fitted(weights, 128), state, 0, ids, rows, wanted=True)
        found[form] = np.asarray(prompt.logprob_S)[:39]
    sizes = {"int8": 0, "float32": 0}
    for leaf in jax.tree.leaves(weights):
        sizes[leaf.dtype.name] += leaf.size
    assert sizes["int8"] > 8 * sizes["float32"]  # what is left in float32 are scales, norms and biases
    assert abs(found["int8"].mean() - found["float"].mean()) < 0.02
    np.testing.assert_allclose(found["int8"], found["float"], atol=0.2)


def test_a_kernel_below_a_houlsby_adapter():
    cfg = dataclasses.replace(tiny.FAMILIES["modern"], layers=1, kernels="cpu")
    params, R = tiny.spiced(cfg), 3
    kernel = params["blocks"]["mlp"]["down"]["kernel"]
    shapes = adapted.Bottleneck.outline(kernel.shape[:1], kernel.shape[1:-1], kernel.shape[-1:], R)
    own = {name: DRAW.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    params["blocks"]["mlp"]["down"]["kernel"] = adapted.Bottleneck(kernel, **own)
    x = DRAW.standard_normal((4, kernel.shape[1])).astype(np.float32)
    plain, packed = (
        jax.tree.map(lambda w: w[0], caches.split_layers(params, cfg, form)["blocks"][0]["mlp"]["down"]["kernel"])
        for form in ("float", "int8")
    )
    assert packed.kernel.q_PD.dtype == "int8"
    expected = dense(x, plain, "cpu")
    np.testing.assert_allclose(dense(x, packed, "cpu"), expected, atol=0.02 * np.abs(expected).max())


def test_a_soft_prompt_is_refused():
    table = adapted.Prompt(np.ones((30, 40), np.float32), np.ones((4, 40), np.float32))
    with pytest.raises(UserError, match="soft prompt"):
        int8.Packed8.of_table(table)
