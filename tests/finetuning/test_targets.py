"""Which matrices get an adapter."""

import dataclasses

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.targets import choose
from chinchilla_jax.finetuning.trees import flat
from chinchilla_jax.model import transformer
from tests import tiny


def test_targets_by_the_names_of_the_field():
    names = list(flat(transformer.abstract(tiny.LLAMA)))
    assert [site.name for site in choose("q_proj,v", names)] == [
        "blocks/attention/query/kernel", "blocks/attention/value/kernel"
    ]  # fmt: skip
    assert len(choose("all-linear", names)) == 7
    assert [site.name for site in choose(r"mlp/(gate|up)/", names)] == [
        "blocks/mlp/gate/kernel",
        "blocks/mlp/up/kernel",
    ]
    assert choose("o", names)[0].contract == 2
    for rule in ("w_q", "mlp/gat/"):
        with pytest.raises(UserError, match="matches no matrix"):
            choose(rule, names)
    squared = list(flat(transformer.abstract(dataclasses.replace(tiny.LLAMA, mlp="gelu"))))
    with pytest.raises(UserError, match=r"the model has no mlp/gate"):
        choose("gate,up", squared)
