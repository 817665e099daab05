"""What a method trains: leaves, axes, rows of tables, heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.finetuning.trees import flat
from chinchilla_jax.model import transformer
from tests import tiny


def trained(tune: TuneConfig, cfg=tiny.LLAMA, heads=None) -> dict:
    made = recipe(cfg, tune, heads)
    return flat(jax.eval_shape(made.start, jax.random.key(0), transformer.abstract(cfg)))


def count(**tune) -> int:
    heads = tune.pop("heads", None)
    return sum(leaf.size for leaf in trained(TuneConfig(**tune), heads=heads).values())


@pytest.mark.parametrize("expected, tune", [
    (5_376, {"method": "lora", "rank": 8, "targets": "q,v"}),
    (24_576, {"method": "lora", "rank": 8}),
    (49_152, {"method": "rslora", "rank": 16, "targets": "all-linear"}),
    (26_112, {"method": "dora", "rank": 8}),
    (37_116, {"method": "adalora", "rank": 8, "start_rank": 12}),
    (576, {"method": "ia3"}),
    (1_280, {"method": "prompt"}),
    (5_376 + 2 * 64, {"method": "lora", "rank": 8, "targets": "q,v", "rows": (250, 251)}),
    (3 * 2 * (2 * 64 * 4 + 4 + 64), {"method": "houlsby"}),
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


def same_length(leaf, axes):
    assert len(leaf.shape) == len(axes), axes


@pytest.mark.parametrize("method, rows, alone", [
    ("lora", (), True), ("ia3", (), True), ("lora", (3,), False), ("prompt", (), False), ("norms", (), False),
])  # fmt: skip
def test_the_base_itself_is_the_start_where_nothing_but_neutral_adapters_is_added(method, rows, alone):
    """A soft prompt, new rows and whole leaves belong to the model that tuning starts from."""
    made = recipe(tiny.LLAMA, TuneConfig(method=method, rows=rows))
    assert (made.binding({}, ()).base is not None) == alone


def test_axes_have_the_shape_of_what_they_describe():
    rows = {"rows": (3, 5)}
    for method, more in [
        ("lora", {"weights": "int8"}), ("dora", {"weights": "int4", **rows}), ("adalora", {}), ("ia3", rows),
        ("houlsby", {}), ("prompt", {"weights": "int4"}), ("top", {}), ("full", rows), ("norms", {}), ("head", {}),
    ]:  # fmt: skip
        made = recipe(tiny.LLAMA, TuneConfig(method=method, **more), {"labels/table": (3, 64)})
        base = transformer.abstract(tiny.LLAMA)
        trained_axes, frozen_axes = made.axes()
        for tree, axes in (
            (jax.eval_shape(made.start, jax.random.key(0), base), trained_axes),
            (jax.eval_shape(made.freeze, base), frozen_axes),
        ):
            leaves, names = flat(tree), flat(axes)
            assert leaves.keys() == names.keys()
            jax.tree.map(same_length, tree, axes)


def test_a_tied_table_is_not_adapted():
    with pytest.raises(UserError, match=r"--tune\.untie"):
        recipe(tiny.LLAMA, TuneConfig(method="lora", targets="embed/table"))
    untied = dataclasses.replace(tiny.LLAMA, tied=False)
    assert recipe(untied, TuneConfig(method="lora", targets="unembed/table")).sites[0].name == "unembed/table"


def test_new_rows_start_at_the_mean_of_the_table():
    made = recipe(tiny.LLAMA, TuneConfig(method="lora", rows=(7, 9)))
    base = tiny.spiced(tiny.LLAMA)
    whole = made.join(made.start(jax.random.key(0), base), made.freeze(base))
    table, old = transformer.unembedding(whole), base["embed"]["table"]
    np.testing.assert_allclose(table[jnp.array([7, 9])], np.broadcast_to(old.mean(0), (2, 64)), atol=1e-6)
    np.testing.assert_array_equal(np.delete(table, (7, 9), 0), np.delete(old, (7, 9), 0))
    tokens = jnp.array([[7, 3], [9, 9]])
    np.testing.assert_allclose(transformer.embed(whole, tokens, tiny.LLAMA), table[tokens], atol=1e-6)


def test_heads_start_alike_with_a_base_and_from_nothing():
    heads = {"tags/kernel": (5, 64), "tags/bias": (5,)}
    scratch, tuned = recipe(tiny.LLAMA, TuneConfig(), heads), recipe(tiny.LLAMA, TuneConfig(method="full"), heads)
    fresh = tiny.jit(scratch.start)(jax.random.key(1), {})
    assert not scratch.plain and recipe(tiny.LLAMA, TuneConfig()).plain
    for made, trains in ((scratch, fresh), (tuned, tiny.jit(tuned.start)(jax.random.key(1), fresh))):
        axes = flat(made.axes()[0])
        assert set(axes) == set(flat(trains)) and axes["heads/tags/kernel"] == (None, "embed")
    assert jax.tree.all(jax.tree.map(np.array_equal, trains["heads"], fresh["heads"]))
    assert not fresh["heads"]["tags"]["bias"].any() and fresh["heads"]["tags"]["kernel"].std() > 0.01
