"""Figures of devices by the name that JAX gives them."""

import pytest

from chinchilla_jax.parallel.catalogue import DEVICES, figures


@pytest.mark.parametrize("kind, name", [
    ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H100 NVL", "H100 NVL"),
    ("NVIDIA GH200 480GB", "GH200"), ("TPU v5 lite", "TPU v5 lite"), ("TPU v5", "TPU v5"), ("TPU v5p", "TPU v5p"),
    ("nvidia a100-pcie-40gb", "A100-PCIE-40GB"), ("NVIDIA A10G", "A10G"), ("AMD Instinct MI300X", "MI300X"),
])  # fmt: skip
def test_the_longest_name_in_whole_words_counts(kind, name):
    assert figures(kind) is DEVICES[name]


@pytest.mark.parametrize("kind", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA L400",
                                  "NVIDIA A100X", "TPU v", "cpu", ""])  # fmt: skip
def test_another_card_of_a_similar_name_is_unknown(kind):
    assert figures(kind) is None


def test_every_name_finds_itself_and_has_possible_figures():
    """FLOP/s of bf16, memory and bandwidths in bytes: a slip in a power of ten or two exchanged columns are noticed."""
    for name, device in DEVICES.items():
        assert figures(name) is device
        assert 5e13 < device.flops < 1e16 and 1e10 < device.memory < 1e12, name
        assert 2e11 < device.bandwidth < 1e13 and 1e10 < device.link < device.bandwidth, name
        assert 50 < device.flops / device.bandwidth < 600, f"{name}: FLOPs a byte"
        assert bool(device.wrap) == name.startswith("TPU"), name
