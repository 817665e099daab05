"""What a device can do: peak speeds and memory by the name that JAX gives it. An unknown device gives no figure."""

import time

import jax
import jax.numpy as jnp

from chinchilla_jax.parallel.catalogue import BETWEEN_MACHINES, CARDS, Device, figures
from chinchilla_jax.parallel.memory import host_memory

# Shares of those speeds, and of a measured matrix product on a CPU, that a training step of some size reaches.
PEAK_SHARE, MEASURED_SHARE = 0.4, 0.6


def known(device: jax.Device) -> Device | None:
    """The figures of a device, or None."""
    return figures(device.device_kind)


def network(own: Device, group: list[jax.Device], everyone: list[jax.Device]) -> float:
    """Bytes/s that a device sends while a group of them all talk: over every axis of the torus that the group spans."""
    if not own.wrap:
        return own.link if len(group) <= CARDS else min(own.link, BETWEEN_MACHINES)
    bandwidth = 0.0
    for axis in range(len(everyone[0].coords)):
        spanned, there = ({device.coords[axis] for device in devices} for devices in (group, everyone))
        ring = len(spanned) == len(there) and len(there) % own.wrap == 0
        bandwidth += own.link * (0 if len(spanned) == 1 else 1 if ring else 0.5)
    return bandwidth or own.link


def expected_flops_per_s(devices: list[jax.Device]) -> float | None:
    """FLOP/s that a training step may be expected to do on these devices together; None where nobody can tell.

    CPU devices share one processor, which is measured for a tenth of a second.
    """
    own = known(devices[0])
    if own:
        return PEAK_SHARE * own.flops * len(devices)
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
    """Memory that one device may use: what JAX's allocator says, else the catalogue; its share of the host's, or of
    what a container is given, on a CPU. None where nobody can tell."""
    if device.platform == "cpu":
        return host_memory() / len(jax.local_devices(backend="cpu"))
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except (AttributeError, NotImplementedError, RuntimeError):  # a device of another machine, compiled for
        limit = None
    own = known(device)
    return float(limit) if limit else own.memory if own else None
