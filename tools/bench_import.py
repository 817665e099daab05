"""Peak host memory and time of `import` and `export` on a folder of random weights, made shard by shard.

    python -m tools.bench_import                     # 1.1 B parameters in bfloat16, TinyLlama's shape: 2.2 GB in /tmp
    python -m tools.bench_import --layers 4 --devices 8

Prints the bytes of the weights, the peak of each command's process (the kernel's VmHWM), and their ratio.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chinchilla_jax.interop.write_tensors import Tensor, write_folder

ROOT = Path(__file__).resolve().parent.parent
SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4}
VOCABULARY, BFLOAT16 = 32000, np.dtype(ml_dtypes.bfloat16)


def make(folder: Path, layers: int) -> int:
    """A Llama of random weights in shards of 500 MB, with a tokenizer of bytes; the bytes of its weights."""
    D, F = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    G = D * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY, D),
        "lm_head.weight": (VOCABULARY, D),
        "model.norm.weight": (D,),
    }
    for n in range(layers):
        layer = f"model.layers.{n}."
        shapes |= {f"{layer}{name}_layernorm.weight": (D,) for name in ("input", "post_attention")}
        shapes |= {f"{layer}self_attn.{c}_proj.weight": (size, D) for c, size in zip("qkvo", (D, G, G, D))}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (F, D) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (D, F)
    draw = np.random.default_rng(0)

    def values(shape):
        return lambda: (0.02 * draw.standard_normal(shape, np.float32)).astype(BFLOAT16)

    tensors = [Tensor(name, shape, BFLOAT16, values(shape)) for name, shape in shapes.items()]
    write_folder(folder, tensors, 500_000_000)
    told = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SHAPE, "num_hidden_layers": layers,
            "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    tokenizer(folder)
    return sum(x.nbytes for x in tensors)


def tokenizer(folder: Path) -> None:
    """One piece a byte."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = tokenizers.Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["</s>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))


CODE = """
import sys
from chinchilla_jax.__main__ import main
code = main(sys.argv[1:])
print("PEAK", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def measured(devices: int, *command: str) -> tuple[int, float]:
    """Peak bytes and seconds of a command in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CODE, *command], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    peak = next(line for line in done.stdout.splitlines() if line.startswith("PEAK"))
    return 1024 * int(peak.split()[1]), time.monotonic() - began


def main() -> None:
    """Make, import, export, and say what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--fsdp", type=int, default=1, help="devices that share the parameters during import")
    parser.add_argument("--export", action="store_true", help="export in bfloat16 too, which loads the whole model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_import") as name:
        place = Path(name)
        (place / "theirs").mkdir()
        size = make(place / "theirs", args.layers)
        print(f"weights {size / 1e9:.2f} GB in bfloat16")
        commands = [("import", str(place / "theirs"), "--run-dir", str(place / "run"), "--mesh.fsdp", str(args.fsdp))]
        if args.export:
            commands.append(("export", "--run-dir", str(place / "run"), "--out", str(place / "ours")))
        for command in commands:
            peak, seconds = measured(args.devices, *command)
            print(f"{command[0]}: peak {peak / 1e9:.2f} GB = {peak / size:.2f} x the weights, {seconds:.0f} s")


if __name__ == "__main__":
    main()
