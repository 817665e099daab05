"""Runs as GGUF files: what the library's reader and our own find in them."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import gguf_write
from chinchilla_jax.interop.architectures import to_settings
from chinchilla_jax.interop.gguf_read import File
from tests import tiny
from tests.data import jsons
from tests.interop import folders, ggufs


def given(arch="llama", **changes):
    """Tensors to be written, our settings for them, and the weights."""
    told = ggufs.settings(arch)
    weights = folders.tensors(told)
    tensors = [SimpleNamespace(name=name, shape=x.shape, make=partial(np.asarray, x)) for name, x in weights.items()]
    return tensors, dataclasses.replace(to_settings(told).model, **changes), weights


def tokenizer_run(tmp_path, made=None, **told):
    """A folder with a tokenizer alone, which is all that is read of a run."""
    return jsons.write(tmp_path / "run", made or folders.tokenizer(), **(told or {"eos_token": "<|im_end|>"}))


@pytest.mark.parametrize("arch", ggufs.ARCHITECTURES)
def test_tensors_are_as_llama_cpp_s_converter_has_them(arch, tmp_path):
    tensors, cfg, weights = given(arch)
    found = gguf_write.write(tmp_path / "a.gguf", tokenizer_run(tmp_path), tensors, cfg, 64, "float32", name="a")
    assert found == {"architecture": arch, "notes": []}
    ggufs.write(tmp_path / "b.gguf", arch, ggufs.settings(arch), weights)
    ours, theirs = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in "ab")
    for a, b in zip(ours.tensors, theirs.tensors):
        assert (a.name, a.tensor_type, a.shape.tolist()) == (b.name, b.tensor_type, b.shape.tolist())
        assert np.array_equal(a.data, b.data), a.name
    same = [key for key in theirs.fields if key.startswith(arch)]
    assert {key: ours.fields[key].contents() for key in same} == {key: theirs.fields[key].contents() for key in same}
    back = File(tmp_path / "a.gguf")
    assert dataclasses.replace(back.model, init_std=cfg.init_std) == cfg
    for name, x in weights.items():
        read = back.read(name, (slice(None),) * x.ndim)
        assert np.array_equal(read, x) if arch != "gemma" else np.allclose(read, x, atol=2e-7), name


@pytest.mark.parametrize("dtype", gguf_write.TYPES)
def test_every_type(dtype, tmp_path):
    """q8_0 has a float16 scale for 32 numbers: 1/254 of the largest may be lost, and 1/2048; rows of 24 are float16."""
    tensors, cfg, weights = given()
    odd = np.float32(np.random.default_rng(0).standard_normal((32, 24)))
    found = gguf_write.write(tmp_path / "m.gguf", tokenizer_run(tmp_path), tensors, cfg, 64, dtype)
    back, lost = (
        File(tmp_path / "m.gguf"),
        {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "q8_0": 1 / 254 + 2**-11}[dtype],
    )
    for name, x in weights.items():
        error = np.abs(back.read(name, (slice(None),) * x.ndim) - x).max()
        assert error <= (lost * np.abs(x).max() if x.ndim > 1 else 0), name
    assert found["notes"] == []
    kind = gguf_write.kind(odd.shape, dtype)
    assert kind.name == {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "F16"}[dtype]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": "llama3", "rope_factor": 8.0},
        {"rope_scaling": "llama3", "rope_factor": 3.0, "rope_low_freq": 0.5, "rope_original_len": 16},
        {"rope_scaling": "linear", "rope_factor": 4.0},
        {"tied": True, "context": 0},
    ],
)
def test_settings_come_back(changes, tmp_path):
    tensors, cfg, _ = given(**changes)
    gguf_write.write(tmp_path / "m.gguf", tokenizer_run(tmp_path), tensors, cfg, 64, "float32")
    cfg = dataclasses.replace(cfg, context=64)
    assert dataclasses.replace(File(tmp_path / "m.gguf").model, init_std=cfg.init_std) == cfg


def test_what_llama_cpp_cannot_do_is_said(tmp_path):
    tensors, cfg, _ = given()
    run = tokenizer_run(tmp_path)
    for changed, message in (
        (tiny.CHINCHILLA, "no relative positions"),
        (dataclasses.replace(cfg, mlp="relu2"), "mlp relu2"),
        (dataclasses.replace(cfg, mlp="reglu"), "mlp reglu"),
        (dataclasses.replace(cfg, biases=True), "hidden layer"),
        (dataclasses.replace(cfg, qk_norm=True, rope_scaling="llama3"), "not for qwen3"),
    ):
        with pytest.raises(UserError, match=message):
            gguf_write.write(tmp_path / "m.gguf", run, tensors, changed, 64, "float32")
    for made, end, message in (
        (jsons.fallback("Unigram"), "</s>", "unigram"),
        (jsons.byte_level(add_prefix_space=True), "<|im_end|>", "cuts texts into words"),
    ):
        jsons.write(run, made, eos_token=end)
        with pytest.raises(UserError, match=message):
            gguf_write.write(tmp_path / "m.gguf", run, tensors, cfg, 64, "float32")
    large = [SimpleNamespace(name=x.name, shape=x.shape, make=lambda x=x: x.make() * 1e6) for x in tensors]
    with pytest.raises(UserError, match="does not fit into float16"):
        gguf_write.write(tmp_path / "n.gguf", tokenizer_run(tmp_path), large, cfg, 64, "float16")
