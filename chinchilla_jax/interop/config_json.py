"""Our model settings as a config.json of transformers: the tables of `architectures`, read backwards."""

import math
from typing import Any

from chinchilla_jax.config import ModelConfig, TaskConfig, require
from chinchilla_jax.interop import heads
from chinchilla_jax.interop.architectures import ACTIVATIONS, ARCHITECTURES, ROPES, SIZES, Architecture

OWN = "the run directory itself is the form to pass on, and serve, generate and finetune take it"
HIDDEN_ACT = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}  # the first name of each


def biases(row: Architecture, cfg: ModelConfig) -> set[str] | None:
    """The keys that give a class our biases; None where none do."""
    wanted = {"attention_bias", "mlp_bias"} if cfg.biases else {"attention_bias"} if cfg.attention_biases else set()
    if row.settings.get("attention_biases"):
        wanted = {"has them"} if not wanted else wanted - {"attention_bias"}
    return wanted if wanted <= set(row.biases) else None


def expresses(row: Architecture, cfg: ModelConfig) -> bool:
    """Whether a class computes what a model of ours does."""
    scale = math.sqrt(cfg.d_model) if row.scaled else 1.0
    return (
        biases(row, cfg) is not None
        and cfg.qk_norm == row.settings.get("qk_norm", False)
        and cfg.norm_offset == row.settings.get("norm_offset", 0.0)
        and math.isclose(cfg.embed_scale, scale, rel_tol=1e-6)
        and not (row.square and cfg.d_model % cfg.heads)
    )


def choose(cfg: ModelConfig, preferred: str = "", head: str = "") -> str:
    """The row for a model: that of the class `preferred` where it can be, else the one with the fewest biases of 0."""
    require(
        cfg.positions == "rope",
        f"relative positions, as the chinchilla presets have, are in no class of transformers and no GGUF: {OWN}; "
        "a modern preset can be exported",
    )
    require(
        cfg.mlp in HIDDEN_ACT,
        f"--model.mlp {cfg.mlp} (two matrices, no gate) is in no Llama-like class: {OWN}; swiglu can be exported",
    )
    able = [name for name, row in ARCHITECTURES.items() if expresses(row, cfg)]
    require(bool(able), f"no class of transformers has this combination of biases, norms and scales: {OWN}")
    able = [name for name in able if not head or head in ARCHITECTURES[name].trunks]
    require(bool(able), f"transformers has no class with a head of {head} for this model: {OWN}")
    preferred = heads.split(preferred)[0] + heads.CAUSAL
    return preferred if preferred in able else min(able, key=lambda name: len(biases(ARCHITECTURES[name], cfg)))


def config_json(
    cfg: ModelConfig, name: str, dtype: str, context: int, ids: dict[str, Any], task: TaskConfig, head: str = ""
) -> dict[str, Any]:
    """The table that `AutoConfig` reads; `ids` are those of bos, eos and pad, `head` is our name of the task's.

    Positions are said twice: transformers 5 writes `rope_parameters`, vLLM and older readers know the flat keys.
    """
    row = ARCHITECTURES[name]
    on = biases(row, cfg)
    rope = {theirs: getattr(cfg, ours) for theirs, ours in ROPES[THEIR_ROPE[cfg.rope_scaling]][1].items()}
    scaling = {"rope_type": THEIR_ROPE[cfg.rope_scaling], **rope}
    sizes = {theirs: getattr(cfg, ours) for theirs, ours in SIZES.items()}
    return {
        "architectures": [heads.class_of(name, head)],
        **heads.settings(task, head),
        "model_type": row.model_type,
        **sizes,
        "num_key_value_heads": cfg.kv_heads or cfg.heads,
        "max_position_embeddings": context,
        "hidden_act": HIDDEN_ACT[cfg.mlp],
        "rms_norm_eps": cfg.norm_eps,
        "initializer_range": cfg.init_std,
        "tie_word_embeddings": cfg.tied,
        **{key: key in on for key in row.biases},
        **{key: None for key in ("sliding_window",) if key in row.defaults},
        "rope_theta": cfg.rope_theta,
        **({"rope_scaling": scaling} if rope else {}),
        "rope_parameters": {**scaling, "rope_theta": cfg.rope_theta},
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
        **{"pad_token_id": pad(ids) if head else None, **ids},
    }


def pad(ids: dict[str, Any]) -> int:
    """What fills a batch of a tokenizer without a pad token: a class with a head of labels takes no batch else."""
    ends = ids["eos_token_id"]
    return ends[0] if isinstance(ends, list) else ends


THEIR_ROPE = {ours: theirs for theirs, (ours, _) in ROPES.items()}
