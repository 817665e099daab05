"""What zeros leave a model worth, by the laws of three papers and by adding up."""

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import zeros

# Dense equivalents of sparse models over their dense size, by law: computed from each paper's form.
EQUIVALENTS = {
    0.5: (0.793, 0.886, 0.688, 0.871),
    0.75: (0.539, 0.567, 0.531, None),
    0.8: (0.464, 0.474, 0.500, None),
    0.875: (0.329, 0.314, 0.453, None),
}


@pytest.mark.parametrize("S", EQUIVALENTS)
def test_sparse_equivalents(S):
    found = zeros.sparse_equivalent(1e9, S)
    table = dict(zip(("frantar", "frantar-refit", "average", "compression"), EQUIVALENTS[S]))
    for name, share in found.laws.items():
        assert share / 1e9 == pytest.approx(table[name], abs=1.1e-3), name
    assert found.low == min(found.laws.values()) and found.high == max(found.laws.values())
    assert found.low <= found.value <= found.high and found.agreed == (S <= 0.8)
    assert zeros.sparse_equivalent(1e9, 0.0).laws["frantar"] == pytest.approx(1e9)


@pytest.mark.parametrize("name", ["frantar", "frantar-refit"])
def test_sparse_equivalent_has_the_loss_of_the_sparse_model(name):
    share = zeros.sparse_equivalent(1.0, 0.75).laws[name]
    sparse, dense = zeros.frantar(0.75, name), zeros.frantar(0.0, name)
    assert dense.loss(share * 1e8, 1e10) == pytest.approx(sparse.loss(0.25 * 1e8, 1e10), rel=1e-12)
    a, b, c = 0.5678, 0.7216, 1.5227
    by_hand = (a * 0.25**b + c) * 25**-0.2451 + 0.6336 * (1e10 / (1e5 * 65536)) ** -0.2027 + 0.6507
    assert name != "frantar" or sparse.loss(25e6, 1e10) == pytest.approx(by_hand, rel=1e-12)


def test_average_parameters_by_adding_up():
    t = (np.arange(100_000) + 0.5) / 100_000
    rise = np.clip((t - 0.1) / 0.5, 0, 1)
    nonzeros = 1 - 0.9 * (1 - (1 - rise) ** 3)
    assert zeros.average_params(1.0, 0.9, 0.1, 0.6) == pytest.approx(nonzeros.mean(), rel=1e-8)
    assert zeros.average_params(8.0, 0.5) == 8 * (1 - 0.625 * 0.5)
    with pytest.raises(UserError, match="in order"):
        zeros.average_params(1.0, 0.5, 0.8, 0.2)
    with pytest.raises(UserError, match=r"sparsity 1 must lie in \[0, 1\)"):
        zeros.sparse_equivalent(1e9, 1.0)
