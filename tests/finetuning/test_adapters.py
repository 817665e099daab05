"""Kinds of adapters: how each starts, and how a frozen matrix under it is stored."""

import jax
import numpy as np
import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.model import transformer
from chinchilla_jax.model.weights import merged
from tests import tiny


def test_a_fresh_adapter_changes_nothing():
    cfg, batch = tiny.CHINCHILLA, tiny.packed([[9, 7], [16]], 16, tiny.CHINCHILLA.vocab_size)
    base = tiny.spiced(cfg)
    run = tiny.jit(lambda params: transformer.apply(params, batch, cfg))
    expected = run(base)
    adapters = ("lora", "rslora", "dora", "adalora", "ia3", "houlsby", "prompt")
    for method in (*adapters, "top", "norms", "biases", "full"):
        made = recipe(cfg, TuneConfig(method=method))
        start = tiny.jit(made.start)(jax.random.key(1), base)
        whole = made.join(start, made.freeze(base))
        np.testing.assert_array_equal(run(whole), expected, err_msg=method)
        if method == "lora":
            a = np.asarray(start["adapters"]["blocks"]["attention"]["query"]["kernel"]["a"])
            assert 0.9 * 20**-0.5 < np.abs(a).max() <= 20**-0.5


def test_adalora_starts_as_lora_does_or_as_in_peft():
    base = tiny.spiced(tiny.LLAMA)

    def start(**tune):
        made = tiny.jit(recipe(tiny.LLAMA, TuneConfig(**tune)).start)(jax.random.key(1), base)
        return jax.tree.map(np.asarray, made["adapters"]["blocks"]["mlp"]["up"]["kernel"])

    lora, ours = start(method="lora", rank=6), start(method="adalora", rank=4)
    peft = start(method="adalora", rank=4, compat="peft")
    assert (ours.pop("e") == 1).all() and tiny.worst(ours, lora) == 0
    assert (peft["e"] == 0).all() and all(0.015 < peft[name].std() < 0.025 for name in "ab")


def test_a_quantised_base_is_small_and_multiplies_as_its_dequantised_self():
    """Bytes of a weight over the whole base: 1 + 2 / inputs, and 0.5 + 2 / 32; QLoRA is LoRA on what they amount to."""
    base, batch = tiny.spiced(tiny.LLAMA), tiny.packed([[9, 7], [16]], 16, tiny.LLAMA.vocab_size)
    count = sum(leaf.size for leaf in jax.tree.leaves(base))
    trained = tiny.jit(recipe(tiny.LLAMA, TuneConfig(method="lora")).start)(jax.random.key(1), base)
    draw = np.random.default_rng(2)
    trained = jax.tree.map(lambda x: x + 0.05 * draw.standard_normal(x.shape).astype(np.float32), trained)
    plain = recipe(tiny.LLAMA, TuneConfig(method="lora"))

    @tiny.jit
    @jax.value_and_grad
    def run(trained, frozen):
        params = plain.join(trained, frozen)
        hidden_BLD = transformer.apply(params, batch, tiny.LLAMA)
        return tiny.naive_loss(hidden_BLD, transformer.unembedding(params), batch.targets, batch.weights)

    for weights, most, error in (("int8", 1.07, 0.02), ("int4", 0.65, 0.3)):
        frozen = tiny.jit(recipe(tiny.LLAMA, TuneConfig(method="lora", weights=weights)).freeze)(base)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(frozen)) <= most * count
        dequantised = tiny.jit(merged)(frozen)
        assert tiny.worst(dequantised, base) < error
        found, expected = (run(trained, base) for base in (frozen, dequantised))
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)
        assert tiny.worst(found[1], expected[1]) < 1e-5
