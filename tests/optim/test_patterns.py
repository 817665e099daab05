"""Patterns against loops over units."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import stacks
from chinchilla_jax.optim import patterns

BLOCK = "blocks/mlp/up/kernel"


def units(pattern, shapes, weights):
    """Norm of every unit by plain loops: {unit key: (norm, [(name, layer, index) ...])}."""
    (site,) = patterns.sites(shapes, pattern)
    return site, np.asarray(site.scores(weights))


def test_unit_norms_of_lines_and_blocks():
    w = np.random.default_rng(1).standard_normal((2, 6, 8)).astype(np.float32)
    blocks = [[[(layer[i : i + 3, j : j + 4] ** 2).sum() for j in (0, 4)] for i in (0, 3)] for layer in w]
    for pattern, expected in {
        "unstructured": np.abs(w),
        "block:1x1": np.abs(w),
        "rows": np.sqrt((w**2).sum(2)),
        "columns": np.sqrt((w**2).sum(1)),
        "block:3x4": np.sqrt(blocks),
    }.items():
        site, found = units(pattern, {BLOCK: w.shape}, {BLOCK: w})
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert site.units * site.unit_size == 48
        mask = np.asarray(site.spread(jnp.asarray(found > np.median(found)), {BLOCK: w})[BLOCK])
        np.testing.assert_array_equal(site.alive({BLOCK: jnp.asarray(mask)}), found > np.median(found))
        np.testing.assert_allclose(np.asarray(site.scores({BLOCK: w * mask})), found * (found > np.median(found)))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "rows", "block:2x3", "neurons"])
def test_layers_of_a_stack_of_their_own_are_layers_too(pattern):
    """Tuned alone, the last layers lie beside the others: `top`."""
    shapes = {"mlp/up/kernel": (2, 4, 6), "mlp/gate/kernel": (2, 4, 6)}
    lower, upper = (patterns.sites({f"{s}/{n}": shape for n, shape in shapes.items()}, pattern) for s in stacks.NAMES)
    assert [site.views for site in upper] == [site.views for site in lower]
    assert [site.matrix for site in upper] == [site.matrix for site in lower] and lower[0].matrix == (2, 4, 6)


def test_a_block_of_the_projection_out_lies_over_heads_and_their_width():
    shapes = {"blocks/attention/out/kernel": (2, 4, 6, 8)}
    (site,) = patterns.sites(shapes, "block:24x2")
    assert site.units == 4 and patterns.matrix(*next(iter(shapes.items()))) == (2, 24, 8)


def test_a_neuron_is_the_same_hidden_unit_in_every_matrix():
    rng = np.random.default_rng(2)
    shapes = {f"blocks/mlp/{name}/kernel": (2, 4, 6) for name in ("gate", "up")} | {"blocks/mlp/down/kernel": (2, 6, 4)}
    w = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    site, found = units("neurons", {**shapes, "blocks/attention/out/kernel": (2, 2, 2, 4)}, w)
    gate, up, down = (w[f"blocks/mlp/{name}/kernel"] for name in ("gate", "up", "down"))
    np.testing.assert_allclose(found, np.sqrt((gate**2).sum(1) + (up**2).sum(1) + (down**2).sum(2)), rtol=1e-6)
    spread = site.spread(jnp.arange(12).reshape(2, 6) % 5 == 0, w)
    np.testing.assert_array_equal(spread["blocks/mlp/down/kernel"][1, :, 0], spread["blocks/mlp/up/kernel"][1, 0])
    assert site.unit_size == 12


def test_a_head_takes_its_keys_values_queries_and_outputs():
    rng = np.random.default_rng(3)
    shapes = {"query": (2, 5, 4, 6), "key": (2, 5, 2, 6), "value": (2, 5, 2, 6), "out": (2, 4, 6, 5)}
    shapes = {f"blocks/attention/{name}/kernel": shape for name, shape in shapes.items()}
    w = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    site, found = units("heads", shapes, w)
    q, k, v, out = w.values()
    for n, g in itertools.product(range(2), range(2)):
        mine = slice(2 * g, 2 * g + 2)
        parts = q[n, :, mine], k[n, :, g], v[n, :, g], out[n, mine]
        assert found[n, g] == pytest.approx(np.sqrt(sum((part**2).sum() for part in parts)), rel=1e-5)
    spread = site.spread(jnp.array([[True, False]] * 2), w)
    assert [bool(spread[name][0, ..., 0].any()) for name in shapes] == [True] * 4
    np.testing.assert_array_equal(spread["blocks/attention/out/kernel"][0, :, 0, 0], [True, True, False, False])
    np.testing.assert_array_equal(spread["blocks/attention/query/kernel"][0, 0, :, 0], [True, True, False, False])


@pytest.mark.parametrize("pattern, message", [
    ("2:4", "2:4 does not divide the 6 inputs of blocks/mlp/up/kernel"),
    ("block:4x4", "block:4x4 does not divide blocks/mlp/up/kernel, which is 6x8"),
    ("heads", "lies in attention"),
])  # fmt: skip
def test_a_pattern_that_does_not_fit_names_the_parameter(pattern, message):
    with pytest.raises(UserError, match=message):
        patterns.sites({BLOCK: (2, 6, 8)}, pattern)


@pytest.mark.parametrize("name, shape", [("norm/scale", (2, 6)), ("attention/query/bias", (2, 4, 6))])
def test_a_vector_is_refused(name, shape):
    with pytest.raises(UserError, match=f"blocks/{name} is no matrix"):
        patterns.sites({f"blocks/{name}": shape}, "unstructured")


def test_rules_choose_by_path_and_one_that_finds_nothing_is_named():
    names = ["embed/table", "blocks/mlp/up/kernel", "blocks/attention/out/kernel"]
    assert patterns.choose(names, ("/kernel$",), ("attention",)) == ["blocks/mlp/up/kernel"]
    for include, exclude, flag in ((("bananas",), (), "include"), (("kernel",), ("bananas",), "exclude")):
        with pytest.raises(UserError, match=f"--sparsity.{flag}: 'bananas' matches no parameter"):
            patterns.choose(names, include, exclude)
    with pytest.raises(UserError, match="leaves nothing"):
        patterns.choose(names, ("mlp",), ("blocks",))
