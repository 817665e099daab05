"""adapter_config.json and our settings of tuning."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import peft_config

TOLD = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}


REFUSED = {
    "OFT": ({"peft_type": "OFT"}, {"q_proj"}, "OFT"),
    "both variants": ({"use_dora": True, "use_rslora": True}, {"q_proj"}, "use_rslora and use_dora"),
    "biases": ({"bias": "all"}, {"q_proj"}, "bias"),
    "PiSSA": ({"init_lora_weights": "pissa"}, {"q_proj"}, "pissa"),
    "OLoRA": ({"init_lora_weights": "olora"}, {"q_proj"}, "olora"),
    "alphas": ({"peft_type": "ADALORA", "alpha_pattern": {"q_proj": 2}}, {"q_proj"}, "alpha_pattern"),
    "modules": ({"modules_to_save": ["lm_head"]}, {"q_proj"}, "modules_to_save"),
    "a number of modules": ({"modules_to_save": 5}, {"q_proj"}, "modules_to_save 5"),
    "a task of pairs": ({"task_type": "SEQ_2_SEQ_LM"}, {"q_proj"}, "SEQ_2_SEQ_LM"),
    "another head's module": ({"task_type": "QUESTION_ANS", "modules_to_save": ["score"]}, {"q_proj"}, "modules_to"),
    "rows that differ": ({"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2]}}, {"q_proj"}, "every table"),
    "rows twice": ({"trainable_token_indices": [1, 1]}, {"q_proj"}, "different ids"),
    "rows of a projection": ({"trainable_token_indices": {"q_proj": [1]}}, {"q_proj"}, "q_proj"),
    "replicas": ({"layer_replication": [[0, 2]]}, {"q_proj"}, "layer_replication"),
    "another module": ({}, {"qkv_proj"}, "qkv_proj"),
    "no rank": ({"r": 0}, {"q_proj"}, "r is 0"),
    "a rank beyond all": ({"r": 10**400}, {"q_proj"}, "r is 1000"),
    "an endless alpha": ({"lora_alpha": float("inf")}, {"q_proj"}, "lora_alpha is inf"),
    "an alpha in words": (
        {"peft_type": "ADALORA", "init_r": 2, "target_r": 1, "lora_alpha": "8"},
        {"q_proj"},
        "lora_alpha is '8'",
    ),
    "a number of inputs": ({"peft_type": "IA3", "feedforward_modules": 5}, {"down_proj"}, "feedforward_modules 5"),
    "IA3 of inputs": ({"peft_type": "IA3", "feedforward_modules": ["k_proj"]}, {"k_proj"}, "feedforward_modules"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_not_supported(case):
    changes, modules, word = REFUSED[case]
    with pytest.raises(UserError, match=word):
        peft_config.to_tune(TOLD | changes, modules, "base")


@pytest.mark.parametrize("start", ["orthogonal", "eva", "gaussian", True, False])
def test_starts_that_leave_the_base_as_it_is(start):
    told = TOLD | {"init_lora_weights": start, "eva_config": {"rho": 2.0}}
    assert peft_config.to_tune(told, {"q_proj"}, "base").method == "lora"


def test_a_pattern_holds_for_the_modules_whose_names_end_so():
    """As in peft, by the first expression that does."""
    told = {"rank_pattern": {"0.mlp.up_proj": 3, ".*.up_proj": 2, "k_proj": 0}}
    names = ("model.layers.10.mlp.up_proj", "model.layers.0.mlp.up_proj", "up_proj", "model.layers.0.self_attn.q_proj")
    assert [peft_config.of_module(told, "rank_pattern", name, int, 8) for name in names] == [2, 3, 8, 8]
    with pytest.raises(UserError, match="k_proj is 0"):
        peft_config.of_module(told, "rank_pattern", "k_proj", int, 8)
    with pytest.raises(UserError, match="no table of expressions"):
        peft_config.of_module({"rank_pattern": {"(": 2}}, "rank_pattern", "k_proj", int, 8)
    with pytest.raises(UserError, match=r"rank_pattern is \['k_proj'\], no table"):
        peft_config.of_module({"rank_pattern": ["k_proj"]}, "rank_pattern", "k_proj", int, 8)


def test_an_alpha_below_one_is_a_scale_like_any_other():
    assert peft_config.to_tune(TOLD | {"lora_alpha": 0.5}, {"q_proj"}, "base").scale() == 0.125
    with pytest.raises(UserError, match="lora_alpha is 0"):
        peft_config.to_tune(TOLD | {"lora_alpha": 0}, {"q_proj"}, "base")
