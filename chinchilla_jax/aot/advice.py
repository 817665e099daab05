"""A report of `aot.compile` in words: which setting to change, by rule, and the table that is printed."""

from typing import Any

from chinchilla_jax.planning.attacks import priced


def advise(found: dict[str, Any]) -> str:
    """What to change: the setting that makes a step fit where it does not, or wait less where it waits."""
    capacity, mesh = found["memory_capacity_bytes"], found["mesh"]
    if capacity is None:
        return ""
    if found["fits"]:
        return _faster(found)
    state = sum(found[f"memory_{part}_bytes"] for part in ("parameters", "optimizer", "gradients"))
    room, rows = capacity - state, found["rows_per_device"]
    if room < 0.1 * capacity:
        there = f"parameters, gradients and optimizer take {state / 1e9:.1f} GB of {capacity / 1e9:.1f} a device"
        more = f"--mesh.data 1 --mesh.fsdp {mesh['data'] * mesh['fsdp']}" if mesh["data"] > 1 else "more devices"
        return f"{there}: share them over {more}"
    over = (found["memory_temporary_bytes"] - found["memory_gradients_bytes"]) / room
    if rows > 1:
        parts = next((n for n in range(2, rows) if rows % n == 0 and n >= over), rows)
        return f"activations are too large: --train.microbatches {found['microbatches'] * parts}"
    if found["remat"] != "full":
        return "activations of one row a device are too large: --model.remat full"
    return f"one row a device is too large: --mesh.tensor {2 * mesh['tensor']}, or a shorter --train.seq-len"


def _faster(found: dict[str, Any]) -> str:
    if not found.get("step_seconds") or found["step_seconds_waiting"] < 0.25 * found["step_seconds"]:
        return ""
    waits = f"{found['step_seconds_waiting'] / found['step_seconds']:.0%} of the step waits for the network"
    parts = found["microbatches"]
    fewer = next((parts // n for n in range(2, parts + 1) if parts % n == 0), parts)
    activations = found["memory_temporary_bytes"] - found["memory_gradients_bytes"]
    needed = found["memory_bytes"] + activations * (parts / fewer - 1)
    if fewer < parts and needed <= found["memory_capacity_bytes"]:
        return f"{waits}: --train.microbatches {fewer} gathers the weights less often, in about {needed / 1e9:.0f} GB"
    return f"{waits}: fewer devices, a larger --train.batch-size, or another split of --mesh.fsdp and --mesh.tensor"


def si(value: float, unit: str = "") -> str:
    """1234567 -> 1.23 M."""
    for size, letter in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def table(found: dict[str, Any]) -> str:
    """The report in lines."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    lines = {
        "devices": f"{found['devices']} x {found['device_kind']} ({mesh})",
        "model": f"{si(found['parameters'])} parameters",
        "step": f"{si(found['batch_tokens'])} tokens in {found['microbatches']} microbatches, remat {found['remat']}",
        "memory": _memory(found),
    }
    if found.get("step_multiple", 1.0) > 1:
        lines["perturbed"] = priced(found["step_multiple"])
    if found.get("tokens"):
        lines["run"] = f"{si(found['tokens'])} tokens, {found['tokens_per_parameter']:.3g} a parameter, " + si(
            found["flops"], "FLOP"
        )
    if found["step_seconds"] is not None:
        lines |= _time(found)
    elif found.get("expected_seconds"):
        lines["expected"] = _clock(found["expected_seconds"]) + ", a guess from a measured product"
    for kind, figures in (found["collectives"] or {}).items():
        sent = si(figures["sent_bytes"], "B")
        lines[kind] = f"{si(figures['bytes'], 'B')} in {figures['count']:,} times; a device sends {sent}"
    if found["whole_weights_gathered"]:
        lines["gathered whole"] = ", ".join(found["whole_weights_gathered"])
    lines["verdict"] = _verdict(found)
    return "\n".join(f"{name:<20} {what}" for name, what in lines.items())


def _memory(found: dict[str, Any]) -> str:
    parts = ("parameters", "optimizer", "temporary", "other")
    sizes = ", ".join(f"{part} {found[f'memory_{part}_bytes'] / 1e9:.3g}" for part in parts)
    capacity = found["memory_capacity_bytes"]
    there = "" if capacity is None else f" of {capacity / 1e9:.3g}"
    gradients = found["memory_gradients_bytes"] / 1e9
    return f"{found['memory_bytes'] / 1e9:.3g} GB{there} a device: {sizes} (gradients {gradients:.3g} of the temporary)"


def _time(found: dict[str, Any]) -> dict[str, str]:
    compute, memory, network, waiting = (
        found[f"step_seconds_{part}"] for part in ("compute", "memory", "network", "waiting")
    )
    done = found["flops_executed"] * found["devices"] / found["flops_per_step"]
    return {
        "roofline": f"{found['step_seconds']:.3g} s a step: products {compute:.3g}, memory {memory:.3g}, "
        f"network {network:.3g} s ({waiting:.3g} of it not hidden)",
        "speed": f"{si(found['tokens_per_second'])} tokens/s, MFU {found['mfu']:.1%} at most, "
        f"{_clock(found['expected_seconds'])} for the run",
        "FLOP": f"{si(found['flops_per_step'])} a step by the model's count; a device executes "
        f"{si(found['flops_executed'])}, all of them {done:.3g} times that",
    }


def _clock(seconds: float) -> str:
    size, unit = next((s, u) for s, u in ((86400, "days"), (3600, "hours"), (60, "minutes"), (0, "s")) if seconds >= s)
    return f"{seconds / max(size, 1):.3g} {unit}"


def _verdict(found: dict[str, Any]) -> str:
    word = {True: "fits", False: "does not fit", None: "memory of this device is unknown"}[found["fits"]]
    return f"{word}; {found['advice']}" if found["advice"] else word
