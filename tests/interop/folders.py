"""Random Hugging Face folders of every architecture, and what transformers computes of them, in plain numpy.

The forward pass reads their names, their orientation and their config.json; nothing of ours.
"""

import functools
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tests.data import jsons

SIZES = {
    "vocab_size": 320, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
WAVES = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 16, "rope_theta": 20.0}  # fmt: skip
KINDS = {  # what each says beyond the sizes
    "LlamaForCausalLM": {"model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": True, "rope_theta": 500.0},
    "MistralForCausalLM": {"model_type": "mistral", "hidden_act": "silu", "tie_word_embeddings": False,
                           "sliding_window": None, "head_dim": 10, "rope_parameters": WAVES},
    "Qwen2ForCausalLM": {"model_type": "qwen2", "hidden_act": "silu", "tie_word_embeddings": True,
                         "rope_scaling": {"type": "linear", "factor": 4.0}, "num_key_value_heads": 1},
    "Qwen3ForCausalLM": {"model_type": "qwen3", "hidden_act": "silu", "tie_word_embeddings": False, "head_dim": 8},
    "GemmaForCausalLM": {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True,
                         "head_dim": 12, "num_key_value_heads": 4},
}  # fmt: skip


tokenizer = functools.cache(lambda: jsons.byte_level(size=300))


def settings(kind: str, **changes) -> dict:
    """A config.json."""
    return {"architectures": [kind], **SIZES, **KINDS[kind], **changes}


def shapes(told: dict) -> dict[str, tuple[int, ...]]:
    """The tensors that transformers has for a config.json."""
    D, F, V, H, G = (told[key] for key in ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads",
                                           "num_key_value_heads"))  # fmt: skip
    K = told.get("head_dim") or D // H
    found = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    found |= {} if told["tie_word_embeddings"] else {"lm_head.weight": (V, D)}
    biases = told["model_type"] == "qwen2" or told.get("attention_bias")
    for n in range(told["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        found |= {layer + name + ".weight": (D,) for name in ("input_layernorm", "post_attention_layernorm")}
        for name, heads in (("q", H), ("k", G), ("v", G)):
            found[f"{layer}self_attn.{name}_proj.weight"] = (heads * K, D)
            found |= {f"{layer}self_attn.{name}_proj.bias": (heads * K,)} if biases else {}
        found[f"{layer}self_attn.o_proj.weight"] = (D, H * K)
        found |= {f"{layer}self_attn.o_proj.bias": (D,)} if told.get("attention_bias") else {}
        if told["model_type"] == "qwen3":
            found |= {f"{layer}self_attn.{name}_norm.weight": (K,) for name in "qk"}
        found |= {f"{layer}mlp.{name}_proj.weight": (F, D) for name in ("gate", "up")}
        found[f"{layer}mlp.down_proj.weight"] = (D, F)
        if told.get("mlp_bias"):
            found |= {f"{layer}mlp.{name}_proj.bias": (size,) for name, size in (("gate", F), ("up", F), ("down", D))}
    return found


def tensors(told: dict, dtype=np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values; norms about their neutral value, biases of the way out 0."""
    draw, found = np.random.default_rng(seed), {}
    neutral = told["model_type"] != "gemma"
    for name, shape in shapes(told).items():
        x = 0.3 * draw.standard_normal(shape) + (neutral if "norm" in name else 0)
        found[name] = (0 * x if name.endswith(("o_proj.bias", "down_proj.bias")) else x).astype(dtype)
    return found


def tokenizer_of(folder: Path) -> None:
    """Put a tokenizer into a folder."""
    jsons.write(folder, tokenizer(), bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template="{{ messages }}")


def write(folder: Path, told: dict, weights: dict[str, np.ndarray], shards: int = 1) -> Path:
    """A folder with a tokenizer, in one file or in so many."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told))
    tokenizer_of(folder)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, table = sorted(weights), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(x.nbytes for x in weights.values())}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def folder(path: Path, kind: str, dtype=np.float32, shards: int = 1, seed: int = 0, **changes) -> Path:
    """A whole random model."""
    told = settings(kind, **changes)
    return write(path, told, tensors(told, dtype, seed), shards)


def frequencies(told: dict, K: int) -> np.ndarray:
    """Radians a token of each rotary pair, as transformers' modeling_rope_utils.py has them."""
    table = {**(told.get("rope_scaling") or {}), **(told.get("rope_parameters") or {})}
    theta = table.get("rope_theta", told.get("rope_theta", 10000.0))
    inverse = 1.0 / theta ** (np.arange(0, K, 2) / K)
    kind = table.get("rope_type", table.get("type", "default"))
    if kind == "linear":
        return inverse / table["factor"]
    if kind == "default":
        return inverse
    length, low, high = (table[key] for key in ("original_max_position_embeddings", "low_freq_factor",
                                                "high_freq_factor"))  # fmt: skip
    wavelength = 2 * math.pi / inverse
    scaled = np.where(wavelength > length / low, inverse / table["factor"], inverse)
    smooth = (length / wavelength - low) / (high - low)
    medium = ~(wavelength < length / high) & ~(wavelength > length / low)
    return np.where(medium, (1 - smooth) * scaled / table["factor"] + smooth * scaled, scaled)


def logits(told: dict, weights: dict[str, np.ndarray], ids_BL: np.ndarray) -> np.ndarray:
    """What `AutoModelForCausalLM` gives, in float64."""
    w = {name: x.astype(np.float64) for name, x in weights.items()}
    D, H, G = told["hidden_size"], told["num_attention_heads"], told["num_key_value_heads"]
    K, gemma = told.get("head_dim") or D // H, told["model_type"] == "gemma"

    def norm(name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + told["rms_norm_eps"]) * (gemma + w[name])

    def linear(name, x):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    def turned(x_BhLK, angle_LK):
        half = np.concatenate([-x_BhLK[..., K // 2 :], x_BhLK[..., : K // 2]], -1)
        return x_BhLK * np.cos(angle_LK) + half * np.sin(angle_LK)

    def heads(x_BLC, count, layer, which):
        x_BhLK = x_BLC.reshape(*x_BLC.shape[:2], count, K).swapaxes(1, 2)
        name = f"{layer}self_attn.{which}_norm.weight"
        return norm(name, x_BhLK) if name in w else x_BhLK

    def active(x):
        return (
            0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) if gemma else x / (1 + np.exp(-x))
        )

    L = ids_BL.shape[1]
    angle_LK = np.tile(np.arange(L)[:, None] * frequencies(told, K), 2)
    x_BLD = w["model.embed_tokens.weight"][ids_BL] * (math.sqrt(D) if gemma else 1.0)
    for n in range(told["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        h_BLD = norm(layer + "input_layernorm.weight", x_BLD)
        q, k, v = (heads(linear(f"{layer}self_attn.{c}_proj", h_BLD), count, layer, c)
                   for c, count in (("q", H), ("k", G), ("v", G)))  # fmt: skip
        q, k = turned(q, angle_LK), turned(k, angle_LK)
        k, v = (np.repeat(x, H // G, axis=1) for x in (k, v))
        score = q @ k.swapaxes(-1, -2) / math.sqrt(K) + np.triu(np.full((L, L), -np.inf), 1)
        p = np.exp(score - score.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True)) @ v
        x_BLD = x_BLD + linear(layer + "self_attn.o_proj", mixed.swapaxes(1, 2).reshape(*h_BLD.shape[:2], H * K))
        h_BLD = norm(layer + "post_attention_layernorm.weight", x_BLD)
        gate, up = (linear(f"{layer}mlp.{name}_proj", h_BLD) for name in ("gate", "up"))
        x_BLD = x_BLD + linear(layer + "mlp.down_proj", active(gate) * up)
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm("model.norm.weight", x_BLD) @ head.T


BFLOAT16 = ml_dtypes.bfloat16
