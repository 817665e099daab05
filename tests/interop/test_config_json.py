"""Our settings as a config.json of transformers."""

import dataclasses
import json

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import config_json
from chinchilla_jax.interop.architectures import to_settings
from tests import tiny
from tests.interop import folders

IDS = {"bos_token_id": 1, "eos_token_id": [2, 7]}


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (tiny.CHINCHILLA, "relative positions"),
        (tiny.SQUARED, "relu2"),
    ],
)
def test_what_has_no_class_is_refused(model, word):
    with pytest.raises(UserError, match=word):
        config_json.choose(model)


@pytest.mark.parametrize("kind", folders.KINDS)
def test_what_is_written_means_what_was_read(kind):
    """As JSON, for the class that it came from, stretches of the positions said in both of their places."""
    cfg = to_settings(folders.settings(kind)).model
    assert config_json.choose(cfg, kind) == kind
    told = json.loads(json.dumps(config_json.config_json(cfg, kind, "float32", cfg.context, IDS, TaskConfig())))
    found = to_settings(told)
    assert found.architecture == kind and found.model == cfg
    assert told["eos_token_id"] == [2, 7] and told["rope_parameters"]["rope_theta"] == told["rope_theta"]
    assert ("rope_scaling" in told) == (cfg.rope_scaling != "none")


def test_the_class_with_the_fewest_biases_of_zero_is_chosen():
    plain = to_settings(folders.settings("LlamaForCausalLM")).model
    assert config_json.choose(plain) == "LlamaForCausalLM" == config_json.choose(plain, "Qwen3ForCausalLM"), "no norms"
    assert config_json.choose(plain, "MistralForTokenClassification") == "MistralForCausalLM"
    biased = dataclasses.replace(plain, attention_biases=True)
    assert config_json.choose(biased, "LlamaForCausalLM") == "LlamaForCausalLM", "with one more, of the output, at 0"
    assert config_json.choose(dataclasses.replace(plain, d_model=26)) == "MistralForCausalLM", "26 over 4 heads"
    gemma = to_settings(folders.settings("GemmaForCausalLM")).model
    with pytest.raises(UserError, match="no class with a head of spans"):
        config_json.choose(gemma, head="spans")
    with pytest.raises(UserError, match="no class of transformers has this combination"):
        config_json.choose(dataclasses.replace(gemma, embed_scale=1.0))


def test_a_head_needs_something_to_fill_a_batch_with():
    cfg = to_settings(folders.settings("LlamaForCausalLM")).model
    task = TaskConfig(kind="labels", labels=("a", "b"))
    told = config_json.config_json(cfg, "LlamaForCausalLM", "float32", 64, IDS, task, "labels")
    assert told["architectures"] == ["LlamaForSequenceClassification"] and told["pad_token_id"] == 2
    padded = config_json.config_json(cfg, "LlamaForCausalLM", "float32", 64, IDS | {"pad_token_id": 5}, task, "labels")
    assert padded["pad_token_id"] == 5 and told["id2label"] == {"0": "a", "1": "b"}
