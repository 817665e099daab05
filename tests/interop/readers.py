"""What vLLM's loader and llama.cpp ask of a folder and a file, in plain numpy, and llama.cpp itself where it is there.

vLLM: its registry, DefaultModelLoader and `load_weights` of llama, qwen2, qwen3 and gemma (read in 2026). llama.cpp:
the constants of the `gguf` package, and the keys without which it refuses a file.
"""

import json

import gguf
import numpy as np
import pytest
from safetensors import safe_open

REGISTRY = {f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma")}
ACTIVATIONS = {"silu", "gelu_pytorch_tanh"}  # of those classes
JOINED = {  # parameter -> its parts in a file, in order
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
LLAMA_CPP = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
             "attention.layer_norm_rms_epsilon")  # fmt: skip


def vllm_takes(folder) -> None:
    """Every parameter that vLLM makes of config.json is filled by the tensors of the files, and none is left over."""
    told = json.loads((folder / "config.json").read_text())
    assert len(told["architectures"]) == 1 and told["architectures"][0] in REGISTRY
    assert told["hidden_act"] in ACTIVATIONS and told["dtype"] == told["torch_dtype"] in (
        "float32",
        "bfloat16",
        "float16",
    )
    rope = told["rope_parameters"]
    assert rope["rope_theta"] == told["rope_theta"] and {**rope, **(told.get("rope_scaling") or {})} == rope
    assert told["max_position_embeddings"] > 0 and told.get("sliding_window") is None
    wanted, found = parameters(told), {}
    for name, shape in stored(folder).items():
        module, _, kind = name.rpartition(".")
        joined = next((whole for whole, parts in JOINED.items() if module.endswith(parts)), None)
        part = next((part for part in JOINED.get(joined, ()) if module.endswith(part)), "")
        key = f"{module.removesuffix(part)}{joined}.{kind}" if joined else name
        assert key in wanted, f"vLLM has no parameter for {name}"
        rows, *rest = shape
        found[key] = (found.get(key, (0,))[0] + rows, *rest)
    assert found == wanted
    files = {path.name for path in folder.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= files
    assert not any(name.startswith("consolidated") or name.endswith((".bin", ".pt")) for name in files)
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert all(0 <= i < told["vocab_size"] for i in (ends if isinstance(ends, list) else [ends]))


def stored(folder) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors; each stands in the file that the index names, and in no other."""
    found, where = {}, {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            where |= dict.fromkeys(file.keys(), path.name)
    index = folder / "model.safetensors.index.json"
    assert not index.exists() or json.loads(index.read_text())["weight_map"] == where
    return found


def parameters(told: dict) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters that vLLM's classes have."""
    D, F, H, G = (told[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"))
    K, kind = told.get("head_dim") or D // H, told["model_type"]
    biased = kind == "qwen2" or told.get("attention_bias", False)
    found = {"model.embed_tokens.weight": (told["vocab_size"], D), "model.norm.weight": (D,)}
    found |= {} if told["tie_word_embeddings"] else {"lm_head.weight": (told["vocab_size"], D)}
    for n in range(told["num_hidden_layers"]):
        layer = {f"{name}_layernorm.weight": (D,) for name in ("input", "post_attention")}
        layer |= {"self_attn.qkv_proj.weight": ((H + 2 * G) * K, D), "self_attn.o_proj.weight": (D, H * K)}
        layer |= {"mlp.gate_up_proj.weight": (2 * F, D), "mlp.down_proj.weight": (D, F)}
        layer |= {"self_attn.qkv_proj.bias": ((H + 2 * G) * K,)} if biased else {}
        layer |= {"self_attn.o_proj.bias": (D,)} if biased and kind != "qwen2" else {}
        layer |= {"mlp.gate_up_proj.bias": (2 * F,), "mlp.down_proj.bias": (D,)} if told.get("mlp_bias") else {}
        layer |= {f"self_attn.{name}_norm.weight": (K,) for name in "qk"} if kind == "qwen3" else {}
        found |= {f"model.layers.{n}.{name}": shape for name, shape in layer.items()}
    return found


def llama_cpp_takes(path) -> None:
    """Its keys are those of the `gguf` package, its tensors those of the architecture, and what must be there is."""
    reader = gguf.GGUFReader(path)
    told = {key: field.contents() for key, field in reader.fields.items()}
    arch = told["general.architecture"]
    number = next(i for i, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    assert all(f"{arch}.{key}" in told for key in LLAMA_CPP)
    known = {value.replace("{arch}", arch) for group in vars(gguf.Keys).values() if isinstance(group, type)
             for value in vars(group).values() if isinstance(value, str)}  # fmt: skip
    odd = [key for key in told if key not in known and not key.startswith(("GGUF.", "chinchilla_jax."))]
    assert not odd, odd
    names = {gguf.TENSOR_NAMES[i] for i in gguf.MODEL_TENSORS[number]}
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    for name in shapes:
        parts = name.split(".")
        stem = ".".join(["blk", "{bid}", *parts[2:-1]]) if parts[0] == "blk" else ".".join(parts[:-1])
        assert stem in names and parts[-1] in ("weight", "bias"), name
    assert shapes["token_embd.weight"] == [told[f"{arch}.embedding_length"], len(told["tokenizer.ggml.tokens"])]
    assert told["tokenizer.ggml.model"] in ("llama", "gpt2")
    needed = "scores" if told["tokenizer.ggml.model"] == "llama" else "merges"
    assert f"tokenizer.ggml.{needed}" in told and len(told["tokenizer.ggml.token_type"]) == len(
        told["tokenizer.ggml.tokens"]
    )
    assert 0 <= told["tokenizer.ggml.eos_token_id"] < len(told["tokenizer.ggml.tokens"])


def llama_cpp(path, length: int):
    """A file opened by llama.cpp, its cache in float32; skips where llama-cpp-python is not installed."""
    library = pytest.importorskip("llama_cpp", reason="llama-cpp-python is in the parity environment")
    plain = {"flash_attn": False, "type_k": library.GGML_TYPE_F32, "type_v": library.GGML_TYPE_F32}
    return library.Llama(
        str(path), n_ctx=length, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, **plain
    )


def llama_cpp_logits(model, ids: list[int]) -> np.ndarray:
    """What it gives at every place of a text."""
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)])
