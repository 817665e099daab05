"""Shapes of models and what text they are trained on."""

import pytest

from chinchilla_jax.config import ModelConfig
from tests.config.refusals import refused

BAD = [
    ("model.layers", 0, "--model.layers"),
    ("model.kv_heads", 3, "does not divide"),
    ("model.head_dim", 33, "even"),
    ("model.dropout", 1.0, "[0, 1)"),
    ("data.sources", (), "name a file"),
    ("data.vocab_size", 100, "264"),
    ("data.valid_fraction", 0.0, "(0, 1)"),
    ("data.seed", -1, "[0, 2**32)"),
    ("model.kv_heads", -1, "must not be negative"),
    ("model.rope_theta", 0.5, "[1, 1e+12]"),
    ("model.rope_factor", 8.0, "set --model.rope-scaling linear or llama3"),
    ("model.rope_low_freq", 4.0, "--model.rope-high-freq 4.0"),
    ("data.clean", ("controls", "htm"), "none of encoding, controls, html (did you mean html?)"),
    ("data.weights", (0.0, 0.0), "one above 0"),
    ("data.language_sure", 1.5, "[0, 1]"),
]


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({path: value}, hint)


def test_relative_positions_need_an_even_width():
    refused({"model.positions": "relative", "model.d_model": 7}, "even for relative positions")
    assert ModelConfig(d_model=7).d_model == 7, "rotary ones turn heads"


def test_relative_positions_have_no_waves_to_stretch():
    stretched = {"model.rope_scaling": "linear", "model.rope_factor": 4.0}
    refused(stretched | {"model.positions": "relative"}, "--model.rope-scaling linear stretches rotary waves")


def test_which_layers_multiply_two_projections():
    gated = {mlp for mlp in ("swiglu", "reglu", "geglu", "gelu", "relu2") if ModelConfig(mlp=mlp).gated}
    assert gated == {"swiglu", "reglu", "geglu"}
