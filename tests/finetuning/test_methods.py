"""What a method trains, and that joining moves no number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ModelConfig, TuneConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.finetuning.targets import choose
from chinchilla_jax.finetuning.trees import flat
from chinchilla_jax.model import transformer
from tests import tiny

# The tiny Llama of the reference's section 7: V 256, D 64, F 128, N 3, H 4, G 2, K 16, tied.
LLAMA = ModelConfig(layers=3, d_model=64, heads=4, kv_heads=2, head_dim=16, d_ff=128, vocab_size=256, **tiny.PLAIN)


def trained(tune: TuneConfig, cfg=LLAMA, heads=None) -> dict:
    made = recipe(cfg, tune, heads)
    return flat(jax.eval_shape(made.start, jax.random.key(0), transformer.abstract(cfg)))


def count(**tune) -> int:
    heads = tune.pop("heads", None)
    return sum(leaf.size for leaf in trained(TuneConfig(**tune), heads=heads).values())


@pytest.mark.parametrize("expected, tune", [
    (5_376, {"method": "lora", "rank": 8, "targets": "q,v"}),
    (24_576, {"method": "lora", "rank": 8}),
    (49_152, {"method": "rslora", "rank": 16, "targets": "all-linear"}),
    (448, {"method": "norms"}),
    (5_568, {"method": "lora", "rank": 8, "targets": "q,v", "heads": {"labels/table": (3, 64)}}),
    (5_961, {"method": "lora", "rank": 8, "targets": "q,v", "heads": {"tags/table": (9, 64), "tags/bias": (9,)}}),
    (192, {"method": "head", "heads": {"labels/table": (3, 64)}}),
    (3 * 36_992 + 64 + 256 * 64, {"method": "full"}),
    (36_992 + 64, {"method": "top"}),
])  # fmt: skip
def test_trained_parameters(expected, tune):
    """The first ones are `print_trainable_parameters` of peft 0.21.2 (finetuning.md, bar 4)."""
    assert count(**tune) == expected


def test_a_fresh_adapter_changes_nothing():
    cfg, batch = tiny.CHINCHILLA, tiny.packed([[9, 7], [16]], 16, tiny.CHINCHILLA.vocab_size)
    base = tiny.spiced(cfg)
    run = tiny.jit(lambda params: transformer.apply(params, batch, cfg))
    expected = run(base)
    for method in ("lora", "top"):
        made = recipe(cfg, TuneConfig(method=method))
        start = made.start(jax.random.key(1), base)
        whole = made.join(start, made.freeze(base))
        np.testing.assert_array_equal(run(whole), expected, err_msg=method)
    start = recipe(cfg, TuneConfig(method="lora")).start(jax.random.key(1), base)
    a = start["adapters"]["blocks"]["attention"]["query"]["kernel"]["a"]
    assert 0.9 * 20**-0.5 < jnp.abs(a).max() <= 20**-0.5


def test_axes_have_the_shape_of_what_they_describe():
    for method in ("lora", "top", "full", "norms", "head"):
        made = recipe(LLAMA, TuneConfig(method=method), {"labels/table": (3, 64)})
        base = transformer.abstract(LLAMA)
        trained_axes, frozen_axes = made.axes()
        for tree, axes in (
            (jax.eval_shape(made.start, jax.random.key(0), base), trained_axes),
            (jax.eval_shape(made.freeze, base), frozen_axes),
        ):
            leaves, names = flat(tree), flat(axes)
            assert leaves.keys() == names.keys()
            assert all(len(leaves[name].shape) == len(names[name]) for name in leaves), method


def test_targets_by_the_names_of_the_field():
    names = list(flat(transformer.abstract(LLAMA)))
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
    squared = list(flat(transformer.abstract(dataclasses.replace(LLAMA, mlp="gelu"))))
    with pytest.raises(UserError, match=r"the model has no mlp/gate"):
        choose("gate,up", squared)


def test_a_tied_table_is_not_adapted():
    with pytest.raises(UserError, match=r"--tune\.untie"):
        recipe(LLAMA, TuneConfig(method="lora", targets="embed/table"))
    untied = dataclasses.replace(LLAMA, tied=False)
    assert recipe(untied, TuneConfig(method="lora", targets="unembed/table")).sites[0].name == "unembed/table"
