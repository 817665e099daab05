"""What GGUF calls keys, tensors and architectures, in terms of Hugging Face's names and of our settings.

Read in both directions. llama.cpp's `llama` rotates neighbouring numbers of a head where Hugging Face and ours rotate
halves, so rows of q and k stand in another order there; its Gemma holds norms with 1 added.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig, require


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp: the class of transformers, and the settings that make it."""

    hf: str
    settings: dict[str, Any] = field(default_factory=dict)
    permuted: bool = False  # whether rows of q and k are in the order of neighbours
    added: float = 0.0  # to the scales of norms
    scaled: bool = False  # whether embeddings are multiplied by sqrt(D)


ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", permuted=True),
    "qwen2": Architecture("Qwen2ForCausalLM", {"attention_biases": True}),
    "qwen3": Architecture("Qwen3ForCausalLM", {"qk_norm": True}),
    "gemma": Architecture("GemmaForCausalLM", {"norm_offset": 1.0, "mlp": "geglu"}, added=1.0, scaled=True),
}
DEFAULTS = {"attention_biases": False, "qk_norm": False, "norm_offset": 0.0, "mlp": "swiglu"}

SIZES = {  # key below the architecture -> ours
    "block_count": "layers",
    "context_length": "context",
    "embedding_length": "d_model",
    "feed_forward_length": "d_ff",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
}
NUMBERS = {"attention.layer_norm_rms_epsilon": "norm_eps", "rope.freq_base": "rope_theta"}
LAYER, THEIR_LAYER = "model.layers.{n}.", "blk.{n}."
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight",
    "model.norm.weight": "output_norm.weight",
}
ORDINAL = re.compile("0|[1-9][0-9]*")
FREQUENCIES = "rope_freqs.weight"  # what Llama 3's stretch divides the rotary waves by, one for each
LLAMA3_FACTORS = (8.0, 32.0, 4.0, 16.0)  # of the models that exist; our own files say theirs in keys of ours
OWN_KEYS = {
    f"chinchilla_jax.{name}": name for name in ("rope_factor", "rope_low_freq", "rope_high_freq", "rope_original_len")
}


def to_gguf(name: str) -> str:
    """GGUF's name of a tensor of Hugging Face's."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, number, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"{THEIR_LAYER.format(n=number)}{PARTS[part]}.{kind}"


def to_hf(name: str) -> str | None:
    """Hugging Face's name of a tensor of GGUF's, None for one that has none."""
    for ours, theirs in WHOLE.items():
        if name == theirs:
            return ours
    pieces = name.split(".")
    back = {theirs: ours for ours, theirs in PARTS.items()}
    if len(pieces) != 4 or pieces[0] != "blk" or not ORDINAL.fullmatch(pieces[1]) or pieces[2] not in back:
        return None
    return f"{LAYER.format(n=int(pieces[1]))}{back[pieces[2]]}.{pieces[3]}"


def heads_of(name: str, cfg: ModelConfig) -> int:
    """Heads whose rows `name` of Hugging Face holds in halves; 0 for any but q and k."""
    return {"q_proj": cfg.heads, "k_proj": cfg.kv_heads or cfg.heads}.get(name.split(".")[-2], 0)


def neighbours(heads: int, width: int) -> np.ndarray:
    """Row of Hugging Face for every row of GGUF: halves of a head become neighbours, (heads * width,)."""
    return np.arange(heads * width).reshape(heads, 2, width // 2).swapaxes(1, 2).reshape(-1)


def halves(heads: int, width: int) -> np.ndarray:
    """Row of GGUF for every row of Hugging Face, (heads * width,)."""
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(-1)


def is_norm(name: str) -> bool:
    """Whether a tensor of Hugging Face holds a norm's scale."""
    return name.endswith("norm.weight")


def architecture_of(cfg: ModelConfig) -> str:
    """The architecture that computes what ours does; `UserError` names what none has."""
    require(cfg.positions == "rope", "GGUF has no relative positions; export --format hf has none either")
    require(not cfg.biases, "GGUF's architectures have no biases on the hidden layer; use --format hf")
    for name, row in ARCHITECTURES.items():
        wanted = DEFAULTS | row.settings
        scale = math.sqrt(cfg.d_model) if row.scaled else 1.0
        if all(getattr(cfg, key) == value for key, value in wanted.items()) and math.isclose(cfg.embed_scale, scale):
            return name
    found = ", ".join(f"{key} {getattr(cfg, key)}" for key in (*DEFAULTS, "embed_scale"))
    known = ", ".join(ARCHITECTURES)
    require(False, f"no architecture of GGUF that is written ({known}) has {found}; use --format hf")
    return ""


def llama3_frequencies(width: int, theta: float, factor: float, low: float, high: float, length: int) -> np.ndarray:
    """What Llama 3.1 divides the frequencies of its rotary waves by, (K/2,); formula of transformers and llama.cpp."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, width, 2) / width)
    smooth = (length / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wavelength < length / high, 1.0, np.where(wavelength > length / low, factor, between)).astype(
        np.float32
    )
