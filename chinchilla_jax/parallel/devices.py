"""What a device can do: peak rates and memory by the name that JAX gives it. An unknown device gives no figure."""

from typing import NamedTuple

import jax


class Device(NamedTuple):
    """Dense bf16 FLOP/s and bytes of memory of one device."""

    flops: float
    memory: float


# Vendor data sheets; NVIDIA's without sparsity. The first name found in jax's device_kind counts.
DEVICES = {
    "TPU v4": Device(275e12, 32e9),
    "TPU v5 lite": Device(197e12, 16e9),
    "TPU v5e": Device(197e12, 16e9),
    "TPU v5p": Device(459e12, 95e9),
    "TPU v5": Device(459e12, 95e9),
    "TPU v6 lite": Device(918e12, 32e9),
    "TPU v6e": Device(918e12, 32e9),
    "H200": Device(989.4e12, 141e9),
    "H100 PCIe": Device(756e12, 80e9),
    "H100 NVL": Device(835e12, 94e9),
    "H100": Device(989.4e12, 80e9),
    "A100-SXM4-40GB": Device(312e12, 40e9),
    "A100-PCIE-40GB": Device(312e12, 40e9),
    "A100": Device(312e12, 80e9),
    "L40S": Device(362e12, 48e9),
    "L4": Device(121e12, 24e9),
}


def known(device: jax.Device) -> Device | None:
    """The figures of a device, or None."""
    return next((figures for name, figures in DEVICES.items() if name in device.device_kind), None)
