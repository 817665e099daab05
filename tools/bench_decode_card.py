"""Decoding on one GPU: tokens a second at several batches, as a share of what its memory allows, beside Hugging Face.

    python tools/bench_decode_card.py [--preset modern-1b] [--batches 1 8 64] [--torch PYTHON] [--new 256] [--rounds 5]

Ours in bfloat16 and int8; with --torch, an interpreter that has torch with CUDA and transformers, also `generate` with
a static cache and torch.compile on the same shape, in turns with ours. The roof is the bytes of weights and cache that
a step reads, over the bandwidth of the data sheet and over that of a copy measured here. A JSON line a figure.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHEET = {"H100 PCIe": 2.0e12, "H100": 3.35e12, "H200": 4.8e12, "A100": 2.0e12}  # bytes a second
PROMPT = 32

PEER = """
import json, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
shape, batch, prompt, new = json.loads(sys.argv[1]), *map(int, sys.argv[2:5])
model = LlamaForCausalLM(LlamaConfig(**shape)).to("cuda", torch.bfloat16).eval()
model.generation_config.cache_implementation = "static"
model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
ids = torch.randint(0, shape["vocab_size"], (batch, prompt), device="cuda")
how = dict(max_new_tokens=new, min_new_tokens=new, do_sample=False, attention_mask=torch.ones_like(ids))
def once():
    torch.cuda.synchronize(); began = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, **how)
    torch.cuda.synchronize(); return time.perf_counter() - began
for _ in range(3):
    once()
print("READY", flush=True)
for _ in sys.stdin:
    print(once(), flush=True)
"""


def copied(jax, jnp) -> float:
    """Bytes a second of an array that is read and written."""
    x = jnp.ones(2**28, jnp.float32)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="modern-1b")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", default="", metavar="PYTHON")
    args = parser.parse_args()
    import os

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer wants memory too
    import jax
    import jax.numpy as jnp
    import numpy as np

    from chinchilla_jax.config import Config
    from chinchilla_jax.inference.engine import Engine
    from chinchilla_jax.inference.sampling import Rows, Sampling
    from chinchilla_jax.model import presets
    from chinchilla_jax.training.program import Program

    device = jax.devices()[0]
    sheet = next((rate for name, rate in SHEET.items() if name in device.device_kind), float("nan"))
    facts = {
        "device": device.device_kind,
        "preset": args.preset,
        "jax": jax.__version__,
        "copy_GBps": copied(jax, jnp) / 1e9,
    }
    program = Program(Config(model=presets.preset(args.preset, dtype="bfloat16")))
    cfg, params = program.config.model, program.initial().params
    engines = {form: Engine(cfg, cfg.vocab_size, form=form) for form in ("float", "int8")}
    weights = {form: engine.prepare(params) for form, engine in engines.items()}
    del params, program
    for batch in args.batches:
        prompts = np.random.default_rng(1).integers(0, cfg.vocab_size, (batch, PROMPT)).tolist()
        rows = Rows.of(Sampling(temperature=0), range(batch))

        def once(form: str, prompts=prompts, rows=rows, batch=batch) -> float:
            began = time.perf_counter()
            made = np.concatenate(list(engines[form].stream(weights[form], prompts, args.new, rows)), axis=1)
            assert made.shape == (batch, args.new)
            return time.perf_counter() - began

        timed = {form: lambda form=form: once(form) for form in engines}
        peer = args.torch and Peer(args.torch, cfg, batch, args.new)
        timed |= {"huggingface": peer} if peer else {}
        spans = {name: [] for name in timed}
        for turn in range(args.rounds + 1):
            for name, call in timed.items():
                seconds = call()
                spans[name] += [seconds] if turn else []  # the first compiles
        if peer:
            peer.close()
        for name, found in spans.items():
            step = statistics.median(found) / args.new
            line = {
                "name": name,
                "batch": batch,
                "tokens_per_s": round(batch / step, 1),
                "step_ms": round(1e3 * step, 4),
            }
            if name in weights:
                kept = batch * (PROMPT + args.new / 2) * 2 * cfg.layers * (cfg.kv_heads or cfg.heads) * cfg.head_dim * 2
                read = sum(x.nbytes for x in jax.tree.leaves(weights[name])) + kept  # a tied table once
                line |= {
                    "roof_sheet": round(read / sheet / step, 3),
                    "roof_copy": round(read / facts["copy_GBps"] / 1e9 / step, 3),
                }
            if peer:
                line["x_huggingface"] = round(statistics.median(spans["huggingface"]) / statistics.median(found), 3)
            print(json.dumps(line | facts), flush=True)


if __name__ == "__main__":
    main()
