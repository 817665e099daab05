"""The TPU's kernel for relative positions, interpreted on the CPU, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import attention as room
from chinchilla_jax.model import relative_tpu
from chinchilla_jax.model.attention import Relative, reference
from chinchilla_jax.planning import roofline
from tests import tiny

B, L, H, G, K = 2, 384, 2, 1, 8


@pytest.fixture(scope="module")
def arrays():
    draw = np.random.default_rng(0)
    q, k, v, qr = (draw.standard_normal((B, L, n, K)).astype("f4") for n in (H, G, G, H))
    return q, k, v, qr, draw.standard_normal((L + 5, H, K)).astype("f4")


# Documents that end inside blocks, at their edges, and one that spans all three; padding at the end of a row.
SEGMENTS = np.stack([np.searchsorted([100, 128, 300], np.arange(L), side="right") + 1, np.ones(L)]).astype("i4")
SEGMENTS[1, L - 50 :] = 0


@functools.partial(tiny.jit, static_argnums=1)
def judged(arrays, path):
    """Output, and the gradient of a sum that tells its entries apart."""

    def summed(arrays):
        out = path(*arrays[:3], SEGMENTS, Relative(*arrays[3:]))
        return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

    grads, out = jax.grad(summed, has_aux=True)(arrays)
    return out, grads


def test_outputs_and_gradients_are_the_reference_s(arrays, monkeypatch):
    """Three blocks of 128 a row, two queries that share a key."""
    monkeypatch.setattr(relative_tpu, "BLOCK", 128)
    monkeypatch.setattr(relative_tpu, "fits", lambda length, width: True)
    monkeypatch.setattr(relative_tpu, "fused", functools.partial(relative_tpu.fused, interpret=True))
    found, wanted = (judged(arrays, path) for path in (room.tpu_relative, reference))
    assert tiny.worst(found[0], wanted[0]) < 1e-5
    assert tiny.worst(found[1], wanted[1]) < 1e-5


@pytest.mark.parametrize(
    "length, width, generation, taken",
    [(2048, 128, 5, True), (4096, 128, 6, True), (2048, 128, 4, False), (8192, 128, 5, False), (64, 128, 5, False)],
)
def test_what_the_kernel_takes(length, width, generation, taken, monkeypatch):
    info = type("Info", (), {"generation": generation})
    monkeypatch.setattr(relative_tpu.pltpu, "get_tpu_info", lambda: info)
    assert relative_tpu.fits(length, width) is taken
    cfg = ModelConfig(head_dim=width, positions="relative")
    assert (roofline._attends(cfg, {4: "v4", 5: "v5p", 6: "v6e"}[generation], length) == "fused") is taken


def test_other_rows_go_in_blocks_of_queries(arrays, monkeypatch):
    monkeypatch.setattr(relative_tpu, "fits", lambda length, width: False)
    q, k, v, qr, r = arrays
    found = tiny.jit(room.tpu_relative)(q, k, v, SEGMENTS, Relative(qr, r))
    np.testing.assert_allclose(found, reference(q, k, v, SEGMENTS, Relative(qr, r)), atol=2e-6)
