"""What a device can do: peak rates and memory by the name that JAX gives it. An unknown device gives no figure."""

import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Device(NamedTuple):
    """Dense bf16 FLOP/s, bytes of memory, bytes/s of memory, and bytes/s to other devices; all of one device.

    `link` is what a device sends along one axis of a TPU's torus in both directions together, or over NVLink or PCIe
    one way; an axis whose length is a multiple of `wrap` is a ring, any other a line of half the rate.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    wrap: int = 0


# FLOP/s, memory and its bandwidth: vendors' data sheets; NVIDIA's without sparsity. Links of TPUs: Austin et al. 2025,
# "How to Scale Your Model", chapter 2; of NVIDIA's cards: data sheets, half of what is printed for both directions.
# The first name found in jax's device_kind counts.
DEVICES = {
    "TPU v4": Device(275e12, 32e9, 1.2e12, 9e10, 4),
    "TPU v5 lite": Device(197e12, 16e9, 8.1e11, 9e10, 16),
    "TPU v5e": Device(197e12, 16e9, 8.1e11, 9e10, 16),
    "TPU v5p": Device(459e12, 95e9, 2.765e12, 1.8e11, 4),
    "TPU v5": Device(459e12, 95e9, 2.765e12, 1.8e11, 4),
    "TPU v6 lite": Device(918e12, 32e9, 1.6e12, 1.8e11, 16),
    "TPU v6e": Device(918e12, 32e9, 1.6e12, 1.8e11, 16),
    "H200": Device(989.4e12, 141e9, 4.8e12, 4.5e11),
    "H100 PCIe": Device(756e12, 80e9, 2.0e12, 6.4e10),
    "H100 NVL": Device(835e12, 94e9, 3.9e12, 6.4e10),
    "H100": Device(989.4e12, 80e9, 3.35e12, 4.5e11),
    "A100-SXM4-40GB": Device(312e12, 40e9, 1.555e12, 3e11),
    "A100-PCIE-40GB": Device(312e12, 40e9, 1.555e12, 3.2e10),
    "A100": Device(312e12, 80e9, 2.039e12, 3e11),
    "L40S": Device(362e12, 48e9, 8.64e11, 3.2e10),
    "L4": Device(121e12, 24e9, 3e11, 3.2e10),
}

# Between machines: NVIDIA cards of one, and what each of them sends to other machines (400 Gbit/s InfiniBand).
CARDS, BETWEEN_MACHINES = 8, 5e10


# Shares of those rates, and of a measured matrix product on a CPU, that a training step of some size reaches.
PEAK_SHARE, MEASURED_SHARE = 0.4, 0.6


def known(device: jax.Device) -> Device | None:
    """The figures of a device, or None."""
    return next((figures for name, figures in DEVICES.items() if name in device.device_kind), None)


def network(figures: Device, group: list[jax.Device], everyone: list[jax.Device]) -> float:
    """Bytes/s that a device sends while a group of them all talk: over every axis of the torus that the group spans."""
    if not figures.wrap:
        return figures.link if len(group) <= CARDS else min(figures.link, BETWEEN_MACHINES)
    rate = 0.0
    for axis in range(len(everyone[0].coords)):
        spanned, there = ({device.coords[axis] for device in devices} for devices in (group, everyone))
        ring = len(spanned) == len(there) and len(there) % figures.wrap == 0
        rate += figures.link * (0 if len(spanned) == 1 else 1 if ring else 0.5)
    return rate or figures.link


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
