"""The model against its plain twin: values, gradients, causality, document boundaries, ways to compute it."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import cross_entropy
from chinchilla_jax.parallel.tiles import Tiling
from tests import tiny
from tests.model import twin

LENGTH = 150  # more than one block of the CPU's attention, and no multiple of it
BATCH = tiny.packed([[60, 50, 30], [150]], LENGTH, 61)
VARIANTS = {
    "reference": {},
    "cpu-unrolled": {"kernels": "cpu", "scan_unroll": 2},
    "cpu-projections": {"kernels": "cpu", "remat": "projections"},
    "cpu-full-unrolled": {"kernels": "cpu", "remat": "full", "scan_unroll": 2},
}


def total(params, delta_BLD, batch, cfg):
    """The loss as the dense objective forms it."""
    hidden_BLD = transformer.apply(params, batch, cfg, delta_BLD=delta_BLD)
    return cross_entropy(hidden_BLD, transformer.unembedding(params), batch.targets, batch.weights, 0.0, Tiling(512))


@functools.cache
def compiled(family: str, variant: str):
    """loss, (gradient of the parameters, gradient of delta_BLD) of `BATCH`'s shape."""
    cfg = dataclasses.replace(tiny.FAMILIES[family], **VARIANTS[variant])
    return tiny.jit(jax.value_and_grad(functools.partial(total, cfg=cfg), argnums=(0, 1)))


@functools.cache
def hidden(cfg):
    """Hidden states of (params, batch)."""
    return tiny.jit(functools.partial(transformer.apply, cfg=cfg))


@functools.cache
def spiced(family: str):
    return tiny.spiced(tiny.FAMILIES[family])


def weighed(weights_BL):
    return dataclasses.replace(BATCH, weights=np.asarray(weights_BL, np.float32))


def run(family: str, variant: str, batch=BATCH):
    delta_BLD = np.zeros((*batch.tokens.shape, 20), np.float32)
    return compiled(family, variant)(spiced(family), delta_BLD, batch)


# The gradient of a key's bias is 0 but for rounding (it moves all scores of a query alike), hence an absolute floor.
FLOOR = 1.0

each_family = pytest.mark.parametrize("family", tiny.FAMILIES)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


ALL = {"chinchilla": tiny.CHINCHILLA, "modern": tiny.MODERN, "squared": tiny.SQUARED, "rectified": tiny.RECTIFIED,
       "mixed": tiny.MIXED, "normed": tiny.NORMED, "scaled": tiny.SCALED}  # fmt: skip


@pytest.mark.parametrize("cfg", ALL.values(), ids=ALL)
def test_the_twin_gives_the_same_values_and_gradients(cfg):
    batch = tiny.packed([[6, 4, 1], [13], [5, 8]], 13, 61)
    params = tiny.spiced(cfg)
    delta_BLD = 0.1 * np.random.default_rng(1).standard_normal((3, 13, 20)).astype(np.float32)

    def ours(params, delta_BLD):
        hidden_BLD = transformer.apply(params, batch, cfg, delta_BLD=delta_BLD)
        return tiny.naive_loss(hidden_BLD, transformer.unembedding(params), batch.targets, batch.weights), hidden_BLD

    def theirs(params, delta_BLD):
        return twin.loss(params, batch, cfg, delta_BLD), twin.forward(params, batch, cfg, delta_BLD)

    both = [tiny.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, delta_BLD) for f in (ours, theirs)]
    assert tiny.worst(*both, FLOOR) < 1e-5


@each_family
@each_variant
def test_every_way_to_compute_gives_the_same_loss_and_gradients(family, variant):
    assert tiny.worst(run(family, variant), run(family, "reference"), FLOOR) < 1e-5


@each_family
@each_variant
def test_documents_are_walls(family, variant):
    for document in (1, 2, 3):
        _, (_, delta_BLD) = run(family, variant, weighed(BATCH.weights * (BATCH.segments == document)))
        inside_BL = BATCH.segments == document
        inside_BL[1] &= document == 1
        assert not np.asarray(delta_BLD)[~inside_BL].any(), "another document's embeddings feel this one's loss"
        assert np.abs(np.asarray(delta_BLD)[0][inside_BL[0]]).max() > 1e-3


@each_family
@pytest.mark.parametrize("variant", ["reference", "cpu-unrolled"])
@pytest.mark.parametrize("at", [0, 77, 127, 128, 149])
def test_a_token_is_predicted_from_itself_and_what_came_before(family, variant, at):
    weights_BL = np.zeros((2, LENGTH))
    weights_BL[1, at] = 1
    _, (_, delta_BLD) = run(family, variant, weighed(weights_BL))
    felt_L = np.abs(np.asarray(delta_BLD)[1]).max(-1)
    assert not felt_L[at + 1 :].any(), "the future is seen"
    assert (felt_L[: at + 1] > 0).all(), "some of the past is not seen"


@each_family
def test_a_document_reads_the_same_alone_and_packed(family):
    alone = tiny.packed([[50], [150]], LENGTH, 61)
    alone.tokens[0, :50], alone.targets[0, :50] = BATCH.tokens[0, 60:110], BATCH.targets[0, 60:110]
    alone.weights[:] = np.arange(LENGTH) < [[50], [0]]
    packed = weighed((BATCH.segments == 2) * [[1], [0]])
    loss, (grads, delta_BLD) = run(family, "cpu-unrolled", alone)
    loss2, (grads2, delta2_BLD) = run(family, "cpu-unrolled", packed)
    assert tiny.worst((loss, grads, delta_BLD[0, :50]), (loss2, grads2, delta2_BLD[0, 60:110]), FLOOR) < 1e-5


def dots(family: str, remat: str) -> int:
    """Matrix products in the forward and backward pass of one layer."""
    cfg = dataclasses.replace(tiny.FAMILIES[family], remat=remat, layers=1)
    batch = tiny.packed([[9]], 9, 61)
    return str(jax.make_jaxpr(jax.grad(functools.partial(total, cfg=cfg)))(tiny.spiced(cfg), None, batch)).count(
        "dot_general["
    )


# What the backward pass computes again: the scores of the reference, which where positions are relative have two terms.
@pytest.mark.parametrize("family, again", [("modern", 1), ("chinchilla", 2)])
def test_remat_recomputes_few_products_or_all(family, again):
    assert dots(family, "projections") - dots(family, "none") == again
    assert dots(family, "full") - dots(family, "projections") >= 3, "keys, values and the hidden layer at least"


def test_remat_keeps_what_fused_attention_gives():
    from jax._src.cudnn import fused_attention_stablehlo as fused

    for primitive in (fused._dot_product_attention_fwd_p, fused._dot_product_attention_fwd_p_wrapper):
        assert transformer.save_projections(primitive), f"{primitive.name} would run twice"
    assert not transformer.save_projections(types.SimpleNamespace(name="exp"))
    assert not transformer.save_projections(jax.lax.dot_general_p)


@pytest.mark.parametrize("cfg", [tiny.CHINCHILLA, tiny.MODERN], ids=tiny.FAMILIES)
def test_every_parameter_has_axes_of_its_rank(cfg):
    shapes, axes = transformer.abstract(cfg), transformer.logical_axes(cfg)
    ranks = jax.tree.map(lambda leaf, names: leaf.ndim == len(names), shapes, axes)
    assert all(jax.tree.leaves(ranks))
    stacked = jax.tree.map(lambda leaf, names: names[0] == "layers", shapes["blocks"], axes["blocks"])
    assert all(jax.tree.leaves(stacked))


@each_family
def test_the_first_loss_is_that_of_guessing(family):
    cfg = dataclasses.replace(tiny.FAMILIES[family], d_model=64, vocab_size=1000)
    batch = tiny.packed([[128]] * 4, 128, 1000)
    loss = tiny.jit(functools.partial(total, cfg=cfg))(tiny.init(cfg), None, batch)
    assert abs(loss / batch.weights.sum() - np.log(1000)) < 0.05


def test_initial_deviations():
    cfg = dataclasses.replace(tiny.MODERN, d_model=64, d_ff=256, layers=8)
    params = tiny.init(cfg)["blocks"]
    assert params["mlp"]["up"]["kernel"].std() == pytest.approx(0.02, rel=0.05)
    for leaf in (params["mlp"]["down"]["kernel"], params["attention"]["out"]["kernel"]):
        assert leaf.std() == pytest.approx(0.02 / 4, rel=0.05), "init_std / sqrt(2 N) on what adds to the stream"
    assert abs(np.corrcoef(params["mlp"]["up"]["kernel"][:2].reshape(2, -1))[0, 1]) < 0.05, "layers share their weights"


@each_family
def test_bfloat16_stays_close(family):
    cfg = tiny.FAMILIES[family]
    batch = tiny.packed([[6, 7], [13]], 13, 61)
    params = spiced(family)
    rough = dataclasses.replace(cfg, dtype="bfloat16")
    exact_BLD, rough_BLD = (hidden(cfg)(params, batch) for cfg in (cfg, rough))
    assert rough_BLD.dtype == jnp.bfloat16
    assert np.abs(np.asarray(rough_BLD, np.float32) - exact_BLD).mean() < 0.02 * np.abs(exact_BLD).mean()


def test_embedding_gradients_are_summed_in_float32():
    cfg = dataclasses.replace(tiny.MODERN, dtype="bfloat16")
    params = {"embed": {"table": jnp.zeros((3, 2))}}

    def summed(params):
        return transformer.embed(params, jnp.zeros((1, 4001), jnp.int32), cfg).astype(jnp.float32).sum()

    grad = jax.grad(summed)(params)["embed"]["table"]
    assert grad.dtype == jnp.float32 and grad[0, 0] == 4001, "bfloat16 stops counting at 256"


def test_dropout_follows_its_key_and_differs_by_layer():
    cfg = dataclasses.replace(tiny.CHINCHILLA, dropout=0.5)
    batch, params = tiny.packed([[13]], 13, 61), spiced("chinchilla")
    noisy = tiny.jit(lambda key: transformer.apply(params, batch, cfg, key=key))
    first, again, other = noisy(jax.random.key(0)), noisy(jax.random.key(0)), noisy(jax.random.key(1))
    still = hidden(cfg)(params, batch)
    assert np.array_equal(first, again) and tiny.worst(first, other) > 0.1 and tiny.worst(first, still) > 0.1
    np.testing.assert_array_equal(still, hidden(tiny.CHINCHILLA)(params, batch))


def test_a_token_sees_what_its_number_says_and_nothing_else():
    """The gradient of one position's output by another's embedding is 0 exactly where the mask hides it."""
    params, batch = tiny.spiced(tiny.MODERN), tiny.dialogue()
    zeros = np.zeros((1, 12, tiny.MODERN.d_model), np.float32)
    weights = np.random.default_rng(2).standard_normal(tiny.MODERN.d_model)

    def seen(delta_BLD):
        return transformer.apply(params, batch, tiny.MODERN, delta_BLD=delta_BLD)[0] @ weights

    jacobian_LL = np.abs(tiny.jit(jax.jacrev(seen))(zeros)).sum((1, -1))
    blocks, at = batch.blocks[0], np.arange(12)
    # Two layers of this mask reach no further than one: what a visible token sees is visible too.
    visible = (at <= at[:, None]) | ((blocks[:, None] == blocks) & (blocks > 0))
    assert (jacobian_LL[~visible] == 0).all() and (jacobian_LL[visible] > 0).all()


def test_without_blocks_nothing_is_computed_for_them():
    params, batch = tiny.spiced(tiny.MODERN), tiny.dialogue()
    plain = dataclasses.replace(batch, blocks=None)
    causal = dataclasses.replace(batch, blocks=np.zeros_like(batch.blocks))
    apply = tiny.jit(functools.partial(transformer.apply, cfg=tiny.MODERN))
    np.testing.assert_allclose(apply(params, plain), apply(params, causal), atol=1e-6)
    assert len(jax.tree.leaves(plain)) == 5
