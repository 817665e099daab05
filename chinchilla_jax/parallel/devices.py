"""What a device can do: peak rates and memory by the name that JAX gives it. An unknown device gives no figure."""

import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp


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


# Shares of those rates, and of a measured matrix product on a CPU, that a training step of some size reaches.
PEAK_SHARE, MEASURED_SHARE = 0.4, 0.6


def known(device: jax.Device) -> Device | None:
    """The figures of a device, or None."""
    return next((figures for name, figures in DEVICES.items() if name in device.device_kind), None)


def expected_rate(devices: list[jax.Device]) -> float | None:
    """FLOP/s that a training step may be expected to do on these devices together; None where nobody can tell.

    CPU devices share one processor, which is measured for a tenth of a second.
    """
    figures = known(devices[0])
    if figures:
        return PEAK_SHARE * figures.flops * len(devices)
    return MEASURED_SHARE * _measured() if devices[0].platform == "cpu" else None


def _measured(size: int = 1024, times: int = 4) -> float:
    """FLOP/s of a square float32 product on this machine's CPU, the best of a few."""
    x = jax.device_put(jnp.ones((size, size)), jax.local_devices(backend="cpu")[0])
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def memory_bytes(device: jax.Device) -> float | None:
    """Memory that one device may use, its share of the host's on a CPU; None where nobody can tell."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(jax.local_devices(backend="cpu"))
    figures = known(device)
    return figures.memory if figures else None
