"""Decoding on one GPU: tokens a second at several batches, as a share of what its memory allows, beside Hugging Face.

    python tools/bench_decode_card.py [--preset modern-1b] [--batches 1 8 64] [--torch PYTHON] [--new 256] [--rounds 5]

Ours in bfloat16 and int8; with --torch, an interpreter that has torch with CUDA and transformers, also `generate` with
a static cache and torch.compile on the same shape, in turns with ours. The roof is the bytes of weights and cache that
a step reads, over the bandwidth of the data sheet and over that of a copy measured here. A JSON line a figure.
Without a card it runs on the CPU, in float32 and with an uncompiled peer: `--preset modern-150m --layers 2 --new 32
--batches 1 8 --rounds 2` takes a minute.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHEET = {"A100": 2.0e12, "H100": 3.35e12, "H100 PCIe": 2.0e12, "H200": 4.8e12}  # bytes a second; the last match counts
PROMPT = 32

PEER = """
import json, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
shape, batch, prompt, new = json.loads(sys.argv[1]), *map(int, sys.argv[2:5])
card = torch.cuda.is_available()
device, dtype, wait = ("cuda", torch.bfloat16, torch.cuda.synchronize) if card else ("cpu", torch.float32, lambda: None)
model = LlamaForCausalLM(LlamaConfig(**shape)).to(device, dtype).eval()
model.generation_config.cache_implementation = "static"
if card:
    model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
ids = torch.randint(0, shape["vocab_size"], (batch, prompt), device=device)
how = dict(max_new_tokens=new, min_new_tokens=new, do_sample=False, attention_mask=torch.ones_like(ids))
def once():
    wait(); began = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, **how)
    wait(); return time.perf_counter() - began
for _ in range(3):
    once()
print("READY", flush=True)
for _ in sys.stdin:
    print(once(), flush=True)
"""


def copied(floats: int) -> float:
    """Bytes a second of an array that is read and written."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(floats, jnp.float32)
    twice = jax.jit(lambda x: x * 1.5)
    jax.block_until_ready(twice(x))
    spans = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(twice(x))
        spans.append(time.perf_counter() - began)
    return 2 * x.nbytes / min(spans)


class Peer:
    """Hugging Face in a process of its own, which answers seconds of a whole generation."""

    def __init__(self, python: str, cfg, batch: int, new: int):
        shape = {"hidden_size": cfg.d_model, "intermediate_size": cfg.d_ff, "num_hidden_layers": cfg.layers,
                 "num_attention_heads": cfg.heads, "num_key_value_heads": cfg.kv_heads or cfg.heads,
                 "head_dim": cfg.head_dim, "vocab_size": cfg.vocab_size, "tie_word_embeddings": cfg.tied,
                 "max_position_embeddings": 2048}  # fmt: skip
        command = [python, "-c", PEER, json.dumps(shape), *map(str, (batch, PROMPT, new))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self.process.stdout.readline()) != "READY\n":
            if not line:
                raise SystemExit("the peer ended; see its messages above")

    def __call__(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End it, so that its memory is free."""
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """Our engine over random weights of one shape, in the two forms of weights."""

    def __init__(self, preset: str, layers: int, dtype: str):
        from chinchilla_jax.config import Config
        from chinchilla_jax.inference.engine import Engine
        from chinchilla_jax.model import presets
        from chinchilla_jax.training.program import Program

        changes = {"dtype": dtype} | ({"layers": layers} if layers else {})
        program = Program(Config(model=presets.preset(preset, **changes)))
        self.cfg, params = program.config.model, program.initial().params
        self.engines = {form: Engine(self.cfg, self.cfg.vocab_size, form=form) for form in ("float", "int8")}
        self.weights = {form: engine.prepare(params) for form, engine in self.engines.items()}

    def call(self, form: str, batch: int, new: int):
        """A function that generates once and gives the seconds."""
        import numpy as np

        from chinchilla_jax.inference.sampling import Rows, Sampling

        prompts = np.random.default_rng(1).integers(0, self.cfg.vocab_size, (batch, PROMPT)).tolist()
        rows = Rows.of(Sampling(temperature=0), range(batch))

        def once() -> float:
            began = time.perf_counter()
            stream = self.engines[form].stream(self.weights[form], prompts, new, rows)
            assert np.concatenate(list(stream), axis=1).shape == (batch, new)
            return time.perf_counter() - began

        return once

    def read(self, form: str, batch: int, new: int) -> float:
        """Bytes that a step reads: the weights, a tied table once, and the cache of half-way through."""
        import jax

        cfg = self.cfg
        row = 2 * cfg.layers * (cfg.kv_heads or cfg.heads) * cfg.head_dim * jax.numpy.dtype(cfg.dtype).itemsize
        return sum(x.nbytes for x in jax.tree.leaves(self.weights[form])) + batch * (PROMPT + new / 2) * row


def turns(calls: dict, rounds: int) -> dict[str, float]:
    """Median seconds of every call, in turns; the first of each compiles and does not count."""
    spans = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = call()
            spans[name] += [seconds] if turn else []
    return {name: statistics.median(found) for name, found in spans.items()}


def compared(ours: Ours, batch: int, args, rates: dict[str, float], facts: dict) -> None:
    """Print the lines of one batch."""
    calls = {form: ours.call(form, batch, args.new) for form in ours.engines}
    peer = Peer(args.torch, ours.cfg, batch, args.new) if args.torch else None
    seconds = turns(calls | ({"huggingface": peer} if peer else {}), args.rounds)
    if peer:
        peer.close()
    for name, span in seconds.items():
        step = span / args.new
        line = {"name": name, "batch": batch, "tokens_per_s": round(batch / step, 1), "step_ms": round(1e3 * step, 4)}
        if name in calls:
            read = ours.read(name, batch, args.new)
            line |= {f"roof_{kind}": round(read / rate / step, 3) for kind, rate in rates.items()}
        if peer:
            line["x_huggingface"] = round(seconds["huggingface"] / span, 3)
        print(json.dumps(line | facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="modern-1b")
    parser.add_argument("--layers", type=int, default=0, help="fewer than the preset has, for a trial")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", default="", metavar="PYTHON")
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer wants memory too
    import jax

    device = jax.devices()[0]
    card = device.platform == "gpu"
    known = [rate for name, rate in SHEET.items() if name in device.device_kind]
    rates = {"sheet": known[-1]} if known else {}
    rates["copy"] = copied(2**28 if card else 2**24)
    facts = {"device": device.device_kind, "preset": args.preset, "layers": args.layers, "jax": jax.__version__}
    facts["copy_GBps"] = round(rates["copy"] / 1e9, 1)
    ours = Ours(args.preset, args.layers, "bfloat16" if card else "float32")
    for batch in args.batches:
        compared(ours, batch, args, rates, facts)


if __name__ == "__main__":
    main()
