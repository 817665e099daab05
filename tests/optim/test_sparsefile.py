"""Packed files bit for bit."""

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.optim import sparsefile

NAME = "blocks/mlp/up/kernel"


def made(share=0.0, pattern=None, shape=(3, 16, 24)):
    draw = np.random.default_rng(1)
    w = draw.standard_normal(shape).astype(np.float32)
    if pattern:
        n, m = pattern
        rank = np.argsort(np.argsort(np.abs(w).reshape(3, -1, m, 24), 2), 2)
        return np.where(rank >= m - n, w.reshape(3, -1, m, 24), np.float32(0)).reshape(shape)
    return np.where(draw.random(shape) < share, np.float32(0), w)


@pytest.mark.parametrize("leaf, pattern, bits", [
    (made(), "", 32), (made(0.75), "mask", None), (made(pattern=(2, 4)), "2:4", 17), (made(pattern=(1, 4)), "1:4", 8.5),
])  # fmt: skip
def test_a_leaf_comes_back_bit_for_bit_in_the_room_that_it_needs(leaf, pattern, bits, tmp_path):
    leaf = leaf.copy()
    leaf.flat[np.flatnonzero(leaf)[0]] = -0.0 if pattern == "mask" else np.nan
    out = made(0.75, shape=(3, 2, 8, 24))
    sparsefile.write(
        tmp_path / "a", {NAME: leaf, "blocks/attention/out/kernel": out, "norm/scale": leaf[0]}, {"step": 3}
    )
    back, facts = sparsefile.read(tmp_path / "a")
    assert facts == {"step": 3} and set(back) == {NAME, "blocks/attention/out/kernel", "norm/scale"}
    for found, wanted in (
        (back[NAME], leaf),
        (back["blocks/attention/out/kernel"], out),
        (back["norm/scale"], leaf[0]),
    ):
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
    tensors, how = sparsefile.packed(NAME, leaf)
    assert how.get("pattern", "") == pattern
    stored = 8 * sum(x.nbytes for x in tensors.values()) / leaf.size
    assert stored == pytest.approx(bits or 32 * (leaf.view(np.uint32) != 0).mean() + 1, abs=1e-6)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "a").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="write it again"):
        sparsefile.read(tmp_path / "a")
