"""The real train step, compiled for machines that one may not have: what it needs, moves and takes, before it runs."""

import math
import re
from typing import Any

import jax

from chinchilla_jax.aot import hlo, work
from chinchilla_jax.aot.advice import advise
from chinchilla_jax.config import Config, require
from chinchilla_jax.parallel import devices as machines
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel import sharding
from chinchilla_jax.parallel import topology as slices
from chinchilla_jax.planning.roofline import PRODUCTS
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.program import Program, cost, total_tokens

# Rows of `roofline.PRODUCTS` whose products stand inside a kernel, where no count of the program sees them.
FUSED = {("tpu", "rope"): "tpu", ("tpu", "relative"): "fused", ("cuda", "rope"): "cuda", ("cuda", "relative"): "cuda"}


def report(config: Config, topology: str | None = None, rows: int | None = None) -> dict[str, Any]:
    """What a step of `rows` windows (of the last phase unless told) costs on `topology`, or on the devices here.

    Bytes are per device and seconds a step's. `flops` is the whole run's by the model's own count, `flops_per_step` its
    share of a step, and `flops_executed` what a device's program does, recomputation and masked halves with it.
    `step_seconds` is a roofline: products and memory, the slower of the two for every instruction; communication hides
    behind them where the program starts it ahead, and else adds to them. A step that does not fit has no compiled
    program: its times are None. Raises `UserError` for a topology, a mesh or a model that cannot be.
    """
    program = Program(config, meshes.build(config.mesh, slices.devices(topology)) if topology else None)
    rows = rows or program.config.train.phases[-1][1]
    here = program.mesh.devices.flat[0]
    found = {
        "topology": topology or "here",
        "devices": program.mesh.size,
        "device_kind": here.device_kind,
        "mesh": dict(program.mesh.shape),
        "microbatches": program.config.train.microbatches,
        "rows_per_device": program.microbatch // sharding.shards("batch", program.mesh),
        "remat": program.config.model.remat,
        "batch_tokens": rows * program.config.train.seq_len,
        "memory_capacity_bytes": machines.memory_bytes(here),
    }
    try:
        compiled = program.step(rows)
    except jax.errors.JaxRuntimeError as error:
        found |= _too_large(program, error)
    except RuntimeError as error:
        require("cuDNN" not in str(error), f"{error} Install the cuda extra, or set --model.kernels reference")
        raise
    else:
        found = cost(program, compiled) | found | _memory(program, compiled)
        found |= _speed(program, hlo.parse(compiled.as_text()), rows)
    capacity = found["memory_capacity_bytes"]
    found["fits"] = None if capacity is None else found["memory_bytes"] <= capacity
    return found | {"advice": advise(found)}


def _bytes(tree) -> int:
    """Bytes of a tree's shards on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _state(program: Program) -> dict[str, int]:
    parameters, optimizer = _bytes(program.abstract.params), _bytes(program.abstract.opt_state)
    return {
        "memory_parameters_bytes": parameters,
        "memory_optimizer_bytes": optimizer,
        "memory_gradients_bytes": parameters,
    }


def _memory(program: Program, compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Bytes by class; parameters, optimizer, other (batch, counters, a TPU's padding) and temporaries make them all.

    The gradients, as large as the parameters, are among the temporaries, and so are the activations.
    """
    analysis, state = compiled.memory_analysis(), _state(program)
    arguments = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    other = arguments - state["memory_parameters_bytes"] - state["memory_optimizer_bytes"]
    return state | {"memory_other_bytes": other, "memory_temporary_bytes": analysis.temp_size_in_bytes}


def _too_large(program: Program, error: jax.errors.JaxRuntimeError) -> dict[str, Any]:
    """The same keys where XLA found no room, as far as its message tells; any other error goes on."""
    told = re.search(r"(temporaries) \(([\d.]+)([KMG])\)|([Uu]sed) ([\d.]+)([KMG]) of ", str(error))
    if not told:
        raise error
    amount, unit = (told[2], told[3]) if told[1] else (told[5], told[6])
    state = _state(program)
    kept = state["memory_parameters_bytes"] + state["memory_optimizer_bytes"]
    needed = float(amount) * 2.0 ** {"K": 10, "M": 20, "G": 30}[unit] + (kept if told[1] else 0)
    model = program.config.model
    return state | {
        "parameters": counts.parameters(model),
        "memory_bytes": needed,
        "memory_other_bytes": 0,
        "memory_temporary_bytes": needed - kept,
        **dict.fromkeys(("collectives", "step_seconds", "mfu", "tokens_per_second", "whole_weights_gathered")),
        **{f"step_seconds_{part}": None for part in ("compute", "memory", "network", "waiting")},
    }


def _speed(program: Program, read: hlo.Program, rows: int) -> dict[str, Any]:
    """Communication of the program, and the roofline where the device's figures are known."""
    model, train = program.config.model, program.config.train
    everyone = list(program.mesh.devices.flat)
    figures, spoken = machines.known(everyone[0]), hlo.collectives(read)
    tokens = rows * train.seq_len
    useful = tokens * counts.flops_per_token(model, train.seq_len)
    found = {
        "flops_per_step": useful,
        "collectives": summary(spoken),
        "whole_weights_gathered": whole_weights(program, spoken),
    }
    if figures is None:
        nothing = ("flops_executed", "step_seconds", "mfu", "tokens_per_second")
        parts = [f"step_seconds_{part}" for part in ("compute", "memory", "network", "waiting")]
        return found | dict.fromkeys((*nothing, *parts))
    done = work.measure(read, figures.flops, figures.bandwidth)
    hidden = _fused_attention(program, tokens) / len(everyone)

    def seconds(one: hlo.Collective) -> float:
        group = [everyone[chip] for chip in one.group]
        return one.times * one.sent / machines.network(figures, group, everyone)

    network = sum(map(seconds, spoken))
    waiting = sum(seconds(one) for one in spoken if not one.asynchronous)
    step = max(done.seconds + hidden / figures.flops, network - waiting) + waiting
    return found | {
        "flops_executed": done.flops + hidden,
        "step_seconds": step,
        "step_seconds_compute": (done.flops + hidden) / figures.flops,
        "step_seconds_memory": done.bytes / figures.bandwidth,
        "step_seconds_network": network,
        "step_seconds_waiting": waiting,
        "mfu": useful / len(everyone) / figures.flops / step,
        "tokens_per_second": tokens / step,
        "expected_seconds": step * total_tokens(train) / tokens,
    }


def _fused_attention(program: Program, tokens: int) -> float:
    """FLOPs of a step's attention where a fused kernel computes it: products of L^2/2 x H K, 2 a multiply-add."""
    model, length = program.config.model, program.config.train.seq_len
    kernel = FUSED.get((model.kernels, model.positions))
    if kernel == "fused":
        from chinchilla_jax.model import relative_tpu

        with jax.set_mesh(program.mesh):  # which kind of TPU it is decides
            kernel = kernel if relative_tpu.fits(length, model.head_dim) else None
    if kernel is None:
        return 0.0
    products, again = PRODUCTS[kernel]
    products += again * (model.remat == "full")
    return products * tokens * length * model.heads * model.head_dim * model.layers


def summary(spoken: list[hlo.Collective]) -> dict[str, dict[str, float]]:
    """Communication by kind: how often a step, bytes of the arrays concerned, and bytes that a device sends."""
    found: dict[str, dict[str, float]] = {}
    for one in sorted(spoken):
        here = found.setdefault(one.kind, {"count": 0, "bytes": 0, "sent_bytes": 0})
        here["count"] += one.times
        here["bytes"] += one.times * one.bytes
        here["sent_bytes"] += one.times * one.sent
    return found


def whole_weights(program: Program, spoken: list[hlo.Collective]) -> list[str]:
    """Matrices of all layers at once, and tables, that a device gathers in full outside the loop over the layers."""
    parts, layers = sharding.shards("mlp", program.mesh), program.config.model.layers
    sizes: dict[int, set[str]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(program.abstract.params)[0]:
        if path[-1].key in ("kernel", "table"):
            size = math.prod(leaf.shape) // (parts if path[-1].key == "kernel" else 1)
            sizes.setdefault(size, set()).add(jax.tree_util.keystr(path, simple=True, separator="/"))
    outside = [one for one in spoken if layers not in one.loops and len(one.group) > 1]
    gathered = {math.prod(array.sizes) for one in outside for array in one.gathers}
    return sorted(name for size in gathered for name in sizes.get(size, ()))
