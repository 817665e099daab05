"""Rotary and relative positions against complex numbers, the released formulas, and loops."""

import dataclasses
import math

import numpy as np
import pytest

from chinchilla_jax.model import positions
from tests import tiny

CFG = dataclasses.replace(tiny.MODERN, head_dim=16)
DRAW = np.random.default_rng(0)


def wavelengths(cfg) -> np.ndarray:
    """Tokens a turn of each pair: by the angle of position 1."""
    cos, sin = positions.rotary_tables(cfg, np.array([[1]]), 1)
    return 2 * np.pi / np.arctan2(sin, cos).ravel()


@pytest.mark.parametrize("turn", [positions.rotate, positions.rotate_flipped])
def test_a_pair_turns_as_a_complex_number(turn):
    """x[i] + i x[i + K/2] times exp(i m theta^(-2 i / K)), whatever order the positions come in."""
    at_BL = np.array([[0, 1, 2, 7], [5, 0, 1, 100]])
    x = DRAW.standard_normal((2, 4, 3, 16)).astype(np.float32)
    found = np.asarray(turn(x, *positions.rotary_tables(CFG, at_BL, 4)))
    angle = at_BL[:, :, None, None] * CFG.rope_theta ** (-np.arange(0, 16, 2) / 16)
    expected = (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * angle)
    np.testing.assert_allclose(found, np.concatenate([expected.real, expected.imag], -1), atol=2e-5)


def test_linear_scaling_stretches_every_wave():
    scaled = dataclasses.replace(CFG, rope_scaling="linear", rope_factor=4.0)
    np.testing.assert_allclose(wavelengths(scaled), 4 * wavelengths(CFG), rtol=1e-5)


def test_llama3_scaling_is_the_released_code():
    """`apply_scaling` of Meta's llama-models, wave by wave: factor 8, low 1, high 4, original length 32."""
    cfg = dataclasses.replace(CFG, rope_scaling="llama3", rope_factor=8.0, rope_original_len=32, rope_theta=50.0)
    low, high, expected = 32 / cfg.rope_low_freq, 32 / cfg.rope_high_freq, []
    for wave in wavelengths(dataclasses.replace(cfg, rope_scaling="none", rope_factor=1.0)):
        smooth = (32 / wave - cfg.rope_low_freq) / (cfg.rope_high_freq - cfg.rope_low_freq)
        between = 1 / ((1 - smooth) / wave / 8 + smooth / wave)
        expected.append(wave if wave < high else 8 * wave if wave > low else between)
    np.testing.assert_allclose(wavelengths(cfg), expected, rtol=1e-4)
    kinds = np.divide(expected, wavelengths(dataclasses.replace(cfg, rope_scaling="none", rope_factor=1.0)))
    assert min(kinds) == pytest.approx(1, rel=1e-3) and max(kinds) == pytest.approx(8, rel=1e-3)
    assert any(1.01 < ratio < 7.9 for ratio in kinds), "one of each kind"


def test_distances_are_the_sinusoids_of_the_paper():
    """sin first, then cos, of distance / 10000^(2 i / D); what positions a batch has does not matter."""
    found = np.asarray(positions.sinusoid_tables(tiny.CHINCHILLA, None, 9))
    D = tiny.CHINCHILLA.d_model
    for distance in range(9):
        for i in range(D // 2):
            angle = distance / 10000 ** (2 * i / D)
            assert found[distance, [i, D // 2 + i]] == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
