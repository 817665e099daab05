"""Presets: Table A9 of Chinchilla by its formula, the two giants, modern shapes."""

import dataclasses

import pytest

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets
from chinchilla_jax.scaling import counts


def formula(cfg: ModelConfig) -> int:
    """Chinchilla's count by hand: the five attention matrices, two of the hidden layer, biases, norms, one table."""
    d, i, f = cfg.d_model, cfg.heads * cfg.head_dim, cfg.d_ff
    return cfg.layers * (5 * d * i + 2 * d * f + 5 * i + 2 * d + f) + d + cfg.vocab_size * d


@pytest.mark.parametrize("millions", presets.TABLE_A9)
def test_table_a9(millions):
    cfg = presets.preset(f"chinchilla-{millions}m")
    exact = counts.parameters(cfg)
    assert exact == formula(cfg) and round(exact / 1e6) == millions
    assert (cfg.d_model, cfg.d_ff, cfg.head_dim, cfg.heads, cfg.layers) == presets.TABLE_A9[millions]


def test_table_a9_is_whole():
    assert len(presets.TABLE_A9) == 50


@pytest.mark.parametrize("name, billions", [("chinchilla-70b", 70.06), ("gopher-280b", 279.7)])
def test_the_two_giants(name, billions):
    exact = counts.parameters(presets.preset(name))
    assert exact == formula(presets.preset(name))
    assert round(exact / 1e9, len(str(billions).split(".")[1])) == billions


@pytest.mark.parametrize("name, shape, G, V, tables", [
    ("modern-150m", (12, 768, 6, 128, 3072), 6, 50304, 1),
    ("modern-1b", (16, 2048, 16, 128, 8192), 16, 50304, 1),
    ("modern-8b", (32, 4096, 32, 128, 14336), 8, 128256, 2),
])  # fmt: skip
def test_modern_shapes(name, shape, G, V, tables):
    cfg = presets.preset(name)
    N, D, H, K, F = shape
    assert (cfg.layers, cfg.d_model, cfg.heads, cfg.head_dim, cfg.d_ff) == shape
    assert (cfg.kv_heads or cfg.heads, cfg.vocab_size) == (G, V)
    assert counts.parameters(cfg) == N * (2 * D * H * K + 2 * D * G * K + 3 * D * F + 2 * D) + D + tables * V * D


def test_modern_8b_is_llama_3():
    assert counts.parameters(presets.preset("modern-8b")) == 8_030_261_248


def test_a_preset_takes_single_changes_and_names_its_neighbour():
    assert presets.preset("modern-1b", layers=2) == dataclasses.replace(presets.preset("modern-1b"), layers=2)
    with pytest.raises(UserError, match="did you mean chinchilla-44m"):
        presets.preset("chinchila-44m")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_valid(name):
    assert presets.preset(name).preset == name


def test_an_unknown_preset_says_which_there_are():
    with pytest.raises(UserError, match=r"there are chinchilla-70b, .*, and of Table A9 chinchilla-44m to "):
        presets.preset("gpt2")
