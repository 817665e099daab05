"""The mesh (data, fsdp, tensor) and the platform that it stands on."""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, require
from chinchilla_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
AMPERE, HOPPER = 8.0, 9.0  # compute capabilities of NVIDIA's cards

# Layers that are unrolled whole: a rolled loop costs a CPU a tenth to a fifth of its speed, an H100 2 to 10 % of a step
# for the stacking of activations. Deeper models are unrolled in groups, where compiling them all would cost more.
UNROLLED = {"cpu": (32, 1), "cuda": (32, 8)}
# Keeping attention's weights for the backward pass is quicker on a CPU, and grows with the square of the length.
KEPT_LENGTH = 512


def sizes(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Axis sizes for a number of devices, the -1 filled in; a `UserError` where they do not fit."""
    wanted = [config.data, config.fsdp, config.tensor]
    if -1 in wanted:
        rest = math.prod(s for s in wanted if s != -1)
        require(
            devices % rest == 0,
            f"--mesh axes {dict(zip(AXES, wanted))} need a multiple of {rest} devices, and there are {devices}",
        )
        wanted[wanted.index(-1)] = devices // rest
    require(
        math.prod(wanted) == devices,
        f"--mesh axes {dict(zip(AXES, wanted))} make {math.prod(wanted)} devices, and there are {devices}; "
        "set one axis to -1 to use them all",
    )
    return tuple(wanted)


def fits(config: MeshConfig) -> bool:
    """Whether the axes can be laid over the devices and slices that are here."""
    try:
        build(config)
    except UserError:
        return False
    return True


def build(config: MeshConfig, devices: list | None = None) -> Mesh:
    """The mesh over all devices (of every process), neighbours along `tensor`.

    An axis of a TPU's torus is shared by two of the mesh only where there is no other way. Over several slices, or
    processes where devices know of none, only the gradients' sum along `data` leaves a slice.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = sizes(config, len(devices))
    if config.slices == 1:
        placed = mesh_utils.create_device_mesh((data, fsdp, tensor), devices, allow_split_physical_axes=True)
    else:
        placed = _over_slices(config.slices, (data, fsdp, tensor), devices)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _over_slices(slices: int, shape: tuple[int, int, int], devices: list):
    """The devices of each slice side by side, the slices behind one another along `data`."""
    data, fsdp, tensor = shape
    by_process = len({getattr(device, "slice_index", None) for device in devices}) == 1  # as on GPUs and CPUs
    groups = {device.process_index if by_process else device.slice_index for device in devices}
    what = "processes" if by_process else "slices"
    require(len(groups) == slices, f"--mesh.slices {slices}: there are {len(groups)} {what} here")
    require(data % slices == 0, f"--mesh.data {data} is not divisible by --mesh.slices {slices}")
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp, tensor),
        (slices, 1, 1),
        devices,
        process_is_granule=by_process,
        allow_split_physical_axes=True,
    )


def platform(mesh: Mesh) -> str:
    """`cpu`, `cuda`, `rocm` or `tpu`."""
    device = mesh.devices.flat[0]
    amd = str(getattr(device, "compute_capability", "")).startswith("gfx")
    return {"gpu": "rocm" if amd else "cuda"}.get(device.platform, device.platform)


def computes_bfloat16(mesh: Mesh) -> bool:
    """Whether bfloat16 is quick here: on TPUs, and on NVIDIA's cards since Ampere (compute capability 8)."""
    here = platform(mesh)
    return here != "cpu" and (here != "cuda" or capability(mesh) >= AMPERE)


def unrolled(here: str, layers: int, fsdp: int = 1) -> int:
    """Layers that one iteration of the scan over layers takes.

    XLA:CPU gathers what `fsdp` has split for all layers of an iteration at once, and keeps copies in other layouts.
    """
    whole, group = UNROLLED.get(here, (1, 1)) if fsdp == 1 or here != "cpu" else (1, 1)
    return layers if layers <= whole else math.gcd(layers, group)


def capability(mesh: Mesh) -> float:
    """Compute capability of an NVIDIA card; 0 for other devices."""
    return float(getattr(mesh.devices.flat[0], "compute_capability", None) or 0) if platform(mesh) == "cuda" else 0.0


def fuses(model: ModelConfig, dtype: str, mesh: Mesh) -> bool:
    """Whether cuDNN's attention takes these heads on this card: 16 bits, at most 128 wide (256 since Hopper)."""
    widest = 256 if capability(mesh) >= HOPPER else 128
    return dtype == "bfloat16" and capability(mesh) >= AMPERE and model.head_dim % 8 == 0 and model.head_dim <= widest


def resolve(config: Config, mesh: Mesh, documents: Callable[[], int] = lambda: 0) -> Config:
    """`config` with every `auto` of the model settled for the mesh's platform, and the mesh's own sizes.

    `documents()` is the size that packed attention is compiled for where it can be had and nobody has named one.
    """
    here, model = platform(mesh), config.model
    on_cpu = here == "cpu"
    dtype = model.dtype if model.dtype != "auto" else "bfloat16" if computes_bfloat16(mesh) else "float32"
    fused = here != "cuda" or fuses(model, dtype, mesh)
    auto = {
        "kernels": here if here in ("cpu", "cuda", "tpu") and fused else "reference",
        "dtype": dtype,
        "remat": "none" if on_cpu and config.train.seq_len <= KEPT_LENGTH else "projections",
    }
    settled = {name: value for name, value in auto.items() if getattr(model, name) == "auto"}
    kernels = settled.get("kernels", model.kernels)
    require(
        kernels != "cuda" or here != "cuda" or fused,
        f"--model.kernels cuda: cuDNN's attention takes no heads of {model.head_dim} in {dtype} on this card; set "
        "--model.kernels reference",
    )
    packs = kernels == "cuda" and model.positions == "rope" and capability(mesh) >= HOPPER
    settled["documents"] = (model.documents or documents()) if packs else 0
    unroll = model.scan_unroll or unrolled(here, model.layers, mesh.shape["fsdp"])
    require(model.layers % unroll == 0, f"--model.scan-unroll {unroll} does not divide --model.layers {model.layers}")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, scan_unroll=unroll, **settled),
        mesh=dataclasses.replace(config.mesh, **mesh.shape),
    )
