"""What every adversarial method costs, as a multiple of the plain step: FLOPs of the compiled step and wall clock.

    python tools/bench_adversarial.py [--seconds 60] [--methods fgm-1/8 delayed ...] [--start 0.1] [--shape reference]

FLOPs are XLA's own count, with layers unrolled and one tile of the vocabulary, since it counts the body of a loop once.
Times are medians of steps that take turns, each round starting with the plain one, so that a busy machine slows all
alike; --seconds 0 times nothing. Prints a line a method and one line of JSON.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# layers, d_model, heads, head_dim, d_ff, vocabulary, length, batch
SHAPES = {
    "reference": (6, 128, 4, 32, 512, 4096, 128, 24),
    "wide": (4, 256, 4, 64, 1024, 4096, 128, 16),
    "test": (2, 64, 2, 32, 256, 512, 32, 16),
}
ALL = {"fraction": 1.0}
METHODS = {
    "fgm-1/8": ({"method": "fgm"}, 1.13),
    "fgm-1/8-kl": ({"method": "fgm", "loss": "kl"}, 1.13),
    "delayed": ({"method": "fgm", "delayed": True}, 1.01),
    "delayed-kl-1/32": ({"method": "fgm", "delayed": True, "loss": "kl", "fraction": 1 / 32}, None),
    "softmax_margin": ({"method": "softmax_margin"}, 1.01),
    "noise": ({"method": "noise"}, 1.01),
    "fgm": ({"method": "fgm", **ALL}, 2.02),
    "freelb-2": ({"method": "freelb", "steps": 2, **ALL}, 2.02),
    "pgd-3": ({"method": "pgd", "steps": 3, **ALL}, 3.05),
    "vat": ({"method": "vat", **ALL}, 3.1),
    "r3f": ({"method": "r3f", **ALL}, None),
}


def config(shape: str, start: float = 0.0, **attack):
    """The shape as a config: rotary positions, two-matrix GELU, tied table, AdamW."""
    from chinchilla_jax.config import AdversarialConfig, Config, ModelConfig, ObjectiveConfig, TrainConfig

    layers, d_model, heads, head_dim, d_ff, vocabulary, length, batch = SHAPES[shape]
    sizes = {"layers": layers, "d_model": d_model, "heads": heads, "head_dim": head_dim, "d_ff": d_ff}
    return Config(
        model=ModelConfig(**sizes, vocab_size=vocabulary, mlp="gelu", scan_unroll=layers),
        objective=ObjectiveConfig(tile_tokens=batch * length),
        train=TrainConfig(steps=1000, seq_len=length, batch_size=batch),
        adversarial=AdversarialConfig(start=start, **attack),
    )


def compiled(config):
    """The program and its compiled step."""
    from chinchilla_jax.training.program import Program

    program = Program(config)
    return program, program.step(config.train.batch_size)


def timer(program, step, start: float):
    """A function that does a step, at or after the first attack, and gives its seconds."""
    import jax
    import numpy as np

    from chinchilla_jax.types import Batch

    train = program.config.train
    stream = np.random.default_rng(1).integers(
        4, program.config.model.vocab_size, (train.batch_size, train.seq_len + 1)
    )
    ones = np.ones((train.batch_size, train.seq_len))
    local = Batch(stream[:, :-1], stream[:, 1:], ones, ones, np.cumsum(ones, 1) - 1)
    kinds = {"weights": np.float32}
    local = {name: np.asarray(value, kinds.get(name, np.int32)) for name, value in vars(local).items()}
    batch = program.place(lambda rows: Batch(**{k: v[rows] for k, v in local.items()}), train.batch_size)
    first = jax.device_put(np.int32(start * train.steps), program.state_shardings.step)
    held = [dataclasses.replace(program.initial(), step=first)]

    def once() -> float:
        began = time.perf_counter()
        held[0], _ = step(held[0], batch)
        jax.block_until_ready(held[0])
        return time.perf_counter() - began

    once()
    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="reference", choices=sorted(SHAPES))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=sorted(METHODS), metavar="NAME")
    parser.add_argument("--start", type=float, default=0.0, help="as in --adversarial.start; steps timed lie behind it")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing, over all methods")
    args = parser.parse_args()
    from chinchilla_jax.parallel.host import keep_freed_memory

    keep_freed_memory()
    programs = {"plain": compiled(config(args.shape))}
    programs |= {name: compiled(config(args.shape, args.start, **METHODS[name][0])) for name in args.methods}
    flops = {name: step.cost_analysis()["flops"] for name, (_, step) in programs.items()}
    times = {name: [] for name in programs}
    if args.seconds:
        timers = {name: timer(*pair, args.start) for name, pair in programs.items()}
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end or len(times["plain"]) < 3:
            for name, once in timers.items():
                times[name].append(once())
    rows = {}
    for name in programs:
        clock = statistics.median(a / b for a, b in zip(times[name], times["plain"])) if args.seconds else None
        rows[name] = {"flops": flops[name] / flops["plain"], "time": clock}
        bar = METHODS[name][1] if name in METHODS else None
        shown = f"{clock:7.3f}" if clock else "      -"
        print(f"{name:<16} FLOPs {rows[name]['flops']:6.3f}   time {shown}   bar {bar or '-'}")
    print(json.dumps({"shape": args.shape, "start": args.start, "rounds": len(times["plain"]), "ratios": rows}))


if __name__ == "__main__":
    main()
