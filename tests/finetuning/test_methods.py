"""What a method trains, and that joining moves no number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ModelConfig, TuneConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.finetuning.prompts import prefixed
from chinchilla_jax.finetuning.targets import choose
from chinchilla_jax.finetuning.trees import flat
from chinchilla_jax.model import stacks, transformer
from chinchilla_jax.model.weights import merged
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


def test_a_fresh_adapter_changes_nothing():
    cfg, batch = tiny.CHINCHILLA, tiny.packed([[9, 7], [16]], 16, tiny.CHINCHILLA.vocab_size)
    base = tiny.spiced(cfg)
    run = tiny.jit(lambda params: transformer.apply(params, batch, cfg))
    expected = run(base)
    adapters = ("lora", "rslora", "dora", "adalora", "ia3", "houlsby", "prompt")
    for method in (*adapters, "top", "norms", "biases", "full"):
        made = recipe(cfg, TuneConfig(method=method))
        start = tiny.jit(made.start)(jax.random.key(1), base)
        whole = made.join(start, made.freeze(base))
        np.testing.assert_array_equal(run(whole), expected, err_msg=method)
    start = recipe(cfg, TuneConfig(method="lora")).start(jax.random.key(1), base)
    a = start["adapters"]["blocks"]["attention"]["query"]["kernel"]["a"]
    assert 0.9 * 20**-0.5 < jnp.abs(a).max() <= 20**-0.5


def same_length(leaf, axes):
    assert len(leaf.shape) == len(axes), axes


@pytest.mark.parametrize("method, rows, alone", [
    ("lora", (), True), ("ia3", (), True), ("lora", (3,), False), ("prompt", (), False), ("norms", (), False),
])  # fmt: skip
def test_the_base_itself_is_the_start_where_nothing_but_neutral_adapters_is_added(method, rows, alone):
    """A soft prompt, new rows and whole leaves belong to the model that tuning starts from."""
    made = recipe(LLAMA, TuneConfig(method=method, rows=rows))
    assert (made.binding({}, ()).base is not None) == alone


def test_axes_have_the_shape_of_what_they_describe():
    rows = {"rows": (3, 5)}
    for method, more in [
        ("lora", {"weights": "int8"}), ("dora", {"weights": "int4", **rows}), ("adalora", {}), ("ia3", rows),
        ("houlsby", {}), ("prompt", {"weights": "int4"}), ("top", {}), ("full", rows), ("norms", {}), ("head", {}),
    ]:  # fmt: skip
        made = recipe(LLAMA, TuneConfig(method=method, **more), {"labels/table": (3, 64)})
        base = transformer.abstract(LLAMA)
        trained_axes, frozen_axes = made.axes()
        for tree, axes in (
            (jax.eval_shape(made.start, jax.random.key(0), base), trained_axes),
            (jax.eval_shape(made.freeze, base), frozen_axes),
        ):
            leaves, names = flat(tree), flat(axes)
            assert leaves.keys() == names.keys()
            jax.tree.map(same_length, tree, axes)


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


def test_a_quantised_base_is_small_and_multiplies_as_its_dequantised_self():
    """Bytes of a weight over the whole base: 1 + 2 / inputs, and 0.5 + 2 / 32; QLoRA is LoRA on what they amount to."""
    base, batch = tiny.spiced(LLAMA), tiny.packed([[9, 7], [16]], 16, LLAMA.vocab_size)
    count = sum(leaf.size for leaf in jax.tree.leaves(base))
    trained = tiny.jit(recipe(LLAMA, TuneConfig(method="lora")).start)(jax.random.key(1), base)
    trained = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), trained)
    plain = recipe(LLAMA, TuneConfig(method="lora"))

    def loss(trained, frozen):
        params = plain.join(trained, frozen)
        hidden_BLD = transformer.apply(params, batch, LLAMA)
        return tiny.naive_loss(hidden_BLD, transformer.unembedding(params), batch.targets, batch.weights)

    for weights, most, error in (("int8", 1.07, 0.02), ("int4", 0.65, 0.3)):
        frozen = tiny.jit(recipe(LLAMA, TuneConfig(method="lora", weights=weights)).freeze)(base)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(frozen)) <= most * count
        dequantised = tiny.jit(merged)(frozen)
        assert tiny.worst(dequantised, base) < error
        found, expected = (tiny.jit(jax.value_and_grad(loss))(trained, base) for base in (frozen, dequantised))
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)
        assert tiny.worst(found[1], expected[1]) < 1e-5


def test_int4_wants_groups_of_32():
    with pytest.raises(UserError, match="multiples of 32"):
        recipe(tiny.MODERN, TuneConfig(method="lora", weights="int4")).freeze(tiny.spiced(tiny.MODERN))


def test_new_rows_start_at_the_mean_of_the_table():
    made = recipe(LLAMA, TuneConfig(method="lora", rows=(7, 9)))
    base = tiny.spiced(LLAMA)
    whole = made.join(made.start(jax.random.key(0), base), made.freeze(base))
    table, old = transformer.unembedding(whole), base["embed"]["table"]
    np.testing.assert_allclose(table[jnp.array([7, 9])], np.broadcast_to(old.mean(0), (2, 64)), atol=1e-6)
    np.testing.assert_array_equal(np.delete(table, (7, 9), 0), np.delete(old, (7, 9), 0))
    tokens = jnp.array([[7, 3], [9, 9]])
    np.testing.assert_allclose(transformer.embed(whole, tokens, LLAMA), table[tokens], atol=1e-6)


def test_a_soft_prompt_stands_before_every_document():
    rows = tiny.packed([[3, 4], [9]], 12, 61)
    found = prefixed(rows, (61, 62))
    t = np.asarray(rows.tokens)
    assert found.tokens[0].tolist() == [61, 62, *t[0, :3], 61, 62, *t[0, 3:7], 0]
    assert found.segments[0].tolist() == [1] * 5 + [2] * 6 + [0]
    assert found.positions[0].tolist() == [*range(5), *range(6), 0]
    assert found.weights[0].tolist() == [0, 0, *rows.weights[0, :3], 0, 0, *rows.weights[0, 3:7], 0]
    assert found.targets[1].tolist() == [0, 0, *rows.targets[1, :9], 0]
    full = prefixed(tiny.packed([[12]], 12, 61), (61, 62))
    assert full.tokens.shape == (1, 12) and full.segments.min() == 1, "what runs over is cut off"
    made = recipe(LLAMA, TuneConfig(method="prompt", prompt=2))
    assert made.fed(rows).tokens[0, :2].tolist() == [256, 257]
    assert recipe(LLAMA, TuneConfig(method="lora")).fed(rows) is rows


def test_heads_start_alike_with_a_base_and_from_nothing():
    heads = {"tags/kernel": (5, 64), "tags/bias": (5,)}
    scratch, tuned = recipe(LLAMA, TuneConfig(), heads), recipe(LLAMA, TuneConfig(method="full"), heads)
    fresh = scratch.start(jax.random.key(1), {})
    assert not scratch.plain and recipe(LLAMA, TuneConfig()).plain
    for made, trains in ((scratch, fresh), (tuned, tuned.start(jax.random.key(1), fresh))):
        axes = flat(made.axes()[0])
        assert set(axes) == set(flat(trains)) and axes["heads/tags/kernel"] == (None, "embed")
    assert jax.tree.all(jax.tree.map(np.array_equal, trains["heads"], fresh["heads"]))
    assert not fresh["heads"]["tags"]["bias"].any() and fresh["heads"]["tags"]["kernel"].std() > 0.01


def test_the_first_layers_of_a_model_are_a_model():
    params = tiny.spiced(LLAMA)
    cut = stacks.lowest(params, 2)
    assert jax.tree.map(jnp.shape, cut) == jax.tree.map(
        lambda leaf: leaf.shape, transformer.abstract(dataclasses.replace(LLAMA, layers=2))
    )
    lower, upper = stacks.divided(params, 1)["blocks"], stacks.divided(params, 1)["top"]
    assert jax.tree.all(jax.tree.map(np.array_equal, cut["blocks"], lower)) and jax.tree.leaves(upper)[0].shape[0] == 1
