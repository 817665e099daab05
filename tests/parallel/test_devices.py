"""Memory of a device, by what is asked first, and platforms by what their devices say."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.parallel import devices
from chinchilla_jax.parallel import mesh as meshes


def card(kind, limit=None, capability="9.0"):
    def stats():
        if limit is None:
            raise NotImplementedError
        return {"bytes_limit": limit}

    return SimpleNamespace(platform="gpu", device_kind=kind, memory_stats=stats, compute_capability=capability)


@pytest.mark.parametrize("kind, gigabytes", [
    ("NVIDIA L40", 48), ("NVIDIA L40S", 48), ("NVIDIA L4", 24), ("NVIDIA GH200 480GB", 96), ("NVIDIA H200", 141),
    ("Tesla T4", 16), ("NVIDIA GeForce RTX 4090", 24), ("NVIDIA B200", 180), ("NVIDIA A100-SXM4-40GB", 40),
    ("NVIDIA A100-SXM4-80GB", 80), ("NVIDIA H100 80GB HBM3", 80), ("NVIDIA Z9", None), ("NVIDIA L400", None),
])  # fmt: skip
def test_names_are_exact(kind, gigabytes):
    found = devices.memory_bytes(card(kind))
    assert found == (gigabytes and gigabytes * 1e9)


def test_the_allocator_knows_best():
    assert devices.memory_bytes(card("NVIDIA L4", limit=17e9)) == 17e9
    assert devices.memory_bytes(card("NVIDIA Z9", limit=17e9)) == 17e9


def test_an_amd_card_is_no_cuda_card():
    for capability, name in (("gfx90a", "rocm"), ("8.0", "cuda"), ("7.5", "cuda")):
        mesh = SimpleNamespace(devices=np.array([card("x", capability=capability)]))
        assert meshes.platform(mesh) == name and meshes.computes_bfloat16(mesh) == (capability != "7.5")
