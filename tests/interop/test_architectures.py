"""A config.json of transformers as our settings, and what is refused by name."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import architectures
from tests.interop import folders
from tests.interop.damage import KIND

LABELLED = {"architectures": ["LlamaForSequenceClassification"]}


SETTINGS = {  # what a config.json says, and a word of the line that refuses it
    "another model": ({"model_type": "gpt2"}, "gpt2"),
    "no type": ({"model_type": None}, "model_type"),
    "a type that is no word": ({"model_type": ["llama"]}, "model_type"),
    "mixture of experts": ({"model_type": "mixtral"}, "mixtral"),
    "Gemma 2": ({"model_type": "gemma2"}, "gemma2"),
    "a class that is not known": ({"architectures": ["LlamaModel"]}, "LlamaModel"),
    "a head of another family": ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClass"),
    "two classes": ({"architectures": ["LlamaForCausalLM", "LlamaModel"]}, "LlamaModel"),
    "a word for classes": ({"architectures": "LlamaForCausalLM"}, "architectures LlamaForCausalLM"),
    "a regression": ({**LABELLED, "num_labels": 1}, "regression"),
    "another problem": ({**LABELLED, "problem_type": "regression"}, "regression"),
    "labels with gaps": ({**LABELLED, "id2label": {"0": "a", "2": "b"}}, "id2label"),
    "labels of one name": ({**LABELLED, "id2label": {"0": "a", "1": "a"}}, "id2label"),
    "a list of labels": ({**LABELLED, "id2label": ["a", "b"]}, "id2label"),
    "endless labels": ({**LABELLED, "num_labels": 10**12}, "num_labels"),
    "tags without biases": (
        {"architectures": ["LlamaForTokenClassification"], "token_classification_bias": False},
        "token_classification_bias",
    ),
    "experts in a Llama": ({"num_local_experts": 8}, "num_local_experts"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "code of its own": ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
    "soft cap": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "a window of text": ({"sliding_window": "16"}, "sliding_window"),
    "local layers": ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding_attention"),
    "both directions": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
    "waves of each layer": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "between layers"),
    "waves without a number": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    "half of a head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "half of a head inside": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "neighbours": ({"rope_interleaved": True}, "rope_interleaved"),
    "exact GELU": ({"hidden_act": "gelu"}, "gelu"),
    "no width": ({"hidden_size": None}, "hidden_size"),
    "a width of text": ({"hidden_size": "24"}, "hidden_size"),
    "a width below 0": ({"hidden_size": -24}, "hidden_size"),
    "true layers": ({"num_hidden_layers": True}, "num_hidden_layers"),
    "endless layers": ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
    "no epsilon": ({"rms_norm_eps": "small"}, "rms_norm_eps"),
    "an infinite base": ({"rope_theta": float("inf")}, "rope_theta"),
    "a base of 0": ({"rope_theta": 0}, "rope-theta"),
    "a base below 0": ({"rope_theta": -10000.0}, "rope_theta"),
    "a base below 1": ({"rope_theta": 1e-3}, "rope-theta"),
    "a base beyond float32": ({"rope_theta": 1e300}, "rope-theta"),
    "a base of text": ({"rope_theta": "10000"}, "rope_theta"),
    "a base that vanishes inside": (
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e-300}},
        "rope-theta",
    ),
    "a stretch that vanishes": ({"rope_scaling": {"rope_type": "linear", "factor": 1e-300}}, "rope-factor"),
    "an endless epsilon": ({"rms_norm_eps": 1e300}, "norm-eps"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "kv-heads"),
    "tied is a word": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    "biases of the hidden layer alone": ({"mlp_bias": True}, "mlp_bias"),
    "two stretches": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        "factor is said twice, as 2.0 and 4.0",
    ),
    "two kinds of stretch": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
        "rope_type is said twice",
    ),
    "two bases": ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 1e4}}, "rope_theta is said twice"),
    "a class that is a table": ({"architectures": [{"a": 1}]}, "is not supported"),
    "a list of waves": ({"rope_parameters": [1]}, "rope_parameters is"),
    "waves of a list": ({"rope_scaling": {"rope_type": ["x"]}}, "rope_type"),
    "a list of activations": ({"hidden_act": ["silu"]}, "hidden_act"),
    "layers that are a number": ({"layer_types": 5}, "layer_types 5"),
    "biases by a word": ({"attention_bias": "yes"}, "attention_bias"),
    "a factor on the logits": ({"logit_scale": 0.5}, "logit_scale"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_not_understood(case):
    changes, word = SETTINGS[case]
    with pytest.raises(UserError, match=word):
        architectures.to_settings(folders.settings(KIND, **changes))


def test_settings_that_say_nothing():
    told = {"quantization_config": None, "sliding_window": 64, "pretraining_tp": 1, "new_flag": False, "new_list": []}
    architectures.to_settings(folders.settings(KIND, **told))
    architectures.to_settings(folders.settings(KIND, colour="red"), ("colour",))


def test_values_that_stand_for_others():
    """No number of key and value heads is as many as heads; the first Gemma files say gelu and mean its tanh form."""
    for kind in folders.KINDS:
        assert architectures.to_settings(folders.settings(kind, num_key_value_heads=None)).model.kv_heads == 4
    gemma = folders.settings("GemmaForCausalLM", hidden_act="gelu", hidden_activation=None)
    assert architectures.to_settings(gemma).model.mlp == "geglu"


def test_a_sliding_window_narrows_the_context():
    """Within the window a model with one computes what a model without one does (Mistral 0.1: 4,096 of 32,768)."""
    narrow = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    found = architectures.to_settings(folders.settings("MistralForCausalLM", **narrow))
    assert found.model.context == 16 and found.facts["context"].startswith("16 tokens of 64")
    for changes in ({"sliding_window": 64}, {"sliding_window": None}):
        found = architectures.to_settings(folders.settings("MistralForCausalLM", **changes))
        assert found.model.context == 64 and not found.facts
    told = folders.settings("MistralForCausalLM", max_position_embeddings=32768)
    del told["sliding_window"]
    assert architectures.to_settings(told).model.context == 4096, "which is the class's default"
    off = {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}
    assert architectures.to_settings(folders.settings("Qwen2ForCausalLM", **off)).model.context == 64
    on = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    assert architectures.to_settings(folders.settings("Qwen2ForCausalLM", **on)).model.context == 16
