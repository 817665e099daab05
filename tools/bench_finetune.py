"""A LoRA step on a model of SmolLM2-135M's shape, in turns with peft + transformers + torch; prints one JSON line.

    python tools/bench_finetune.py --peft-python /path/to/python-with-torch-and-peft [--rounds 7] [--trained 0.1]

Both sides: float32, rank 8 on all projections, 4 rows of 128 tokens, cross-entropy over every token (or over the last
`--trained` share of each row, as where prompts have no loss), clip at 1, AdamW
on the adapter alone, random weights. Each round is a step of ours and a step of theirs, one after the other, and the
ratio is the median over rounds of theirs over ours (above 1: ours is faster): of the time by the clock, and of the CPU
time, which other jobs trouble less. Threads that wait for each other spend that too, so take it with `--threads 1`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
SHAPE = {"layers": 30, "d_model": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "d_ff": 1536, "vocab_size": 49152}
ROWS, LENGTH, RANK = 4, 128, 8


def ours(threads: int, trained: int):
    """A function that makes one step with this package."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np

    from chinchilla_jax.config import Config, ModelConfig, ObjectiveConfig, OptimizerConfig, TrainConfig, TuneConfig
    from chinchilla_jax.model import transformer
    from chinchilla_jax.parallel.host import keep_freed_memory
    from chinchilla_jax.training.program import Program
    from chinchilla_jax.types import Batch

    keep_freed_memory()
    model = ModelConfig(positions="rope", mlp="swiglu", tied=True, rope_theta=100000.0, norm_eps=1e-5, **SHAPE)
    config = Config(
        model=model,
        objective=ObjectiveConfig(positions="all" if trained == LENGTH else "trained"),
        tune=TuneConfig(method="lora", rank=RANK),
        optimizer=OptimizerConfig(peak_lr=3e-4, warmup_steps=0, weight_decay=0.0),
        train=TrainConfig(steps=1000, seq_len=LENGTH, batch_size=ROWS),
    )
    program = Program(config, base=None)
    params = jax.jit(lambda key: transformer.init(key, program.config.model))(jax.random.key(0))
    program.base = SimpleNamespace(params=params, release=lambda: None)
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (ROWS, LENGTH + 1)).astype(np.int32)
    ones = np.ones((ROWS, LENGTH), np.int32)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ones.shape)
    weights = ones.astype(np.float32)
    weights[:, : LENGTH - trained] = 0
    rows = Batch(tokens[:, :-1], tokens[:, 1:], weights, ones, positions)

    def part(span):
        return Batch(**{name: value[span] for name, value in vars(rows).items()})

    batch, compiled, state = program.place(part, ROWS), program.step(ROWS), [program.initial()]

    def step() -> float:
        state[0], metrics = compiled(state[0], batch, *program.beside)
        jax.block_until_ready(state[0])
        return float(metrics["loss"])

    return step


def theirs(threads: int, trained: int):
    """The same with torch."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["d_model"], intermediate_size=SHAPE["d_ff"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["kv_heads"],
        head_dim=SHAPE["head_dim"], tie_word_embeddings=True, rms_norm_eps=1e-5, rope_theta=100000.0,
        attn_implementation="sdpa",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    lora = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora).train()
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0)
    tokens = torch.randint(0, SHAPE["vocab_size"], (ROWS, LENGTH + 1))
    targets = tokens[:, 1:].clone()
    targets[:, : LENGTH - trained] = -100

    def step() -> float:
        loss = model(input_ids=tokens[:, :-1], labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


SIDES = {"ours": ours, "theirs": theirs}


def serve(side: str, threads: int, trained: int) -> None:
    """Make a step for every line of standard input and answer with its seconds and its loss."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    step = SIDES[side](threads, trained)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        began, spent = time.perf_counter(), time.process_time()
        loss = step()
        print(json.dumps([time.perf_counter() - began, time.process_time() - spent, loss]), flush=True)


def start(python: str, side: str, args: argparse.Namespace) -> subprocess.Popen:
    """A side in a process of its own."""
    command = [python, __file__, "--side", side, "--threads", str(args.threads), "--trained", str(args.trained)]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def turn(process: subprocess.Popen) -> list[float]:
    """One step of a side."""
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    """Both sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peft-python", help="interpreter that has torch, transformers and peft")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--trained", type=float, default=1.0, help="share of every row's tokens that have a loss")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args.side, args.threads, max(1, round(args.trained * LENGTH)))
    both = {"ours": start(sys.executable, "ours", args)}
    both |= {"theirs": start(args.peft_python or sys.executable, "theirs", args)}
    try:
        for name, process in both.items():
            if process.stdout.readline().strip() != "ready":
                sys.exit(f"{name} did not start; --peft-python names an interpreter with torch, transformers and peft")
        rounds = [{name: turn(process) for name, process in both.items()} for _ in range(args.rounds)]
    finally:
        for process in both.values():
            process.kill()
    seconds = {name: [one[name][0] for one in rounds] for name in both}
    line = {f"{name}_step_s": round(statistics.median(times), 3) for name, times in seconds.items()}
    for name, at in (("ratio", 0), ("cpu_ratio", 1)):
        ratios = sorted(one["theirs"][at] / one["ours"][at] for one in rounds)
        line |= {name: round(statistics.median(ratios), 3), f"{name}s": [round(ratio, 3) for ratio in ratios]}
    line |= {"tokens_per_s": round(ROWS * LENGTH / line["ours_step_s"], 1), "rounds": args.rounds}
    line |= {f"{name}_loss": round(rounds[-1][name][2], 4) for name in both}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
