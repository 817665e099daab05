"""Models without their dead units, against the whole ones."""

import dataclasses

import jax
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.optim.slicing import sliced
from chinchilla_jax.training.restore import named_leaves
from tests import tiny


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
    with pytest.raises(UserError, match=r"nothing to cut out; train with --sparsity.pattern neurons or heads"):
        sliced({name: np.array(leaf) for name, leaf in named_leaves(tiny.spiced(cfg)).items()}, cfg)
