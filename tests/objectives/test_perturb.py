"""Balls, steps and noise against closed forms and against loops over documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.objectives import perturb
from tests import tiny

steepest = tiny.jit(perturb.steepest, static_argnums=2)
project = tiny.jit(perturb.project, static_argnums=3)
draw = tiny.jit(perturb.draw, static_argnums=(2, 4, 5))
unit = tiny.jit(perturb.unit, static_argnums=(0, 3))

NORMS = ("l2_token", "l2_sequence", "linf")
BATCH = tiny.packed([[6, 4], [9], [5, 2, 3]], 11, 61)
DRAW = np.random.default_rng(3)
G = DRAW.standard_normal((3, 11, 7)).astype(np.float32) * (BATCH.segments > 0)[..., None]


def documents(segments):
    """Row and places of every document."""
    return [(b, np.flatnonzero(row == s)) for b, row in enumerate(segments) for s in range(1, row.max() + 1)]


def lengths(x, norm):
    """What the radius bounds, one number a ball."""
    if norm == "linf":
        return np.abs(x).ravel()
    if norm == "l2_token":
        return np.linalg.norm(x, axis=-1).ravel()
    return np.array([np.linalg.norm(x[b, places]) for b, places in documents(BATCH.segments)])


@pytest.mark.parametrize("norm, dual", [("l2_token", 2), ("linf", 1)])
def test_one_step_and_many_reach_the_worst_case_of_logistic_regression(norm, dual):
    """max over the ball of log(1 + exp(-y w.(x + d))) is log(1 + exp(-y w.x + size * ||w||_dual)), Goodfellow 2015."""
    w, x = DRAW.standard_normal(7), DRAW.standard_normal((1, 5, 7))
    y, size, segments = np.array([[1, -1, 1, 1, -1]]), 0.3, np.ones((1, 5), int)
    with jax.enable_x64(True):

        def losses(delta):
            return jnp.logaddexp(0.0, -y * ((x + delta) @ w))

        worst = np.logaddexp(0.0, -y * (x @ w) + size * np.linalg.norm(w, dual))
        delta, slope = np.zeros(x.shape), tiny.jit(jax.grad(lambda d: losses(d).sum()))
        for _ in range(3):
            g = slope(delta)
            delta = project(delta + size * steepest(g, segments, norm), segments, size, norm)
            np.testing.assert_allclose(losses(delta), worst, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_a_step_has_length_one_and_the_direction_of_the_gradient(norm, scale):
    """Also where the square of a gradient is no number of float32 any more."""
    step = np.asarray(steepest(np.float32(scale) * G, BATCH.segments, norm))
    found = lengths(step, norm)
    np.testing.assert_allclose(found[found > 0], 1, rtol=1e-5)
    assert not step[BATCH.segments == 0].any() and (found > 0).sum() == (lengths(G, norm) > 0).sum()
    if norm == "linf":
        np.testing.assert_array_equal(step, np.sign(G))
    for b, places in documents(BATCH.segments):
        parts = [(b, places)] if norm == "l2_sequence" else [(b, place) for place in places]
        for part in parts if norm != "linf" else []:
            np.testing.assert_allclose(step[part], G[part] / np.linalg.norm(G[part]), rtol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_moves_only_what_lies_outside(norm):
    size = float(np.median(lengths(G, norm)))
    found = np.asarray(project(G, BATCH.segments, size, norm))
    np.testing.assert_allclose(lengths(found, norm), np.minimum(lengths(G, norm), size), rtol=1e-5, atol=1e-7)
    twice = project(found, BATCH.segments, size, norm)
    np.testing.assert_allclose(twice, found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_a_document_does_not_feel_its_neighbour(norm):
    other = G.copy()
    other[0, 6:10] *= 50
    for function in (steepest, lambda *a: project(a[0], a[1], 0.5, a[2])):
        one, two = (np.asarray(function(jnp.asarray(g), BATCH.segments, norm)) for g in (G, other))
        np.testing.assert_array_equal(one[0, :6], two[0, :6])


@pytest.mark.parametrize("kind, scatter", [("uniform", 3**-0.5), ("gaussian", 1.0)])
@pytest.mark.parametrize("norm", NORMS)
def test_the_length_of_noise(norm, kind, scatter):
    """NEFTune: U(-1, 1) alpha / sqrt(n d), n the document's own tokens; its expected norm is alpha / sqrt(3)."""
    width, alpha = 400, 5.0
    noise = np.asarray(draw(jax.random.key(0), BATCH, width, jnp.float32(alpha), norm, kind))
    for b, places in documents(BATCH.segments):
        divisor = {"l2_token": width, "l2_sequence": width * len(places), "linf": 1}[norm] ** 0.5
        drawn = noise[b, places] * divisor / alpha
        assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(scatter, rel=0.1)
        assert kind == "gaussian" or 0.98 < np.abs(drawn).max() <= 1


def test_noise_does_not_depend_on_rows_that_are_filled_in():
    filled = jax.tree.map(lambda x: np.pad(x, ((0, 5), (0, 0))), BATCH)
    few, many = (draw(jax.random.key(1), b, 7, 1.0, "l2_sequence", "uniform") for b in (BATCH, filled))
    np.testing.assert_array_equal(few, many[:3])


def test_padding_and_control_pieces_are_left_alone():
    mask = np.asarray(perturb.allowed(BATCH, (0, 3, 40)))[..., 0]
    below = np.asarray(perturb.allowed(BATCH, (0, 3, 40), 50))[..., 0]
    assert (below == mask * (np.asarray(BATCH.tokens) < 50)).all() and 0 < below.sum() < mask.sum(), "nor a soft prompt"
    np.testing.assert_array_equal(mask, (BATCH.segments > 0) & ~np.isin(BATCH.tokens, [0, 3, 40]))
    assert 0 < mask.sum() < (BATCH.segments > 0).sum()


def test_the_unit_is_a_row_and_has_no_gradient():
    table = DRAW.standard_normal((61, 4)).astype(np.float32)
    own = np.linalg.norm(table, axis=1)[BATCH.tokens] * (BATCH.segments > 0)
    found = {kind: unit(kind, table, BATCH) for kind in ("token", "table", "absolute")}
    np.testing.assert_allclose(found["token"][..., 0], own, rtol=1e-6)
    assert float(found["table"]) == pytest.approx(np.linalg.norm(table, axis=1).mean(), rel=1e-6)
    assert float(found["absolute"]) == 1
    shared = np.asarray(unit("token", table, BATCH, "l2_sequence"))[..., 0]
    for b, places in documents(BATCH.segments):
        np.testing.assert_allclose(shared[b, places], own[b, places].mean(), rtol=1e-6)
    assert not np.asarray(tiny.jit(jax.grad(lambda t: perturb.unit("token", t, BATCH).sum()))(table)).any()


def test_document_sums_take_memory_that_is_linear_in_the_length():
    """8,192 tokens of 32 rows would be 8.6 GB as pairs of tokens."""
    shape = jax.ShapeDtypeStruct((32, 8192, 4), "float32"), jax.ShapeDtypeStruct((32, 8192), "int32")
    made = tiny.jit(lambda g, s: perturb.steepest(g, s, "l2_sequence")).lower(*shape).compile()
    assert made.memory_analysis().temp_size_in_bytes < 100e6


def test_a_radius_is_the_same_share_of_a_token_at_any_vocabulary():
    """Rows that never occur have other norms: the mean over the table is another ball, the token's own is not."""
    for V in (512, 2048, 32000):
        scale = np.where(np.arange(V) < 61, 0.8, 3.0)[:, None] * (1 + 0.5 * DRAW.random((V, 1)))
        table = (scale * DRAW.standard_normal((V, 7))).astype(np.float32)
        delta = 0.1 * unit("token", table, BATCH) * steepest(G, BATCH.segments, "l2_token")
        there = np.abs(G).max(-1) > 0
        ratio = np.linalg.norm(delta, axis=-1)[there] / np.linalg.norm(table[BATCH.tokens], axis=-1)[there]
        np.testing.assert_allclose(ratio, 0.1, rtol=1e-5)
