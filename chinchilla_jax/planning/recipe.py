"""A config for a number of parameters and tokens: shape, batch, rate, warm-up, and the fastest mesh that fits."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, require
from chinchilla_jax.planning import hparams, shapes
from chinchilla_jax.planning.roofline import SLICES, roofline
from chinchilla_jax.scaling.counts import parameters

FEW_STEPS = 200  # below this many updates a smaller batch gains more than it loses
INIT = 0.4  # over the root of the width: the least initial deviation; narrow models wait at 0.02 (docs/scaling)
WARMUP = 0.02  # most of the run that the warm-up takes; Porian et al. 2024 want about N tokens of it
ROOM = 0.9  # of a chip's memory, for what the formula does not know
MOST_TENSOR = 8  # chips that share heads: those of one machine
REMAT = ("projections", "none", "full")


@dataclass(frozen=True)
class Machine:
    """`chips` of a `kind` that `roofline.SLICES` has; none where the run is for a CPU or nobody has said."""

    kind: str = ""
    chips: int = 1


def parse_chips(text: str) -> Machine:
    """`v5p-256`, `h100-8` or `v5e:4x4`. As Google names slices, v4-N and v5p-N have N cores and N / 2 chips.

    A topology such as v5p:8x8x4 counts chips. Raises `UserError` for anything else.
    """
    fix = f"--chips {text}: write a slice such as v5e-16, v5p:8x8x4 or h100-8"
    kind, dash, number = text.lower().partition("-")
    if dash:
        require(number.isdigit() and int(number) > 0, fix)
        cores = 2 if kind in ("v4", "v5p") else 1
        require(int(number) % cores == 0, f"--chips {text}: {kind} slices have two cores a chip; give an even number")
        return _known(Machine(kind, int(number) // cores), text)
    kind, colon, shape = text.lower().partition(":")
    axes = shape.split("x")
    require(bool(colon) and all(axis.isdigit() and int(axis) > 0 for axis in axes), fix)
    return _known(Machine(kind, math.prod(map(int, axes))), text)


def _known(machine: Machine, text: str) -> Machine:
    require(machine.kind in SLICES, f"--chips {text}: no figures for {machine.kind}; known are {', '.join(SLICES)}")
    return machine


def recipe(
    base: Config,
    params: float,
    tokens: float,
    count: Callable[[ModelConfig], float],
    machine: Machine,
    *,
    shape: bool = True,
    length: int = 0,
) -> Config:
    """The config of a run of about `params` (as `count` counts) on `tokens`, on top of what `base` says of the rest.

    Peak rate and batch are the picks of `hparams.band`. With `shape` false the model of `base` is kept; `length` is the
    tokens of a window, by size where 0. `UserError` where no mesh of the machine holds it.
    """
    model, mesh, micro = base.model, MeshConfig(), 1
    length = length or shapes.length(params)
    for divisor in (1, machine.chips):  # a width that all chips divide is asked for only where no other fits
        if shape:
            model = _model(base.model, params, count, divisor)
        windows, rate = _batch(model, tokens, length, machine.chips)
        if not machine.kind:
            break
        if found := fastest(model, windows, length, machine):
            mesh, micro, remat = found
            model = dataclasses.replace(model, remat=remat)
            break
    else:
        require(False, f"{parameters(model):.3g} parameters do not fit {machine.chips} {machine.kind}; take more")
    steps = max(1, round(tokens / (windows * length)))
    warmup = min(max(1, int(WARMUP * steps)), max(1, round(params / (windows * length))))
    values: dict[str, Any] = {"peak_lr": rate, "schedule": "cosine", "warmup_steps": warmup}
    every = max(1, steps // 10)
    train = dataclasses.replace(
        base.train, steps=steps, seq_len=length, batch_size=windows, microbatches=micro, batch_ramp=(),
        eval_every=every, log_every=max(1, min(base.train.log_every, steps // 100)),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        model=model,
        mesh=mesh,
        train=train,
        optimizer=dataclasses.replace(base.optimizer, **values),
        data=dataclasses.replace(base.data, vocab_size=model.vocab_size),
        checkpoint=dataclasses.replace(base.checkpoint, every=every),
    )


def fastest(model: ModelConfig, windows: int, length: int, machine: Machine) -> tuple[MeshConfig, int, str] | None:
    """(mesh, microbatches, remat) of the fastest step that fits, by formula; None where none fits."""
    best, least = None, math.inf
    kv = model.kv_heads or model.heads
    for tensor in (t for t in _powers(machine.chips) if t <= MOST_TENSOR and kv % t == 0 and model.d_ff % t == 0):
        rest = machine.chips // tensor
        for fsdp in (f for f in _powers(rest) if model.d_model % f == 0):
            for micro in (m for m in range(1, windows // rest + 1) if windows % (m * rest) == 0):
                for remat in REMAT:
                    found = roofline(
                        model, windows * length, length, machine.chips, machine.kind, fsdp, tensor, micro, remat
                    )
                    fits = found["memory_bytes"] <= ROOM * found["memory_capacity_bytes"]
                    if fits and found["expected_seconds"] < least * (1 - 1e-9):
                        best, least = (
                            (MeshConfig(data=rest // fsdp, fsdp=fsdp, tensor=tensor), micro, remat),
                            found["expected_seconds"],
                        )
    return best


def _powers(chips: int) -> list[int]:
    """Divisors of the chips that are powers of two, and all of them together."""
    powers = [1 << i for i in range(chips.bit_length()) if chips % (1 << i) == 0]
    return powers + ([chips] if chips not in powers else [])


def _model(base: ModelConfig, params: float, count: Callable[[ModelConfig], float], divisor: int) -> ModelConfig:
    """The realised shape with everything else as the base has it."""
    family = "chinchilla" if base.positions == "relative" else "modern"
    found = shapes.realise(params, count, family=family, vocab_size=base.vocab_size, divisor=divisor)
    names = ("layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab_size", "positions", "mlp", "biases")
    deviation = max(base.init_std, float(f"{INIT / math.sqrt(found.d_model):.3g}"))
    shape = {name: getattr(found, name) for name in names}
    return dataclasses.replace(base, preset="", init_std=deviation, **shape)


def _batch(model: ModelConfig, tokens: float, length: int, chips: int) -> tuple[int, float]:
    """Windows of a step, a multiple of the chips (and of 8, where there are many), and the peak rate."""
    at = hparams.scale(model, tokens)
    wanted = min(hparams.band(at, "batch").pick, tokens / FEW_STEPS) / length
    unit = math.lcm(chips, 8) if wanted > 4 * math.lcm(chips, 8) else chips
    return max(1, round(wanted / unit)) * unit, float(f"{hparams.band(at, 'rate').pick:.3g}")
