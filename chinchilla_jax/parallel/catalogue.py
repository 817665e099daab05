"""Peak speeds and memory of devices by the name that JAX gives them: figures alone, no JAX."""

import re
from typing import NamedTuple


class Device(NamedTuple):
    """Dense bf16 FLOP/s, bytes of memory, bytes/s of memory, and bytes/s to other devices; all of one device.

    `link` is what a device sends along one axis of a TPU's torus in both directions together, or over NVLink or PCIe
    one way; an axis whose length is a multiple of `wrap` is a ring, any other a line of half the bandwidth.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    wrap: int = 0


# FLOP/s, memory and its bandwidth: vendors' data sheets; NVIDIA's and AMD's without sparsity, consumer cards' with sums
# in float32. Links of TPUs: Austin et al. 2025, "How to Scale Your Model", chapter 2, TPU7x by its data sheet; of
# cards: data sheets, half of what is printed for both directions. A name has to stand in jax's device_kind as whole
# words; of several the longest counts.
DEVICES = {
    "TPU v4": Device(275e12, 32e9, 1.2e12, 9e10, 4),
    "TPU v5 lite": Device(197e12, 16e9, 8.1e11, 9e10, 16),
    "TPU v5e": Device(197e12, 16e9, 8.1e11, 9e10, 16),
    "TPU v5p": Device(459e12, 95e9, 2.765e12, 1.8e11, 4),
    "TPU v5": Device(459e12, 95e9, 2.765e12, 1.8e11, 4),
    "TPU v6 lite": Device(918e12, 32e9, 1.6e12, 1.8e11, 16),
    "TPU v6e": Device(918e12, 32e9, 1.6e12, 1.8e11, 16),
    "TPU7x": Device(2307e12, 192e9, 7.37e12, 3.6e11, 4),
    "GB200": Device(2500e12, 186e9, 8e12, 9e11),
    "B200": Device(2250e12, 180e9, 8e12, 9e11),
    "H200": Device(989.4e12, 141e9, 4.8e12, 4.5e11),
    "H100 PCIe": Device(756e12, 80e9, 2.0e12, 6.4e10),
    "H100 NVL": Device(835e12, 94e9, 3.9e12, 6.4e10),
    "H100": Device(989.4e12, 80e9, 3.35e12, 4.5e11),
    "A100-SXM4-40GB": Device(312e12, 40e9, 1.555e12, 3e11),
    "A100-PCIE-40GB": Device(312e12, 40e9, 1.555e12, 3.2e10),
    "A100": Device(312e12, 80e9, 2.039e12, 3e11),
    "MI300X": Device(1307e12, 192e9, 5.3e12, 4.48e11),
    "MI325X": Device(1307e12, 256e9, 6e12, 4.48e11),
    "GH200": Device(989.4e12, 96e9, 4e12, 4.5e11),
    "T4": Device(65e12, 16e9, 3.2e11, 1.6e10),  # float16: it has no bfloat16
    "L40": Device(181e12, 48e9, 8.64e11, 3.2e10),
    "L40S": Device(362e12, 48e9, 8.64e11, 3.2e10),
    "L4": Device(121e12, 24e9, 3e11, 3.2e10),
    "A10G": Device(70e12, 24e9, 6e11, 3.2e10),
    "A10": Device(125e12, 24e9, 6e11, 3.2e10),
    "RTX 6000 Ada": Device(364e12, 48e9, 9.6e11, 3.2e10),
    "RTX A6000": Device(155e12, 48e9, 7.68e11, 3.2e10),
    "RTX 5090": Device(209.5e12, 32e9, 1.792e12, 6.4e10),
    "RTX 4090": Device(165.2e12, 24e9, 1.008e12, 3.2e10),
    "RTX 3090": Device(71e12, 24e9, 9.36e11, 3.2e10),
}


VARIANTS = {"laptop", "mobile", "max", "ti", "super", "d"}  # words that make another card of a name


def figures(kind: str) -> Device | None:
    """The figures of a device by the name that JAX gives it, or None."""
    words = f" {_words(kind)} "
    if VARIANTS & set(words.split()):
        return None
    found = [name for name in DEVICES if f" {_words(name)} " in words]
    return DEVICES[max(found, key=len)] if found else None


def _words(name: str) -> str:
    """A name in lower case with blanks for everything but letters and digits."""
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))


# Between machines: NVIDIA cards of one, and what each of them sends to other machines (400 Gbit/s InfiniBand).
CARDS, BETWEEN_MACHINES = 8, 5e10
