"""Counts by hand, and against what XLA counts."""

import dataclasses
from functools import partial

import jax
import pytest

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.model import presets, transformer
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.scaling import counts
from tests import tiny


@pytest.mark.parametrize("cfg", [tiny.CHINCHILLA, tiny.MODERN, tiny.SQUARED, tiny.RECTIFIED, tiny.MIXED])
def test_parameters_by_hand(cfg):
    D, H, G, K, F, V = cfg.d_model, cfg.heads, cfg.kv_heads or cfg.heads, cfg.head_dim, cfg.d_ff, cfg.vocab_size
    relative, gated = cfg.positions == "relative", cfg.mlp in ("swiglu", "reglu")
    matrices = 2 * D * H * K + 2 * D * G * K + relative * D * H * K + (3 if gated else 2) * D * F
    biases = cfg.biases * ((H + 2 * G) * K + F) + relative * 2 * H * K
    tables = V * D * (1 if cfg.tied else 2)
    assert counts.parameters(cfg) == cfg.layers * (matrices + biases + 2 * D) + D + tables
    assert counts.parameters(cfg) == sum(leaf.size for leaf in jax.tree.leaves(tiny.spiced(cfg)))
    assert counts.tables(cfg) == tables
    assert counts.matmul_parameters(cfg) == cfg.layers * matrices + V * D, "a look-up is no product"


def test_flops_by_hand():
    cfg = presets.preset("modern-1b")
    matmul = 16 * (4 * 2048 * 2048 + 3 * 2048 * 8192) + 50304 * 2048
    attention = 12 * 16 * 2048 * 4096
    assert counts.flops_per_token(cfg, 4096) == 6 * matmul + attention
    assert counts.flops_per_token(cfg, 4096, causal=True) == 6 * matmul + attention / 2


@pytest.mark.parametrize("family", presets.FAMILIES)
def test_flops_are_xlas_within_a_tenth(family):
    """Gradients, all scores counted; layers unrolled and one tile, since XLA counts the body of a loop once."""
    L = 32
    cfg = ModelConfig(**presets.FAMILIES[family], layers=2, d_model=64, heads=2, head_dim=32, d_ff=256, vocab_size=512)
    cfg = dataclasses.replace(cfg, **tiny.PLAIN | {"scan_unroll": 2})
    batch = tiny.packed([[L]] * 32, L, 512)
    gradients = dense(cfg, ObjectiveConfig(tile_tokens=32 * L)).gradients
    params = jax.eval_shape(partial(transformer.init, cfg=cfg), jax.random.key(0))
    compiled = tiny.jit(lambda params, batch: gradients(params, batch, None, 0, ())[:2]).lower(params, batch).compile()
    assert compiled.cost_analysis()["flops"] / (32 * L) == pytest.approx(counts.flops_per_token(cfg, L), rel=0.1)
