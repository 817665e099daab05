"""Names, orders of rows and frequencies of GGUF."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import gguf_names
from chinchilla_jax.interop.architectures import to_settings
from chinchilla_jax.interop.gguf_names import llama3_frequencies
from tests import tiny
from tests.interop import folders, ggufs


def test_llama_3_s_frequencies_are_transformers_own():
    table = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 8192, "rope_theta": 5e5}  # fmt: skip
    plain = folders.frequencies({"rope_theta": 5e5}, 64)
    stretched = folders.frequencies({"rope_parameters": table}, 64)
    assert np.allclose(llama3_frequencies(64, 5e5, 32.0, 1.0, 4.0, 8192), plain / stretched, rtol=1e-6)


@pytest.mark.parametrize("arch", ggufs.ARCHITECTURES)
def test_names_are_those_of_llama_cpp_s_converter_and_come_back(arch):
    told = ggufs.settings(arch)
    for name in folders.shapes(told):
        assert gguf_names.to_gguf(name) == ggufs.name_of(name) and gguf_names.to_hf(ggufs.name_of(name)) == name
    cfg = to_settings(told).model
    assert gguf_names.architecture_of(cfg) == arch
    heads = {name.split(".")[-2]: gguf_names.heads_of(name, cfg) for name in folders.shapes(told)}
    assert {name: count for name, count in heads.items() if count} == {"q_proj": 4, "k_proj": cfg.kv_heads}


@pytest.mark.parametrize("name", [
    "blk.01.ffn_up.weight", "blk.x.ffn_up.weight", "blk.1.ffn_new.weight", "rope_freqs.weight", "blk.1.ffn_up",
    "output_norm.bias", "blk.-1.ffn_up.weight", "",
])  # fmt: skip
def test_names_of_nothing_that_is_known(name):
    assert gguf_names.to_hf(name) is None


@pytest.mark.parametrize("heads, width", [(1, 2), (3, 8), (4, 6)])
def test_rows_of_heads_are_put_as_the_converter_puts_them(heads, width):
    x = np.arange(heads * width)
    assert np.array_equal(x[gguf_names.neighbours(heads, width)], ggufs.permute(x, heads))
    assert np.array_equal(x[gguf_names.neighbours(heads, width)][gguf_names.halves(heads, width)], x)


def test_what_no_architecture_computes_is_named():
    cfg = to_settings(ggufs.settings("gemma")).model
    with pytest.raises(UserError, match=r"has .*norm_offset 1\.0, mlp geglu, embed_scale 2\.0; use --format hf"):
        gguf_names.architecture_of(dataclasses.replace(cfg, embed_scale=2.0))
    for changed, message in ((tiny.CHINCHILLA, "relative positions"), (tiny.SQUARED, "hidden layer")):
        with pytest.raises(UserError, match=message):
            gguf_names.architecture_of(changed)
