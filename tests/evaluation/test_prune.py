"""One-shot pruning against all masks, least squares and the model's own blocks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import prune
from chinchilla_jax.model import transformer
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel.sharding import batch_sharding, replicated
from tests import tiny


def matrix(P=8, Q=3, seed=0):
    return np.random.default_rng(seed).standard_normal((P, Q)).astype(np.float32)


def correlated(T=400, P=8, seed=1, rank=3):
    """Inputs that lie near a few directions."""
    draw = np.random.default_rng(seed)
    shared = draw.standard_normal((T, rank)) @ draw.standard_normal((rank, P))
    return (shared + 0.3 * draw.standard_normal((T, P))).astype(np.float32)


def pruned(method, w, x, target=0.5, groups=None, step=4):
    rule, gather = prune.METHODS[method]
    keep = prune.keeper(target, groups)
    return np.asarray(rule(jnp.asarray(w), gather(jnp.asarray(x)[None]), keep, step))


def error(w, new, x):
    return np.square(x @ (w - new)).sum(axis=0)


def test_wanda_is_the_best_of_all_masks_where_inputs_are_orthogonal():
    """||X (w - m w)||^2 is then the sum of what each weight adds: all 70 masks of every output are tried."""
    w = matrix()
    x = np.linalg.qr(np.random.default_rng(2).standard_normal((50, 8)))[0] * np.arange(1, 9) ** 1.5
    found = error(w, pruned("wanda", w, x.astype(np.float32)), x)
    for q in range(3):
        masks = itertools.combinations(range(8), 4)
        best = min(np.square(x[:, list(gone)] @ w[list(gone), q]).sum() for gone in masks)
        assert found[q] == pytest.approx(best, rel=1e-5)


def test_wanda_keeps_weights_as_they_are_and_as_many_of_each_output():
    w, x = matrix(12, 5), correlated(P=12)
    for target in (0.0, 0.3, 0.75):
        new = pruned("wanda", w, x, target)
        assert ((new == w) | (new == 0)).all() and ((new == 0).sum(axis=0) == int(12 * target)).all()
    assert not (pruned("wanda", w, x) == pruned("magnitude", w, x)).all()


def test_magnitude_keeps_the_largest_of_the_matrix():
    w = matrix(10, 7)
    new = pruned("magnitude", w, correlated(P=10), 0.4)
    assert sorted(np.abs(new[new != 0])) == sorted(np.abs(w).ravel())[28:]


def test_sparsegpt_lies_between_least_squares_on_its_support_and_wanda():
    for seed in range(3):
        w, x = matrix(32, 6, seed), correlated(P=32, seed=seed, rank=8)
        new = pruned("sparsegpt", w, x, step=8)
        assert (new == 0).mean() == 0.5
        least = 0.0
        for q in range(6):
            there = new[:, q] != 0
            fitted = np.linalg.lstsq(x[:, there], x @ w[:, q], rcond=None)[0]
            least += np.square(x @ w[:, q] - x[:, there] @ fitted).sum()
        others = [error(w, pruned(method, w, x), x).sum() for method in ("wanda", "magnitude")]
        assert least * (1 - 1e-4) <= error(w, new, x).sum() < 0.8 * min(others)


def test_sparsegpt_fills_no_zero_again():
    w = matrix(32, 6)
    w[np.abs(w) < np.quantile(np.abs(w), 0.75)] = 0
    for groups in (None, (2, 4)):
        new = pruned("sparsegpt", w, correlated(P=32, rank=8), 0.9, groups)
        assert not new[w == 0].any() and (new != w).any()


def test_sparsegpt_leaves_the_best_weights_for_what_stays_last():
    """The first five of six inputs go: the sixth then minimises (w - v)^T H (w - v), v being 0 on those five."""
    w, x = matrix(6, 1), correlated(P=6)
    gram = (x.T @ x).astype(np.float64)
    H = gram + 0.01 * np.trace(gram) / 6 * np.eye(6)
    new = prune.sparsegpt(jnp.asarray(w), jnp.asarray(gram, jnp.float32), lambda s, _: jnp.full(s.shape, len(s) < 5), 5)
    expected = np.zeros((6, 1))
    expected[5] = np.linalg.solve(H[5:, 5:], (H @ w)[5:])
    np.testing.assert_allclose(new, expected, rtol=1e-3)


@pytest.mark.parametrize("method", prune.METHODS)
@pytest.mark.parametrize("groups", [(2, 4), (1, 4), (4, 8)])
def test_n_m_is_exact(method, groups):
    n, m = groups
    new = pruned(method, matrix(16, 5), correlated(P=16), groups=groups, step=m)
    assert ((new != 0).reshape(-1, m, 5).sum(axis=1) == n).all()


def test_a_matrix_of_fewer_inputs_than_a_step_is_one_step():
    w, x = matrix(6, 5), correlated(P=6)
    new = pruned("sparsegpt", w, x, step=128)
    assert (new == pruned("sparsegpt", w, x, step=6)).all() and (new == 0).sum() == 15


@pytest.mark.parametrize("method", prune.METHODS)
def test_an_input_that_is_always_0_does_no_harm(method):
    w, x = matrix(), correlated()
    x[:, 2] = 0
    assert np.isfinite(pruned(method, w, x)).all()


@pytest.mark.parametrize("cfg", tiny.FAMILIES.values(), ids=tiny.FAMILIES)
def test_target_0_changes_nothing_and_the_pieces_are_the_block(cfg):
    params = tiny.spiced(cfg)
    batch = jax.tree.map(jnp.asarray, tiny.packed([[9, 4, 3], [5, 5]], 16, cfg.vocab_size))
    same = prune.prune(params, cfg, [batch], "wanda", 0.0)
    assert tiny.worst(same, params) == 0
    x_BLD = transformer.embed(params, batch.tokens, cfg)
    for number in range(cfg.layers):
        x_BLD = prune.forward(jax.tree.map(lambda w, n=number: w[n], params["blocks"]), x_BLD, batch, cfg)
    found = tiny.jit(lambda x: transformer.Norm(cfg).apply({"params": params["norm"]}, x))(x_BLD)
    real = np.asarray(batch.segments > 0)[..., None]
    expected = tiny.jit(lambda params: transformer.apply(params, batch, cfg))(params)
    assert tiny.worst(np.where(real, found, 0), np.where(real, expected, 0)) < 1e-5


def test_every_projection_of_every_layer_and_nothing_else():
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
    batch = jax.tree.map(jnp.asarray, tiny.packed([[9, 4, 3], [5, 5]], 16, cfg.vocab_size))
    new = prune.prune(params, cfg, [batch], "magnitude", 0.5)
    for (path, old), leaf in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(new)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("/kernel") and "positions" not in name:
            for before, after in zip(old, leaf):
                assert int((after == 0).sum()) == before.size // 2 and ((after == before) | (after == 0)).all()
        else:
            assert (leaf == old).all()


def test_the_second_layer_is_pruned_for_what_the_first_gives_now():
    """The inputs' lengths of layer 1 are those behind a pruned layer 0: one after another, by hand."""
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    batch = jax.tree.map(jnp.asarray, tiny.packed([[9, 4, 3], [5, 5]], 16, cfg.vocab_size))
    new = prune.prune(params, cfg, [batch], "wanda", 0.5)
    one = jax.tree.map(lambda w: w[1], params["blocks"])
    pruned_zero = jax.tree.map(lambda w: w[0], new["blocks"])
    x_BLD = prune.forward(pruned_zero, transformer.embed(params, batch.tokens, cfg), batch, cfg)
    normed = tiny.jit(lambda p, x: transformer.Norm(cfg).apply({"params": p}, x))(one["norm_attention"], x_BLD)
    x_TP = np.asarray(normed)[np.asarray(batch.segments) > 0]
    w_PQ = np.asarray(one["attention"]["query"]["kernel"]).reshape(20, -1)
    scores = np.abs(w_PQ) * np.linalg.norm(x_TP, axis=0)[:, None]
    gone = np.argsort(scores, axis=0)[:10]
    expected = w_PQ.copy()
    np.put_along_axis(expected, gone, 0, axis=0)
    found = np.asarray(new["blocks"]["attention"]["query"]["kernel"][1]).reshape(20, -1)
    assert (found == expected).all()


def test_the_same_on_eight_devices():
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    batch = jax.tree.map(jnp.asarray, tiny.packed([[16]] * 8, 16, cfg.vocab_size))
    mesh = meshes.build(MeshConfig(data=4, fsdp=2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, replicated(mesh)), jax.device_put(batch, batch_sharding(mesh))
        found = prune.prune(placed[0], cfg, [placed[1]], "wanda", 0.5)
    alone = prune.prune(params, cfg, [batch], "wanda", 0.5)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone)))


def test_groups_that_do_not_divide_are_named():
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    batch = jax.tree.map(jnp.asarray, tiny.packed([[9, 4, 3], [5, 5]], 16, cfg.vocab_size))
    with pytest.raises(UserError, match="does not divide the 20 inputs"):
        prune.prune(params, cfg, [batch], "wanda", 0.5, (2, 8))
