"""Shapes for a number of parameters, over nine orders of magnitude."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.planning.shapes import aspect, realise
from chinchilla_jax.scaling import counts
from chinchilla_jax.scaling.counts import sizes


def total(cfg):
    """Parameters by formula; a test of the roofline holds it to the tree."""
    return sizes(cfg).total


@pytest.mark.parametrize("family", ["modern", "chinchilla"])
@pytest.mark.parametrize("size", [3e4, 1e5, 1e6, 4.4e7, 1e9, 7e10, 1e12])
def test_a_shape_is_near_in_size_and_usual_in_proportion(size, family):
    cfg = realise(size, total, family=family)
    assert counts.parameters(cfg) == pytest.approx(size, rel=0.08 if size >= 1e6 else 0.2)
    assert 0.5 < cfg.d_model / cfg.layers / aspect(size) < 2.2
    assert cfg.heads * cfg.head_dim == cfg.d_model
    assert cfg.d_model % 128 == 0 or cfg.d_model <= 768
    assert cfg.vocab_size * cfg.d_model <= 0.65 * size


def test_the_mesh_divides_the_width():
    cfg = realise(7e10, total, divisor=3 * 256)
    assert cfg.d_model % 768 == 0


def test_what_is_counted_is_what_comes_near():
    wanted = realise(1e7, lambda cfg: sizes(cfg).total - sizes(cfg).table, vocab_size=32000)
    assert counts.parameters(wanted) - counts.tables(wanted) == pytest.approx(1e7, rel=0.2)


def test_no_shape_is_an_error_that_names_the_mend():
    with pytest.raises(UserError, match=r"--model\.vocab-size"):
        realise(1e4, total, vocab_size=32000)
    with pytest.raises(UserError, match="parameters are more than any machine holds"):
        realise(1e17, total)
