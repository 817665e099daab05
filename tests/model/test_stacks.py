"""The blocks as one stack or as two."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.model import stacks, transformer
from tests import tiny


def test_the_first_layers_of_a_model_are_a_model():
    params = tiny.spiced(tiny.LLAMA)
    cut = stacks.lowest(params, 2)
    assert jax.tree.map(jnp.shape, cut) == jax.tree.map(
        lambda leaf: leaf.shape, transformer.abstract(dataclasses.replace(tiny.LLAMA, layers=2))
    )
    lower, upper = stacks.divided(params, 1)["blocks"], stacks.divided(params, 1)["top"]
    assert jax.tree.all(jax.tree.map(np.array_equal, cut["blocks"], lower)) and jax.tree.leaves(upper)[0].shape[0] == 1


@pytest.mark.parametrize("top", [1, 2, 3])
def test_two_stacks_are_one_again(top):
    """All layers above leaves no lower stack; numbers of layers go on from the lower to the upper."""
    params = {"blocks": {"w": np.arange(6).reshape(3, 2), "b": np.arange(3)}, "norm": {"scale": np.ones(2)}}
    two = stacks.divided(params, top)
    lower = [("blocks", 0, 3 - top)] if top < 3 else []
    assert stacks.stacks_of(two) == (*lower, ("top", 3 - top, top))
    found = stacks.whole(two)
    assert found.keys() == params.keys() and two["norm"] is params["norm"]
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert stacks.stacks_of(params) == (("blocks", 0, 3),)
