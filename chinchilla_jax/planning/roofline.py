"""Memory and time of a step by formula, in no time and without a compiler: what `plan` asks many times.

The terms are those of the program that `aot.compile` reads; docs/aot.md says how far the two are apart.
Letters: D model, H heads, G key/value heads, K head width, F hidden, V vocabulary, N layers, L length.
"""

from typing import Any

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.parallel.catalogue import BETWEEN_MACHINES, CARDS, DEVICES, Device
from chinchilla_jax.scaling.counts import Sizes, flops_per_token, sizes

# A slice's name before the colon, as `--topology` has it: the device, and the axes of its network.
SLICES = {
    "v4": ("TPU v4", 3), "v5e": ("TPU v5e", 2), "v5p": ("TPU v5p", 3), "v6e": ("TPU v6e", 2),
    "tpu7x": ("TPU7x", 3), "h100": ("H100", 1), "h200": ("H200", 1), "a100": ("A100", 1), "b200": ("B200", 1),
    "gb200": ("GB200", 1), "mi300x": ("MI300X", 1), "mi325x": ("MI325X", 1), "l40s": ("L40S", 1), "l4": ("L4", 1),
    "a10g": ("A10G", 1), "a6000": ("RTX A6000", 1), "6000ada": ("RTX 6000 Ada", 1), "rtx5090": ("RTX 5090", 1),
    "rtx4090": ("RTX 4090", 1), "rtx3090": ("RTX 3090", 1),
}  # fmt: skip
BLOCK = 512  # queries that meet their keys at one time
# Products of attention in a step, forward and backward, causal ones of half the size, and those of the forward pass
# that `remat full` computes again; cuDNN's keeps its output. "relative" is by XLA alone, whose scores of relative
# positions pass through memory (pad, shift, mask, softmax) at SCORE_BYTES each, counted in programs compiled for a TPU.
# "tpu" is splash, which computes the scores once more for the keys' gradients. "fused" is `model/relative_tpu.py`: it
# meets twice as many distances as keys, turns a block upside down, and takes rows up to LARGEST numbers a head on a TPU
# v5 and later.
PRODUCTS = {"relative": (11, 1), "fused": (17, 4), "tpu": (9, 2), "cuda": (7, 0)}
SCORE_BYTES = 270
LARGEST = 2**19
# What a step takes over its roofline. Cards: one H100 measured (rotary shapes within 6 %), products at 0.8 of the
# peak, traffic beside them and not behind; relative positions' scores at 0.19 of a TPU's passes by the program compiled
# for an H100 (0.124 s for `chinchilla-425m`, and 1.2 of it as rotary shapes took of theirs). TPUs: good code
# bases report 50 to 60 % MFU where the roofline allows 90. Of the network three fifths of a step's work hide it.
CARD_PEAK, CARD_REACHED, CARD_SCORES = 0.8, 0.83, 0.19
TPU_REACHED = 0.6
HIDES, SHOWS = 0.6, 0.2
TILE = 128  # numbers side by side in a TPU's memory; shards of fewer are gathered by sums, at twice the traffic


def roofline(
    cfg: ModelConfig,
    batch_tokens: int,
    seq_len: int,
    chips: int,
    kind: str,
    fsdp: int = 1,
    tensor: int = 1,
    microbatches: int = 1,
    remat: str = "projections",
) -> dict[str, Any]:
    """Seconds of a step and bytes a chip, of `batch_tokens` tokens on `chips` chips of a `kind` such as v5p or h100.

    What `fsdp` and `tensor` leave of the chips are replicas. The keys are those of `aot.compile.report`. Raises
    `UserError` for a kind that is not in `SLICES` or axes that do not divide the chips.
    """
    require(kind in SLICES, f"no figures for {kind}; known are {', '.join(SLICES)}")
    require(chips % (fsdp * tensor) == 0, f"--mesh.fsdp {fsdp} x --mesh.tensor {tensor} do not divide {chips} devices")
    device, axes = DEVICES[SLICES[kind][0]], SLICES[kind][1]
    n, data = sizes(cfg), chips // (fsdp * tensor)
    tokens = batch_tokens / (data * fsdp)  # of a group that shares heads and hidden units
    attends = _attends(cfg, kind, seq_len)
    memory = _memory(cfg, n, tokens / microbatches, seq_len, fsdp, tensor, microbatches, remat, attends)
    products, scores = _work(cfg, n, tokens / tensor, seq_len, tensor, microbatches, remat, attends)
    moved = _moved(cfg, n, tokens / tensor, microbatches, fsdp, tensor)
    network = _network(cfg, n, tokens, device, axes, data, fsdp, tensor, microbatches, remat)
    bound = max(products / device.flops, moved / device.bandwidth)
    attention = max(scores[0] / device.flops, scores[1] / device.bandwidth)
    step = bound + attention + 28 * n.total / (fsdp * tensor) / device.bandwidth + network
    useful, relative = batch_tokens * flops_per_token(cfg, seq_len), cfg.positions == "relative"
    return memory | {
        "memory_bytes": sum(memory.values()),
        "memory_capacity_bytes": device.memory,
        "fits": sum(memory.values()) <= device.memory,
        "flops_per_step": useful,
        "flops_executed": products + scores[0],
        "step_seconds": step,
        "expected_seconds": _expected(
            device, products + scores[0], moved + scores[1], step - network, network, relative
        ),
        "step_seconds_compute": (products + scores[0]) / device.flops,
        "step_seconds_memory": (moved + scores[1]) / device.bandwidth,
        "step_seconds_network": network,
        "mfu": useful / chips / device.flops / step,
        "tokens_per_second": batch_tokens / step,
    }


def _attends(cfg, kind: str, L: int) -> str:
    """The row of PRODUCTS."""
    tpu = DEVICES[SLICES[kind][0]].wrap
    if cfg.positions != "relative":
        return "tpu" if tpu else "cuda"
    return "fused" if tpu and kind != "v4" and L % TILE == 0 and L * cfg.head_dim <= LARGEST else "relative"


def _expected(device: Device, products: float, moved: float, bound: float, network: float, relative: bool) -> float:
    """Seconds of a step to be expected: from its roofline without the network, `bound`, and the network's."""
    if device.wrap:
        busy = bound / TPU_REACHED
    else:
        traffic = moved * (CARD_SCORES if relative else 1) / device.bandwidth
        busy = (products / device.flops / CARD_PEAK + traffic) / CARD_REACHED
    return busy + max(SHOWS * network, network - HIDES * busy)


def _memory(cfg, n: Sizes, tokens, L, fsdp, tensor, microbatches, remat, attends) -> dict[str, float]:
    """Bytes a chip; `tokens` of one microbatch."""
    shards, t = fsdp * tensor, tensor
    q, kv = cfg.heads * cfg.head_dim, (cfg.kv_heads or cfg.heads) * cfg.head_dim
    hidden = cfg.d_ff * (2 if cfg.gated else 1)
    saved = {"full": cfg.d_model, "projections": 2 * cfg.d_model + (2 * q + 2 * kv + hidden) / t}
    saved["none"] = 2 * saved["projections"]
    relative = cfg.positions == "relative"
    kept = 2 * cfg.layers * (tokens * saved[remat] + relative * (remat != "full") * L * q / t)
    passing = 6 * n.layer / t + 6 * n.table / t + 12 * min(8192, tokens) * cfg.vocab_size / t
    passing += (attends == "relative") * 16 * tokens / L * cfg.heads / t * min(BLOCK, L) * L
    gradients = (4 + 2 * (microbatches > 1)) * n.total / shards
    return {
        "memory_parameters_bytes": 4 * n.total / shards,
        "memory_optimizer_bytes": 8 * n.total / shards,
        "memory_temporary_bytes": gradients + 2 * n.total / shards + kept + passing,
    }


def _work(cfg, n: Sizes, tokens, L, tensor, microbatches, remat, attends) -> tuple[float, tuple[float, float]]:
    """FLOPs a chip outside attention; FLOPs and bytes of its scores. `tokens` of a step, a chip's share."""
    again = 2 if remat == "full" else 0
    q, relative = cfg.heads * cfg.head_dim, cfg.positions == "relative"
    products = tokens * ((6 + again) * cfg.layers * n.met + 6 * n.table)
    products += relative * (4 + again) * cfg.layers * microbatches * L * cfg.d_model * q / tensor
    step, forward = PRODUCTS[attends]
    seen = (L + min(BLOCK, L)) / 2
    flops = (step + forward * again // 2) * 2 * tokens * cfg.layers * seen * q
    scored = SCORE_BYTES * tokens * cfg.layers * seen * cfg.heads
    return products, (flops, scored if attends == "relative" else 0.0)


def _moved(cfg, n: Sizes, tokens, microbatches, fsdp, tensor) -> float:
    """Bytes through a chip's memory beside the scores: gathered weights, gradients and activations, thrice each."""
    q, kv = cfg.heads * cfg.head_dim, (cfg.kv_heads or cfg.heads) * cfg.head_dim
    wide = 8 * cfg.d_model * tensor + 3 * (2 * q + 2 * kv) + 4 * cfg.d_ff
    weights = microbatches * (12 * cfg.layers * n.layer / tensor + 12 * n.total / (fsdp * tensor))
    return weights + 6 * tokens * cfg.layers * wide


def _network(cfg, n: Sizes, tokens, device: Device, axes, data, fsdp, tensor, microbatches, remat) -> float:
    """Seconds of gathering weights twice and summing gradients, and of summing activations over `tensor`."""
    weights = 2 * (cfg.layers * n.layer + n.table) / tensor
    padded = 2 if device.wrap and fsdp > 1 and cfg.d_model / fsdp < TILE else 1
    gathered = microbatches * 3 * weights * (1 - 1 / fsdp) * padded
    replicas = microbatches * 2 * weights / fsdp * (1 - 1 / data)
    sums = (4 + (2 if remat == "full" else 0)) * cfg.layers * 2 * (1 - 1 / tensor) * 2 * tokens * cfg.d_model
    spread = max(axes - (tensor > 1), 1)
    return (gathered + replicas) / _rate(device, fsdp * data, spread) + sums / _rate(device, tensor, 1)


def _rate(device: Device, group: int, axes: int) -> float:
    if device.wrap:
        return device.link * axes
    return device.link if group <= CARDS else min(device.link, BETWEEN_MACHINES)
