"""Tensors and the card of an exported folder."""

from pathlib import Path

import jax
import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import write_huggingface
from chinchilla_jax.interop.architectures import to_settings
from tests import tiny
from tests.interop import folders


def params(cfg, scale=1.0):
    """Random ones, in numpy."""
    return jax.tree.map(np.asarray, tiny.spiced(cfg, scale=scale))


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "Qwen3ForCausalLM"])
def test_every_tensor_once_layer_by_layer(kind):
    told = folders.settings(kind, attention_bias=True)
    cfg = to_settings(told).model
    found = list(write_huggingface.all_tensors(params(cfg), cfg, np.dtype(np.float32), ["attention_bias"]))
    assert {x.name: x.shape for x in found} == folders.shapes(told) and len(found) == len(folders.shapes(told))
    layers = [int(x.name.split(".")[2]) for x in found if ".layers." in x.name]
    assert layers == sorted(layers) and found[0].name == "model.embed_tokens.weight"
    for x in found:
        made = x.make()
        assert made.shape == x.shape and made.dtype == x.dtype
        assert np.any(made) != x.name.endswith("o_proj.bias"), "a bias that ours lacks is 0"


def test_what_a_short_type_cannot_hold_is_refused():
    cfg = tiny.MODERN
    x = next(write_huggingface.all_tensors(params(cfg, scale=1e6), cfg, np.dtype(np.float16)))
    with pytest.raises(UserError, match=r"embed_tokens\.weight does not fit into float16; choose --dtype bfloat16"):
        x.make()


def test_a_card_says_the_licence_where_the_weights_began_and_how_a_head_was_fed(tmp_path):
    origin = {"license": "mit", "source": "/models/theirs"}
    said = write_huggingface.card(tmp_path / "mine", origin, "LlamaForCausalLM", "float32", TaskConfig(), "")
    assert said.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\nlicense: mit\n---\n")
    assert "# mine" in said and "Its weights started as `theirs`." in said
    said = write_huggingface.card(Path("m"), {"license": "own: see #2", "source": "x"}, "L", "f", TaskConfig(), "")
    assert '\nlicense: "own: see #2"\n' in said, "YAML needs the quotes"
    task = TaskConfig(kind="tags", source="twice")
    said = write_huggingface.card(Path("mine"), {}, "LlamaForTokenClassification", "bfloat16", task, "tags")
    assert "license" not in said and "started as" not in said and "pipeline_tag: token-classification" in said
    assert "first token has its tag" in said and "It stands there twice" in said and "stands before it" not in said
    for opening in (True, False):
        said = write_huggingface.card(Path("mine"), {}, "Llama", "float32", TaskConfig(opening=opening), "labels")
        assert ("The bos token stands before it." in said) == opening
