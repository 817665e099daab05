"""Every parameter of ours has a tensor of theirs, and lies in it as a transposed matrix with heads laid end to end."""

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import names
from chinchilla_jax.interop.architectures import to_settings
from tests import tiny
from tests.interop import folders

SHAPES = {  # of a layer of ours: D 5, H 2, G 2, K 3, F 7
    "blocks/attention/query/kernel": (5, 2, 3), "blocks/attention/out/kernel": (2, 3, 5),
    "blocks/mlp/down/kernel": (7, 5), "blocks/attention/key/bias": (2, 3), "blocks/norm_mlp/scale": (5,),
    "embed/table": (11, 5), "heads/spans/kernel": (2, 5), "blocks/attention/query_norm/scale": (3,),
}  # fmt: skip


@pytest.mark.parametrize("kind", folders.KINDS)
def test_the_tensors_of_every_class(kind):
    """Names and shapes beside those that the tests write down for transformers."""
    told = folders.settings(kind)
    assert names.their_shapes(to_settings(told).model) == folders.shapes(told)


@pytest.mark.parametrize("path", SHAPES)
def test_a_tensor_and_any_part_of_it_come_back(path):
    """Only the first axis of the inputs and of the outputs is ever cut, over a mesh."""
    name, shape = names.find(path), SHAPES[path]
    ours = np.random.default_rng(0).standard_normal(shape)
    theirs = name.to_theirs(ours)
    assert theirs.shape == name.flattened(shape) and np.array_equal(name.to_ours(theirs, shape), ours)
    if name.inputs == 1 and len(shape) == 3:
        assert theirs[1 * 3 + 2, 4] == ours[4, 1, 2], "row h K + k, column d"
    whole = [slice(0, size) for size in shape]
    firsts = [0] if not name.inputs else [0, name.inputs]
    for axis in firsts:
        for start, stop in ((0, 1), (1, shape[axis])):
            index = (*whole[:axis], slice(start, stop), *whole[axis + 1 :])
            part = ours[index]
            assert np.array_equal(name.to_ours(theirs[name.index(index, shape)], part.shape), part), (axis, start)


def test_an_axis_inside_a_group_is_never_cut():
    name = names.find("blocks/attention/out/kernel")
    with pytest.raises(ValueError, match="only the first axis"):
        name.index((slice(0, 2), slice(0, 1), slice(0, 5)), (2, 3, 5))


def test_what_has_no_name_is_said():
    with pytest.raises(UserError, match="blocks/attention/relative/bias has no counterpart"):
        names.find("blocks/attention/relative/bias")
    with pytest.raises(UserError, match="has no counterpart in the models of Hugging Face and GGUF"):
        names.their_shapes(tiny.CHINCHILLA)
