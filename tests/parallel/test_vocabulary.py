"""Rows of a table that is split over its vocabulary, beside plain indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.parallel import mesh, sharding, vocabulary

V, D, B, L = 24, 3, 8, 10
TABLE = jnp.asarray(np.random.default_rng(0).standard_normal((V, D)), jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, V, (B, L)))


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2)])
def test_rows_and_both_gradients(axes, monkeypatch):
    """In tiles that do not divide L; the other gradient of the table joins the sum."""
    monkeypatch.setattr(vocabulary, "TILE", 3 * B)

    def loss(looked_up, table_VD):
        x_BLD, table_VD = looked_up(table_VD, TOKENS)
        return jnp.sum(jnp.sin(x_BLD) * jnp.arange(B)[:, None, None]) + jnp.sum(jnp.cos(table_VD))

    def plain(table_VD, tokens_BL):
        return table_VD[tokens_BL], table_VD

    expected = jax.value_and_grad(lambda table: loss(plain, table))(TABLE)
    grid = mesh.build(MeshConfig(*axes))
    with jax.set_mesh(grid):
        assert vocabulary.tokens_travel(V, (B, L))
        placed = jax.device_put(TABLE, jax.NamedSharding(grid, sharding.spec(("vocab", None), (V, D), grid)))
        found = jax.jit(jax.value_and_grad(lambda table: loss(vocabulary.rows, table)))(placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_when_tokens_travel():
    """Only where devices with different tokens share the rows, and few enough of them."""
    assert not vocabulary.tokens_travel(V, (B, L))  # no mesh
    with jax.set_mesh(mesh.build(MeshConfig(1, 8, 1))):
        assert vocabulary.tokens_travel(V, (8, 12))
        assert not vocabulary.tokens_travel(V, (8, 13))  # more than four tokens a row
        assert not vocabulary.tokens_travel(V + 1, (8, 1)) and not vocabulary.tokens_travel(V, (1, 1))
    with jax.set_mesh(mesh.build(MeshConfig(8, 1, 1))):
        assert not vocabulary.tokens_travel(V, (8, 1))
