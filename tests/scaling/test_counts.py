"""Counts by hand, and against what XLA counts."""

import dataclasses
from functools import partial

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets, transformer
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.scaling import counts
from tests import tiny


@pytest.mark.parametrize("cfg", [tiny.CHINCHILLA, tiny.MODERN, tiny.SQUARED, tiny.RECTIFIED, tiny.MIXED, tiny.NORMED,
                                 tiny.SCALED])  # fmt: skip
def test_parameters_by_hand(cfg):
    D, H, G, K, F, V = cfg.d_model, cfg.heads, cfg.kv_heads or cfg.heads, cfg.head_dim, cfg.d_ff, cfg.vocab_size
    relative, gated = cfg.positions == "relative", cfg.mlp in ("swiglu", "reglu", "geglu")
    matrices = 2 * D * H * K + 2 * D * G * K + relative * D * H * K + (3 if gated else 2) * D * F
    biases = cfg.biases * ((H + 2 * G) * K + F) + cfg.attention_biases * (H + 2 * G) * K + relative * 2 * H * K
    biases += cfg.qk_norm * 2 * K
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
    assert counts.flops(cfg, 4096, "palm_causal") == 6 * matmul + attention / 2
    assert counts.flops(cfg, 4096, "matmul") == 6 * matmul
    assert counts.flops(cfg, 4096, "6ND_nonembed") == 6 * (matmul - 50304 * 2048 + (2 * 16 + 1) * 2048), "norms count"
    assert counts.flops(cfg, 4096, "6ND_total") - counts.flops(cfg, 4096, "6ND_nonembed") == 6 * 50304 * 2048
    assert counts.flops(cfg, 4096, "deepseek") == 72 * 16 * 2048**2 + 12 * 16 * 2048 * 4096


@st.composite
def shapes(draw) -> ModelConfig:
    small, kv_heads = st.integers(1, 7), draw(st.integers(1, 3))
    return ModelConfig(
        layers=draw(small),
        d_model=2 * draw(small),
        heads=kv_heads * draw(small),
        kv_heads=draw(st.sampled_from([0, kv_heads])),
        head_dim=2 * draw(small),
        d_ff=draw(small),
        vocab_size=draw(st.integers(1, 50)),
        positions=draw(st.sampled_from(["rope", "relative"])),
        mlp=draw(st.sampled_from(["swiglu", "reglu", "geglu", "gelu", "relu2"])),
        biases=draw(st.booleans()),
        attention_biases=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tied=draw(st.booleans()),
        **tiny.PLAIN,
    )


@settings(max_examples=15, deadline=None)
@given(shapes())
def test_formulas_count_the_real_tree(cfg):
    tree = transformer.abstract(cfg)
    assert counts.parameters(cfg) == sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert counts.tables(cfg) == sum(
        leaf.size for name in ("embed", "unembed") for leaf in jax.tree.leaves(tree.get(name))
    )
    leaves = jax.tree_util.tree_flatten_with_path(tree["blocks"])[0]
    kernels = sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")
    assert counts.matmul_parameters(cfg) == kernels + cfg.vocab_size * cfg.d_model


def test_chinchilla_and_gopher():
    """70.06 B only with the relative positions' projection; the same shape with RoPE has 5.4 B fewer."""
    assert counts.parameters(presets.preset("chinchilla-70b")) / 1e9 == pytest.approx(70.06, abs=5e-3)
    assert counts.parameters(presets.preset("chinchilla-70b", positions="rope")) / 1e9 == pytest.approx(64.69, abs=5e-3)
    assert counts.parameters(presets.preset("gopher-280b")) / 1e9 == pytest.approx(279.71, abs=5e-3)


# Hoffmann et al. 2022, table A4: FLOPs by layer over 6 N D, and what the formula as their text prints it would give.
TABLE_A4 = {
    "73M": (10, 640, 10, 64, 1.03, 1.581),
    "305M": (20, 1024, 16, 64, 1.10, 1.316),
    "552M": (24, 1280, 10, 128, 1.08, 1.232),
    "1.1B": (26, 1792, 14, 128, 1.04, 1.145),
    "1.6B": (28, 2048, 16, 128, 1.03, 1.115),
    "6.8B": (40, 3584, 28, 128, 0.99, 1.028),
}


@pytest.mark.parametrize("size", TABLE_A4)
def test_table_a4(size):
    layers, d_model, heads, head_dim, printed, text = TABLE_A4[size]
    shape = {"layers": layers, "d_model": d_model, "d_ff": 4 * d_model, "heads": heads, "head_dim": head_dim}
    cfg = ModelConfig(**presets.FAMILIES["chinchilla"], **shape, vocab_size=32000)
    whole = counts.flops(cfg, 2048, "6ND_total")
    assert round(counts.flops(cfg, 2048, "hoffmann_table") / whole, 2) == printed
    assert counts.flops(cfg, 2048, "hoffmann_text") / whole == pytest.approx(text, abs=2e-3)


def test_chinchillas_training():
    cfg = presets.preset("chinchilla-70b")
    of = {name: 1.4e12 * counts.flops(cfg, 2048, name) for name in counts.ACCOUNTINGS}
    assert of["hoffmann_table"] == pytest.approx(5.64e23, rel=1e-3)
    assert of["hoffmann_text"] == pytest.approx(5.68e23, rel=1e-3)
    assert of["6ND_total"] == pytest.approx(5.88e23, rel=2e-3)


def test_unknown_accounting_is_refused():
    cfg = presets.preset("chinchilla-44m")
    with pytest.raises(UserError, match="did you mean hoffmann_table"):
        counts.flops(cfg, 2048, "hofmann_table")
    with pytest.raises(UserError, match="window of 0"):
        counts.flops(cfg, 0)


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
