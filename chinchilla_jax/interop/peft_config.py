"""adapter_config.json of peft and our settings of tuning: one table, read in both directions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.config import ModelConfig, TuneConfig, require
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.targets import KNOWN
from chinchilla_jax.interop.heads import HEADS

FORWARD = "down_proj"  # the projection whose inputs, and not outputs, our IA3 scales


@dataclass(frozen=True)
class Form:
    """What peft calls a method; `flags` of its config that choose it; the tensors of a module by our leaves' names.

    `rows`: its config has a place for rows of a table that train beside it.
    """

    peft_type: str
    flags: dict[str, bool]
    tensors: dict[str, str]
    rows: bool = True


LOW_RANK = {"a": "lora_A.weight", "b": "lora_B.weight"}
FORMS = {
    "lora": Form("LORA", {"use_rslora": False, "use_dora": False}, LOW_RANK),
    "rslora": Form("LORA", {"use_rslora": True, "use_dora": False}, LOW_RANK),
    "dora": Form("LORA", {"use_rslora": False, "use_dora": True}, LOW_RANK | {"m": "lora_magnitude_vector"}),
    "adalora": Form("ADALORA", {}, {"a": "lora_A", "b": "lora_B", "e": "lora_E"}),
    "ia3": Form("IA3", {}, {"factors": "ia3_l"}, rows=False),
    "prompt": Form("PROMPT_TUNING", {}, {"prompt_PD": "prompt_embeddings"}, rows=False),
}


TEXT = "CAUSAL_LM"
MERGE = "merge the adapter into its base with peft's merge_and_unload, and import that"
TABLES = {"embed_tokens", "lm_head"}  # whose rows may train

# Keys that change nothing of what a finished adapter computes, and values of others that say nothing.
NEUTRAL = {
    "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "exclude_modules", "layers_pattern", "megatron_core", "qalora_group_size", "init_ia3_weights", "tinit", "tfinal",
    "deltaT", "total_step", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path",
    "tokenizer_kwargs", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers", "eva_config",
}  # fmt: skip
READ = {
    "task_type", "modules_to_save", "trainable_token_indices", "peft_type", "r",
    "target_modules", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "bias", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "init_r", "target_r", "beta1", "beta2", "orth_reg_weight", "feedforward_modules",
    "num_virtual_tokens", "runtime_config",
}  # fmt: skip

STARTS = (True, False, "gaussian", "orthogonal", "eva")  # of A and B alone; others take their product out of the base


def to_tune(told: Mapping[str, Any], modules: set[str], base: str) -> TuneConfig:
    """Our settings for an adapter whose tensors belong to `modules`; `UserError` names what is not understood."""
    unknown = [
        f"{key} = {str(value)[:40]}"
        for key, value in told.items()
        if key not in NEUTRAL | READ and value not in (None, False, "", 0) and value not in ([], {})
    ]
    require(not unknown, f"adapter_config.json has settings that are not supported: {', '.join(unknown[:5])}; {MERGE}")
    flags = {key: bool(told.get(key, False)) for key in ("use_rslora", "use_dora")}
    names = [
        name
        for name, form in FORMS.items()
        if form.peft_type == told.get("peft_type") and all(flags[key] == on for key, on in form.flags.items())
    ]
    on = " with " + " and ".join(key for key, value in flags.items() if value) if any(flags.values()) else ""
    require(len(names) == 1, f"peft_type {told.get('peft_type')!r}{on} is not supported; {', '.join(FORMS)} are")
    require(told.get("bias", "none") == "none", f"bias {told.get('bias')!r} is not supported; {MERGE}")
    start = told.get("init_lora_weights", True)
    require(start in STARTS, f"init_lora_weights {start!r} changes the base model; {MERGE}")
    unknown = sorted(module for module in modules if module not in KNOWN)
    require(not unknown, f"adapters of {', '.join(unknown)} are not supported, those of projections are; {MERGE}")
    saved = told.get("modules_to_save") or []
    head = head_of(told)
    able = HEADS[head].saved if head else ()
    known = isinstance(saved, list) and all(name in able for name in saved)
    require(known, f"modules_to_save {str(saved)[:40]} is not supported, heads of {', '.join(HEADS)} are; {MERGE}")
    common = {"base": base, "targets": ",".join(sorted(modules)), "rows": rows_of(told)}
    return SETTINGS[names[0]](names[0], told, common)


def head_of(told: Mapping[str, Any]) -> str:
    """Our name of the head that an adapter has, empty for a language model's."""
    known = {TEXT: ""} | {head.task_type: name for name, head in HEADS.items()}
    kind = told.get("task_type") or TEXT
    supported = isinstance(kind, str) and kind in known
    require(supported, f"task_type {kind!r} is not supported; those that are: {', '.join(known)}")
    return known[kind]


def rows_of(told: Mapping[str, Any]) -> tuple[int, ...]:
    """The rows of the table that train beside the adapter."""
    found = told.get("trainable_token_indices")
    tables = found if isinstance(found, Mapping) else {"embed_tokens": found or []}
    names = {str(name).rpartition(".")[2] for name in tables}
    require(names <= TABLES, f"trainable_token_indices of {', '.join(sorted(names - TABLES))} are not supported")
    lists = list(tables.values())
    ok = all(isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids) for ids in lists)
    require(
        ok and all(ids == lists[0] for ids in lists[1:]) and all(len({*ids}) == len(ids) for ids in lists),
        "adapter_config.json: trainable_token_indices is no list of different ids, the same for every table",
    )
    return tuple(lists[0]) if lists else ()


def table(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """rank_pattern or alpha_pattern: values by expressions, or by tensors."""
    found = told.get(key) or {}
    require(isinstance(found, Mapping), f"adapter_config.json: {key} is {str(found)[:40]}, no table")
    return found


def of_module(told: Mapping[str, Any], key: str, module: str, kind: type, default: Any) -> Any:
    """What rank_pattern or alpha_pattern gives a module: the value of the first expression that its name ends with."""
    pattern = table(told, key)
    try:
        name = next((name for name in pattern if re.fullmatch(rf"(.*\.)?({name})", module)), None)
    except re.error as error:
        raise UserError(f"adapter_config.json: {key} is {str(pattern)[:40]}, no table of expressions") from error
    return default if name is None else _number(pattern, name, kind, 1 if kind is int else 1e-6)


def _number(told: Mapping[str, Any], key: str, kind: type = int, least: float = 1) -> Any:
    value = told.get(key)
    ok = type(value) in ((int,) if kind is int else (int, float)) and least <= value < 2**31
    require(ok, f"adapter_config.json: {key} is {value!r}")
    return kind(value)


def _low_rank(name: str, told: Mapping[str, Any], common: dict[str, Any]) -> TuneConfig:
    alpha, dropout = _number(told, "lora_alpha", float, 1e-6), _number(told, "lora_dropout", float, 0)
    return TuneConfig(method=name, rank=_number(told, "r"), alpha=alpha, dropout=dropout, **common)


def _adalora(name: str, told: Mapping[str, Any], common: dict[str, Any]) -> TuneConfig:
    require(not told.get("alpha_pattern"), f"alpha_pattern of an AdaLoRA adapter is not supported; {MERGE}")
    start = _number(told, "init_r")
    return TuneConfig(
        method=name,
        start_rank=start,
        rank=min(start, _number(told, "target_r")),
        alpha=_number(told, "lora_alpha", float, 0) or float(start),
        dropout=_number(told, "lora_dropout", float, 0),
        beta=_number(told, "beta1", float, 0),
        orthogonality=_number(told, "orth_reg_weight", float, 0),
        **common,
    )


def _ia3(name: str, told: Mapping[str, Any], common: dict[str, Any]) -> TuneConfig:
    inward = told.get("feedforward_modules") or []
    inward = {str(part).split(".")[-1] for part in (inward if isinstance(inward, list) else [inward])}
    targets = set(common["targets"].split(","))
    require(
        inward & targets == targets & {FORWARD},
        f"feedforward_modules {', '.join(sorted(inward)) or 'of none'} is not supported; {FORWARD} alone is",
    )
    return TuneConfig(method=name, **common)


SETTINGS = {
    "lora": _low_rank,
    "rslora": _low_rank,
    "dora": _low_rank,
    "adalora": _adalora,
    "ia3": _ia3,
    "prompt": lambda name, told, common: TuneConfig(
        method=name, base=common["base"], rows=common["rows"], prompt=_number(told, "num_virtual_tokens")
    ),
}


def to_config(tune: TuneConfig, cfg: ModelConfig, modules: list[str], base: str, ranks: dict[str, list[bool]]) -> dict:
    """adapter_config.json of an adapter on `modules`; `ranks` are AdaLoRA's triplets that are left, by tensor."""
    form = FORMS[tune.method]
    common = {
        "peft_type": form.peft_type,
        "task_type": TEXT,
        "base_model_name_or_path": base,
        "inference_mode": True,
        **form.flags,
    }
    start, final = tune.ranks(cfg.d_model)
    low_rank = {
        "r": start,
        "lora_alpha": tune.alpha or 2 * start,
        "lora_dropout": tune.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": modules,
        "modules_to_save": None,
    }
    low_rank["lora_alpha"] = int(low_rank["lora_alpha"]) if low_rank["lora_alpha"] % 1 == 0 else low_rank["lora_alpha"]
    own = {
        "LORA": low_rank | {"rank_pattern": {}, "alpha_pattern": {}},
        "ADALORA": low_rank
        | {"init_r": start, "target_r": final, "tinit": 0, "tfinal": 0, "deltaT": 1, "total_step": 1}
        | {"beta1": tune.beta, "beta2": tune.beta, "orth_reg_weight": tune.orthogonality, "rank_pattern": ranks},
        "IA3": {"target_modules": modules, "feedforward_modules": [name for name in modules if name == FORWARD]},
        "PROMPT_TUNING": {
            "num_virtual_tokens": tune.prompt,
            "token_dim": cfg.d_model,
            "num_transformer_submodules": 1,
            "num_attention_heads": cfg.heads,
            "num_layers": cfg.layers,
            "prompt_tuning_init": "RANDOM",
        },
    }
    return common | own[form.peft_type]
