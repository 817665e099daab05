"""Tiles of positions against all logits at once, on one device and with the table split over its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.parallel import mesh, tiles
from tests import tiny

B, L, V, D = 8, 5, 24, 4
DRAW = np.random.default_rng(0)
TABLE = DRAW.standard_normal((V, D)).astype(np.float32)
HIDDEN = DRAW.standard_normal((B, L, D)).astype(np.float32)
WEIGHTS = (DRAW.random((B, L)) * (DRAW.random((B, L)) < 0.6)).astype(np.float32)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("most, n", [(1, 5), (8, 5), (16, 3), (20, 2), (40, 1), (1000, 1)])
def test_a_cut_is_of_bounded_tiles_and_comes_back(most, n, trained):
    """Tiles do not share a position and leave none out; what fills the last one up does not come back."""
    layout, n = tiles.Layout(TABLE, (B, L)), -(-B * L // most) if trained else n
    arrays = HIDDEN, np.arange(B * L).reshape(B, L), WEIGHTS
    (hidden, numbers, weights), join, scan = tiles.cut(arrays, tiles.Tiling(most, trained), layout)
    assert hidden.shape[:2] == numbers.shape[:2] == (n, 1) and hidden.shape[2] < most + B
    np.testing.assert_array_equal(join(hidden), HIDDEN)
    np.testing.assert_array_equal(join(numbers), np.arange(B * L).reshape(B, L))
    turns, _ = scan(lambda turns, tile: (turns + 1, ()), 0, (weights,))
    assert turns == (-(-np.count_nonzero(WEIGHTS) // weights.shape[2]) if trained else n)


def gradients(table_VD, tile):
    """Of sum w logsumexp(h table): its value, each token's own, and the products that make the table's gradient."""
    hidden_SMD, weights_SM = tile
    logits_SMV = jnp.einsum("smd,vd->smv", hidden_SMD, table_VD)
    norm_SM = jax.nn.logsumexp(logits_SMV, -1)
    pull_SMV = weights_SM[..., None] * jnp.exp(logits_SMV - norm_SM[..., None])
    return jnp.sum(weights_SM * norm_SM), (norm_SM,), [(pull_SMV, hidden_SMD)]


@pytest.mark.parametrize("trained, kernels", [(False, "reference"), (True, "reference"), (True, "cpu")])
@pytest.mark.parametrize("axes", [None, (2, 4, 1), (1, 8, 1)])
def test_a_sweep_is_all_at_once(axes, trained, kernels):
    """Loss, tokens and the table's gradient; over fsdp devices meet others' tokens with their own rows."""

    def loss(table_VD):
        return jnp.sum(WEIGHTS * jax.nn.logsumexp(HIDDEN @ table_VD.T, -1))

    def swept(table_VD, hidden_BLD, weights_BL):
        return tiles.sweep(gradients, table_VD, (hidden_BLD, weights_BL), tiling)

    tiling = tiles.Tiling(8, trained, kernels)
    expected, slope = tiny.jit(jax.value_and_grad(loss))(TABLE)
    if axes is None:
        found, (norm_BL,), dtable_VD = tiny.jit(swept)(TABLE, HIDDEN, WEIGHTS)
        values = lambda *how: gradients(*how)[:2]  # noqa: E731
        only = tiny.jit(lambda table, *arrays: tiles.over_tiles(values, table, arrays, tiling))
        plain, (again_BL,) = only(TABLE, HIDDEN, WEIGHTS)
        np.testing.assert_allclose([plain, *again_BL.ravel()], [found, *norm_BL.ravel()], rtol=1e-6)
    else:
        with jax.set_mesh(mesh.build(MeshConfig(*axes))):
            assert tiles.Layout(TABLE, (B, L)).split
            found, (norm_BL,), dtable_VD = tiny.jit(swept)(TABLE, HIDDEN, WEIGHTS)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    asked = (WEIGHTS != 0) | (not trained)
    np.testing.assert_allclose(norm_BL[asked], np.logaddexp.reduce(HIDDEN @ TABLE.T, -1)[asked], rtol=1e-6)
    np.testing.assert_allclose(dtable_VD, slope, atol=1e-5)
