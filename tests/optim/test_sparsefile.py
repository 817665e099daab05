"""Packed files bit for bit, and models without their dead units, against the whole ones."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.optim import sparsefile
from chinchilla_jax.optim.slicing import sliced
from chinchilla_jax.training.restore import named_leaves
from tests import tiny

NAME = "blocks/mlp/up/kernel"


def made(share=0.0, pattern=None, shape=(3, 16, 24)):
    draw = np.random.default_rng(1)
    w = draw.standard_normal(shape).astype(np.float32)
    if pattern:
        n, m = pattern
        rank = np.argsort(np.argsort(np.abs(w).reshape(3, -1, m, 24), 2), 2)
        return np.where(rank >= m - n, w.reshape(3, -1, m, 24), np.float32(0)).reshape(shape)
    return np.where(draw.random(shape) < share, np.float32(0), w)


@pytest.mark.parametrize("leaf, pattern, bits", [
    (made(), "", 32), (made(0.75), "mask", None), (made(pattern=(2, 4)), "2:4", 17), (made(pattern=(1, 4)), "1:4", 8.5),
])  # fmt: skip
def test_a_leaf_comes_back_bit_for_bit_in_the_room_that_it_needs(leaf, pattern, bits, tmp_path):
    leaf = leaf.copy()
    leaf.flat[np.flatnonzero(leaf)[0]] = -0.0 if pattern == "mask" else np.nan
    out = made(0.75, shape=(3, 2, 8, 24))
    sparsefile.write(
        tmp_path / "a", {NAME: leaf, "blocks/attention/out/kernel": out, "norm/scale": leaf[0]}, {"step": 3}
    )
    back, facts = sparsefile.read(tmp_path / "a")
    assert facts == {"step": 3} and set(back) == {NAME, "blocks/attention/out/kernel", "norm/scale"}
    for found, wanted in (
        (back[NAME], leaf),
        (back["blocks/attention/out/kernel"], out),
        (back["norm/scale"], leaf[0]),
    ):
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
    tensors, how = sparsefile.packed(NAME, leaf)
    assert how.get("pattern", "") == pattern
    stored = 8 * sum(x.nbytes for x in tensors.values()) / leaf.size
    assert stored == pytest.approx(bits or 32 * (leaf.view(np.uint32) != 0).mean() + 1, abs=1e-6)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "a").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="write it again"):
        sparsefile.read(tmp_path / "a")


@pytest.mark.parametrize("cfg", [tiny.CHINCHILLA, tiny.MODERN, tiny.SQUARED], ids=["relative", "grouped", "squared"])
def test_a_sliced_model_predicts_the_same(cfg):
    """Units that nothing leaves, others that nothing enters, not as many in each layer."""
    leaves = {name: np.array(leaf) for name, leaf in named_leaves(tiny.spiced(cfg)).items()}
    groups, each = cfg.kv_heads or cfg.heads, cfg.heads // (cfg.kv_heads or cfg.heads)
    dead = {0: [3, 5, 20], 1: [0, 1, 2, 7]}
    for layer, units in dead.items():
        leaves["blocks/mlp/down/kernel"][layer, units[:2]] = 0
        for name in ("kernel", "bias"):
            if (leaf := leaves.get(f"blocks/mlp/up/{name}")) is not None:
                leaf[layer][..., units[2:]] = 0
        if groups > 1:
            leaves["blocks/attention/out/kernel"][layer, (groups - 1 - layer) * each : (groups - layer) * each] = 0
    small, found = sliced(leaves, cfg)
    assert found.d_ff == cfg.d_ff - 3 and found.heads == cfg.heads - each * (groups > 1)
    batch = tiny.packed([[6, 7], [13]], 13, cfg.vocab_size)

    def predicted(leaves, cfg):
        tree = jax.tree.unflatten(jax.tree.structure(transformer.abstract(cfg)), [
            leaves[name] for name in named_leaves(transformer.abstract(cfg))
        ])  # fmt: skip
        return tiny.jit(lambda p: transformer.apply(p, batch, cfg) @ transformer.unembedding(p).T)(tree)

    np.testing.assert_allclose(predicted(small, found), predicted(leaves, cfg), rtol=1e-5, atol=1e-5)


def test_nothing_dead_is_refused():
    cfg = dataclasses.replace(tiny.MODERN)
    with pytest.raises(UserError, match="nothing to cut out"):
        sliced({name: np.array(leaf) for name, leaf in named_leaves(tiny.spiced(cfg)).items()}, cfg)
