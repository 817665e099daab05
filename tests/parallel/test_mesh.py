"""Mesh sizes, slices, and what "auto" comes to on a platform."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, MeshConfig, ModelConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel import mesh as meshes

MODEL = ModelConfig(layers=1, d_model=16, heads=8, kv_heads=4, head_dim=4, d_ff=24, vocab_size=64)


@pytest.mark.parametrize("asked, devices, sizes", [
    ((-1, 1, 1), 8, (8, 1, 1)), ((2, -1, 2), 8, (2, 2, 2)), ((1, 1, -1), 6, (1, 1, 6)), ((2, 2, 2), 8, (2, 2, 2)),
])  # fmt: skip
def test_the_open_axis_takes_what_is_left(asked, devices, sizes):
    assert meshes.sizes(MeshConfig(*asked), devices) == sizes


@pytest.mark.parametrize("asked", [(2, 2, 1), (-1, 3, 1), (16, 1, 1)])
def test_sizes_that_do_not_fit_are_refused(asked):
    with pytest.raises(UserError, match=r"--mesh axes .* there are 8"):
        meshes.sizes(MeshConfig(*asked), 8)


@pytest.mark.parametrize("config, here", [({}, True), ({"data": 3}, False), ({"slices": 2}, False)])
def test_a_mesh_of_more_slices_than_there_are_does_not_fit(config, here):
    """So that a run of a pod is evaluated on one machine: each device takes a replica."""
    assert meshes.fits(MeshConfig(**config)) == here


def test_auto_settles_by_platform():
    mesh = meshes.build(MeshConfig())
    model = meshes.resolve(Config(model=MODEL), mesh).model
    assert (model.kernels, model.dtype, model.remat, model.scan_unroll) == ("cpu", "float32", "none", 1)
    kept = dataclasses.replace(MODEL, kernels="reference", dtype="bfloat16", remat="full")
    model = meshes.resolve(Config(model=kept), mesh).model
    assert (model.kernels, model.dtype, model.remat) == ("reference", "bfloat16", "full")
    with pytest.raises(UserError, match=r"--model.scan-unroll 2"):
        meshes.resolve(Config(model=dataclasses.replace(MODEL, layers=3, scan_unroll=2)), mesh)


@pytest.mark.parametrize("capability, asked, settled", [
    ("9.0", "auto", ("cuda", "bfloat16")), ("8.0", "float32", ("reference", "float32")),
    ("7.5", "auto", ("reference", "float32")), (None, "auto", ("reference", "float32")),
])  # fmt: skip
def test_fused_attention_only_on_cards_that_have_it(capability, asked, settled):
    card = SimpleNamespace(platform="gpu", compute_capability=capability)
    mesh = SimpleNamespace(devices=np.array([[[card]]]), shape={"data": 1, "fsdp": 1, "tensor": 1})
    model = meshes.resolve(Config(model=dataclasses.replace(MODEL, dtype=asked, head_dim=64)), mesh).model
    assert (model.kernels, model.dtype, model.remat) == (*settled, "projections")


def fake(count: int, slices: int, processes: int = 1) -> list:
    """Devices of slices; where there is one slice, of so many processes."""
    return [
        SimpleNamespace(
            id=n,
            process_index=n * processes // count,
            slice_index=n * slices // count,
            platform="gpu",
            device_kind="fake",
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("devices", [fake(16, 2), fake(16, 1, 2)], ids=["slices", "processes"])
def test_only_data_spans_slices(devices):
    """16 devices in two slices: whatever shares fsdp or tensor lies in one of them."""
    config = MeshConfig(data=-1, fsdp=2, tensor=2, slices=2)
    data, fsdp, tensor = meshes.sizes(config, 16)
    placed = meshes._over_slices(2, (data, fsdp, tensor), devices)
    assert placed.shape == (4, 2, 2) and sorted(device.id for device in placed.flat) == list(range(16))
    for block in placed.reshape(2, -1):  # the halves of data are the slices
        assert {device.id // 8 for device in block} in ({0}, {1})


@pytest.mark.parametrize(
    "shape, slices, hint", [((4, 4, 1), 4, "there are 2 slices"), ((1, 16, 1), 2, "not divisible")]
)
def test_slices_that_do_not_fit_are_refused(shape, slices, hint):
    with pytest.raises(UserError, match=hint):
        meshes._over_slices(slices, shape, fake(16, 2))


@pytest.mark.parametrize("here, layers, fsdp, unroll", [
    ("cpu", 32, 1, 32), ("cpu", 33, 1, 1), ("cpu", 32, 2, 1), ("cuda", 32, 1, 32), ("cuda", 32, 8, 32),
    ("cuda", 80, 1, 8), ("cuda", 36, 1, 4), ("tpu", 4, 1, 1),
])  # fmt: skip
def test_layers_that_are_unrolled(here, layers, fsdp, unroll):
    assert meshes.unrolled(here, layers, fsdp) == unroll


@pytest.mark.parametrize("capability, changes, kernels, documents", [
    ("9.0", {}, "cuda", 16), ("9.0", {"documents": 4}, "cuda", 4), ("9.0", {"positions": "relative"}, "cuda", 0),
    ("8.6", {}, "cuda", 0), ("8.6", {"head_dim": 256}, "reference", 0), ("9.0", {"head_dim": 256}, "cuda", 16),
    ("7.5", {}, "reference", 0), ("9.0", {"head_dim": 20}, "reference", 0),
])  # fmt: skip
def test_what_cudnn_takes_by_card_and_head(capability, changes, kernels, documents):
    card = SimpleNamespace(platform="gpu", compute_capability=capability)
    mesh = SimpleNamespace(devices=np.array([[[card]]]), shape={"data": 1, "fsdp": 1, "tensor": 1})
    config = Config(model=dataclasses.replace(MODEL, **{"head_dim": 64, "positions": "rope"} | changes))
    model = meshes.resolve(config, mesh, lambda: 16).model
    assert (model.kernels, model.documents) == (kernels, documents)
    if kernels == "reference":
        with pytest.raises(UserError, match=r"--model\.kernels reference"):
            meshes.resolve(dataclasses.replace(config, model=dataclasses.replace(config.model, kernels="cuda")), mesh)
