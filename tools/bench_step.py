"""Throughput of the full training step (clip, guard and metrics included) on a fixed batch; prints one JSON line.

    python tools/bench_step.py --shape tiny --dtype fp32 [--seconds 20]

Takes turns, step by step, with other programs when BENCH_LOCKSTEP=1: prints @@READY, then obeys `STEP n` and `END`
lines on standard input and answers `@@T [[wall_s, cpu_s], ...]`.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# layers, d_model, heads, head_dim, d_ff, vocabulary, length, batch
SHAPES = {
    "nano": (2, 64, 2, 32, 256, 512, 64, 4),
    "tiny": (4, 256, 4, 64, 1024, 8192, 256, 8),
    "chinchilla-44M": (8, 512, 8, 64, 2048, 32000, 512, 4),
}


def parse(extra: Callable = lambda parser: None, about: str | None = __doc__) -> argparse.Namespace:
    """The options that the side-by-side harness gives."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny", choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=5, help="at least this many steps")
    parser.add_argument("--warmup", type=int, default=2)
    extra(parser)
    return parser.parse_args()


def drive(name: str, args: argparse.Namespace, step: Callable[[], float | None], tokens: int, **facts) -> None:
    """Time `step`, which does one unit of `tokens` tokens and waits for it, and print the line."""
    losses = []

    def once() -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        losses.append(step())
        return time.perf_counter() - wall, time.process_time() - cpu

    compile_s = once()[0]
    for _ in range(args.warmup):
        once()
    turns = []
    if os.environ.get("BENCH_LOCKSTEP") == "1":
        print("@@READY", flush=True)
        for order in sys.stdin:
            word, _, count = order.strip().partition(" ")
            if word != "STEP":
                break
            turn = [once() for _ in range(int(count or 1))]
            print("@@T " + json.dumps(turn), flush=True)
            turns += turn
    else:
        end = time.perf_counter() + args.seconds
        while len(turns) < args.steps or time.perf_counter() < end:
            turns.append(once())
    median = statistics.median(wall for wall, _ in turns)
    line = {
        "name": name,
        "shape": args.shape,
        "dtype": args.dtype,
        "tokens_per_s": round(tokens / median, 2),
        "step_ms_median": round(1e3 * median, 3),
        "compile_s": round(compile_s, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "step_ms_min": round(1e3 * min(wall for wall, _ in turns), 3),
        "cpu_ms_per_step": round(1e3 * sum(cpu for _, cpu in turns) / len(turns), 3),
        "steps": len(turns),
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }
    print(json.dumps(line | facts), flush=True)


def config(args: argparse.Namespace):
    """The shape as a config: rotary positions, two-matrix GELU, tied table, AdamW."""
    from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig

    layers, d_model, heads, head_dim, d_ff, vocabulary, length, batch = SHAPES[args.shape]
    return Config(
        model=ModelConfig(
            layers=layers,
            d_model=d_model,
            heads=heads,
            head_dim=head_dim,
            d_ff=d_ff,
            vocab_size=vocabulary,
            mlp="gelu",
            dtype={"fp32": "float32", "bf16": "bfloat16"}[args.dtype],
        ),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        train=TrainConfig(steps=100_000, seq_len=length, batch_size=batch),
    )


def main() -> None:
    args = parse()
    import jax
    import numpy as np

    from chinchilla_jax.parallel.host import keep_freed_memory
    from chinchilla_jax.scaling import counts
    from chinchilla_jax.training.program import Program
    from chinchilla_jax.types import Batch

    began = time.perf_counter()
    keep_freed_memory()
    program = Program(config(args))
    rows, length = program.config.train.batch_size, program.config.train.seq_len
    stream = np.random.default_rng(1).integers(0, program.config.model.vocab_size, (rows, length + 1), np.int32)
    segments = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    local = Batch(stream[:, :-1], stream[:, 1:], segments.astype(np.float32), segments, positions)
    batch = program.place(lambda part: Batch(**{k: v[part] for k, v in vars(local).items()}), rows)
    compiled, state = program.step(rows), [program.initial()]
    compile_s = time.perf_counter() - began

    def step() -> float:
        state[0], metrics = compiled(state[0], batch, *program.beside)
        jax.block_until_ready(state[0])
        return round(float(metrics["loss"]), 4)

    drive(
        "chinchilla_jax",
        args,
        step,
        rows * length,
        compile_all_s=round(compile_s, 3),
        params=counts.parameters(program.config.model),
        version=f"jax {jax.__version__}",
    )


if __name__ == "__main__":
    main()
