"""Names of peft's, as its own folders have them."""

import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.targets import site
from chinchilla_jax.interop import peft_names as names

LAYER = "base_model.model.model.layers.{n}."


@pytest.mark.parametrize("method, path, leaf, theirs, inputs", [
    ("lora", "blocks/attention/query/kernel", "a", LAYER + "self_attn.q_proj.lora_A.weight", 1),
    ("lora", "blocks/attention/query/kernel", "b", LAYER + "self_attn.q_proj.lora_B.weight", 1),
    ("rslora", "blocks/attention/out/kernel", "a", LAYER + "self_attn.o_proj.lora_A.weight", 2),
    ("dora", "blocks/mlp/up/kernel", "m", LAYER + "mlp.up_proj.lora_magnitude_vector", 0),
    ("adalora", "blocks/mlp/down/kernel", "e", LAYER + "mlp.down_proj.lora_E", 0),
    ("ia3", "blocks/attention/key/kernel", "factors", LAYER + "self_attn.k_proj.ia3_l", 0),
])  # fmt: skip
def test_a_leaf_of_a_projection(method, path, leaf, theirs, inputs):
    found = names.row(TuneConfig(method=method), site(path), leaf)
    assert found == names.Name(f"adapters/{path}/{leaf}", theirs, inputs) and found.stacked
    module, tensor = names.MODULE.fullmatch(theirs.format(n=12)).groups()
    assert module == theirs.split(".")[-2 - theirs.endswith(".weight")] and theirs.format(n=12).count(tensor) == 1


def test_a_prompt_rows_and_heads_stand_beside_the_layers():
    prompt = names.row(TuneConfig(method="prompt"), site("embed/table"), "prompt_PD")
    assert prompt.theirs == names.PROMPT and not prompt.stacked
    rows = names.delta("unembed/table")
    assert rows.theirs == "base_model.model.lm_head.token_adapter.trainable_tokens_delta"
    assert names.head("labels/kernel", prompt=False).theirs == "base_model.model.score.weight"
    assert names.head("spans/bias", prompt=True).theirs == "base_model.qa_outputs.bias", "which no module is around"


@pytest.mark.parametrize("name", [
    "model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model.model.layers.x.mlp.up_proj.lora_A.weight",
    "base_model.model.model.layers.0.mlp.up_proj.lora_A.bias", "base_model.model.model.layers.0.norm.lora_A.weight",
])  # fmt: skip
def test_names_of_nothing_that_is_known(name):
    assert not names.MODULE.fullmatch(name)
