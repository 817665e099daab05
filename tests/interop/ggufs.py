"""GGUF files of random models, written with the library's own writer and llama.cpp's conversions, spelled out here."""

import json
from pathlib import Path

import gguf
import numpy as np

from chinchilla_jax.interop.gguf_tokenizer import WORDS
from tests.data import jsons
from tests.interop import folders

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "gemma": "GemmaForCausalLM"}  # fmt: skip
THEIRS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
          "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
          "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
          "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}  # fmt: skip


def name_of(name: str) -> str:
    """What llama.cpp's converter calls a tensor."""
    body, kind = name.rsplit(".", 1)
    parts = body.split(".")
    if parts[1:2] == ["layers"]:
        return f"blk.{parts[2]}.{THEIRS['.'.join(parts[3:])]}.{kind}"
    return f"{THEIRS[body]}.{kind}"


def permute(x: np.ndarray, heads: int) -> np.ndarray:
    """`LlamaModel.permute` of convert_hf_to_gguf.py."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def settings(arch: str, **changes) -> dict:
    """A config.json of plain positions and rows that can be quantised."""
    plain = {"rope_theta": 500.0, "hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
    found = {**folders.settings(ARCHITECTURES[arch]), **plain, **changes}
    return {key: value for key, value in found.items() if key not in ("rope_scaling", "rope_parameters")}


def write(path: Path, arch: str, told: dict, weights: dict, kind: str = "F32", leave: tuple = (), **more) -> dict:
    """Write a file; the weights as a reader must see them, in Hugging Face's form.

    `leave`: keys left out; `more`: keys added, with __ for dots.
    """
    writer = gguf.GGUFWriter(path, arch)
    K = told.get("head_dim") or told["hidden_size"] // told["num_attention_heads"]
    keys = {"block_count": told["num_hidden_layers"], "context_length": told["max_position_embeddings"],
            "embedding_length": told["hidden_size"], "feed_forward_length": told["intermediate_size"],
            "attention.head_count": told["num_attention_heads"], "attention.head_count_kv": told["num_key_value_heads"],
            "attention.key_length": K, "attention.value_length": K,
            "attention.layer_norm_rms_epsilon": told["rms_norm_eps"], "rope.freq_base": told["rope_theta"]}  # fmt: skip
    keys = {f"{arch}.{key}": value for key, value in keys.items()} | {"general.license": "mit"}
    keys |= tokenizer() | {key.replace("__", "."): value for key, value in more.items()}
    for key, value in keys.items():
        if key not in leave and key != "general.architecture":
            call = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
            getattr(writer, f"add_{call}")(key, value)
    seen = {}
    for name, x in weights.items():
        if x.dtype == np.int8:
            writer.add_tensor(name_of(name), x)
            continue
        count = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        heads = told[count] if count and arch == "llama" else 0
        added = float(arch == "gemma" and "norm" in name)
        chosen = gguf.GGMLQuantizationType[kind if x.ndim > 1 else "F32"]
        stored = gguf.quants.quantize((permute(x, heads) if heads else x) + np.float32(added), chosen)
        back = gguf.quants.dequantize(stored, chosen).reshape(x.shape)
        seen[name] = (unpermuted(back, heads) if heads else back) - np.float32(added)
        writer.add_tensor(name_of(name), stored, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return seen


def unpermuted(x: np.ndarray, heads: int) -> np.ndarray:
    """`_reverse_permute_weights` of transformers."""
    return x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:]).swapaxes(2, 1).reshape(x.shape)


def tokenizer(pre: str = "smollm") -> dict:
    """The lists of the tests' byte-level tokenizer."""
    library = folders.tokenizer()
    model = json.loads(library.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    assert pre in WORDS
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [3 if piece in jsons.CONTROLS else 1 for piece in pieces],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ messages }}",
    }  # fmt: skip
