"""GGUF files become runs that compute what transformers computes of the same weights."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.architectures import to_settings
from chinchilla_jax.interop.gguf_read import File
from tests.interop import folders, ggufs
from tests.interop.test_imported import IDS_BL, imported, our_logits


def made(tmp_path, arch="llama", kind="F32", change=lambda weights: None, told=None, **more):
    """A file, its settings, and its weights as they must be read."""
    told = told or ggufs.settings(arch)
    weights = folders.tensors(told)
    change(weights)
    return tmp_path / "m.gguf", told, ggufs.write(tmp_path / "m.gguf", arch, told, weights, kind, **more)


@pytest.mark.parametrize("arch", ggufs.ARCHITECTURES)
def test_settings_and_tensors_are_those_of_hugging_face(arch, tmp_path):
    path, told, weights = made(tmp_path, arch)
    source = File(path)
    expected = to_settings(told).model
    assert dataclasses.replace(source.model, init_std=expected.init_std) == expected
    assert source.shapes == {name: x.shape for name, x in weights.items()}
    for name, x in weights.items():
        assert np.array_equal(source.read(name, (slice(None),) * x.ndim), x), name


def test_logits(tmp_path):
    arch = "llama"
    path, told, weights = made(tmp_path, arch, "Q8_0")
    loaded = imported(path, tmp_path / "run")
    expected = folders.logits(told, weights, IDS_BL)
    found = our_logits(loaded.program.config.model, loaded.params)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    origin = json.loads((tmp_path / "run/origin.json").read_text())
    assert (origin["format"], origin["architecture"], origin["license"]) == ("gguf", ggufs.ARCHITECTURES[arch], "mit")
    ids = folders.tokenizer().encode("a sea  of 2026 stones").ids
    assert loaded.tokenizer.encode("a sea  of 2026 stones") == ids and loaded.tokenizer.stops == {0, 2}
    assert (tmp_path / "run/chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_every_type_and_any_part_of_a_tensor(kind, tmp_path):
    path, _, weights = made(tmp_path, kind=kind)
    source = File(path)
    for name, x in weights.items():
        whole = source.read(name, (slice(None),) * x.ndim)
        assert np.array_equal(whole, x) and whole.dtype == np.float32, name
        part = (slice(3, 9), slice(1, 7))[: x.ndim]
        assert np.array_equal(source.read(name, part), x[part])


def test_eps_and_theta_are_as_they_were_written(tmp_path):
    told = ggufs.settings("llama", rms_norm_eps=1e-5, rope_theta=100000.0, head_dim=20, tie_word_embeddings=False)
    cfg = File(made(tmp_path, told=told)[0]).model
    assert (cfg.norm_eps, cfg.rope_theta, cfg.head_dim, cfg.tied, cfg.context) == (1e-5, 1e5, 20, False, 64)
    narrow = File(made(tmp_path, told=told, llama__attention__sliding_window=32)[0])
    assert narrow.model.context == 32 and "32 tokens of 64" in narrow.facts["context"]


def test_biases_of_llama_and_stretches(tmp_path):
    def biased(weights):
        for n in range(2):
            weights |= {f"model.layers.{n}.self_attn.{c}_proj.bias": np.arange(size, dtype=np.float32)
                        for c, size in (("q", 64), ("k", 32), ("v", 32))}  # fmt: skip

    path, _, weights = made(
        tmp_path, change=biased, llama__rope__scaling__type="linear", llama__rope__scaling__factor=4.0
    )
    source = File(path)
    assert source.model.attention_biases and (source.model.rope_scaling, source.model.rope_factor) == ("linear", 4.0)
    name = "model.layers.1.self_attn.q_proj.bias"
    assert np.array_equal(source.read(name, (slice(None),)), weights[name])


REFUSED = {
    "architecture": ({"arch": "phi3"}, "'phi3' is not supported"),
    "causal by a word": ({"llama__attention__causal": "no"}, "causal is no"),
    "layer 01": ({"change": lambda w: w.update({"model.layers.01.mlp.up_proj.weight": np.zeros((64, 32), "f4")})},
                 "blk.01.ffn_up.weight is not understood"),
    "experts": ({"llama__expert_count": 8}, "llama.expert_count"),
    "stretch": ({"llama__rope__scaling__type": "yarn"}, "'yarn' is not supported"),
    "window": ({"llama__attention__sliding_window": "wide"}, "sliding_window is wide"),
    "half rotary": ({"llama__rope__dimension_count": 8}, "rope.dimension_count 8"),
    "a key of tomorrow": ({"llama__attention__new": 2}, "llama.attention.new"),
    "no layers": ({"leave": ("llama.block_count",)}, "no key llama.block_count"),
    "another width": ({"llama__embedding_length": 64}, "config says"),
    "more layers": ({"llama__block_count": 3}, "model.layers.2"),
    "a base that vanishes": ({"llama__rope__freq_base": 1e-30}, "rope-theta"),
    "zero": ({"llama__attention__head_count": 0}, "head_count is 0"),
    "integers": ({"kind": "I8"}, "is I8"),
    "no table": ({"change": lambda weights: weights.pop("model.embed_tokens.weight")}, "token_embd.weight"),
    "another tensor": ({"change": lambda w: w.update({"model.layers.0.self_attn.o_proj.bias": np.zeros(32, "f4")})},
                       "o_proj.bias is not understood"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_named(case, tmp_path):
    refused(tmp_path, *REFUSED[case])


def refused(tmp_path, given, message):
    """A file with these keys and tensors is refused in one line that has the message."""
    arch, kind = given.get("arch", "llama"), given.get("kind", "F32")
    rest = {key: value for key, value in given.items() if key not in ("arch", "kind")}
    if kind == "I8":
        rest["change"] = lambda weights: weights.update({"model.embed_tokens.weight": np.zeros((320, 32), np.int8)})
    told = ggufs.settings("llama")
    try:
        path, *_ = made(tmp_path, arch, "F32", told=told, **rest)
    except (NotImplementedError, KeyError):
        pytest.skip("the library cannot write it")
    with pytest.raises(UserError, match=message) as said:
        source = File(path)
        source.write_tokenizer(tmp_path)
    assert "\n" not in str(said.value)


def test_damage_is_one_line(tmp_path):
    path, *_ = made(tmp_path)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    cuts = [0, 3, 4, 11, 100, 5000, len(whole) // 2, len(whole) - 100]
    spoiled = [whole[:cut] for cut in cuts] + [b"GGML" + whole[4:], b"\0" * 100, whole[:4] + b"\x09" + whole[5:]]
    one_key = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a"
    spoiled += [one_key + struct.pack("<IIQ", 9, 4, 2**50), one_key + struct.pack("<IQ", 8, 2**50)]  # an array, a text
    for _ in range(30):
        at = draw.integers(4, 3000)
        spoiled.append(whole[:at] + bytes([draw.integers(256)]) + whole[at + 1 :])
    refused = 0
    for data in spoiled:
        path.write_bytes(data)
        try:
            source = File(path)
            source.write_tokenizer(tmp_path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 13
