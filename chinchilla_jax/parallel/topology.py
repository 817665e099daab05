"""Devices that this machine does not have, to compile for."""

import re

from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError

# A TPU v4 has two cores that are used as one device; libtpu has to be told so.
OPTIONS = {"v4": {"chip_config_name": "megacore"}}

# What XLA asks of an NVIDIA card that is not there. Limits: CUDA C++ Programming Guide, "Compute Capabilities".
HOPPER = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 l2_cache_size: 52428800
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 cuda_compute_capability {{ major: 9 }}
  memory_bandwidth: {bandwidth} device_memory_size: {memory}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
device_description_str: "NVIDIA {name}"
"""
CARDS = {
    "h100": HOPPER.format(name="H100 80GB HBM3", bandwidth=3_350_000_000_000, memory=85_000_000_000),
    "h200": HOPPER.format(name="H200", bandwidth=4_800_000_000_000, memory=150_000_000_000),
}


def devices(name: str) -> list:
    """The devices of a TPU slice such as `v5e:4x4` or `v5p:8x8x4`, or of NVIDIA cards such as `h100:8`.

    Needs libtpu and no TPU, or JAX's CUDA plugin and no card. Raises `UserError` where they are missing or do not know
    the name.
    """
    kind, _, shape = name.partition(":")
    asked = (
        _cards(kind, shape) if kind in CARDS else {"platform": "tpu", "topology_name": name, **OPTIONS.get(kind, {})}
    )
    extra = "cuda extra (jax[cuda13])" if kind in CARDS else "tpu extra (libtpu)"
    try:
        return list(topologies.get_topology_desc(**asked).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        fix = f"name a slice such as v5e:4x4 or cards such as h100:8, and install the {extra}"
        raise UserError(f"--topology {name}: {reason}; {fix}") from error


def _cards(kind: str, count: str) -> dict[str, str]:
    """What asks for so many cards, eight a machine."""
    require(bool(re.fullmatch("[1-9][0-9]*", count)), f"--topology {kind}:{count}: how many cards? Say {kind}:8")
    number = int(count)
    require(number <= 8 or number % 8 == 0, f"--topology {kind}:{count}: a machine has 8 cards; take a multiple of 8")
    shape = f"1x{max(1, number // 8)}x{min(8, number)}"
    # JAX asks the card of this machine what cuDNN can do; there is none, and all of `CARDS` are Hopper's.
    fused_attention_stablehlo.check_compute_capability = lambda needed: float(needed) <= 9.0
    return {"platform": "cuda", "target_config": CARDS[kind], "topology": shape}
