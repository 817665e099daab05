"""Hugging Face's config.json and our model settings: what each architecture says, and what is refused by name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chinchilla_jax.config import ModelConfig, TaskConfig, require
from chinchilla_jax.interop import heads

# theirs -> ours: what is a number or a flag in both.
SIZES = {
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context",
}
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
ACTIVATIONS = {"silu": "swiglu", "swish": "swiglu", "relu": "reglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
COMMON = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
}


@dataclass(frozen=True)
class Architecture:
    """A class of transformers: its `model_type`, its defaults for keys that a file leaves out, our settings for it."""

    model_type: str
    defaults: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    biases: tuple[str, ...] = ()  # keys that turn biases on
    square: bool = False  # whether the class wants the width to be a multiple of the heads
    scaled: bool = False  # whether embeddings are multiplied by sqrt(D)
    activations: dict[str, str] = field(default_factory=dict)  # names that mean something else in this class
    # Our name of a head -> the module that holds the model in the class with that head.
    trunks: dict[str, str] = field(default_factory=lambda: {"labels": "model", "tags": "model", "spans": "transformer"})


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(
        "llama", {"max_position_embeddings": 2048}, biases=("attention_bias", "mlp_bias"), square=True
    ),
    "MistralForCausalLM": Architecture(
        "mistral",
        {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
        trunks={"labels": "model", "tags": "model", "spans": "model"},
    ),
    "Qwen2ForCausalLM": Architecture(
        "qwen2",
        {"max_position_embeddings": 32768, "num_key_value_heads": 32, "use_sliding_window": False},
        {"attention_biases": True},
    ),
    "Qwen3ForCausalLM": Architecture(
        "qwen3",
        {
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "use_sliding_window": False,
        },
        {"qk_norm": True},
        biases=("attention_bias",),
    ),
    "GemmaForCausalLM": Architecture(
        "gemma",
        {
            "max_position_embeddings": 8192,
            "num_key_value_heads": 16,
            "head_dim": 256,
            "hidden_act": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        {"norm_offset": 1.0},
        biases=("attention_bias",),
        scaled=True,
        activations={"gelu": "gelu_pytorch_tanh"},  # of the first releases' files, as transformers reads them
        trunks={"labels": "model", "tags": "model"},
    ),
}

# Keys that change nothing of what a model computes, and those that are looked at below.
NEUTRAL = {
    "_name_or_path", "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "attention_dropout",
    "is_llama_config", "pretraining_tp", "max_window_layers", "transformers.js_config", "unsloth_version",
    "unsloth_fixed", "return_dict", "output_hidden_states", "output_attentions", "use_mrope", "id2label", "label2id",
    "problem_type", "chunk_size_feed_forward", "is_encoder_decoder", "license", "_attn_implementation",
    "attn_implementation", "torchscript", "finetuning_task", "tokenizer_class", "prefix", "task_specific_params",
    "max_length", "min_length", "temperature", "top_k", "top_p", "do_sample", "num_beams", "repetition_penalty",
    "_attn_implementation_autoset", "hidden_activation", "num_labels", "classifier_dropout",
    "token_classification_bias",
}  # fmt: skip
LOOKED_AT = {
    *SIZES, *COMMON, "rope_parameters", "rope_scaling", "sliding_window", "use_sliding_window", "layer_types",
    "partial_rotary_factor", "rope_interleaved", "use_bidirectional_attention",
}  # fmt: skip


class Settings(NamedTuple):
    """What a config.json comes to; `trunk` is the module that holds the model, `facts` are for origin.json."""

    architecture: str
    model: ModelConfig
    task: TaskConfig
    trunk: str
    biases: set[str]
    facts: dict[str, str]


def to_settings(told: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> Settings:
    """Architecture, model settings and the biases that are on, of a config.json; `UserError` names what is refused."""
    name = architecture(told)
    family, head = heads.split(name)
    row = ARCHITECTURES[family + heads.CAUSAL]
    refuse_unknown(told, ignored)
    missing = [key for key in REQUIRED if told.get(key) is None]
    require(not missing, f"config.json has no {', '.join(missing)}")
    facts = {**COMMON, **row.defaults, **{key: value for key, value in told.items() if value is not None}}
    for key in ("sliding_window", "num_key_value_heads"):
        if key in told and told[key] is None:  # none, or as many as heads, whatever the class's default is
            facts.pop(key, None)
    check_attention(facts)
    sizes = {ours: whole(facts, theirs) for theirs, ours in SIZES.items() if facts.get(theirs) is not None}
    sizes.setdefault("kv_heads", sizes["heads"])
    sizes.setdefault("head_dim", sizes["d_model"] // sizes["heads"])
    said = narrowed(sizes["context"], window(facts))
    sizes["context"] = within(sizes["context"], window(facts))
    activation = told.get("hidden_activation") or facts["hidden_act"]
    activation = row.activations.get(activation, activation) if isinstance(activation, str) else activation
    require(
        isinstance(activation, str) and activation in ACTIVATIONS,
        f"hidden_act {activation!r} is not supported; those that are: {', '.join(ACTIVATIONS)}",
    )
    on = {key for key in ("attention_bias", "mlp_bias") if flag(facts, key)}
    require(on <= set(row.biases), f"{row.model_type} models have no {' and '.join(sorted(on - set(row.biases)))}")
    require(on != {"mlp_bias"}, "mlp_bias without attention_bias is not supported")
    settings = {
        **sizes,
        **row.settings,
        **({"biases": True} if "mlp_bias" in on else {"attention_biases": True} if on else {}),
        **rope(facts, told.get("rope_theta")),
        "mlp": ACTIVATIONS[activation],
        "tied": flag(facts, "tie_word_embeddings") or bool(head),  # a class with a head has no output table
        "norm_eps": number(facts, "rms_norm_eps"),
        "embed_scale": math.sqrt(sizes["d_model"]) if row.scaled else 1.0,
        "init_std": number(facts, "initializer_range") or 0.02,
    }
    model, trunk = ModelConfig(positions="rope", **settings), row.trunks.get(head, "model")
    return Settings(name, model, heads.task_of(told, head), trunk, on, said)


def architecture(told: Mapping[str, Any]) -> str:
    """The class that a config.json names; `UserError` for any that is not in the table."""
    named, kind = told.get("architectures"), told.get("model_type")
    by_type = {row.model_type: name for name, row in ARCHITECTURES.items()}
    supported = f"those that are: {', '.join(ARCHITECTURES)}"
    require(isinstance(kind, str), f"config.json says no model_type; {supported}")
    require(kind in by_type, f"model_type {kind!r} is not supported; {supported}")
    named, row = named or [by_type[kind]], ARCHITECTURES[by_type[kind]]
    family = by_type[kind].removesuffix(heads.CAUSAL)
    able = {by_type[kind], *(family + heads.HEADS[name].ending for name in row.trunks)}
    ok = isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0] in able
    require(ok, f"architectures {named} of model_type {kind!r} is not supported; {supported}, and their heads")
    return named[0]


def refuse_unknown(told: Mapping[str, Any], ignored: tuple[str, ...]) -> None:
    """Raise a `UserError` that names the keys whose meaning is not known, unless they say nothing."""
    silent = (None, False, "", 0)
    unknown = [
        f"{key} = {str(value)[:40]}"
        for key, value in told.items()
        if key not in NEUTRAL | LOOKED_AT | set(ignored) and value not in ([], {}) and value not in silent
    ]
    require(
        not unknown,
        f"config.json has settings that are not understood: {', '.join(unknown[:5])}; if one changes nothing of what "
        "the model computes, give --ignore NAME",
    )


def window(facts: Mapping[str, Any]) -> int | None:
    """How many tokens a query sees, itself and those before it; None for all."""
    if facts.get("sliding_window") is None or not facts.get("use_sliding_window", True):
        return None
    return whole(facts, "sliding_window")


def within(context: int, window: int | None) -> int:
    """The longest text over which attention through a sliding window is plain attention."""
    return min(context, window or context) if context else window or 0


def narrowed(context: int, window: int | None) -> dict[str, str]:
    """What a person is told of a window that shortens the context."""
    if within(context, window) == context:
        return {}
    whole = f"of {context} " if context else ""
    return {"context": f"{within(context, window)} tokens {whole}alone: beyond them its sliding window would matter"}


def check_attention(facts: Mapping[str, Any]) -> None:
    """Raise a `UserError` for attention that ours is not: local layers, both directions, part of a head, neighbours."""
    local = {"sliding_attention"} if window(facts) else set()
    told = facts.get("layer_types") or []
    kinds = set(map(str, told if isinstance(told, list) else [told])) - {"full_attention"} - local
    require(not kinds, f"layer_types {', '.join(sorted(kinds))} are not supported without a sliding_window")
    for key, plain in (("use_bidirectional_attention", False), ("rope_interleaved", False)):
        require(not facts.get(key, plain), f"{key} is not supported")
    part = facts.get("partial_rotary_factor", 1.0)
    require(part == 1, f"partial_rotary_factor {part} is not supported")


def rope(facts: Mapping[str, Any], flat: Any) -> dict[str, Any]:
    """Settings of the rotary positions, from the flat keys of older files or the table of newer ones.

    `flat` is the file's own rope_theta. `UserError` where two places contradict each other.
    """
    tables = {key: facts.get(key) or {} for key in ("rope_scaling", "rope_parameters")}
    for key, table in tables.items():
        require(isinstance(table, Mapping), f"config.json: {key} is {str(table)[:40]}, no table")
        each = any(isinstance(value, Mapping) for value in table.values())
        require(not each, f"{key} that differ between layers are not supported")
        tables[key] = {key: value for key, value in table.items() if key != "type"}
        if table.get("type") is not None and table.get("rope_type") is None:
            tables[key]["rope_type"] = table["type"]
    places = [{} if flat is None else {"rope_theta": flat}, *tables.values()]
    for name in sorted({name for place in places for name in place}):
        values = [place[name] for place in places if place.get(name) is not None]
        same = all(value == values[0] for value in values)
        require(same, f"config.json: {name} is said twice, as {' and '.join(str(x)[:40] for x in values)}; correct it")
    table = tables["rope_scaling"] | tables["rope_parameters"]
    kind = str(table.pop("rope_type", None) or "default")
    theta = number(table, "rope_theta") if table.get("rope_theta") is not None else number(facts, "rope_theta")
    table.pop("rope_theta", None)
    require(kind in ROPES, f"rope_type {kind!r} is not supported; those that are: {', '.join(ROPES)}")
    ours, keys = ROPES[kind]
    part = table.pop("partial_rotary_factor", 1.0)
    require(part in (1, None), f"partial_rotary_factor {part} is not supported")
    extra = [key for key, value in table.items() if key not in keys and value is not None]
    extra = [key for key in extra if not (key == "original_max_position_embeddings" and kind != "llama3")]
    require(not extra, f"rope_type {kind!r} with {', '.join(extra)} is not supported")
    missing = [key for key in keys if table.get(key) is None]
    require(not missing, f"rope_type {kind!r} lacks {', '.join(missing)}")
    read = {setting: (whole if setting == "rope_original_len" else number)(table, key) for key, setting in keys.items()}
    return {"rope_theta": theta, "rope_scaling": ours, **read}


# Their rope_type -> our rope_scaling, and their key -> our setting.
ROPES = {
    "default": ("none", {}),
    "linear": ("linear", {"factor": "rope_factor"}),
    "llama3": (
        "llama3",
        {
            "factor": "rope_factor",
            "low_freq_factor": "rope_low_freq",
            "high_freq_factor": "rope_high_freq",
            "original_max_position_embeddings": "rope_original_len",
        },
    ),
}


def whole(facts: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 1."""
    value = facts[key]
    require(type(value) is int and 0 < value < 2**31, f"config.json: {key} is {value!r}, no whole number above 0")
    return value


def number(facts: Mapping[str, Any], key: str) -> float:
    """A finite number of at least 0."""
    value = facts[key]
    ok = type(value) in (int, float) and math.isfinite(value) and value >= 0
    require(ok, f"config.json: {key} is {value!r}, no number")
    return float(value)


def flag(facts: Mapping[str, Any], key: str) -> bool:
    """True or false."""
    require(type(facts[key]) is bool, f"config.json: {key} is {facts[key]!r}, neither true nor false")
    return facts[key]
